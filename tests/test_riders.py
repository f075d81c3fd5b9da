"""Riders: what they imitate, how much of it, and that nobody else notices them."""

from __future__ import annotations

import math

import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.agent import make_agent
from agent.learner import Handout, update_key
from agent.riders.awac import (
    MeanSquare,
    advantage_weight,
    awac_loss,
    effective_share,
    normalise_within_tasks,
    scaled_advantage,
    statistics_by_task,
    update_mean_square,
)
from agent.rssm import Latent
from continual.envs.interface import Head, Interface, Slot, union
from tests.agent_cases import REPORT, random_batch, tiny

advantages = st.lists(st.floats(-1e3, 1e3, width=32), min_size=6, max_size=6)


def weigh(advantage, counts=None, weight="exp", beta=0.1, w_max=20.0):
    advantage = jnp.asarray(advantage, jnp.float32).reshape(2, -1)
    counts = jnp.ones(advantage.shape, bool) if counts is None else jnp.asarray(counts)
    return np.array(advantage_weight(advantage, counts, weight, beta=beta, w_max=w_max))


def test_weights_by_hand():
    advantage = [-1.0, 0.0, 0.1, 10.0]
    found = lambda **how: weigh(advantage, **how).ravel()
    np.testing.assert_allclose(found(weight="positive"), [1, 1, math.e, 20], rtol=1e-5)
    np.testing.assert_allclose(found(weight="exp"), [math.exp(-10), 1, math.e, 20], rtol=1e-4)
    np.testing.assert_array_equal(found(weight="binary"), [0, 0, 1, 1])
    np.testing.assert_array_equal(found(weight="uniform"), [1, 1, 1, 1])
    soft = np.exp(np.array(advantage) / 5)
    np.testing.assert_allclose(found(weight="softmax", beta=5.0), 4 * soft / soft.sum(), rtol=1e-5)


@given(advantages)
@pytest.mark.parametrize("weight", ["positive", "exp", "softmax", "binary", "uniform"])
def test_weights_lie_between_0_and_their_bound_and_rise_with_the_advantage(weight, advantage):
    found = weigh(np.sort(advantage), weight=weight).ravel()
    assert (found >= 0).all()
    assert (found <= 20).all()
    assert (np.diff(found) >= -1e-6 * found.max()).all()


@given(advantages)
def test_the_positive_form_never_falls_below_1_and_a_higher_temperature_flattens_it(advantage):
    cold, warm = (weigh(advantage, weight="positive", beta=beta) for beta in (0.1, 10.0))
    assert (cold >= 1).all()
    assert (warm <= cold + 1e-6).all()
    assert (cold.ravel()[np.array(advantage) <= 0] == 1).all()


@pytest.mark.parametrize("weight", ["positive", "exp", "softmax", "binary", "uniform"])
def test_what_does_not_count_has_weight_0_and_changes_no_other(weight, rng):
    advantage = rng.normal(size=(2, 3))
    counts = np.array([[True, True, False], [True, False, False]])
    poisoned = np.where(counts, advantage, np.nan)
    found = weigh(advantage, counts, weight=weight)
    np.testing.assert_array_equal(found, weigh(poisoned, counts, weight=weight))
    assert (found[~counts] == 0).all()


@pytest.mark.parametrize("weight", ["positive", "exp", "softmax", "binary", "uniform"])
def test_a_batch_in_which_nothing_counts_has_no_weight(weight):
    np.testing.assert_array_equal(weigh(np.ones((2, 3)), np.zeros((2, 3), bool), weight=weight), 0)


def test_normalised_weights_have_mean_1_within_each_task(rng):
    weight = jnp.asarray(rng.random((3, 4)), jnp.float32)
    counts = jnp.asarray(rng.random((3, 4)) < 0.7)
    task = jnp.array([2, 0, 2])
    found = np.array(normalise_within_tasks(jnp.where(counts, weight, 0.0), counts, task, 4))
    assert found[1][counts[1]].mean() == pytest.approx(1, rel=1e-5)
    assert found[::2][np.array(counts)[::2]].mean() == pytest.approx(1, rel=1e-5)
    nothing = normalise_within_tasks(jnp.zeros((3, 4)), counts, task, 4)
    np.testing.assert_array_equal(nothing, 0)


def moderate(low, high, *shape):
    # XLA takes numbers too small for 24 bits for 0.
    normal = st.floats(low, high, width=32, allow_subnormal=False)
    return hnp.arrays(np.float32, shape, elements=normal)


@given(moderate(-100, 100, 2, 3), moderate(-100, 100, 2, 3), st.floats(-50, 50), st.floats(0.5, 4))
def test_advantages_know_neither_zero_nor_unit_of_rewards(returns, value, shift, factor):
    unit = np.array([1.0, 7.0], np.float32)
    expected = (np.float64(returns) - value) / unit[:, None]
    for r, v, s in (
        (returns, value, unit),
        (returns + np.float32(shift), value + np.float32(shift), unit),
        (returns * np.float32(factor), value * np.float32(factor), unit * np.float32(factor)),
    ):
        found = scaled_advantage(*map(jnp.asarray, (r, v, s)))
        np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_array_equal(scaled_advantage(*map(jnp.asarray, (value, value, unit))), 0)


@given(moderate(-100, 0, 2, 3), moderate(-100, 100, 2, 3))
def test_uniform_weights_make_the_loss_that_of_behaviour_cloning(log_pi, advantages):
    counts = jnp.array([[True, True, False], [True, False, False]])
    weight = advantage_weight(jnp.asarray(advantages), counts, "uniform", beta=0.1, w_max=20.0)
    loss = awac_loss(jnp.asarray(log_pi), weight, counts)
    np.testing.assert_array_equal(loss, np.where(counts, -log_pi, 0))


