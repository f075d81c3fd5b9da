"""What was kept and what was forgotten: pure functions of what a life was judged to be.

A metric is a function `Judged -> Metric` in `METRICS`; the report and summary.json show all of
them. Returns are normalised first, or the task with the largest ones would decide every mean. What
is undefined is NaN and says why; it is never 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from eval.curve_metrics import CURVE_METRICS
from eval.judged import (
    FIRST,
    LAST,
    LAST_ALONE,
    NOT_LEARNED,
    NOT_TRAINED,
    Judged,
    Metric,
    mean_of,
    mean_over_tasks,
)
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


def average_performance(judged: Judged) -> Metric:
    """A_K = (1/N) sum_i z[K, i]: all tasks, also those not yet trained.

    Source: Continual World (arXiv:2105.10919), which averages the last 5 evaluations; here it is
    the one evaluation at the end.
    """
    return mean_over_tasks(
        judged,
        "average performance",
        judged.z[-1],
        {},
        "A_K = mean over all tasks i of z[K,i]",
        "Continual World (Wołczyk et al. 2021); one evaluation instead of the last five",
    )


def average_performance_seen(judged: Judged) -> Metric:
    """A_K over the tasks that phases 1 … K trained.

    Source: Lopez-Paz & Ranzato (arXiv:1706.08840), whose average is over the tasks seen.
    """
    return mean_over_tasks(
        judged,
        "average performance, seen tasks",
        judged.z[-1],
        {task: NOT_TRAINED for task in judged.tasks if task not in judged.trained},
        "mean over tasks i trained in phases 1 … K of z[K,i]",
        "GEM (Lopez-Paz & Ranzato 2017)",
    )


def forgetting(judged: Judged) -> Metric:
    """F = mean_i (z[e(i), i] - z[K, i]), e(i) the last phase that trained task i.

    The task of phase K counts with its 0, as in the source, but not alone: F would be 0 whatever
    was forgotten. A task that was not learned has nothing to forget and is left out. Negative:
    tasks got better after their own phase.

    Source: Continual World (arXiv:2105.10919), whose two ends are means of 5 evaluations.
    """
    z, last = judged.z, judged.last
    lost = np.full(len(judged.tasks), np.nan)
    left_out: dict[int, str] = {}
    for task in judged.tasks:
        phases = judged.phases_of(task)
        if not phases:
            left_out[task] = NOT_TRAINED
        elif judged.learned[phases[-1] - 1] is False:
            left_out[task] = NOT_LEARNED
        else:
            lost[task] = z[phases[-1], task] - z[last, task]
    counted = np.flatnonzero(~np.isnan(lost)).tolist()
    if counted and counted == list(judged.trained[-1:]):
        left_out[counted[0]] = LAST_ALONE
    return mean_over_tasks(
        judged,
        "forgetting",
        lost,
        left_out,
        "F = mean over tasks i of z[e(i),i] − z[K,i]; e(i) = last phase that trained i",
        "Continual World (Wołczyk et al. 2021); the task trained last counts with its 0",
    )


def forgetting_from_best(judged: Judged) -> Metric:
    """F_K = mean_i (max_l z[l, i] - z[K, i]), l from i's first training on and l < K.

    Over tasks first trained before phase K. The maximum excludes row K, so that a task which is at
    its best in the end counts as negative. Tasks never learned are left out.

    Source: Chaudhry et al. 2018 (arXiv:1801.10112), Eq. for f_j^k.
    """
    z, last = judged.z, judged.last
    lost = np.full(len(judged.tasks), np.nan)
    left_out: dict[int, str] = {}
    for task in judged.tasks:
        phases = judged.phases_of(task)
        before_last = [phase for phase in phases if phase < last]
        if not before_last:
            left_out[task] = LAST if phases else NOT_TRAINED
        elif all(judged.learned[phase - 1] is False for phase in before_last):
            left_out[task] = NOT_LEARNED
        else:
            earlier = z[before_last[0] : last, task]
            earlier = earlier[~np.isnan(earlier)]
            if len(earlier):
                lost[task] = earlier.max() - z[last, task]
    return mean_over_tasks(
        judged,
        "forgetting from the best",
        lost,
        left_out,
        "F_K = mean over tasks i trained before K of max z[l,i] − z[K,i], first(i) ≤ l < K",
        "Chaudhry et al. 2018",
    )


def backward_transfer(judged: Judged) -> Metric:
    """BWT = mean_i (z[K, i] - z[f(i), i]), f(i) the first phase that trained i, over f(i) < K.

    Negative: forgotten. Includes tasks that were not learned: a later phase may have taught them.

    Source: GEM (arXiv:1706.08840), Eq. 3, generalised from tasks to phases.
    """
    z, last = judged.z, judged.last
    gained = np.full(len(judged.tasks), np.nan)
    left_out: dict[int, str] = {}
    for task in judged.tasks:
        phases = judged.phases_of(task)
        if not phases or phases[0] == last:
            left_out[task] = LAST if phases else NOT_TRAINED
        else:
            gained[task] = z[last, task] - z[phases[0], task]
    return mean_over_tasks(
        judged,
        "backward transfer",
        gained,
        left_out,
        "BWT = mean over tasks i with f(i) < K of z[K,i] − z[f(i),i]; f(i) = first phase of i",
        "GEM (Lopez-Paz & Ranzato 2017), Eq. 3",
    )


def forward_transfer(judged: Judged) -> Metric:
    """FWT = mean_i (z[f(i) - 1, i] - z[0, i]), f(i) the first phase that trained i, over f(i) > 1.

    What the phases before a task gave to it, before it was trained at all.

    Source: GEM (arXiv:1706.08840), Eq. 4, generalised from tasks to phases; b_i is row 0, the same
    agent before any training.
    """
    z = judged.z
    gained = np.full(len(judged.tasks), np.nan)
    left_out: dict[int, str] = {}
    for task in judged.tasks:
        phases = judged.phases_of(task)
        if not phases or phases[0] == 1:
            left_out[task] = FIRST if phases else NOT_TRAINED
        else:
            gained[task] = z[phases[0] - 1, task] - z[0, task]
    return mean_over_tasks(
        judged,
        "forward transfer, zero-shot",
        gained,
        left_out,
        "FWT = mean over tasks i with f(i) > 1 of z[f(i)−1,i] − z[0,i]; f(i) = first phase of i",
        "GEM (Lopez-Paz & Ranzato 2017), Eq. 4",
    )


METRICS: tuple[Callable[[Judged], Metric], ...] = (
    average_performance,
    average_performance_seen,
    forgetting,
    forgetting_from_best,
    backward_transfer,
    forward_transfer,
    *CURVE_METRICS,
)
