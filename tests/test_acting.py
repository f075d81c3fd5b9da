"""Acting: whose action it is, from which draws, and what it may not depend on."""

from __future__ import annotations

import math
from types import SimpleNamespace

import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import distributions as dist
from agent.acting import Acting, AgentPolicy, Perceived, PolicyState
from agent.agent import make_agent
from agent.config import ConfidenceGate, FixedGate
from agent.heads import Categorical, Continuous, sample_actions
from agent.model import make_model
from continual.envs.interact import Seen
from continual.envs.interface import Head, Interface, Slot, union
from tests.agent_cases import ALL, CUP, blank, drawn, tiny

ROWS = 6
EPISODES, P = 20_000, 0.3
FIXED = {"kind": "fixed"}
TWO_HEADS = Interface(
    (Slot("cue", (4,)),), (Head("arm", "continuous", 2), Head("grip", "categorical", 4))
)
few = settings(max_examples=settings().max_examples * 3 // 10)  # every example is many rows
seeds = st.integers(0, 2**32 - 1)


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


@pytest.fixture(scope="module")
def two_heads():
    """A world of two heads, and many episodes of it at their first two steps.

    Attributes:
      act: (name, gate) -> the actions and what was recorded, as a policy gives them at step 0.
      decided: step -> (distributions, actions) of actor and partner, chosen.
    """
    agent = make_agent(tiny(gate={"kind": "random", "p": P}), union({"both": TWO_HEADS}))
    made = blank(lambda: agent.init(jax.random.key(0)))
    rng = np.random.default_rng(0)
    params = drawn(made.learner.params, rng)
    actor, partner = (drawn(params["pol"], rng, 0.5) for _ in range(2))
    acting, first = Acting(agent.model, TWO_HEADS), np.ones(EPISODES, bool)
    cue = {"cue": rng.normal(size=(EPISODES, 4)).astype(np.float32)}
    draw = lambda step: np.array([(row, step) for row in range(EPISODES)], np.uint32)

    def act(name, gate=None):
        own = partner if name == "awac_actor" else actor
        policy = AgentPolicy(
            acting,
            gate,
            "sampled",
            lambda: (params, own, partner),
            seed=3,
            draws_as_partner=name == "awac_actor",
        )
        return policy.act(policy.initial(EPISODES), Seen(cue, first, draw(0)))[1:]

    def decided(step):
        state = AgentPolicy(acting, None, "sampled", lambda: None, seed=3).initial(EPISODES)
        seen = acting.perceive(params, state, cue, first, draw(step), jax.random.key(3))
        ours = acting.decide["sampled"](actor, seen.latent, seen.actor_keys)
        theirs = acting.decide["sampled"](partner, seen.latent, seen.partner_keys)
        choose = acting.choose(agent.config.gate, "sampled")
        actions, chosen, _, _ = choose(params["dyn"], seen, ours, theirs, state, first)
        return SimpleNamespace(actor=ours, partner=theirs, chosen=np.array(chosen), actions=actions)

    return SimpleNamespace(act=act, decided=[decided(step) for step in range(2)])


def share(hits, expected, chance=1e-6):
    """That a share is what it should be, within the Hoeffding bound of this chance."""
    hits = np.asarray(hits)
    assert hits.mean() == pytest.approx(
        expected, abs=math.sqrt(math.log(2 / chance) / (2 * hits.size))
    )


def test_p8_choices_of_rows_and_of_steps_are_independent(two_heads):
    one, two = (decided.chosen for decided in two_heads.decided)
    share([one, two], P)
    share(one[:-1][::2] & one[1:][::2], P**2)  # neighbouring episodes, each in one pair
    share(one & two, P**2)


def test_p8_choices_know_nothing_of_either_policys_noise(two_heads):
    decided = two_heads.decided[0]
    for pi, actions in (decided.actor, decided.partner):
        for side in np.array(actions["arm"] > pi["arm"].mean).T:
            share(decided.chosen & side, P / 2)


def test_p14_a_gate_that_never_or_always_opens_leaves_both_heads_bit_for_bit(two_heads):
    for p, alone in ((0, "dreamer_actor"), (1, "awac_actor")):
        gated, info = two_heads.act("gated", FixedGate(p=p))
        np.testing.assert_array_equal(info["gate.chosen"], np.full(EPISODES, p))
        expected, _ = two_heads.act(alone)
        for name in ("arm", "grip"):
            np.testing.assert_array_equal(gated[name], expected[name])


def test_p16_classes_follow_the_mixture_of_both_policies(two_heads):
    decided = two_heads.decided[0]
    ours, theirs = (np.exp(pi["grip"].log_probs) for pi, _ in (decided.actor, decided.partner))
    law = (P * theirs + (1 - P) * ours).mean(0)
    assert np.abs(law - ours.mean(0)).max() > 0.04  # twice the bound
    for hits, expected in zip(np.array(decided.actions["grip"]).T, law, strict=True):
        share(hits, expected)


def numbers(low, high, *shape):
    return hnp.arrays(np.float32, shape, elements=st.floats(low, high, width=32))


@st.composite
def policies(draw, rows):
    """Distributions of both heads."""
    logits = jnp.asarray(draw(numbers(-5, 5, rows, 4)))
    return {
        "arm": Continuous(draw(numbers(-1, 1, rows, 2)), draw(numbers(0.125, 1, rows, 2))),
        "grip": Categorical(dist.unimix_log_probs(logits, 0.01)),
    }


@st.composite
def decisions(draw):
    """Distributions of both heads, and actions that need not be from them."""
    classes = draw(hnp.arrays(np.int32, ROWS, elements=st.integers(0, 3)))
    actions = {"arm": draw(numbers(-3, 3, ROWS, 2)), "grip": np.eye(4, dtype=np.float32)[classes]}
    return draw(policies(ROWS)), actions


@pytest.fixture(scope="module")
def choose():
    """(the actor's and the partner's decisions, seed) -> actions, chosen, p; one compilation a
    number of rows.
    """
    acting = Acting(make_model(tiny().model, union({"both": TWO_HEADS})), TWO_HEADS)
    # Without a cost of disagreement p is near 0 no more often than near 1.
    gate = ConfidenceGate(beta_div=0, p_min=0, p_max=1)
    compiled = acting.choose(gate, "sampled")

    def chosen(ours, theirs, seed):
        rows = len(ours[1]["arm"])
        # Of what was perceived, this gate looks at its keys alone.
        seen = Perceived(None, None, None, None, jax.random.split(jax.random.key(seed), rows), {})
        state = PolicyState(None, {}, np.zeros(rows, bool), np.zeros(rows, np.int32))
        actions, chosen, _, info = compiled({}, seen, ours, theirs, state, np.ones(rows, bool))
        return actions, np.array(chosen), np.array(info["gate.p"])

    return chosen


@few
@given(decisions(), decisions(), seeds)
def test_p13_an_action_of_two_heads_comes_whole_from_one_policy(choose, ours, theirs, seed):
    actions, chosen, _ = choose(ours, theirs, seed)
    for name in ("arm", "grip"):
        expected = np.where(chosen[:, None], theirs[1][name], ours[1][name])
        np.testing.assert_array_equal(actions[name], expected)


@few
@given(policies(1), policies(1), seeds)
def test_p16_classes_follow_the_mixture_of_any_two_policies(choose, pi, partner, seed):
    rng = np.random.default_rng(seed)

    def decided(policy):
        policy = jax.tree.map(lambda x: jnp.repeat(x, EPISODES, 0), policy)
        normal, uniform = rng.normal(size=(EPISODES, 2)), rng.random(EPISODES, np.float32)
        return policy, sample_actions(policy, {"arm": normal}, {"grip": uniform})

    actions, _, p = choose(decided(pi), decided(partner), seed)
    ours, theirs = (np.exp(policy["grip"].log_probs[0]) for policy in (pi, partner))
    law = p[0] * theirs + (1 - p[0]) * ours
    for hits, expected in zip(np.array(actions["grip"]).T, law, strict=True):
        share(hits, expected, chance=1e-9)


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


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"acting": "dreamer"}, "the actor learns nothing, expected acting=gated"),
        ({}, "the actor learns nothing, expected acting=gated"),
        ({"gate": FIXED | {"p": 0}}, "the actor learns nothing, expected acting=gated"),
        (
            {"gate": FIXED, "riders": {"awac": {"kind": "awac"}, "slow": {"kind": "ema"}}},
            "rider slow copies an actor that learns nothing",
        ),
        (
            {"gate": FIXED, "riders": {"awac": {"kind": "awac"}, "twin": {"kind": "twin"}}},
            "nothing is imagined, but rider twin needs it",
        ),
    ],
)
def test_without_imagination_nobody_acts_who_learns_nothing(changes, says):
    with pytest.raises(ValueError, match=says):
        tiny(critic="replay", **changes)


def test_an_agent_without_imagination_is_not_judged_by_an_actor_that_learns_nothing():
    replay = {"critic": "replay", "gate": FIXED | {"p": 1}}
    assert make_agent(tiny(**replay), union({"cup": CUP})).policies() == ("gated", "awac_actor")
