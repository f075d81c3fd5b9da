"""What was kept and what was forgotten: pure functions on the matrix R of `eval.matrix`.

R is [K+1, N]; row k is the end of phase k, row 0 before training. `trained[k-1]` is s(k), the index
of the task that phase k trains. Normalise R first, or the task with the largest returns decides
every mean. What is undefined is NaN and says why; it is never 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from eval.matrix import Matrix, Vector

NOT_JUDGED = "not judged"
NOT_LEARNED = "not learned: its own phase did not end above the random agent"
NOT_TRAINED = "not trained yet"
LAST_ALONE = "trained last: 0 by construction, and no other task counts"


@dataclass(frozen=True)
class Metric:
    """One number with its definition beside it.

    Attributes:
      value: NaN where undefined.
      formula: in plain text, z being the normalised matrix.
      source: who defined it, and what differs here.
      reason: why `value` is NaN; empty otherwise.
      left_out: task index -> why it is not in the mean.
    """

    name: str
    value: float
    formula: str
    source: str
    reason: str = ""
    left_out: Mapping[int, str] = field(default_factory=dict)


def average_performance_curve(R: Matrix) -> Vector:
    """A_k = mean_i R[k, i] over all tasks that were judged, [K+1]."""
    return np.array([_mean(row) for row in R])


def average_seen_curve(R: Matrix, trained: Sequence[int]) -> Vector:
    """Mean over the tasks trained in phases 1 … k, [K+1]; NaN before training."""
    return np.array([_mean(R[k, sorted(set(trained[:k]))]) for k in range(len(R))])


def average_performance(R: Matrix) -> Metric:
    """A_K = (1/N) sum_i R[K, i]: all tasks, also those not yet trained.

    Source: Continual World (arXiv:2105.10919), which averages the last 5 evaluations; here it is
    the one evaluation at the end.
    """
    return _metric(
        "average performance",
        R[-1],
        {},
        "A_K = mean over all tasks i of z[K, i]",
        "Continual World (Wołczyk et al. 2021); one evaluation instead of the last five",
    )


def average_performance_seen(R: Matrix, trained: Sequence[int]) -> Metric:
    """A_K over the tasks that phases 1 … K trained.

    Source: Lopez-Paz & Ranzato (arXiv:1706.08840), whose average is over the tasks seen.
    """
    unseen = {i: NOT_TRAINED for i in range(R.shape[1]) if i not in trained[: len(R) - 1]}
    return _metric(
        "average performance, seen tasks",
        R[-1],
        unseen,
        "mean over tasks i trained in phases 1 … K of z[K, i]",
        "GEM (Lopez-Paz & Ranzato 2017)",
    )


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


def forgetting(R: Matrix, trained: Sequence[int], learned: Sequence[bool | None]) -> Metric:
    """F = mean_i (R[e(i), i] - R[K, i]), e(i) the last phase that trained task i.

    The task of phase K counts with its 0, as in the source, but not alone: F would be 0 whatever
    was forgotten. A task that was not learned has nothing to forget and is left out. Negative:
    tasks got better after their own phase.

    Source: Continual World (arXiv:2105.10919), whose two ends are means of 5 evaluations.

    Args:
      R: [K+1, N].
      trained: s(1) … s(K).
      learned: per phase, whether its task ended it above the random agent; None: cannot be said,
        and the task counts.
    """
    lost, left_out = _own_phase_losses(R, trained, learned)
    newest = trained[len(R) - 2] if len(R) > 1 else None
    if all(task in left_out or task == newest for task in range(R.shape[1])):
        left_out = {**left_out, **({} if newest is None else {newest: LAST_ALONE})}
    return _metric(
        "forgetting",
        lost,
        left_out,
        "F = mean over tasks i of z[e(i), i] - z[K, i]; e(i) = last phase that trained i",
        "Continual World (Wołczyk et al. 2021); the task trained last counts with its 0",
    )


def forgetting_from_best(
    R: Matrix, trained: Sequence[int], learned: Sequence[bool | None]
) -> Metric:
    """F_K = mean_i (max_l R[l, i] - R[K, i]), l from i's first training on and l < K.

    Over tasks first trained before phase K. The maximum excludes row K, so that a task which is at
    its best in the end counts as negative. Tasks never learned are left out.

    Source: Chaudhry et al. 2018 (arXiv:1801.10112), Eq. for f_j^k.
    """
    last = len(R) - 1
    lost = np.full(R.shape[1], np.nan)
    left_out: dict[int, str] = {}
    for task in range(R.shape[1]):
        phases = _phases_of(task, trained[:last])
        before_last = [phase for phase in phases if phase < last]
        if not before_last:
            left_out[task] = "trained last" if phases else NOT_TRAINED
        elif all(learned[phase - 1] is False for phase in before_last):
            left_out[task] = NOT_LEARNED
        else:
            judged = R[before_last[0] : last, task]
            judged = judged[~np.isnan(judged)]
            if len(judged):
                lost[task] = judged.max() - R[last, task]
    return _metric(
        "forgetting from the best",
        lost,
        left_out,
        "F_K = mean over tasks i trained before K of max z[l, i] - z[K, i], first(i) ≤ l < K",
        "Chaudhry et al. 2018",
    )


def backward_transfer(R: Matrix, trained: Sequence[int]) -> Metric:
    """BWT = mean_i (R[K, i] - R[f(i), i]), f(i) the first phase that trained i, over f(i) < K.

    Negative: forgotten. Includes tasks that were not learned: a later phase may have taught them.

    Source: GEM (arXiv:1706.08840), Eq. 3, generalised from tasks to phases.
    """
    last = len(R) - 1
    gained = np.full(R.shape[1], np.nan)
    left_out: dict[int, str] = {}
    for task in range(R.shape[1]):
        phases = _phases_of(task, trained[:last])
        if not phases or phases[0] == last:
            left_out[task] = "trained last" if phases else NOT_TRAINED
        else:
            gained[task] = R[last, task] - R[phases[0], task]
    return _metric(
        "backward transfer",
        gained,
        left_out,
        "BWT = mean over tasks i with f(i) < K of z[K, i] - z[f(i), i]; f(i) = first phase of i",
        "GEM (Lopez-Paz & Ranzato 2017), Eq. 3",
    )


def _own_phase_losses(
    R: Matrix, trained: Sequence[int], learned: Sequence[bool | None]
) -> tuple[Vector, dict[int, str]]:
    last = len(R) - 1
    lost = np.full(R.shape[1], np.nan)
    left_out: dict[int, str] = {}
    for task in range(R.shape[1]):
        phases = _phases_of(task, trained[:last])
        if not phases:
            left_out[task] = NOT_TRAINED
        elif learned[phases[-1] - 1] is False:
            left_out[task] = NOT_LEARNED
        else:
            lost[task] = R[phases[-1], task] - R[last, task]
    return lost, left_out


def _phases_of(task: int, trained: Sequence[int]) -> list[int]:
    return [phase for phase, which in enumerate(trained, start=1) if which == task]


def _mean(values: Vector) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else math.nan


def _metric(
    name: str, values: Vector, left_out: Mapping[int, str], formula: str, source: str
) -> Metric:
    """Mean over the tasks that are neither left out nor NaN; without any, NaN and the reasons."""
    reasons = dict(left_out)
    for task, value in enumerate(values):
        if math.isnan(value):
            reasons.setdefault(task, NOT_JUDGED)
    kept = np.array([v for task, v in enumerate(values) if task not in reasons], np.float64)
    reason = "" if len(kept) else "no task counts: " + "; ".join(sorted(set(reasons.values())))
    return Metric(name, _mean(kept), formula, source, reason, reasons)
