"""How much a life acts and learns: functions of config and clock, so nothing about it is stored."""

from __future__ import annotations

import math
from collections.abc import Iterable

from continual.config import DEFAULT, CollectConfig
from continual.envs.registry import most_specific
from continual.errors import UserError
from continual.replay_config import ReplayConfig
from continual.scheduler import Clock
from curricula.loader import PlannedPhase


def repeat_of(task: str, collect: CollectConfig) -> int:
    """Control steps per decision."""
    return most_specific(collect.repeat, task, 1)


def decisions_in(phase: PlannedPhase, collect: CollectConfig) -> int:
    """Decisions that each of the N worlds takes in a phase, at the least."""
    return -(-phase.steps // (repeat_of(phase.task, collect) * collect.worlds))


def train_ratio_of(task: str, collect: CollectConfig) -> float:
    """Rows replayed per row lived in a phase of a task. An update replays B * T of them."""
    return most_specific(collect.train_ratio, task, collect.train_ratio[DEFAULT])


def updates_due(clock: Clock, task: str, collect: CollectConfig, replay: ReplayConfig) -> int:
    """Updates that should have happened by now in a life, which is in a phase of `task`.

    What a phase leaves over, less than an update, is not carried into the next.
    """
    _, rows_before, updates_before = clock.phase_start
    lived = max(0, clock.agent_steps - max(collect.start, rows_before))
    ratio = train_ratio_of(task, collect)
    return updates_before + int(lived * ratio / (replay.batch * replay.length))


def rows_before_update(
    number: int, clock: Clock, task: str, collect: CollectConfig, replay: ReplayConfig
) -> int:
    """Rows that will come in a phase of `task`, in whole decisions of all worlds, before update
    `number` is due.

    Args:
      number: of the update, counted from 0.
    """
    ratio = train_ratio_of(task, collect)
    if ratio == 0:
        return 0
    _, rows_before, updates_before = clock.phase_start
    lived = math.ceil((number + 1 - updates_before) * replay.batch * replay.length / ratio)
    missing = max(0, max(collect.start, rows_before) + lived - clock.agent_steps)
    return -(-missing // collect.worlds) * collect.worlds


def refuse_short_phases(
    plan: Iterable[PlannedPhase], collect: CollectConfig, replay: ReplayConfig
) -> None:
    """See that every phase leaves a sequence behind, which `Config` counts on.

    Raises:
      UserError: one does not, and there is to be learning.
    """
    phases, needed = list(plan), replay.drawn + 1
    learns = any(train_ratio_of(phase.task, collect) for phase in phases)
    for phase in phases if learns else ():
        decisions = decisions_in(phase, collect)
        if decisions < needed:
            raise UserError(
                f"phase {phase.number} ({phase.task}): {phase.steps} steps are {decisions} "
                f"decisions a world, expected {needed}, a sequence and its context, or more; "
                "give it more steps, or less replay.length, collect.repeat or collect.worlds"
            )
