"""What metrics are computed from, and what one says: a number with its definition beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from eval.matrix import Matrix, Vector

NOT_JUDGED = "not judged"
NOT_NORMALISED = "cannot be normalised"
NOT_LEARNED = "not learned: its own phase did not end above the random agent"
NOT_TRAINED = "not trained yet"
LAST = "trained last"
FIRST = "trained first: no phase came before"
ALONE_AFTER = "no phase of another task came after it"
NEVER_BACK = "not trained again after other tasks"
NOT_REPEATED = "trained in one phase only"
NO_REFERENCE = "no single-task reference"
WEAK_REFERENCE = "its single-task reference ends no better than the random agent"
NOTHING_INSIDE = "no evaluation inside its phase, or of its reference"
NOTHING_EARLY = "no evaluation in the first fifth of a later phase: see evaluate.inside_every"
NOTHING_LATE = (
    "no evaluation in the last fifth of a phase, its end aside: see evaluate.inside_every"
)
PERFECT_REFERENCE = "its single-task reference was perfect throughout"
LAST_ALONE = "trained last: 0 by construction, and nothing before it counts"


@dataclass(frozen=True)
class Alone:
    """An agent that lived one phase alone, from scratch: a reference for the life with many.

    Attributes:
      area: mean z over its evaluations; NaN where there was none inside its phase.
      end: z of the last one; NaN where that is not above the random agent.
    """

    area: float
    end: float


@dataclass(frozen=True)
class Judged:
    """What metrics are computed from; K phases that are over, N tasks.

    Attributes:
      z: [K+1, N], normalised returns at the end of each phase, row 0 before training; NaN where
        nothing was judged and all down the column of a task that cannot be normalised.
      trained: s(1) … s(K), index of the task that each phase trains.
      learned: per phase, whether its task ended it above the random agent; None: cannot be said,
        and the task counts.
      curves: [N], z of every evaluation of the life, also inside phases and after phase K, as
        (env_steps [M], z [M]) by time.
      not_normalised: task -> why it cannot be normalised.
      spans: (start, stop) of phases 1 … K in environment steps.
      references: task -> its reference, for tasks that have one.
    """

    z: Matrix
    trained: Sequence[int]
    learned: Sequence[bool | None]
    curves: Sequence[tuple[Vector, Vector]] = ()
    not_normalised: Mapping[int, str] = field(default_factory=dict)
    spans: Sequence[tuple[float, float]] = ()
    references: Mapping[int, Alone] = field(default_factory=dict)

    @property
    def last(self) -> int:
        """K"""
        return len(self.z) - 1

    @property
    def tasks(self) -> range:
        return range(self.z.shape[1])

    def phases_of(self, task: int) -> list[int]:
        return [phase for phase, which in enumerate(self.trained, start=1) if which == task]

    def taught(self, phase: int) -> bool:
        """Whether a phase counts as having taught its task."""
        return self.learned[phase - 1] is not False


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


def mean_of(values: Vector) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else math.nan


def mean_over_tasks(
    judged: Judged,
    name: str,
    values: Vector,
    left_out: Mapping[int, str],
    formula: str,
    source: str,
) -> Metric:
    """Mean over the tasks that are neither left out nor NaN; without any, NaN and the reasons."""
    reasons = dict(left_out)
    for task in judged.tasks:
        if math.isnan(values[task]) and task not in reasons:
            why = judged.not_normalised.get(task)
            reasons[task] = NOT_JUDGED if why is None else f"{NOT_NORMALISED}: {why}"
    counted = [task for task in judged.tasks if task not in reasons]
    reason = "" if counted else "no task counts: " + "; ".join(sorted(set(reasons.values())))
    return Metric(name, mean_of(values[counted]), formula, source, reason, reasons)
