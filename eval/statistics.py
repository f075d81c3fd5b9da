"""What several lives (seeds) say together: points, intervals over whole lives, tests of pairs.

The unit is the life. Scores of one life on several tasks come from one agent and are not
independent of each other, so intervals resample or count whole lives, never single scores. What
papers state instead, rliable's stratified form, is in `eval.aggregates` under its name.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from eval.aggregates import as_scores, iqm, mean_over_tasks, pooled_iqm
from eval.matrix import Vector

FEWEST_LIVES = 8  # coverage was measured from here on
MOST_ENUMERATED = 20  # differences whose 2^n signs are all tried: a million
DRAWN_SIGNS = 100_000  # sign patterns, of more differences
TIED = 1e-9  # of the sum of |differences|: rounding, not a smaller mean

T_INTERVAL = "95 % Student t interval over the means of whole lives"
BOOTSTRAP_INTERVAL = "95 % expanded percentile bootstrap of whole lives"
EXACT = "exact paired sign-flip test"
MONTE_CARLO = "Monte-Carlo paired sign-flip test"


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval [low, high] and how that was made."""

    value: float
    low: float
    high: float
    method: str


@dataclass(frozen=True)
class Summary:
    """What can be said of some lives.

    Attributes:
      points: [lives], mean over tasks of each life.
      mean: of all lives and tasks; None below 8 lives.
      iqm: interquartile mean, 25 % cut at each end of all lives x tasks entries; None below 8.
      reason: why there are points only; empty otherwise.
    """

    points: Vector
    mean: Estimate | None = None
    iqm: Estimate | None = None
    reason: str = ""


@dataclass(frozen=True)
class SignFlip:
    """Result of `sign_flip_test`.

    Attributes:
      mean: of the differences.
      p_value: two-sided.
      method: whether all signs were tried, or some were drawn.
    """

    mean: float
    p_value: float
    method: str


def summarise(scores: ArrayLike, rng: np.random.Generator, resamples: int = 10_000) -> Summary:
    """Points of fewer than 8 lives; from 8 on mean and IQM, each with a 95 % interval over lives.

    Both speak of further lives on these same tasks, not of other tasks. For paired lives of two
    variants (same seeds) give their differences. The intervals are those of `mean_interval` and
    `iqm_interval`, which say how well they cover.

    Args:
      scores: [lives, tasks], normalised returns, or [lives], one number of each life, such as its
        forgetting.
      rng: consumed, by the IQM's interval.
      resamples: bootstrap draws of that interval.
    Raises:
      ValueError: a score is not a number.
    """
    table = as_scores(scores)
    points: Vector = table.mean(axis=1)
    if len(table) < FEWEST_LIVES:
        reason = f"{len(table)} lives; intervals are stated from {FEWEST_LIVES} on"
        return Summary(points, reason=reason)
    low, high = mean_interval(table)
    mean = Estimate(mean_over_tasks(table), low, high, T_INTERVAL)
    low, high = iqm_interval(table, rng, resamples)
    return Summary(points, mean, Estimate(iqm(table), low, high, BOOTSTRAP_INTERVAL))


def mean_interval(scores: ArrayLike) -> tuple[float, float]:
    """95 % interval of the mean: Student t over the means x_j of n whole lives.

        mean_j x_j ± t(0.975, n - 1) sd(x_j) / sqrt(n)

    Measured on synthetic lives (3000 sets, ± 0.4 %, of each of 8, 10 and 20 lives on 1, 2 and 5
    tasks whose scores correlate by about 0.4): covers 93.3 to 96.2 % where scores are normal,
    skewed as Beta(2, 5), 0.8 or 0.15 with equal chances (learned or not), or Student's t with 4
    degrees of freedom. Percentile bootstraps of 8 such lives covered 86 to 91 %. Falls short where
    rare lives decide the mean: learned in 70 % and one task, 92.8 % with 8 lives; exponential
    scores, 89 to 91 % with 8, 92 % with 20. There the interval reaches too little into the long
    tail.

    Args:
      scores: [lives, tasks] or [lives]; at least two lives.
    """
    points = as_scores(scores).mean(axis=1)
    n = len(points)
    half = student_t(n - 1) * float(points.std(ddof=1)) / math.sqrt(n)
    return float(points.mean()) - half, float(points.mean()) + half


