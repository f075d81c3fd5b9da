"""What the replay held over a life, and how skills outlived their rows in it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from eval.curves import Vector, half_life
from eval.judged import NOT_LEARNED
from eval.matrix import Evaluation
from eval.records import PhaseRecord, TrainRecord


@dataclass(frozen=True)
class PhaseMemory:
    """The replay in one phase that is over.

    Attributes:
      shares: task -> share of the rows held at the end of the phase.
      sampled: task -> share of the rows trained on during it.
      age: mean age of the rows trained on, in rows lived since.
      latent_age: mean updates since the latents that sequences began with were written.
    """

    phase: int
    shares: Mapping[str, float]
    sampled: Mapping[str, float]
    age: float
    latent_age: float


@dataclass(frozen=True)
class Survival:
    """A task whose rows have all left the replay, and what became of its skill.

    Attributes:
      gone_at: updates at the first record in which no row of it was held any more.
      since: [M] updates from then on of each evaluation; the first is the last one before, at 0.
      z: [M], normalised return there.
      half_life: updates until half of the skill at 0 was gone; NaN with a reason.
    """

    task: str
    gone_at: int
    since: Vector
    z: Vector
    half_life: float
    reason: str = ""


def memories(phases: Sequence[PhaseRecord], train: Sequence[TrainRecord]) -> list[PhaseMemory]:
    """One a phase that is over."""
    found = []
    for record in phases:
        own = [r for r in train if r.phase == record.phase]
        sampled: dict[str, float] = {}
        for r in own:
            for task, rows in r.sampled_rows.items():
                sampled[task] = sampled.get(task, 0) + rows
        total = sum(sampled.values())
        found.append(
            PhaseMemory(
                record.phase,
                record.replay_shares,
                {task: rows / total for task, rows in sampled.items()} if total else {},
                _mean([r.sampled_age for r in own]),
                _mean([r.sampled_latent_age for r in own]),
            )
        )
    return found


def gone_at(train: Sequence[TrainRecord], task: str) -> int | None:
    """Updates at the first record of the time, up to the end, in which no row of a task is held.

    None where some still are, or none ever were.
    """
    holds = [r.held_rows.get(task, 0) > 0 for r in train]
    if not any(holds) or holds[-1]:
        return None
    last = max(i for i, held in enumerate(holds) if held)
    return train[last + 1].updates


def survival_curve(updates: ArrayLike, z: ArrayLike, gone: float) -> tuple[Vector, Vector]:
    """Performance of a task against updates since its last row left the replay.

    `eval.curves.half_life` of it is how long the skill outlives its rows by half.

    Source: ours.

    Args:
      updates: [M] of the life at each evaluation of the task, ascending.
      z: [M] normalised return there.
      gone: updates at which no row was held any more.
    Returns:
      (since, z): the last evaluation until then, at 0, and those after it; empty without one.
    """
    at, values = np.asarray(updates, np.float64), np.asarray(z, np.float64)
    before = np.flatnonzero(at <= gone)
    if not len(before):
        return at[:0], values[:0]
    kept = slice(before[-1], None)
    return np.maximum(at[kept] - gone, 0.0), values[kept]


def survival(
    judged: Sequence[Evaluation], z: Vector, train: Sequence[TrainRecord], task: str, taught: bool
) -> Survival | None:
    """How a skill fares without its rows; None while some are held, or where nothing was judged.

    Args:
      judged: evaluations of one policy on the task, by time.
      z: [M] their normalised means.
      taught: whether some phase taught the task, so that there was a skill.
    """
    gone = gone_at(train, task)
    if gone is None:
        return None
    since, values = survival_curve([e.updates for e in judged], z, gone)
    if not len(since):
        return None
    halved = half_life(since, values) if taught else math.nan
    reason = ""
    if not taught:
        reason = NOT_LEARNED
    elif not values[0] > 0:
        reason = "no better than the random agent when its rows were gone"
    elif math.isnan(halved):
        reason = "more than half of it is still there"
    return Survival(task, gone, since, values, halved, reason)


def _mean(values: Sequence[float]) -> float:
    found = [v for v in values if not math.isnan(v)]
    return float(np.mean(found)) if found else math.nan
