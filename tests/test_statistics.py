"""Statistics over lives: against rliable's own numbers, by hand, and by how often they are right.

What rliable gave was printed by rliable 1.2.0 with numpy 2.4.6, scipy 1.17.1, arch 7.2.0, pandas
2.3.3: `metrics.aggregate_*`, `metrics.probability_of_improvement`, `library.score_distributions`,
`library.average_score_distributions`, and `library.get_interval_estimates` after
`np.random.seed(0)`.
"""

from __future__ import annotations

import itertools
import math
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.aggregates import (
    iqm,
    mean_over_tasks,
    mean_performance_profile,
    median_over_tasks,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
    stratified_percentile_interval,
)
from eval.statistics import (
    EXACT,
    MONTE_CARLO,
    Estimate,
    holm,
    iqm_interval,
    mean_interval,
    sign_flip_test,
    student_t,
    summarise,
)

X = np.array(
    [
        [0.12, 0.85, 0.40],
        [0.55, 0.91, 0.38],
        [0.07, 0.78, 1.20],
        [0.61, 0.91, 0.44],
        [-0.05, 1.04, 0.40],
    ]
)
Y = np.array(
    [
        [0.20, 0.91, 0.35],
        [0.55, 0.60, 0.40],
        [0.31, 0.88, 0.10],
        [0.02, 0.91, 0.52],
        [0.44, 0.70, 0.40],
        [0.18, 0.66, 0.47],
        [0.09, 0.73, 0.40],
    ]
)
ONE_TASK = np.array([[0.3], [0.1], [0.7], [0.2], [0.9], [0.4]])
TEN = np.sin(np.arange(40.0).reshape(10, 4) ** 2) * 0.6 + 0.3  # 10 lives, 4 tasks

FOUR_KINDS = ("normal", "skewed", "learned or not", "heavy tails")


def lives(kind: str, rng: np.random.Generator, times: int, n: int, tasks: int) -> np.ndarray:
    """Synthetic lives [times, n, tasks], the scores of one correlated by about 0.4.

    normal: N(0.5, 0.2). skewed: Beta(2, 5), as scores that are seldom good; very skewed: standard
    exponential. learned or not: 0.8 or 0.15, ± 0.1, each in half of the lives; mostly learned: in
    70 %. heavy tails: Student's t with 4 degrees of freedom. Tasks of all but the skewed ones
    differ in how hard they are.
    """
    of_life = (times, n, 1)

    def normal() -> np.ndarray:
        one = math.sqrt(0.4) * rng.standard_normal(of_life)
        return one + math.sqrt(0.6) * rng.standard_normal((times, n, tasks))

    def gamma(shape: float) -> np.ndarray:
        return rng.gamma(0.4 * shape, size=of_life) + rng.gamma(0.6 * shape, size=(times, n, tasks))

    harder = np.linspace(-0.2, 0.2, tasks) if tasks > 1 else np.zeros(1)
    if kind == "skewed":
        good, bad = gamma(2), gamma(5)
        return good / (good + bad)
    if kind == "very skewed":
        return gamma(1)
    if kind == "normal":
        return 0.5 + 0.2 * normal() + harder
    if kind == "heavy tails":
        return 0.5 + 0.15 * normal() / np.sqrt(rng.chisquare(4, of_life) / 4) + harder
    threshold = {"learned or not": 0.0, "mostly learned": 0.5244}[kind]
    learned = normal() < threshold + 2.6 * harder
    return np.where(learned, 0.8, 0.15) + 0.1 * rng.standard_normal(learned.shape)


