"""How much a life acts and learns: functions of config and clock, so nothing about it is stored."""

from __future__ import annotations

import math
from collections.abc import Iterable

from continual.config import CollectConfig
from continual.envs.registry import most_specific
from continual.errors import UserError
from continual.replay_config import ReplayConfig
from curricula.loader import PlannedPhase


def repeat_of(task: str, collect: CollectConfig) -> int:
    """Control steps per decision."""
    return most_specific(collect.repeat, task, 1)


def decisions_in(phase: PlannedPhase, collect: CollectConfig) -> int:
    """Decisions that each of the N worlds takes in a phase, at the least."""
    return -(-phase.steps // (repeat_of(phase.task, collect) * collect.worlds))


def updates_due(agent_steps: int, collect: CollectConfig, replay: ReplayConfig) -> int:
    """Updates that should have happened after `agent_steps` rows.

    train_ratio counts replayed rows per row lived, and an update replays B * T of them.
    """
    lived = max(0, agent_steps - collect.start)
    return int(lived * collect.train_ratio / (replay.batch * replay.length))


def rows_before_update(
    number: int, agent_steps: int, collect: CollectConfig, replay: ReplayConfig
) -> int:
    """Rows that will come, in whole decisions of all worlds, before update `number` is due.

    Args:
      number: of the update, counted from 0.
    """
    if collect.train_ratio == 0:
        return 0
    lived = math.ceil((number + 1) * replay.batch * replay.length / collect.train_ratio)
    missing = max(0, collect.start + lived - agent_steps)
    return -(-missing // collect.worlds) * collect.worlds


def refuse_short_phases(
    plan: Iterable[PlannedPhase], collect: CollectConfig, replay: ReplayConfig
) -> None:
    """See that every phase leaves a sequence behind, which `Config` counts on.

    Raises:
      UserError: one does not, and there is to be learning.
    """
    needed = replay.drawn + 1
    for phase in plan if collect.train_ratio > 0 else ():
        decisions = decisions_in(phase, collect)
        if decisions < needed:
            raise UserError(
                f"phase {phase.number} ({phase.task}): {phase.steps} steps are {decisions} "
                f"decisions a world, expected {needed}, a sequence and its context, or more; "
                "give it more steps, or less replay.length, collect.repeat or collect.worlds"
            )
