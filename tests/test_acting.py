"""Acting: whose action it is, from which draws, and what it may not depend on."""

from __future__ import annotations

import math

import jax
import numpy as np
import pytest

from agent.agent import make_agent
from continual.envs.interact import Seen
from continual.envs.interface import union
from tests.agent_cases import ALL, CUP, tiny

ROWS = 6
FIXED = {"kind": "fixed"}


def seen_at(step, rows=ROWS):
    """What the worlds show at a decision; a function of the step alone."""
    rng = np.random.default_rng(step)
    return Seen(
        observation={
            slot.name: rng.normal(size=(ROWS, *slot.shape)).astype(np.float32)[:rows]
            for slot in CUP.slots
        },
        is_first=np.full(rows, step == 0),
        draw=np.array([[100 + row, step] for row in range(rows)], np.uint32),
    )


def apart(state):
    """The state with a rider that differs from the actor by more than its start."""
    shaken = jax.tree.map(lambda x: x * 3 + 0.05, state.riders["awac"].params)
    rider = state.riders["awac"].replace(params=shaken)
    return state.replace(riders=state.riders | {"awac": rider})


@pytest.fixture(scope="module")
def state():
    return apart(make_agent(tiny(), union({"cup": CUP})).init(jax.random.key(0)))


def stream(state, name, steps=3, mode="sampled", rows=ROWS, tasks=None, **config):
    """(actions [steps, rows, A], what was recorded) of one policy."""
    agent = make_agent(tiny(**config), tasks or union({"cup": CUP}))
    policy = agent.policy(lambda: state, "cup", name, mode, seed=3)
    carried, actions, info = policy.initial(rows), [], []
    for step in range(steps):
        carried, action, noted = policy.act(carried, seen_at(step, rows))
        actions.append(action["dmc.ball_in_cup"])
        info.append(noted)
    return np.array(actions), {k: np.array([i[k] for i in info]) for k in info[0]}


@pytest.mark.parametrize("mode", ["sampled", "mode"])
def test_p14_a_gate_that_never_or_always_opens_leaves_the_policies_actions_bit_for_bit(state, mode):
    for p, alone in ((0, "dreamer_actor"), (1, "awac_actor")):
        gated, info = stream(state, "gated", mode=mode, gate=FIXED | {"p": p})
        np.testing.assert_array_equal(info["gate.chosen"], np.full((3, ROWS), p))
        np.testing.assert_array_equal(gated, stream(state, alone, mode=mode)[0])


def test_p14_clipping_to_0_is_no_gate_at_all(state):
    shut = {"kind": "confidence", "p_min": 0, "p_max": 0}
    np.testing.assert_array_equal(
        stream(state, "gated", gate=shut)[0], stream(state, "dreamer_actor")[0]
    )


def test_p13_an_action_comes_whole_from_one_policy(state):
    half = {"kind": "random", "p": 0.5}
    gated, info = stream(state, "gated", gate=half)
    dreamer, _ = stream(state, "gated", gate=FIXED | {"p": 0})
    partner, _ = stream(state, "gated", gate=FIXED | {"p": 1})
    chosen = info["gate.chosen"][0].astype(bool)
    assert 0 < chosen.sum() < ROWS
    expected = np.where(chosen[:, None], partner[0], dreamer[0])
    np.testing.assert_array_equal(gated[0], expected)


def test_p16_actions_are_a_mixture_of_both_policies_at_rate_p(state):
    """The share of decisions given away, within a Hoeffding bound of one in a million."""
    _, info = stream(state, "gated", steps=150, gate={"kind": "random", "p": 0.3})
    chosen = info["gate.chosen"]
    margin = math.sqrt(math.log(2 / 1e-6) / (2 * chosen.size))
    assert chosen.mean() == pytest.approx(0.3, abs=margin)


def test_p8_a_row_acts_the_same_beside_fewer_others(state):
    many, info = stream(state, "gated")
    few, fewer = stream(state, "gated", rows=2)
    np.testing.assert_allclose(many[:, :2], few, atol=1e-5)
    np.testing.assert_array_equal(info["gate.chosen"][:, :2], fewer["gate.chosen"])


def test_p9_worlds_that_are_not_acted_in_change_nothing_whatever_their_parameters_hold(state):
    beside = make_agent(tiny(), union({"cup": CUP} | dict(ALL.tasks)))
    grown = beside.init(jax.random.key(0))

    def poisoned(path, leaf):
        names = jax.tree_util.keystr(path)
        theirs = any(word in names for word in ("walker", "crafter", "image"))
        return (
            np.full(leaf.shape, np.nan, leaf.dtype) if theirs and leaf.dtype == "float32" else leaf
        )

    grown = jax.tree_util.tree_map_with_path(poisoned, grown)
    alone = make_agent(tiny(), union({"cup": CUP})).init(jax.random.key(0))
    with_others, info = stream(grown, "gated", tasks=beside.union)
    by_itself, expected = stream(alone, "gated")
    np.testing.assert_array_equal(with_others, by_itself)
    np.testing.assert_array_equal(info["gate.p"], expected["gate.p"])


def test_a_choice_that_is_held_changes_only_where_it_is_drawn_anew(state):
    _, info = stream(state, "gated", steps=8, gate={"kind": "random", "p": 0.5, "hold": 4})
    chosen = info["gate.chosen"]
    for start in (0, 4):
        assert (chosen[start : start + 4] == chosen[start]).all()
    assert not np.array_equal(chosen[0], chosen[4])


def test_surprise_is_looked_at_by_the_gate_that_asks_for_it(state):
    gate = {"kind": "surprise", "tau": 0.0, "scale": 1.0}
    _, info = stream(state, "gated", gate=gate)
    assert (info["gate.penalty"] > 0).all()


def test_an_episodes_start_forgets_what_was_before_it(state):
    agent = make_agent(tiny(), union({"cup": CUP}))
    policy = agent.policy(lambda: state, "cup", "gated", "sampled", seed=3)
    lived, _, _ = policy.act(policy.initial(ROWS), seen_at(5))
    fresh, later = (policy.act(s, seen_at(0)) for s in (policy.initial(ROWS), lived))
    np.testing.assert_array_equal(fresh[1]["dmc.ball_in_cup"], later[1]["dmc.ball_in_cup"])


def test_an_agent_without_imagination_is_not_judged_by_an_actor_that_learns_nothing():
    replay = {"critic": "replay", "gate": FIXED | {"p": 1}}
    assert make_agent(tiny(**replay), union({"cup": CUP})).policies() == ("gated", "awac_actor")