@cache
def truth(kind: str, tasks: int) -> tuple[float, float]:
    """(mean, IQM) of endlessly many lives, from very many."""
    many = lives(kind, np.random.default_rng(1), 1, 2_000_000 // tasks, tasks)[0]
    return mean_over_tasks(many), iqm(many)


def covered(
    kind: str, n: int, tasks: int, times: int, resamples: int, rng: np.random.Generator
) -> tuple[float, float]:
    """How often the intervals of `summarise` hold the true (mean, IQM)."""
    true_mean, true_iqm = truth(kind, tasks)
    hits = np.zeros(2)
    for table in lives(kind, rng, times, n, tasks):
        summary = summarise(table, rng, resamples)
        hits += holds(summary.mean, true_mean), holds(summary.iqm, true_iqm)
    mean, iqm_ = hits / times
    return float(mean), float(iqm_)


def holds(estimate: Estimate | None, value: float) -> bool:
    assert estimate is not None
    return estimate.low <= value <= estimate.high


@pytest.mark.parametrize(
    ("scores", "iqm_", "mean", "median", "gap", "gap_half"),
    [
        (X, 0.5911111111111111, 0.574, 0.564, 0.44199999999999995, 0.11599999999999988),
        (
            Y,
            0.4636363636363636,
            0.46761904761904766,
            0.37714285714285717,
            0.5323809523809523,
            0.12571428571428572,
        ),
        (
            ONE_TASK,
            0.4,
            0.43333333333333335,
            0.43333333333333335,
            0.5666666666666667,
            0.16666666666666669,
        ),
        (
            TEN,
            0.1837879918452477,
            0.23949694999033483,
            0.23715882704210572,
            0.7605030500096651,
            0.3453488863254886,
        ),
    ],
    ids=["X", "Y", "one task", "ten lives"],
)
def test_aggregates_are_those_of_rliable_to_the_last_digit(
    scores: np.ndarray, iqm_: float, mean: float, median: float, gap: float, gap_half: float
):
    assert iqm(scores) == iqm_
    assert mean_over_tasks(scores) == mean
    assert median_over_tasks(scores) == median
    assert optimality_gap(scores) == gap
    assert optimality_gap(scores, gamma=0.5) == gap_half


def test_iqm_cuts_a_quarter_rounded_down_at_each_end_of_all_entries():
    # 15 entries: int(15 / 4) = 3 go at each end, whichever task they are of.
    assert iqm(X) == pytest.approx(np.sort(X.ravel())[3:12].mean())
    assert iqm([1.0, 2.0, 9.0]) == 4.0


def test_probability_of_improvement_is_that_of_rliable_and_ties_count_half():
    assert probability_of_improvement(X, Y) == 0.6142857142857143
    assert probability_of_improvement(Y, X) == 0.3857142857142857
    assert probability_of_improvement(X, X) == 0.5
    # (2 > 1), (2 = 2) and (3 > 1), (3 > 2): 3.5 of 4.
    assert probability_of_improvement([2.0, 3.0], [1.0, 2.0]) == 3.5 / 4


def test_profiles_are_those_of_rliable_and_what_equals_the_threshold_is_not_above_it():
    tau = [0.0, 0.4, 0.55, 0.91, 1.2]
    expected = [0.9333333333333333, 0.6, 0.4666666666666667, 0.13333333333333333, 0.0]
    assert performance_profile(X, tau).tolist() == expected
    third = 1 / 3
    tau = [0.2, 0.26, 0.5, 0.564, 0.9]
    assert mean_performance_profile(X, tau).tolist() == [1.0, 2 * third, 2 * third, third, 0.0]


def test_stratified_interval_is_that_of_rliable_up_to_chance(rng: np.random.Generator):
    # Theirs of 50 000 resamples; ends of 5000 stray by about 0.005.
    def both(scores: np.ndarray) -> np.ndarray:
        return np.array([iqm(scores), mean_over_tasks(scores)])

    ends = stratified_percentile_interval(both, rng, TEN, resamples=5000)
    theirs = [[0.02836306, 0.11613282], [0.38644922, 0.36656705]]
    np.testing.assert_allclose(ends, theirs, atol=0.015)


def test_stratified_interval_resamples_each_of_two_tables_by_itself(rng: np.random.Generator):
    ends = stratified_percentile_interval(probability_of_improvement, rng, X, Y, resamples=5000)
    np.testing.assert_allclose(ends, [0.41904762, 0.8], atol=0.02)


def test_a_score_that_is_missing_is_refused_by_life_and_task():
    holed = X.copy()
    holed[2, 1] = math.nan
    with pytest.raises(ValueError, match="life 2 has no finite number on task 1"):
        iqm(holed)
    with pytest.raises(ValueError, match="no finite number"):
        summarise([math.inf] * 8, np.random.default_rng(0))
    with pytest.raises(ValueError, match="expected \\[lives, tasks\\]"):
        mean_over_tasks([])
    with pytest.raises(ValueError, match="3 tasks and 2"):
        probability_of_improvement(X, Y[:, :2])


def test_fewer_than_eight_lives_are_shown_as_points_without_an_interval(rng: np.random.Generator):
    summary = summarise(Y, rng)
    np.testing.assert_allclose(summary.points, Y.mean(axis=1))
    assert (summary.mean, summary.iqm) == (None, None)
    assert summary.reason == "7 lives; intervals are stated from 8 on"


def test_from_eight_lives_on_mean_and_iqm_come_with_intervals(rng: np.random.Generator):
    summary = summarise(TEN[:8], rng)
    assert not summary.reason
    assert summary.mean is not None
    assert summary.iqm is not None
    assert summary.mean.value == mean_over_tasks(TEN[:8])
    assert summary.iqm.value == iqm(TEN[:8])
    for estimate in (summary.mean, summary.iqm):
        assert estimate.low < estimate.value < estimate.high


def test_the_interval_of_the_mean_is_students_over_whole_lives():
    # Lives at 0, 1, … 7: mean 3.5, sd sqrt(6), t(0.975, 7) = 2.364624251592784.
    half = 2.364624251592784 * math.sqrt(6 / 8)
    assert mean_interval(np.arange(8.0)) == pytest.approx((3.5 - half, 3.5 + half))
    # Another task of the same lives, no different, is no further evidence.
    twice = np.stack([np.arange(8.0)] * 2, axis=1)
    assert mean_interval(twice) == pytest.approx((3.5 - half, 3.5 + half))


def test_students_quantiles_are_those_of_scipy():
    # scipy.stats.t.ppf(0.975, df), scipy 1.17.1
    expected = {
        7: 2.364624251592784,
        8: 2.306004135204166,
        9: 2.262157162798205,
        19: 2.0930240544083087,
        49: 2.0095752371292392,
    }
    assert {df: student_t(df) for df in expected} == pytest.approx(expected, rel=1e-12)
    assert student_t(1) == pytest.approx(math.tan(0.475 * math.pi))
    assert student_t(2) == pytest.approx(0.95 * math.sqrt(2 / (1 - 0.95**2)))
    with pytest.raises(ValueError, match="at least two lives"):
        mean_interval([0.5])


def test_the_interval_of_the_iqm_keeps_the_tasks_of_a_life_together(rng: np.random.Generator):
    # The second task undoes the first in each life: every set of lives has the same mean, and
    # with few entries cut nearly the same IQM; tasks drawn apart would spread it.
    level = np.linspace(-1, 1, 9)
    undone = np.stack([level, -level], axis=1)
    low, high = iqm_interval(undone, rng, 2000)
    apart = stratified_percentile_interval(iqm, rng, undone, resamples=2000)
    assert high - low < 0.1 * (apart[1] - apart[0])


def test_the_same_generator_gives_the_same_interval():
    seeded = [summarise(TEN, np.random.default_rng(seed), 500).iqm for seed in (7, 7, 8)]
    assert seeded[0] == seeded[1] != seeded[2]


@pytest.mark.parametrize("tasks", [1, 5])
@pytest.mark.parametrize("kind", FOUR_KINDS)
def test_intervals_of_eight_lives_hold_the_truth_about_as_often_as_they_say(kind: str, tasks: int):
    # 93 to 97 %, give or take what 400 summaries leave to chance: 95 % ± 1.1 %. Counted out in
    # the next test, which is slow.
    mean, iqm_ = covered(kind, 8, tasks, 400, 800, np.random.default_rng(2))
    assert 0.90 <= mean <= 0.99
    assert 0.90 <= iqm_ <= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("n", [8, 10, 20])
@pytest.mark.parametrize("tasks", [1, 5])
@pytest.mark.parametrize("kind", FOUR_KINDS)
def test_intervals_hold_the_truth_in_93_to_97_of_100(kind: str, tasks: int, n: int):
    # Of 3000 summaries 95 % ± 0.4 %.
    mean, iqm_ = covered(kind, n, tasks, 3000, 2000, np.random.default_rng(3))
    assert 0.93 <= mean <= 0.97
    assert 0.93 <= iqm_ <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "tasks", "mean", "iqm_"),
    [
        ("very skewed", 1, 0.893, 0.964),
        ("mostly learned", 1, 0.928, 0.950),
        ("learned or not", 2, 0.945, 0.922),
    ],
)
def test_where_eight_lives_fall_short_it_is_by_as_much_as_the_docstrings_say(
    kind: str, tasks: int, mean: float, iqm_: float
):
    measured = covered(kind, 8, tasks, 3000, 2000, np.random.default_rng(3))
    assert measured == pytest.approx((mean, iqm_), abs=0.012)


