"""What was kept and what was forgotten: pure functions of what a life was judged to be.

Who has a matrix, and no run of this testbed, wants `eval.matrix_metrics`, whose functions take
arrays and have these names; curves likewise go to `eval.curves`.

A metric is a function `Judged -> Metric` in `METRICS`; the report and summary.json show all of
them. Returns are normalised first, or the task with the largest ones would decide every mean. What
is undefined is NaN and says why; it is never 0. The numbers themselves are computed by
`eval.matrix_metrics`; here is said of which tasks they are, and what they mean.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np

from eval import matrix_metrics
from eval.curve_metrics import CURVE_METRICS
from eval.judged import (
    FIRST,
    LAST,
    LAST_ALONE,
    NEVER_BACK,
    NO_REFERENCE,
    NOT_LEARNED,
    NOT_TRAINED,
    WEAK_REFERENCE,
    Judged,
    Metric,
    mean_over_tasks,
)

CAME_BACK = "forgetting, when a task came back"


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


def average_performance_of_experts(judged: Judged) -> Metric:
    """A_K with a single-task run of the same agent in the place of the highest return.

    Source: the normalised score of D4RL (arXiv:2004.07219), of an expert that is the same agent.
    """
    share = np.full(len(judged.tasks), np.nan)
    left_out: dict[int, str] = {}
    for task in judged.tasks:
        if task not in judged.references:
            left_out[task] = NO_REFERENCE if task in judged.trained else NOT_TRAINED
        elif task in judged.not_normalised:
            continue
        elif math.isnan(end := judged.references[task].end):
            left_out[task] = WEAK_REFERENCE
        else:
            share[task] = judged.z[-1, task] / end
    return mean_over_tasks(
        judged,
        "average performance, of single-task",
        share,
        left_out,
        "mean over tasks i of (R[K,i] − random_i) / (alone_i − random_i); alone_i = return of an "
        "agent that lived i's first phase alone, at its end",
        "D4RL (Fu et al. 2020), the expert being a single-task run of the same agent and budget",
    )


def forgetting(judged: Judged) -> Metric:
    """Mean of `matrix_metrics.forgetting_after_training`, over phases that taught their task.

    Phase K counts with its 0, as in the source, but not alone: F would be 0 whatever was forgotten.
    A task that was not learned has nothing to forget and is left out.
    """
    taught = _taught(judged)
    lost = matrix_metrics.forgetting_after_training(judged.z, judged.trained, taught)
    left_out = _untaught(judged)
    if taught:
        ends = matrix_metrics.drops(judged.z, judged.trained)[:-1, -1]
        if np.isnan(ends[taught[:-1]]).all() and not math.isnan(lost[judged.trained[-1]]):
            left_out[judged.trained[-1]] = LAST_ALONE
    return mean_over_tasks(
        judged,
        "forgetting",
        lost,
        left_out,
        "F = mean over tasks i, and over the phases l that taught i, of z[l,i] − z[K,i]",
        "Continual World (Wołczyk et al. 2021), repeats as in its CW20; phase K counts with its 0",
    )


def forgetting_before_return(judged: Judged) -> Metric:
    """Mean of `matrix_metrics.forgetting_before_return`, over phases that taught their task."""
    left_out = _untaught(judged)
    for task in judged.tasks:
        phases = judged.phases_of(task)
        apart = [b - a > 1 for a, b in itertools.pairwise(phases) if judged.taught(a)]
        if task not in left_out and not any(apart):
            left_out[task] = NEVER_BACK
    return mean_over_tasks(
        judged,
        CAME_BACK,
        matrix_metrics.forgetting_before_return(judged.z, judged.trained, _taught(judged)),
        left_out,
        "mean over tasks i, and over the phases l that taught i, after which come other tasks and "
        "then i again in n(l), of z[l,i] − z[n(l)−1,i]",
        "ours: the loss that training i again makes good, so that F no longer shows it",
    )


def forgetting_from_best(judged: Judged) -> Metric:
    """Mean of `matrix_metrics.forgetting_from_best` over tasks that some phase before K learned."""
    left_out: dict[int, str] = {}
    for task in judged.tasks:
        phases = judged.phases_of(task)
        before_last = [phase for phase in phases if phase < judged.last]
        if not before_last:
            left_out[task] = LAST if phases else NOT_TRAINED
        elif all(judged.learned[phase - 1] is False for phase in before_last):
            left_out[task] = NOT_LEARNED
    return mean_over_tasks(
        judged,
        "forgetting from the best",
        matrix_metrics.forgetting_from_best(judged.z, judged.trained),
        left_out,
        "F_K = mean over tasks i trained before K of max z[l,i] − z[K,i], first(i) ≤ l < K",
        "Chaudhry et al. 2018",
    )


def backward_transfer(judged: Judged) -> Metric:
    """Mean of `matrix_metrics.backward_transfer`.

    Includes tasks that were not learned: a later phase may have taught them.
    """
    return mean_over_tasks(
        judged,
        "backward transfer",
        matrix_metrics.backward_transfer(judged.z, judged.trained),
        _without_first_phase_in(judged, range(1, judged.last), LAST),
        "BWT = mean over tasks i with f(i) < K of z[K,i] − z[f(i),i]; f(i) = first phase of i",
        "GEM (Lopez-Paz & Ranzato 2017), Eq. 3",
    )


def forward_transfer(judged: Judged) -> Metric:
    """Mean of `matrix_metrics.forward_transfer`."""
    return mean_over_tasks(
        judged,
        "forward transfer, zero-shot",
        matrix_metrics.forward_transfer(judged.z, judged.trained),
        _without_first_phase_in(judged, range(2, judged.last + 1), FIRST),
        "FWT = mean over tasks i with f(i) > 1 of z[f(i)−1,i] − z[0,i]; f(i) = first phase of i",
        "GEM (Lopez-Paz & Ranzato 2017), Eq. 4",
    )


METRICS: tuple[Callable[[Judged], Metric], ...] = (
    average_performance,
    average_performance_seen,
    average_performance_of_experts,
    forgetting,
    forgetting_before_return,
    forgetting_from_best,
    backward_transfer,
    forward_transfer,
    *CURVE_METRICS,
)


def _taught(judged: Judged) -> list[bool]:
    """Per phase."""
    return [judged.taught(phase) for phase in range(1, judged.last + 1)]


def _untaught(judged: Judged) -> dict[int, str]:
    """task -> why it has nothing to forget."""
    why: dict[int, str] = {}
    for task in judged.tasks:
        phases = judged.phases_of(task)
        if not any(map(judged.taught, phases)):
            why[task] = NOT_LEARNED if phases else NOT_TRAINED
    return why


def _without_first_phase_in(judged: Judged, phases: range, why: str) -> dict[int, str]:
    """task -> why it does not count: it was not trained, or for the first time in another phase."""
    first = {task: judged.phases_of(task)[:1] for task in judged.tasks}
    return {
        task: why if trained else NOT_TRAINED
        for task, trained in first.items()
        if not trained or trained[0] not in phases
    }
