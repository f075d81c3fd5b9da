"""Numbers of a forgetting matrix: pure functions of arrays, for anybody's matrix.

R is [K+1, N], K phases and N tasks: R[k, i] is what task i returned at the end of phase k, row 0
before any training; NaN where nothing was judged. `trained` is s(1) … s(K), the index of the task
that each phase trained. What each function gives is per task, [N], NaN where it is undefined (and
where R is): a mean over tasks is `np.nanmean`, and which tasks were learned well enough to count is
the caller's to say (`eval.metrics` does).

A tool's matrix without a row 0 gets one of NaN, as in `np.vstack([np.full(N, np.nan), R])`; one
that does not fit `trained` is refused (ValueError).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from eval.judged import mean_of
from eval.matrix import Matrix, Vector


def average_performance_curve(R: ArrayLike) -> Vector:
    """A_k = mean_i R[k, i] over all tasks that were judged, [K+1]."""
    return np.array([mean_of(row) for row in np.asarray(R, np.float64)])


def average_seen_curve(R: ArrayLike, trained: Sequence[int]) -> Vector:
    """Mean over the tasks trained in phases 1 … k, [K+1]; NaN before training."""
    R = _checked(R, trained)
    return np.array([mean_of(R[k, sorted(set(trained[:k]))]) for k in range(len(R))])


def drops(R: ArrayLike, trained: Sequence[int]) -> Matrix:
    """What each phase's task has lost by the end of each later phase, [K, K+1].

    D[l-1, k] = R[l, s(l)] - R[k, s(l)] for k >= l, NaN for k < l. Negative: it got better. With a
    task trained in several phases each of them has its own row, which is how repeats are compared.
    """
    R = _checked(R, trained)
    last = len(R) - 1
    lost = np.full((last, last + 1), np.nan)
    for phase, task in enumerate(trained, start=1):
        lost[phase - 1, phase:] = R[phase, task] - R[phase:, task]
    return lost


def forgetting_after_training(
    R: ArrayLike, trained: Sequence[int], counts: Sequence[bool] | None = None
) -> Vector:
    """F_i = mean over the phases l that trained task i of R[l, i] - R[K, i], [N].

    With one phase a task it is Continual World's: end of own training minus the end of all. With
    repeats it is CW20's, where each of a task's two trainings has its own column. Phase K's 0 is
    one of the numbers, as in the source; NaN for a task that no phase trained. Negative: it got
    better after its own phases.

    Source: Continual World (arXiv:2105.10919), whose two ends are means of 5 evaluations
    (`eval.curves.end_performance`). With one phase a task Mammoth's backward transfer is its
    negative, over i < K.

    Args:
      counts: which of the K phases to take, such as those that taught their task; None: all.
    """
    R = _checked(R, trained)
    return _mean_by_task(drops(R, trained)[:, -1], trained, counts, R.shape[1])


def forgetting_before_return(
    R: ArrayLike, trained: Sequence[int], counts: Sequence[bool] | None = None
) -> Vector:
    """What a task had lost when it was trained again, [N].

        B_i = mean over its phases l of R[l, i] - R[n(l) - 1, i],   n(l) > l + 1

    n(l) being the next phase that trains task i. In a life in which a task comes back at the end
    the losses of `forgetting_after_training` have been made good by then; this one still shows
    them. NaN for a task that never comes back after other tasks.

    Source: ours; each number is one of `drops`, the table of (phase, later phase).

    Args:
      counts: as for `forgetting_after_training`.
    """
    R = _checked(R, trained)
    lost, table = np.full(len(trained), np.nan), drops(R, trained)
    for phase, task in enumerate(trained, start=1):
        again = [k for k in range(phase + 1, len(trained) + 1) if trained[k - 1] == task]
        if again and again[0] > phase + 1:
            lost[phase - 1] = table[phase - 1, again[0] - 1]
    return _mean_by_task(lost, trained, counts, R.shape[1])


def forgetting_from_best(R: ArrayLike, trained: Sequence[int]) -> Vector:
    """f_i = max_l R[l, i] - R[K, i], l from i's first training on and l < K, [N].

    NaN for a task that no phase before K trained. The maximum excludes row K, so that a task which
    is at its best in the end is negative.

    Source: Chaudhry et al. 2018 (arXiv:1801.10112), Eq. for f_j^k. Mammoth's is another number:
    `mammoth_forgetting`.
    """
    R = _checked(R, trained)
    last, lost = len(R) - 1, _undefined(R)
    for task, phase in _first_phases(trained, last - 1).items():
        earlier = R[phase:last, task]
        earlier = earlier[~np.isnan(earlier)]
        if len(earlier):
            lost[task] = earlier.max() - R[last, task]
    return lost


def mammoth_forgetting(results: Sequence[Sequence[float]]) -> Vector:
    """max_k results[k, i] - results[K, i] over the first K - 1 tasks, [K-1]; never below 0.

    Two things of it surprise: the last row takes part in the maximum, and so do the zeros with
    which rows of seen tasks alone are filled up, which matters where returns are negative.

    Source: `forgetting` of Mammoth (aimagelab/mammoth, utils/metrics.py), which gives the mean.

    Args:
      results: one row a phase, the k-th with the k tasks seen so far or with all of them, be they
        K or more; no row 0.
    """
    phases = len(results)
    full = np.array([[*row, *[0.0] * (phases - len(row))] for row in results], np.float64)
    lost: Vector = full.max(axis=0) - full[-1]
    return lost[: phases - 1]


def backward_transfer(R: ArrayLike, trained: Sequence[int]) -> Vector:
    """BWT_i = R[K, i] - R[f(i), i], f(i) the first phase that trained task i, over f(i) < K, [N].

    NaN for the others. Negative: forgotten.

    Source: GEM (arXiv:1706.08840), Eq. 3, generalised from tasks to phases; Mammoth has the same.
    """
    R = _checked(R, trained)
    last, gained = len(R) - 1, _undefined(R)
    for task, phase in _first_phases(trained, last - 1).items():
        gained[task] = R[last, task] - R[phase, task]
    return gained


def forward_transfer(R: ArrayLike, trained: Sequence[int]) -> Vector:
    """FWT_i = R[f(i) - 1, i] - R[0, i], f(i) the first phase that trained task i, f(i) > 1, [N].

    What the phases before a task gave to it, before it was trained at all. NaN for the others.

    Source: GEM (arXiv:1706.08840), Eq. 4, generalised from tasks to phases; b_i is row 0, the same
    agent before any training. Mammoth has the same.
    """
    R = _checked(R, trained)
    gained = _undefined(R)
    for task, phase in _first_phases(trained, len(R) - 1).items():
        if phase > 1:
            gained[task] = R[phase - 1, task] - R[0, task]
    return gained


def _mean_by_task(
    by_phase: Vector, trained: Sequence[int], counts: Sequence[bool] | None, tasks: int
) -> Vector:
    """[K] -> [N]: mean over each task's phases that count; NaN without any."""
    if counts is not None and len(counts) != len(trained):
        raise ValueError(f"{len(counts)} counts and {len(trained)} phases, expected as many")
    kept = by_phase if counts is None else np.where(counts, by_phase, np.nan)
    mine = np.asarray(trained, np.intp)
    return np.array([mean_of(kept[mine == task]) for task in range(tasks)], np.float64)


def _first_phases(trained: Sequence[int], until: int) -> dict[int, int]:
    """task -> number of the first phase that trained it, of phases 1 … `until`."""
    first: dict[int, int] = {}
    for phase, task in enumerate(trained, start=1):
        if phase <= until:
            first.setdefault(task, phase)
    return first


def _checked(R: ArrayLike, trained: Sequence[int]) -> Matrix:
    matrix = np.asarray(R, np.float64)
    if matrix.ndim != 2 or len(matrix) != len(trained) + 1:
        raise ValueError(
            f"R {matrix.shape} and {len(trained)} phases, expected [{len(trained) + 1}, N]: a row "
            "before training, of NaN where nothing was judged, and one a phase"
        )
    if any(not 0 <= task < matrix.shape[1] for task in trained):
        raise ValueError(f"trained {list(trained)}, expected tasks 0 to {matrix.shape[1] - 1}")
    return matrix


def _undefined(R: Matrix) -> Vector:
    return np.full(R.shape[1], np.nan)