def test_sign_flip_tries_every_pattern_of_signs():
    # 1, 1, -1, 2, 2: |sum| >= 5 is 7 (1 pattern), or 5 (one of three 1s flipped), and mirrored.
    result = sign_flip_test([1.0, 1.0, -1.0, 2.0, 2.0])
    assert (result.mean, result.p_value, result.method) == (1.0, 8 / 32, EXACT)
    # scipy.stats.permutation_test, permutation_type="samples", n_resamples=inf, 1.17.1
    d = [0.1, 0.3, -0.05, 0.2, 0.15, 0.22, -0.01, 0.4]
    assert sign_flip_test(d).p_value == 0.03125
    assert sign_flip_test([0.2] * 8).p_value == 2 / 2**8
    assert sign_flip_test([0.0] * 3).p_value == 1.0
    assert sign_flip_test([0.3]).p_value == 1.0


def test_sums_that_are_equal_but_for_rounding_are_ties():
    # 0.1 + 0.2 - 0.3 in another order is 0 or 5.6e-17; all eight patterns are at least as large.
    assert sign_flip_test([0.1, 0.2, -0.3]).p_value == 1.0
    assert sign_flip_test([0.3, -0.2, -0.1]).p_value == 1.0


@given(st.lists(st.sampled_from([-0.3, -0.1, 0.0, 0.1, 0.2, 0.7]), min_size=1, max_size=8))
def test_sign_flip_equals_counting_in_whole_numbers(d: list[float]):
    tenths = [round(10 * value) for value in d]
    patterns = list(itertools.product((-1, 1), repeat=len(d)))
    as_large = [
        abs(sum(s * v for s, v in zip(signs, tenths, strict=True))) >= abs(sum(tenths))
        for signs in patterns
    ]
    assert sign_flip_test(d).p_value == sum(as_large) / len(patterns)