def test_the_loss_leaves_steps_without_an_action_out_and_its_weights_untrained():
    counts = jnp.array([True, False])
    loss = awac_loss(jnp.array([-2.0, jnp.nan]), jnp.array([3.0, 5.0]), counts)
    np.testing.assert_array_equal(loss, [6.0, 0.0])
    by_weight = jax.grad(lambda w: awac_loss(jnp.array([-2.0, 1.0]), w, counts).sum())
    np.testing.assert_array_equal(by_weight(jnp.array([3.0, 5.0])), [0.0, 0.0])


def test_effective_samples_by_hand():
    """Four equal weights count as four, however small; one of four alone as one."""
    share = lambda *w: float(effective_share(jnp.sum(jnp.array(w)), jnp.sum(jnp.array(w) ** 2), 4))
    assert share(2.0, 2.0, 2.0, 2.0) == pytest.approx(1.0)
    bad = weigh([-1.5] * 4).ravel()
    assert bad.max() < 1e-6
    assert share(*bad) == pytest.approx(1.0)
    assert share(3.0, 0.0, 0.0, 0.0) == pytest.approx(0.25)
    assert share(0.0, 0.0, 0.0, 0.0) == 0


def test_statistics_of_two_tasks_by_hand():
    """Task 2 has four weights that count, 4 0 0 and 4; task 0 has 1 and 3; task 1 has no sequence.

    Effective shares are 8 * 8 / (4 * 32) and 4 * 4 / (2 * 10).
    """
    weight = jnp.array([[4.0, 0.0, 9.0], [1.0, 3.0, 9.0], [0.0, 4.0, 9.0]])
    counts = jnp.array([[True, True, False]] * 3)
    advantages = jnp.array([[1.0, -1.0, 1.0], [1.0, 2.0, 1.0], [-3.0, 1.0, jnp.nan]])
    statistics = {"positive_share": (advantages > 0) * 1.0, "mean": advantages}
    found = statistics_by_task(statistics, weight, counts, jnp.array([2, 0, 2]), 3)
    expected = {
        "positive_share": [1.0, np.nan, 0.5],
        "mean": [1.5, np.nan, -0.5],
        "weight_sum": [4.0, np.nan, 8.0],
        "effective_samples": [0.8, np.nan, 0.5],
    }
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-6, err_msg=name)


def test_statistics_are_0_for_a_task_whose_sequences_hold_nothing_that_counts():
    found = statistics_by_task({}, jnp.ones((1, 2)), jnp.zeros((1, 2), bool), jnp.array([0]), 1)
    assert {name: float(x[0]) for name, x in found.items()} == {
        "weight_sum": 0.0,
        "effective_samples": 0.0,
    }


def test_the_first_batch_of_an_interface_sets_its_mean_square_and_later_ones_move_it():
    """Interface 0 has half of the batch; interface 1 has none, interface 2 nothing that counts."""
    x = jnp.array([[3.0, 1.0], [100.0, 100.0]])
    counts = jnp.array([[True, True], [False, False]])
    unset = MeanSquare(jnp.zeros(3), jnp.zeros(3, bool))
    first = update_mean_square(unset, x, counts, jnp.array([0, 2]), 0.1)
    np.testing.assert_allclose(first.value, [5.0, 0.0, 0.0])
    np.testing.assert_array_equal(first.is_set, [True, False, False])
    second = update_mean_square(first, 2 * x, counts, jnp.array([0, 2]), 0.1)
    assert float(second.value[0]) == pytest.approx(5 + 0.1 * 0.5 * (20 - 5))


def test_the_head_copies_rewarded_actions_and_not_their_neighbours(rng):
    """Each state names a class, and naming it back is rewarded one step later, with that row.

    With lambda = 0 and a critic that knows nothing, R_t is the reward of the action done IN state
    t. Rewarded actions weigh 20, others 1: of four classes the one shown gets 20 / 23.
    """
    interface = Interface((Slot("cue", (4,)),), (Head("h", "categorical", 4),))
    config = tiny(
        imagination={"horizon": 3, "last": 2, "lambda": 0.0},
        optim={"lr": 1e-2, "warmup": 0},
        riders={"awac": REPORT | {"beta": 0.1, "w_max": 20}},
    )
    agent = make_agent(config, union({"t": interface}))
    state, rider = agent.init(jax.random.key(0)), agent.riders["awac"]
    learnt, size, length = state.riders["awac"], 16, 12
    for number in range(150):
        cue, action = rng.integers(4, size=(2, size, length))
        batch = random_batch(rng, config, [0] * size, agent.union, length=length)
        reward = np.zeros((size, length), np.float32)
        reward[:, 1:] = (cue == action)[:, :-1]
        never = np.zeros((size, length), bool)
        batch = batch.replace(
            actions={"h": np.eye(4, dtype=np.float32)[action]},
            reward=reward,
            is_first=never,
            is_last=never,
            is_terminal=never,
        )
        stoch = np.zeros((size, length, 3, 4), np.float32)
        stoch[:, :, 0] = np.eye(4)[cue]
        latent = Latent(jnp.zeros((size, length, 16)), jnp.asarray(stoch))
        handout = Handout(latent, {}, jnp.zeros((size, 2)))
        learnt, _ = rider.update(learnt, state.learner, batch, handout, update_key(0, number))
    shown = Latent(jnp.zeros((4, 16)), jnp.zeros((4, 3, 4)).at[:, 0].set(jnp.eye(4)))
    policy = agent.model.actor.apply({"params": learnt.params}, shown.feature)["h"]
    prob = np.exp(np.array(policy.log_probs))
    np.testing.assert_allclose(np.diag(prob), 20 / 23, atol=0.1)