def iqm_interval(
    scores: ArrayLike, rng: np.random.Generator, resamples: int = 10_000
) -> tuple[float, float]:
    """95 % interval of the IQM: percentile bootstrap of whole lives, percentiles moved outwards.

        quantiles Φ(-z) and Φ(z) of the IQMs of resampled lives,
        z = t(0.975, n - 1) sqrt(n / (n - 1));  one score a life: z = (z + 1.96) / 2

    The IQM meant is that of endlessly many lives, all lives x tasks entries pooled. Measured as for
    `mean_interval`: covers 93.4 to 96.4 % there, also of exponential scores and of tasks learned
    in 70 % of the lives. Falls short with two tasks of which one is mostly learned and one mostly
    not: 92.2 % with 8 lives, 94 % with 10. The other forms that were tried failed with 8 lives
    where a task is learned or not: Tukey and McLaughlin's t covered 71 to 96 %, the studentised
    bootstrap 86 to 97 %; the plain percentile bootstrap covered 87 to 92 % of several tasks.

    Source: the expanded percentile interval of Hesterberg 2015 (The American Statistician 69:371),
    which makes a mean's percentile interval as wide as Student's t. Differs: the IQM of single
    scores is nearly a median, whose bootstrap is too wide by itself, hence half the expansion.

    Args:
      scores: [lives, tasks] or [lives]; at least two lives.
      rng: consumed; n x resamples draws.
    """
    table = as_scores(scores)
    n, tasks = table.shape
    normal = NormalDist()
    z = student_t(n - 1) * math.sqrt(n / (n - 1))
    if tasks == 1:
        z = (z + normal.inv_cdf(0.975)) / 2
    lives = rng.integers(n, size=(resamples, n))
    drawn = pooled_iqm(table[lives].reshape(resamples, n * tasks))
    low, high = np.quantile(drawn, [normal.cdf(-z), normal.cdf(z)]).tolist()
    return low, high


def least_p(pairs: int, draws: int = DRAWN_SIGNS) -> float:
    """The smallest p that `sign_flip_test` can come to with so many pairs."""
    return 2.0 ** (1 - pairs) if pairs <= MOST_ENUMERATED else 1 / (1 + draws)


def sign_flip_test(
    differences: ArrayLike, rng: np.random.Generator | None = None, draws: int = DRAWN_SIGNS
) -> SignFlip:
    """Is the mean of paired differences 0? Two-sided, statistic |mean|.

    Under the hypothesis that swapping the two lives of a pair changes nothing, every pattern of
    signs is as likely as the one seen. p is the share of patterns whose |mean| is at least as
    large, equal up to rounding included. Up to 20 pairs all 2^n patterns are tried (exact; with n
    pairs p is never below 2 / 2^n, so 5 pairs cannot reach 0.05). Beyond, patterns are drawn and
    the one seen counts as one more: p = (1 + at least as large) / (1 + draws), which is never 0
    and keeps the level.

    Source: Fisher's randomisation test of pairs; for the + 1, Phipson & Smyth 2010
    (arXiv:1603.05766).

    Args:
      differences: [n], one of each pair of lives, such as X's forgetting minus Y's of one seed.
      rng: consumed above 20 pairs, where it is needed; unused otherwise.
      draws: sign patterns drawn above 20 pairs.
    """
    table = as_scores(differences)
    if table.shape[1] != 1:
        raise ValueError(f"differences of shape {table.shape}; expected one number a pair, [n]")
    d = table[:, 0]
    enough = abs(d.sum()) - TIED * np.abs(d).sum()
    if len(d) <= MOST_ENUMERATED:
        p_value = float(np.mean(np.abs(_all_signed_sums(d)) >= enough))
        return SignFlip(float(d.mean()), p_value, EXACT)
    if rng is None:
        raise ValueError(f"{len(d)} pairs, more than {MOST_ENUMERATED}: signs are drawn; give rng")
    flipped = rng.integers(2, size=(draws, len(d)), dtype=np.int8)
    as_large = int(np.sum(np.abs(d.sum() - 2 * (flipped @ d)) >= enough))
    return SignFlip(float(d.mean()), (1 + as_large) / (1 + draws), MONTE_CARLO)


def holm(p_values: ArrayLike) -> Vector:
    """Holm's adjusted p-values, [M] -> [M] in the order given.

        adjusted_(i) = min(1, max_{j <= i} (M - j + 1) p_(j)),   p_(1) <= p_(2) <= …

    Rejecting where the adjusted value is at most α errs on any true hypothesis with probability at
    most α, however the tests depend on each other. Give all p-values that were looked at.

    Source: Holm 1979 (Scandinavian Journal of Statistics 6:65).
    """
    p = np.asarray(p_values, np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p-values {p.tolist()}; expected a list of numbers in [0, 1]")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    factors = np.arange(len(p), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(factors * p[order]))
    return adjusted


def student_t(df: int) -> float:
    """The 97.5 % quantile of Student's t with a whole number of degrees of freedom, at least 1.

    Source: Abramowitz & Stegun 26.7.3 and 26.7.4, the finite series of P(|T| < t), bisected.
    """
    if df < 1:
        raise ValueError(f"{df} degrees of freedom; an interval needs at least two lives")
    low, high = 0.0, 16.0
    while high - low > 1e-13:
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, df) < 0.95 else (low, middle)
    return (low + high) / 2


def _within(t: float, df: int) -> float:
    """P(|T| < t)"""
    angle = math.atan(t / math.sqrt(df))
    odd = df % 2 == 1
    term = math.cos(angle) if odd else 1.0
    total = term if df > 1 else 0.0
    for k in range(3 if odd else 2, df - 1, 2):
        term *= (k - 1) / k * math.cos(angle) ** 2
        total += term
    share = math.sin(angle) * total
    return 2 / math.pi * (angle + share) if odd else share


def _all_signed_sums(d: Vector) -> Vector:
    """Sums of d under every pattern of signs with the first one kept, [2^(n-1)].

    Its mirror image has the same |sum|, so half of the patterns are enough.
    """
    sums: Vector = d[:1]
    for value in d[1:]:
        sums = np.concatenate([sums + value, sums - value])
    return sums