def test_beyond_twenty_pairs_signs_are_drawn_and_the_test_says_so(rng: np.random.Generator):
    d = rng.normal(0.4, 1.0, 20)
    exact = sign_flip_test(d)
    assert exact.method == EXACT
    drawn = sign_flip_test([*d, 0.0], rng)  # a pair without a difference changes no |mean|'s rank
    assert drawn.method == MONTE_CARLO
    assert drawn.p_value == pytest.approx(exact.p_value, abs=0.005)
    assert sign_flip_test([1.0] * 40, rng, draws=999).p_value == 1 / 1000
    with pytest.raises(ValueError, match="give rng"):
        sign_flip_test([*d, 0.0])
    with pytest.raises(ValueError, match="one number a pair"):
        sign_flip_test(X)


def test_sign_flip_errs_no_more_often_than_it_says(rng: np.random.Generator):
    p = np.array([sign_flip_test(d).p_value for d in rng.standard_t(4, (2000, 8))])
    # 2000 tests: 5 % ± 0.5 %.
    assert 0.03 < np.mean(p <= 0.05) < 0.065


def test_holm_multiplies_by_how_many_are_left_and_keeps_the_order():
    # Sorted 0.005, 0.01, 0.03, 0.04: times 4, 3, 2, 1 is 0.02, 0.03, 0.06, 0.04 -> 0.06.
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    assert holm([0.7, 0.6]).tolist() == [1.0, 1.0]
    assert holm([0.04]).tolist() == [0.04]
    assert holm([]).tolist() == []
    for wrong in ([1.2], [math.nan], [[0.1]]):
        with pytest.raises(ValueError, match="p-values"):
            holm(wrong)
