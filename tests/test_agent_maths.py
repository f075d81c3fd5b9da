"""Pure functions of the agent against slow float64 loops, hand-worked examples and properties."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import distributions as dist
from agent.codecs import patchify, unpatchify
from agent.config import OptimiserConfig
from agent.heads import Categorical, Continuous, log_prob_and_entropy
from agent.networks import MLP
from agent.normaliser import init_return_scale, masked_percentile, update_return_scale
from agent.optimiser import apply_gradients, clip_factor, clip_factors, init_optimiser
from agent.returns import has_successor, lambda_returns, replay_returns
from tests import reference as ref

reals = st.floats(-1e6, 1e6, width=32)


# Distributions


@given(reals)
def test_symlog_is_the_inverse_of_symexp(x):
    y = float(dist.symlog(jnp.float32(x)))
    assert math.copysign(math.expm1(abs(y)), y) == pytest.approx(x, rel=1e-4, abs=1e-5)


def test_two_hot_bins_are_mirrored_around_an_exact_zero():
    bins = dist.twohot_bins()
    assert bins.shape == (255,)
    assert bins[127] == 0
    np.testing.assert_array_equal(bins, -bins[::-1])
    assert bins[-1] == pytest.approx(4.85165e8, rel=1e-4)


def test_uniform_logits_mean_exactly_zero():
    assert float(dist.twohot_mean(jnp.zeros(255))) == 0.0


def test_two_hot_loss_equals_a_float64_loop(rng):
    bins = dist.twohot_bins().astype(np.float64)
    targets = [0.0, 1.0, -3.7, 1e3, float(bins[40]), float(bins[-1]), -1e12, 1e12, 1e-7]
    logits = rng.normal(size=(len(targets), 255))
    for target, row in zip(targets, logits, strict=True):
        log_p = row - np.log(np.exp(row - row.max()).sum()) - row.max()
        inside = min(max(target, bins[0]), bins[-1])
        above = min(int(np.searchsorted(bins, inside, side="right")), 254)
        weight = (inside - bins[above - 1]) / (bins[above] - bins[above - 1])
        expected = -((1 - weight) * log_p[above - 1] + weight * log_p[above])
        found = dist.twohot_loss(jnp.asarray(row, jnp.float32), jnp.float32(target))
        assert float(found) == pytest.approx(expected, rel=1e-4)


@given(st.floats(-1e6, 1e6, width=32))
def test_two_hot_spreads_a_target_so_that_it_is_the_mean(target):
    # At uniform logits the gradient of the loss is 1/255 minus the weights the target was given.
    gradient = jax.grad(dist.twohot_loss)(jnp.zeros(255), jnp.float32(target))
    weights = 1 / 255 - np.array(gradient, np.float64)
    assert (weights > 1e-6).sum() <= 2
    mean = float((np.where(weights > 1e-6, weights, 0) * dist.twohot_bins()).sum())
    assert mean == pytest.approx(target, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("unimix", [0.0, 0.01, 0.5])
def test_unimix_is_a_mixture_with_the_uniform(rng, unimix):
    logits = rng.normal(size=(7, 5)) * 3
    prob = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = np.log((1 - unimix) * prob + unimix / 5)
    found = dist.unimix_log_probs(jnp.asarray(logits, jnp.float32), unimix)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_unimix_is_finite_for_logits_of_ten_thousand():
    found = dist.unimix_log_probs(jnp.array([1e4, -1e4, 0.0]), 0.01)
    assert np.isfinite(np.array(found)).all()


def test_categorical_samples_follow_their_probabilities(rng):
    prob = np.array([0.5, 0.0, 0.3, 0.2])
    uniform = jnp.asarray(rng.random(20_000), jnp.float32)
    log_probs = jnp.broadcast_to(jnp.log(jnp.asarray(prob, jnp.float32)), (20_000, 4))
    counts = np.bincount(np.array(dist.categorical_sample(log_probs, uniform)), minlength=4)
    assert counts[1] == 0
    np.testing.assert_allclose(counts / 20_000, prob, atol=5 * math.sqrt(0.25 / 20_000))


def test_categorical_sample_stays_inside_for_the_largest_noise():
    log_probs = jnp.log(jnp.full((3, 17), 1 / 17))
    noise = jnp.array([0.0, 0.5, np.nextafter(1.0, 0.0, dtype=np.float32)])
    np.testing.assert_array_equal(dist.categorical_sample(log_probs, noise), [0, 8, 16])


def test_bounded_normal_starts_wide_and_stays_in_its_bounds():
    mean, std = dist.bounded_normal(jnp.array([0.0, 50.0]), jnp.array([0.0, 50.0]))
    assert float(std[0]) == pytest.approx(0.8927, abs=1e-4)
    assert float(mean[1]) <= 1.0
    assert float(std[1]) <= 1.0
    assert float(dist.bounded_normal(mean, jnp.array([-50.0, 0.0]))[1][0]) == pytest.approx(0.1)


def test_inactive_heads_add_nothing_whatever_they_hold(rng):
    active = {"a": jnp.array([True, False]), "b": jnp.array([False, True])}
    log_probs = jnp.log(jnp.full((2, 4), 0.25))
    policy = {
        "a": Continuous(jnp.zeros((2, 3)), jnp.full((2, 3), 0.5)),
        "b": Categorical(log_probs.at[0].set(jnp.nan)),
    }
    actions = {"a": jnp.zeros((2, 3)).at[1].set(jnp.nan), "b": jax.nn.one_hot(jnp.array([0, 2]), 4)}
    log_pi, entropy = log_prob_and_entropy(policy, actions, active)
    assert float(log_pi[0]) == pytest.approx(3 * -math.log(0.5 * math.sqrt(2 * math.pi)), rel=1e-5)
    assert float(entropy[0]) == pytest.approx(3 * (math.log(0.5) + 1.4189385), rel=1e-5)
    assert float(log_pi[1]) == pytest.approx(math.log(0.25), rel=1e-5)
    assert float(entropy[1]) == pytest.approx(math.log(4), rel=1e-5)


# Returns


def test_lambda_returns_equal_a_float64_loop(rng):
    reward, value = rng.normal(size=(2, 9))
    discount = rng.random(9)
    expected = np.zeros(9)
    expected[-1] = value[-1]
    for t in reversed(range(8)):
        mixed = (1 - 0.95) * value[t + 1] + 0.95 * expected[t + 1]
        expected[t] = reward[t + 1] + discount[t + 1] * mixed
    found = lambda_returns(*(jnp.asarray(x, jnp.float32) for x in (reward, discount, value)), 0.95)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_replay_returns_by_hand():
    """Three steps, an end in the middle; g = 0.5, lambda = 1: worked on paper.

    R_3 = b_3 = 8;  R_2 = r_3 + .5 b... step 3 is plain: R_2 = 1 + .5 * 8 = 5;
    step 2 is terminal: R_1 = 2;  R_0 = 3 + .5 * 2 = 4.
    """
    found = replay_returns(
        jnp.array([9.0, 3.0, 2.0, 1.0]),
        jnp.array([False, False, True, False]),
        jnp.array([False, False, True, False]),
        jnp.array([7.0, 7.0, 7.0, 8.0]),
        1.0,
        0.5,
    )
    np.testing.assert_allclose(found, [4.0, 2.0, 5.0, 8.0])


def test_a_truncated_episode_bootstraps_from_the_value_of_its_last_state():
    is_last = jnp.array([False, True, False])
    found = replay_returns(
        jnp.zeros(3), is_last, jnp.zeros(3, bool), jnp.array([0.0, 6.0, 100.0]), 0.95, 0.5
    )
    assert float(found[0]) == pytest.approx(3.0)
    np.testing.assert_array_equal(has_successor(is_last[None])[0], [True, False, False])


# Normaliser


def test_masked_percentile_is_numpys(rng):
    x = rng.normal(size=101).astype(np.float32)
    mask = rng.random(101) < 0.4
    for q in (0.05, 0.5, 0.95):
        found = masked_percentile(jnp.asarray(x), jnp.asarray(mask), q)
        assert float(found) == pytest.approx(np.percentile(x[mask], 100 * q), rel=1e-4)


def test_an_interface_without_rows_keeps_its_scale_and_one_with_half_moves_half_as_fast(rng):
    returns = jnp.asarray(rng.normal(size=(4, 50)) * 10, jnp.float32)
    state = init_return_scale(3)
    moved = update_return_scale(state, returns, jnp.array([0, 0, 2, 2]), 0.1)
    assert float(moved.high[1]) == 0.0
    assert float(moved.low[1]) == 0.0
    high = np.percentile(np.array(returns)[:2], 95)
    assert float(moved.high[0]) == pytest.approx(0.1 * 0.5 * high, rel=1e-4)
    alone = update_return_scale(init_return_scale(1), returns, jnp.zeros(4, int), 0.1)
    assert float(alone.high[0]) == pytest.approx(0.1 * np.percentile(returns, 95), rel=1e-4)


# Optimiser


def in_parts(rows):
    """A tensor of two owners' parts, two rows and one, and a bias that starts at 0."""
    kernel = {"slot:a": rows[:2], "slot:b": rows[2:3]}
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), {"kernel": kernel, "bias": rows[3]})


