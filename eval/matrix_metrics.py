"""Numbers of a forgetting matrix: pure functions of arrays, for anybody's matrix.

R is [K+1, N], K phases and N tasks: R[k, i] is what task i returned at the end of phase k, row 0
before any training; NaN where nothing was judged. `trained` is s(1) … s(K), the index of the task
that each phase trained. What each function gives is per task, [N], NaN where it is undefined (and
where R is): a mean over tasks is `np.nanmean`, and which tasks were learned well enough to count is
the caller's to say (`eval.metrics` does). A tool's matrix without a row 0 gets one of NaN.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eval.judged import mean_of
from eval.matrix import Matrix, Vector


def average_performance_curve(R: Matrix) -> Vector:
    """A_k = mean_i R[k, i] over all tasks that were judged, [K+1]."""
    return np.array([mean_of(row) for row in R])


def average_seen_curve(R: Matrix, trained: Sequence[int]) -> Vector:
    """Mean over the tasks trained in phases 1 … k, [K+1]; NaN before training."""
    return np.array([mean_of(R[k, sorted(set(trained[:k]))]) for k in range(len(R))])


def drops(R: Matrix, trained: Sequence[int]) -> Matrix:
    """What each phase's task has lost by the end of each later phase, [K, K+1].

    D[l-1, k] = R[l, s(l)] - R[k, s(l)] for k >= l, NaN for k < l. Negative: it got better. With a
    task trained in several phases each of them has its own row, which is how repeats are compared.
    """
    last = len(R) - 1
    lost = np.full((last, last + 1), np.nan)
    for phase, task in enumerate(trained[:last], start=1):
        lost[phase - 1, phase:] = R[phase, task] - R[phase:, task]
    return lost


def forgetting_after_training(R: Matrix, trained: Sequence[int]) -> Vector:
    """F_i = R[e(i), i] - R[K, i], e(i) the last phase that trained task i, [N].

    0 by construction for the task of phase K, which the source counts; NaN for a task that no phase
    trained. Negative: it got better after its own phase.

    Source: Continual World (arXiv:2105.10919), whose two ends are means of 5 evaluations
    (`eval.curves.end_performance`). With one phase a task Mammoth's backward transfer is its
    negative, over i < K.
    """
    last, lost = len(R) - 1, _undefined(R)
    for phase, task in enumerate(trained[:last], start=1):
        lost[task] = R[phase, task] - R[last, task]
    return lost


def forgetting_from_best(R: Matrix, trained: Sequence[int]) -> Vector:
    """f_i = max_l R[l, i] - R[K, i], l from i's first training on and l < K, [N].

    NaN for a task that no phase before K trained. The maximum excludes row K, so that a task which
    is at its best in the end is negative.

    Source: Chaudhry et al. 2018 (arXiv:1801.10112), Eq. for f_j^k. Mammoth's takes the maximum over
    all rows, K and those before training included, so that it is never below 0.
    """
    last, lost = len(R) - 1, _undefined(R)
    for task, phase in _first_phases(trained, last - 1).items():
        earlier = R[phase:last, task]
        earlier = earlier[~np.isnan(earlier)]
        if len(earlier):
            lost[task] = earlier.max() - R[last, task]
    return lost


def backward_transfer(R: Matrix, trained: Sequence[int]) -> Vector:
    """BWT_i = R[K, i] - R[f(i), i], f(i) the first phase that trained task i, over f(i) < K, [N].

    NaN for the others. Negative: forgotten.

    Source: GEM (arXiv:1706.08840), Eq. 3, generalised from tasks to phases; Mammoth has the same.
    """
    last, gained = len(R) - 1, _undefined(R)
    for task, phase in _first_phases(trained, last - 1).items():
        gained[task] = R[last, task] - R[phase, task]
    return gained


def forward_transfer(R: Matrix, trained: Sequence[int]) -> Vector:
    """FWT_i = R[f(i) - 1, i] - R[0, i], f(i) the first phase that trained task i, f(i) > 1, [N].

    What the phases before a task gave to it, before it was trained at all. NaN for the others.

    Source: GEM (arXiv:1706.08840), Eq. 4, generalised from tasks to phases; b_i is row 0, the same
    agent before any training. Mammoth has the same.
    """
    gained = _undefined(R)
    for task, phase in _first_phases(trained, len(R) - 1).items():
        if phase > 1:
            gained[task] = R[phase - 1, task] - R[0, task]
    return gained


def _first_phases(trained: Sequence[int], until: int) -> dict[int, int]:
    """task -> number of the first phase that trained it, of phases 1 … `until`."""
    first: dict[int, int] = {}
    for phase, task in enumerate(trained, start=1):
        if phase <= until:
            first.setdefault(task, phase)
    return first


def _undefined(R: Matrix) -> Vector:
    return np.full(R.shape[1], np.nan)
