"""One number for many lives on many tasks, as rliable computes it, to compare with papers.

Source of all of them: Agarwal et al. 2021 (arXiv:2108.13264) and their library rliable 1.2.0,
which the numbers equal to the last digit. Every function takes `scores` [lives, tasks]: one row a
life (a seed, rliable's run), normalised so that tasks can be averaged, as `eval.matrix.normalise`
does; [lives] is one task. A score that is not a number is refused, never left out.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from eval.matrix import Matrix, Vector


def as_scores(scores: ArrayLike) -> Matrix:
    """Scores as float64 [lives, tasks].

    Raises:
      ValueError: no such table, an empty one, or one in which a number is missing or infinite.
    """
    table = np.asarray(scores, np.float64)
    if table.ndim == 1:
        table = table[:, np.newaxis]
    if table.ndim != 2 or not table.size:
        raise ValueError(f"scores of shape {table.shape}; expected [lives, tasks], none of them 0")
    without = np.argwhere(~np.isfinite(table))
    if len(without):
        life, task = without[0].tolist()
        raise ValueError(
            f"life {life} has no finite number on task {task}; leave out that life or that task, "
            "and say so where the result is shown"
        )
    return table


def iqm(scores: ArrayLike) -> float:
    """Interquartile mean: mean of the middle half of all lives x tasks entries.

    int(n / 4) of the n entries are cut at each end, whichever life or task they are of; so a task
    that is always the worst may not count at all. Entries of one life are not kept together.
    """
    return float(pooled_iqm(as_scores(scores).ravel()))


def pooled_iqm(entries: Matrix) -> Vector:
    """`iqm` of each of many pools of entries, [..., entries] -> [...]."""
    count = entries.shape[-1]
    cut = int(0.25 * count)
    ends = np.partition(entries, (cut, count - cut - 1), axis=-1)
    means: Vector = np.mean(ends[..., cut : count - cut], axis=-1)
    return means


def mean_over_tasks(scores: ArrayLike) -> float:
    """Mean over tasks of each task's mean over lives."""
    return float(np.mean(as_scores(scores).mean(axis=0)))


def median_over_tasks(scores: ArrayLike) -> float:
    """Median over tasks of each task's mean over lives; not the median of a life."""
    return float(np.median(as_scores(scores).mean(axis=0)))


def optimality_gap(scores: ArrayLike, gamma: float = 1.0) -> float:
    """How far scores fall short of `gamma` on average: gamma - mean(min(score, gamma)).

    0 where all reach gamma; what lies above it does not make up for what lies below.
    """
    return float(gamma - np.mean(np.minimum(as_scores(scores), gamma)))


def probability_of_improvement(scores_x: ArrayLike, scores_y: ArrayLike) -> float:
    """Mean over tasks of P(a life of X scores above a life of Y), ties counting one half.

    Per task U / (n m), with U of Mann and Whitney. Lives are not paired: each of X meets each of
    Y, so that seeds which both share make no difference.

    Args:
      scores_x: [n, tasks].
      scores_y: [m, tasks], the same tasks in the same order.
    """
    x, y = as_scores(scores_x), as_scores(scores_y)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"{x.shape[1]} tasks and {y.shape[1]}; expected the same tasks for both")
    above = (x[:, np.newaxis] > y).sum(axis=(0, 1))  # [tasks]
    tied = (x[:, np.newaxis] == y).sum(axis=(0, 1))
    return float(np.mean((above + tied / 2) / (len(x) * len(y))))


def performance_profile(scores: ArrayLike, thresholds: ArrayLike) -> Vector:
    """Share of all lives x tasks entries strictly above each threshold, [M] -> [M].

    rliable's score distribution, the default of its profiles.
    """
    table, tau = as_scores(scores), np.atleast_1d(thresholds)
    return np.array([np.mean(table > t) for t in tau])


def mean_performance_profile(scores: ArrayLike, thresholds: ArrayLike) -> Vector:
    """Share of tasks whose mean over lives is strictly above each threshold, [M] -> [M].

    rliable's average score distribution; a life that failed is hidden by one that did well.
    """
    means, tau = as_scores(scores).mean(axis=0), np.atleast_1d(thresholds)
    return np.array([np.mean(means > t) for t in tau])


def stratified_percentile_interval(
    aggregate: Callable[..., float | Vector],
    rng: np.random.Generator,
    *scores: ArrayLike,
    resamples: int = 50_000,
    level: float = 0.95,
) -> Vector:
    """rliable's stratified bootstrap: percentile interval, lives drawn anew within each task.

    For comparison with papers only; `eval.statistics.summarise` is what to state. Resampling each
    task by itself treats the scores of one life as independent of each other. Where they are not,
    the interval is too narrow, however many lives there are. Measured for 95 % intervals on 1500
    synthetic sets of 8, 10 and 20 lives on 5 normally distributed tasks: covers 92 to 94 % of
    means and IQMs where tasks are uncorrelated, but 73 to 75 % of means and 77 to 80 % of IQMs
    where the scores of a life correlate by 0.4.

    Differs: rliable draws from numpy's global generator; here the same numbers cannot be drawn, so
    intervals agree up to what the resampling leaves to chance.

    Args:
      aggregate: of as many tables as there are in `scores`; returns a number or an array [...].
      rng: consumed.
      scores: tables [lives, tasks], each resampled by itself, as for
        `probability_of_improvement`.
    Returns:
      [2, ...], lower and upper ends.
    """
    tables = [as_scores(table) for table in scores]
    drawn = [
        aggregate(*(_drawn_within_tasks(table, rng) for table in tables)) for _ in range(resamples)
    ]
    outside = (1 - level) / 2
    ends: Vector = np.quantile(np.array(drawn), [outside, 1 - outside], axis=0)
    return ends


def _drawn_within_tasks(table: Matrix, rng: np.random.Generator) -> Matrix:
    return np.take_along_axis(table, rng.integers(len(table), size=table.shape), axis=0)