@pytest.mark.parametrize("idle", ["keep", "decay"])
def test_optimiser_equals_a_float64_loop(rng, idle):
    """Gradients large and small, in mid-run none at all, then none for one of the owners.

    With `decay` an absent owner takes part with a zero gradient.
    """
    config = OptimiserConfig(lr=1e-2, warmup=4, idle=idle)
    rows = np.append(rng.normal(size=(3, 2)), np.zeros((1, 2)), 0)
    gradients = [rng.normal(size=(4, 2)) * (5.0 if n % 2 else 0.1) for n in range(9)]
    gradients[4] *= 0
    for g in gradients[5:7]:
        g[2] = 0
    params = in_parts(rows)
    state = init_optimiser(params)
    for n, g in enumerate(gradients, start=1):
        present = {"shared": True, "slot:a": True, "slot:b": jnp.array(idle == "keep" or n != 7)}
        state, params = apply_gradients(config, state, params, in_parts(g), present)
        of = lambda rows, n=n: [g[rows] for g in gradients[:n]]
        kernel, bias = (
            ref.laprop(rows[part], of(part), lr=1e-2, warmup=4) for part in (slice(3), 3)
        )
        found = np.concatenate(list(params["kernel"].values()))
        np.testing.assert_allclose(found, kernel, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(params["bias"], bias, rtol=1e-4, atol=1e-8)
    assert int(state.count["slot:b"]) == len(gradients)


def test_the_first_update_is_a_no_op_and_zero_gradients_stay_finite():
    params = {"w": jnp.ones(3)}
    state, new = apply_gradients(
        OptimiserConfig(), init_optimiser(params), params, {"w": jnp.zeros(3)}, {"shared": True}
    )
    np.testing.assert_array_equal(new["w"], params["w"])
    assert np.isfinite(np.array(state.mu["w"])).all()


def test_clipping_bounds_the_norm_of_a_tensor():
    factor = lambda w, g: float(clip_factor(jnp.float32(w), jnp.float32(g), agc=0.3, pmin=1e-3))
    assert factor(1, 200) == pytest.approx(0.3 / 200)
    assert factor(1, 0.2) == 1
    assert factor(1, 0) == 1
    assert factor(0, 1) == pytest.approx(0.3e-3)


def test_parts_of_one_tensor_are_clipped_together_and_absent_ones_have_no_share():
    """Norms 3 and 4 make 5; the absent part would make it 13. A bias is a tensor of its own."""
    params = {"x": {"kernel": {"slot:a": [3.0], "slot:b": [4.0], "slot:c": [12.0]}, "bias": [1.0]}}
    grads = {"x": {"kernel": {"slot:a": [0.0], "slot:b": [50.0], "slot:c": [0.0]}, "bias": [0.1]}}
    is_list = lambda x: isinstance(x, list)
    params, grads = (jax.tree.map(jnp.array, tree, is_leaf=is_list) for tree in (params, grads))
    here = jnp.array(True)
    present = {"shared": True, "slot:a": here, "slot:b": here, "slot:c": ~here}
    bias, *parts = clip_factors(OptimiserConfig(agc=0.3), params, grads, present)
    assert float(bias) == 1
    np.testing.assert_allclose(parts, 0.3 * 5 / 50, rtol=1e-6)


# Codecs


def test_unpatchify_undoes_patchify(rng):
    frames = rng.random((2, 64, 64, 3)).astype(np.float32)
    patches = patchify(jnp.asarray(frames), 8)
    assert patches.shape == (2, 64, 192)
    np.testing.assert_array_equal(patches[0, 1].reshape(8, 8, 3), frames[0, :8, 8:16])
    np.testing.assert_array_equal(unpatchify(patches, 8), frames)


# Networks


def test_products_in_bfloat16_have_float32_parameters_and_results_near_those_in_float32(rng):
    x = rng.normal(size=(6, 16)).astype(np.float32)
    exact, coarse = (MLP(2, 32, dtype) for dtype in ("float32", "bfloat16"))
    params = exact.init(jax.random.key(0), x)
    assert jax.tree.structure(params) == jax.tree.structure(coarse.init(jax.random.key(0), x))
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(params))
    one, other = exact.apply(params, x), coarse.apply(params, x)
    assert other.dtype == np.float32
    assert not np.array_equal(one, other)
    np.testing.assert_allclose(one, other, atol=0.05)
