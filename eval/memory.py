"""What the replay held over a life, and how skills outlived their rows in it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from eval.curves import Vector, half_life
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
      half_life: updates until half of the skill at 0 was gone; NaN where that was not seen.
    """

    task: str
    gone_at: int
    since: Vector
    z: Vector
    half_life: float = field(default=math.nan)


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


def survival(
    judged: Sequence[Evaluation], z: Vector, train: Sequence[TrainRecord], task: str
) -> Survival | None:
    """How a skill fares without its rows; None while some are held.

    Args:
      judged: evaluations of one policy on the task, by time.
      z: [M] their normalised means.
    """
    gone = gone_at(train, task)
    if gone is None:
        return None
    updates = np.array([e.updates for e in judged], np.float64)
    before = np.flatnonzero(updates <= gone)
    if not len(before):
        return None
    kept = np.flatnonzero(updates > gone)
    since = np.concatenate([[0.0], updates[kept] - gone])
    values = np.concatenate([z[before[-1:]], z[kept]])
    return Survival(task, gone, since, values, half_life(since, values))


def _mean(values: Sequence[float]) -> float:
    found = [v for v in values if not math.isnan(v)]
    return float(np.mean(found)) if found else math.nan
