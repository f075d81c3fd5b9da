"""The gate: bounds and monotonicity as proven in docs/gate.md, and what it may not look at."""

from __future__ import annotations

import math

import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, settings
from hypothesis import given as given_any
from hypothesis import strategies as st

from agent import distributions as dist
from agent import gate as gates
from agent.config import ConfidenceGate, FixedGate, RandomGate, SurpriseGate
from agent.gate import Evidence
from agent.heads import Categorical, Continuous

N = 5
# Every example is N rows, and shapes that are new to jax cost more than the numbers in them.
few = settings(max_examples=settings().max_examples * 3 // 10)
given = lambda *strategies: lambda test: few(given_any(*strategies)(test))
TOLERANCE = 1e-5  # float32's tanh is not monotone to the last bit
single = lambda low, high: st.floats(low, high, width=32)


def numbers(low, high, *shape):
    return hnp.arrays(np.float32, shape, elements=single(np.float32(low), np.float32(high)))


@st.composite
def continuous(draw, dims):
    mean, std = draw(numbers(-1, 1, N, dims)), draw(numbers(0.1, 1, N, dims))
    return Continuous(jnp.asarray(mean), jnp.asarray(std))


@st.composite
def categorical(draw, classes, logit=10.0):
    logits = draw(numbers(-logit, logit, N, classes))
    return Categorical(dist.unimix_log_probs(jnp.asarray(logits), 0.01))


@st.composite
def pairs(draw):
    """Two policies of the same heads: a continuous one, a categorical one, or both."""
    heads = {}
    kinds = draw(st.sampled_from(["a", "b", "ab"]))
    if "a" in kinds:
        dims = draw(st.sampled_from([1, 3, 6]))
        heads["a"] = continuous(dims)
    if "b" in kinds:
        classes = draw(st.sampled_from([2, 5, 17]))
        heads["b"] = categorical(classes)
    return tuple({name: draw(head) for name, head in heads.items()} for _ in range(2))


configs = st.builds(
    ConfidenceGate,
    alpha=st.floats(0, 20),
    beta_div=st.floats(0, 2),
    tau=st.floats(0, 3),
    scale=st.floats(0.1, 5),
    bias=st.floats(-0.5, 0.5),
    p_min=st.floats(0, 0.4),
    p_max=st.floats(0.6, 1),
)
unbiased = configs.map(lambda c: c.model_copy(update={"bias": 0.0, "p_min": 0.0, "p_max": 1.0}))


def evidence(gap, divergence):
    """Evidence of a given entropy gap and divergence."""
    gap, divergence = (jnp.atleast_1d(jnp.asarray(x, jnp.float32)) for x in (gap, divergence))
    half = jnp.full_like(gap, 0.5)
    return Evidence(half + gap / 2, half - gap / 2, divergence, jnp.zeros_like(gap))


def verdict_of(pair, config):
    return gates.judge(gates.compare(*pair), config)


def sigmoid(x):
    return 1 / (1 + np.exp(-np.float64(x)))


def float64_gate(pair, c):
    """The algorithm on one row after another, in float64 and without a vector in sight."""
    pair = jax.tree.map(np.array, pair)  # jax is slow at single numbers
    each = lambda dims: 1 if c.divergence == "sum" else dims
    found = []
    for n in range(N):
        gaps, apart = [], []
        for name in pair[0]:
            pi, partner = pair[0][name], pair[1][name]
            if isinstance(pi, Continuous):
                gap, kl = 0.0, 0.0
                dims = pi.mean.shape[1]
                for k in range(dims):
                    m1, s1, m2, s2 = (
                        float(x[n, k]) for x in (pi.mean, pi.std, partner.mean, partner.std)
                    )
                    gap += (math.log(s1 / 0.1) - math.log(s2 / 0.1)) / math.log(10) / dims
                    one = math.log(s2 / s1) + (s1**2 + (m1 - m2) ** 2) / (2 * s2**2) - 0.5
                    two = math.log(s1 / s2) + (s2**2 + (m1 - m2) ** 2) / (2 * s1**2) - 0.5
                    kl += (one + two) / 2 / each(dims)
            else:
                p, q = (np.exp(np.float64(x.log_probs[n])) for x in (pi, partner))
                p, q = p / p.sum(), q / q.sum()
                entropy = lambda p: -sum(float(x) * math.log(x) for x in p)
                surest = [0.01 / len(p)] * (len(p) - 1)
                least = entropy([1 - sum(surest), *surest]) if c.entropy == "min_max" else 0.0
                gap = (entropy(p) - entropy(q)) / (math.log(len(p)) - least)
                kl = sum(
                    0.5 * (a * math.log(a / b) + b * math.log(b / a))
                    for a, b in zip(p, q, strict=True)
                )
            gaps.append(gap)
            apart.append(kl)
        gap, divergence = sum(gaps) / len(gaps), sum(apart) / len(apart)
        penalty = math.tanh(max(divergence - c.tau, 0) / c.scale)
        p = sigmoid(c.alpha * (gap - c.beta_div * penalty - c.bias))
        found.append((min(max(p, c.p_min), c.p_max), gap, divergence, penalty))
    return [np.array(column) for column in zip(*found, strict=True)]


@given(
    pairs(), configs, st.sampled_from(["mean", "sum"]), st.sampled_from(["by_classes", "min_max"])
)
def test_the_gate_equals_a_float64_loop(pair, config, divergence, entropy):
    config = config.model_copy(update={"divergence": divergence, "entropy": entropy})
    p, gap, apart, penalty = float64_gate(pair, config)
    seen = gates.compare(*pair, divergence=divergence, entropy=entropy)
    verdict = gates.judge(seen, config)
    np.testing.assert_allclose(seen.divergence, apart, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(verdict.entropy_gap, gap, rtol=1e-4, atol=1e-6)
    # A divergence near tau is steep: what rounding does to it, the scale and alpha multiply.
    steep = 1e-6 * (1 + config.tau) / config.scale
    np.testing.assert_allclose(verdict.penalty, penalty, rtol=1e-4, atol=steep)
    steep = 1e-6 + config.alpha / 4 * (1e-6 + config.beta_div * steep)
    np.testing.assert_allclose(verdict.p, p, rtol=1e-4, atol=steep)


def test_gate_by_hand():
    """std .1 against 1: Hn 0 against 1, so dH = -1 for the sharp policy; D = 24.5025, pen = 1."""
    both = lambda std: {"h": Continuous(jnp.zeros((1, 2)), jnp.full((1, 2), std))}
    seen = gates.compare(both(0.1), both(1.0))
    assert float(seen.divergence[0]) == pytest.approx(0.25 * (0.1 - 10) ** 2, rel=1e-5)
    verdict = gates.judge(seen, ConfidenceGate(p_min=0, p_max=1))
    assert float(verdict.entropy_gap[0]) == pytest.approx(-1.0, abs=1e-6)
    assert float(verdict.p[0]) == pytest.approx(sigmoid(-5 * 1.5), rel=1e-3)
    swapped = gates.judge(gates.compare(both(1.0), both(0.1)), ConfidenceGate())
    assert float(swapped.p[0]) == pytest.approx(sigmoid(5 * 0.5), rel=1e-3)


# Bounds and limits: P1, P2, P7, P10 and P11


@given(pairs(), configs)
def test_p1_p_lies_between_its_bounds_and_everything_is_finite(pair, config):
    verdict = verdict_of(pair, config)
    assert (verdict.p >= np.float32(config.p_min)).all()
    assert (verdict.p <= np.float32(config.p_max)).all()
    assert all(np.isfinite(np.array(x)).all() for x in jax.tree.leaves(verdict))


@given(pairs(), configs)
def test_p2_the_score_is_bounded_by_full_disagreement_and_full_certainty(pair, config):
    a, b, c = config.alpha, config.beta_div, config.bias
    p = np.float64(verdict_of(pair, config).p_raw)
    assert (p >= sigmoid(-a * (1 + b + c)) - TOLERANCE).all()
    assert (p <= sigmoid(a * (1 - c)) + TOLERANCE).all()


@given(configs, single(-1, 1))
def test_p7_boundless_divergence_costs_the_full_penalty_and_no_more(config, gap):
    verdict = gates.judge(evidence([gap] * 2, [1e30, np.inf]), config)
    limit = sigmoid(config.alpha * (gap - config.beta_div - config.bias))
    np.testing.assert_allclose(verdict.p_raw, limit, atol=TOLERANCE)


@given(pairs())
def test_p7_without_steepness_the_gate_is_a_coin_and_without_cost_divergence_says_nothing(pair):
    blind = verdict_of(pair, ConfidenceGate(alpha=0))
    np.testing.assert_allclose(blind.p, 0.5)
    free = ConfidenceGate(beta_div=0)
    seen = gates.compare(*pair)
    other = seen.replace(divergence=seen.divergence + 7)
    np.testing.assert_array_equal(gates.judge(seen, free).p, gates.judge(other, free).p)


@given(pairs(), st.sampled_from(["by_classes", "min_max"]))
def test_p10_normalised_entropies_lie_between_0_and_1(pair, entropy):
    seen = gates.compare(*pair, entropy=entropy)
    for x in (seen.entropy, seen.entropy_partner):
        assert (x >= 0).all()
        assert (x <= 1).all()


@given(numbers(0.1, 1, 2))
def test_p10_entropy_rises_with_the_deviation(stds):
    low, high = np.sort(stds)
    assume(high > low * 1.001)
    both = [Continuous(jnp.zeros((1, 1)), jnp.full((1, 1), s)) for s in (low, high)]
    found = [float(gates.normalised_entropy(pi, "by_classes", 0.01)[0, 0]) for pi in both]
    assert found[0] < found[1]


@given(numbers(-3, 3, 5), st.floats(0.1, 0.9))
def test_p10_entropy_rises_with_the_temperature_of_the_logits(logits, factor):
    assume(np.ptp(logits) > 0.1)
    both = [
        Categorical(dist.unimix_log_probs(jnp.asarray(x)[None], 0.01))
        for x in (logits, logits * np.float32(factor))
    ]
    found = [float(gates.normalised_entropy(pi, "by_classes", 0.01)[0, 0]) for pi in both]
    assert found[0] < found[1]


@given(pairs(), st.randoms())
def test_p10_the_order_of_dimensions_and_classes_does_not_matter(pair, random):
    def shuffled(policy):
        return {
            name: jax.tree.map(lambda x, order=orders[name]: x[:, order], pi)
            for name, pi in policy.items()
        }

    width = lambda pi: jax.tree.leaves(pi)[0].shape[1]
    orders = {
        name: np.array(random.sample(range(width(pi)), width(pi))) for name, pi in pair[0].items()
    }
    one, other = (verdict_of(p, ConfidenceGate()) for p in (pair, tuple(map(shuffled, pair))))
    np.testing.assert_allclose(one.p, other.p, atol=TOLERANCE)


def test_p10_min_max_entropy_is_0_for_a_class_that_is_as_sure_as_it_can_be():
    sure = Categorical(dist.unimix_log_probs(jnp.array([[1e4] + [0.0] * 16]), 0.01))
    assert gates.least_entropy(17, 0.01) == pytest.approx(0.0794, abs=1e-4)
    assert gates.least_entropy(17, 0.0) == 0
    found = lambda entropy: float(gates.normalised_entropy(sure, entropy, 0.01)[0, 0])
    assert found("min_max") == pytest.approx(0, abs=1e-5)
    assert found("by_classes") == pytest.approx(0.0794 / math.log(17), rel=1e-2)


@given(pairs())
def test_p11_divergence_is_never_negative_and_bounded_by_200_nats_a_dimension(pair):
    divergence = gates.compare(*pair).divergence
    assert (divergence >= 0).all()
    assert (divergence <= 200.1).all()


def most_apart(classes):
    """The divergence of two policies that are each sure of another class, but for 1 %."""
    rest = 0.01 / classes
    return 0.99 * math.log((0.99 + rest) / rest)


@given(st.sampled_from([2, 5, 17, 18]).flatmap(lambda k: st.tuples(*[categorical(k, 1e4)] * 2)))
def test_p11_categorical_divergence_is_bounded_by_the_uniform_share(pair):
    divergence = gates.symmetric_kl(*pair)
    assert (divergence >= 0).all()
    assert (divergence <= most_apart(pair[0].log_probs.shape[1]) + 1e-4).all()


@pytest.mark.parametrize(("classes", "bound"), [(2, 5.2404), (17, 7.3546)])
def test_p11_categorical_divergence_reaches_its_bound(classes, bound):
    sharp = lambda k: Categorical(
        dist.unimix_log_probs(1e4 * jax.nn.one_hot(jnp.array([k]), classes), 0.01)
    )
    found = float(gates.symmetric_kl(sharp(0), sharp(1))[0, 0])
    assert found == pytest.approx(most_apart(classes), abs=1e-4)
    assert found == pytest.approx(bound, abs=1e-4)


# Monotonicity and slopes: P3 and P4


@given(configs, single(-1, 1), single(-1, 1), single(0, 10))
def test_p3_p_rises_with_the_entropy_gap_by_at_most_a_quarter_of_alpha(config, x, y, divergence):
    low, high = sorted((x, y))
    verdict = gates.judge(evidence([low, high], [divergence] * 2), config)
    for p in (np.float64(verdict.p), np.float64(verdict.p_raw)):
        assert p[1] - p[0] >= -TOLERANCE
        assert p[1] - p[0] <= config.alpha / 4 * (high - low) + TOLERANCE
    raw = np.float64(verdict.p_raw)
    least = config.alpha * (high - low) * min(raw * (1 - raw))  # the slope falls towards both ends
    if least > TOLERANCE:
        assert raw[1] > raw[0]


@given(configs, single(-1, 1), single(0, 20), single(0, 20))
def test_p4_p_falls_with_divergence_within_its_slope_and_not_at_all_below_tau(config, gap, x, y):
    low, high = sorted((x, y))
    p = np.float64(gates.judge(evidence([gap] * 2, [low, high]), config).p)
    slope = config.alpha * config.beta_div / (4 * config.scale)
    assert p[0] - p[1] >= -TOLERANCE
    assert p[0] - p[1] <= slope * (high - low) + TOLERANCE
    if high <= config.tau:
        assert p[0] == p[1]


@given(configs, numbers(-1, 1, 2), numbers(0, 20, 2))
def test_p4_both_slopes_hold_together(config, gaps, divergences):
    p = np.float64(gates.judge(evidence(gaps, divergences), config).p)
    bound = np.ptp(gaps) + config.beta_div / config.scale * np.ptp(divergences)
    assert abs(p[1] - p[0]) <= config.alpha / 4 * bound + TOLERANCE


# P5 and P6: symmetry


@given(pairs(), unbiased)
def test_p5_swapping_the_policies_mirrors_the_gap_and_p_and_its_mirror_are_at_most_1(pair, config):
    here, there = verdict_of(pair, config), verdict_of(pair[::-1], config)
    np.testing.assert_array_equal(
        gates.compare(*pair).divergence, gates.compare(*pair[::-1]).divergence
    )
    np.testing.assert_allclose(here.entropy_gap, -there.entropy_gap, atol=1e-6)
    total = np.float64(here.p) + np.float64(there.p)
    assert (total <= 1 + TOLERANCE).all()
    free = (np.array(here.penalty) == 0) | (config.beta_div == 0)
    np.testing.assert_allclose(total[free], 1, atol=TOLERANCE)


@given(pairs(), unbiased, st.floats(0, 0.4))
def test_p5_clipped_alike_at_both_ends_p_and_its_mirror_are_at_most_1(pair, config, p_min):
    config = config.model_copy(update={"p_min": p_min, "p_max": 1 - p_min})
    here, there = verdict_of(pair, config), verdict_of(pair[::-1], config)
    total = np.float64(here.p) + np.float64(there.p)
    assert (total <= 1 + TOLERANCE).all()
    np.testing.assert_allclose(total[np.array(here.penalty) == 0], 1, atol=TOLERANCE)


@given(configs, single(-1, 1), single(0, 20))
def test_p5_p_and_its_mirror_are_below_1_just_where_penalty_and_bias_speak_against_the_partner(
    config, gap, divergence
):
    verdict = gates.judge(evidence([gap, -gap], [divergence] * 2), config)
    against = config.beta_div * float(verdict.penalty[0]) + config.bias
    total = np.float64(verdict.p_raw).sum()
    expected = sum(sigmoid(config.alpha * (d - against)) for d in (gap, -gap))
    assert total == pytest.approx(expected, abs=TOLERANCE)
    if abs(expected - 1) > TOLERANCE:
        assert (total < 1) == (against > 0)


@given(pairs(), configs)
def test_p6_equal_policies_agree_exactly_and_leave_p_to_the_bias(pair, config):
    same = (pair[0], pair[0])
    np.testing.assert_array_equal(gates.compare(*same).divergence, np.zeros(N))
    verdict = verdict_of(same, config)
    np.testing.assert_array_equal(verdict.entropy_gap, np.zeros(N))
    np.testing.assert_allclose(verdict.p_raw, sigmoid(-config.alpha * config.bias), atol=TOLERANCE)


def test_a_positive_bias_speaks_against_the_partner():
    seen = evidence(0.1, 0.0)
    p = [float(gates.judge(seen, ConfidenceGate(bias=b)).p[0]) for b in (-0.2, 0.0, 0.2)]
    assert p[0] > p[1] > p[2]


# What the gate may not look at: P8, P9, P12 and P15


@given(pairs(), st.integers(0, N - 1))
def test_p8_a_row_does_not_see_the_others(pair, row):
    alone = tuple(jax.tree.map(lambda x: x[row : row + 1], policy) for policy in pair)
    found = verdict_of(pair, ConfidenceGate())
    for a, b in zip(
        jax.tree.leaves(found), jax.tree.leaves(verdict_of(alone, ConfidenceGate())), strict=True
    ):
        np.testing.assert_allclose(a[row], b[0], atol=1e-6)


@given(numbers(0, 1, 3), st.integers(0, 2**32 - 1))
def test_p8_choices_are_drawn_at_rate_p_and_independently(p, seed):
    """Hoeffding at 1e-9 for the rate, and the same for the product of two rows."""
    draws = 20_000
    margin = math.sqrt(math.log(2 / 1e-9) / (2 * draws))
    uniform = np.random.default_rng(seed).random((draws, 3), np.float32)
    chosen = np.array(gates.choose(jnp.asarray(p)[None], jnp.asarray(uniform)))
    np.testing.assert_allclose(chosen.mean(0), p, atol=margin)
    together = (chosen[:, 1] & chosen[:, 2]).mean()
    assert together == pytest.approx(float(p[1]) * float(p[2]), abs=margin)


@given(pairs(), numbers(0, 1 - 2**-24, N), st.sampled_from([0, 1]))
def test_p14_a_gate_whose_bounds_meet_at_an_end_always_chooses_one_policy(pair, uniform, end):
    verdict = verdict_of(pair, ConfidenceGate(p_min=end, p_max=end))
    np.testing.assert_array_equal(gates.choose(verdict.p, jnp.asarray(uniform)), [bool(end)] * N)
    np.testing.assert_array_equal(gates.choose(verdict.p, None), [bool(end)] * N)


@given(continuous(3), continuous(3))
def test_p9_doubling_the_set_of_dimensions_changes_nothing(a, b):
    twice = lambda pi: {"h": jax.tree.map(lambda x: jnp.concatenate([x, x], 1), pi)}
    one, other = gates.compare({"h": a}, {"h": b}), gates.compare(twice(a), twice(b))
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


def test_p9_a_head_of_many_dimensions_weighs_no_more_than_another():
    """Six equal dimensions and a class that one policy is sure of: half the class's gap."""
    sure = dist.unimix_log_probs(jnp.array([[1e4, 0.0, 0.0, 0.0]]), 0.01)
    wide = Continuous(jnp.zeros((1, 6)), jnp.full((1, 6), 0.5))
    pi = {"a": wide, "b": Categorical(jnp.log(jnp.full((1, 4), 0.25)))}
    partner = {"a": wide, "b": Categorical(sure)}
    seen = gates.compare(pi, partner)
    h = -(0.9925 * math.log(0.9925) + 3 * 0.0025 * math.log(0.0025)) / math.log(4)
    gap = float(seen.entropy[0] - seen.entropy_partner[0])
    assert gap == pytest.approx((1 - h) / 2, rel=1e-4)
    assert float(seen.divergence[0]) == pytest.approx(
        0.25 * ((0.9925 - 0.25) * math.log(0.9925 / 0.0025)), rel=1e-4
    )


def test_p9_a_head_of_one_class_is_certain_and_agrees():
    only = {"h": Categorical(jnp.zeros((2, 1)))}
    seen = gates.compare(only, only, entropy="min_max")
    np.testing.assert_array_equal(seen.divergence, np.zeros(2))
    np.testing.assert_array_equal(seen.entropy, np.zeros(2))


@given(continuous(3), continuous(3))
def test_p12_the_gate_computes_in_float32_whatever_the_policies_are_in(a, b):
    short = lambda pi: {"h": jax.tree.map(lambda x: x.astype(jnp.bfloat16), pi)}
    back = lambda pi: jax.tree.map(lambda x: x.astype(jnp.float32), pi)
    one = gates.compare(short(a), short(b))
    other = gates.compare(back(short(a)), back(short(b)))
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert x.dtype == jnp.float32
        np.testing.assert_array_equal(x, y)


@given(continuous(3), categorical(5))
def test_p12_policies_in_short_precision_agree_exactly_with_themselves(a, b):
    short = jax.tree.map(lambda x: x.astype(jnp.bfloat16), {"a": a, "b": b})
    seen = gates.compare(short, jax.tree.map(jnp.copy, short))
    np.testing.assert_array_equal(seen.divergence, np.zeros(N))
    np.testing.assert_array_equal(seen.entropy, seen.entropy_partner)


@given(pairs(), configs)
def test_p15_the_gate_teaches_nobody(pair, config):
    gradient = jax.grad(lambda both: verdict_of(both, config).p.sum())(pair)
    for leaf in jax.tree.leaves(gradient):
        np.testing.assert_array_equal(leaf, np.zeros(leaf.shape))


# Other gates and options


@given(pairs())
def test_a_fixed_and_a_random_gate_have_their_rate_whatever_the_policies_say(pair):
    np.testing.assert_array_equal(verdict_of(pair, FixedGate(p=0)).p, np.zeros(N))
    np.testing.assert_array_equal(verdict_of(pair, FixedGate(p=1)).p, np.ones(N))
    np.testing.assert_allclose(verdict_of(pair, RandomGate(p=0.3)).p, 0.3)


def test_a_random_gate_takes_the_rate_of_a_task_where_it_has_one():
    gate = RandomGate(p=0.5, by_task={"dmc/ball_in_cup_catch": 0.2}, hold=4)
    assert gate.of("dmc/ball_in_cup_catch") == RandomGate(p=0.2, hold=4)
    assert gate.of("toy/reach") == RandomGate(p=0.5, hold=4)


@given(pairs(), single(0, 30))
def test_surprise_takes_the_place_of_divergence(pair, nats):
    config = SurpriseGate()
    seen = gates.compare(*pair).replace(surprise=jnp.full(N, nats))
    verdict = gates.judge(seen, config)
    np.testing.assert_allclose(verdict.penalty, np.tanh(max(nats - 1.0, 0) / 5.0), atol=1e-5)
    unaware = gates.judge(seen.replace(divergence=seen.divergence + 5), config)
    np.testing.assert_array_equal(verdict.p, unaware.p)


@given(continuous(4), continuous(4))
def test_a_summed_divergence_adds_up_the_dimensions_of_a_head(a, b):
    mean, total = (
        gates.compare({"h": a}, {"h": b}, divergence=how).divergence for how in ("mean", "sum")
    )
    np.testing.assert_allclose(total, 4 * np.array(mean), rtol=1e-5, atol=1e-6)


def test_a_choice_is_held_for_n_decisions_and_never_beyond_its_episode():
    chosen, age = jnp.array([False]), jnp.array([0])
    drawn = [True, False, False, False, True, False, False]
    first = [True, False, False, False, False, True, False]
    found = []
    for d, f in zip(drawn, first, strict=True):
        chosen, age = gates.hold(jnp.array([d]), chosen, age, jnp.array([f]), 3)
        found.append(bool(chosen[0]))
    #        drawn  held  held  drawn  held  new episode, held
    assert found == [True, True, True, False, False, False, False]


def test_without_holding_every_decision_is_drawn(rng):
    drawn = rng.random(20) < 0.5
    chosen, age = jnp.array([False]), jnp.array([0])
    for d in drawn:
        chosen, age = gates.hold(jnp.array([d]), chosen, age, jnp.array([False]), 1)
        assert bool(chosen[0]) == d
