"""What a life does next: a pure function of curriculum, clock and what was judged and saved."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from continual.config import EvaluateConfig
from curricula.loader import NamedCurriculum, PlannedPhase


@dataclass(frozen=True)
class Clock:
    """Where a life stands.

    Attributes:
      env_steps: control steps simulated in training.
      agent_steps: replay rows: decisions, and ends of episodes.
      updates: of DreamerV3.
      phase: counts from 1; one past the last when life is over.
      phase_start: (env_steps, agent_steps, updates) when the phase began.
    """

    env_steps: int = 0
    agent_steps: int = 0
    updates: int = 0
    phase: int = 1
    phase_start: tuple[int, int, int] = (0, 0, 0)

    @property
    def phase_step(self) -> int:
        """Environment steps lived in this phase."""
        return self.env_steps - self.phase_start[0]

    def next_phase(self) -> Clock:
        now = (self.env_steps, self.agent_steps, self.updates)
        return replace(self, phase=self.phase + 1, phase_start=now)


@dataclass(frozen=True)
class Collect:
    """Live in the phase's task until `until` environment steps of the whole life."""

    until: int


@dataclass(frozen=True)
class Evaluate:
    """Judge one policy on one task: the smallest piece of an evaluation.

    An evaluation of many tasks and policies is many of these, so that stopping in its middle is no
    special case.
    """

    eval_id: str
    when: Literal["before", "inside", "end"]
    task: str
    policy: str
    action_mode: Literal["mode", "sampled"]

    @property
    def phase(self) -> int:
        """The one it is an evaluation of; 0: before training."""
        return int(self.eval_id.partition("@")[0])

    @property
    def phase_step(self) -> int:
        """Environment steps of that phase after which it was due."""
        return int(self.eval_id.partition("@")[2])


@dataclass(frozen=True)
class Checkpoint:
    """Put the life on disk."""


@dataclass(frozen=True)
class EndPhase:
    """Close the phase's open rows and go on to the next."""


@dataclass(frozen=True)
class Done:
    """Nothing is left to do."""


Action = Collect | Evaluate | Checkpoint | EndPhase | Done


@dataclass(frozen=True)
class Agenda:
    """What does not change during a life.

    Attributes:
      policies: names of the agent's policies, the one that lives first.
      checkpoint_every: environment steps.
      begun_at: environment steps at which this run begins; more than 0 if it branches off another.
    """

    curriculum: NamedCurriculum
    policies: Sequence[str]
    evaluate: EvaluateConfig
    checkpoint_every: int
    begun_at: int = 0


def next_action(
    agenda: Agenda, clock: Clock, judged: Mapping[Evaluate, float], saved: Clock | None
) -> Action:
    """The next thing to do.

    Args:
      judged: the pieces of evaluation whose records are there, and their mean returns.
      saved: the clock of the newest checkpoint, None before the first.
    """
    plan = agenda.curriculum.plan
    if clock.phase > len(plan):
        return Done() if saved == clock else Checkpoint()
    phase = plan[clock.phase - 1]
    for piece in _due(agenda, phase, clock, judged):
        if piece not in judged:
            # Judging all tasks may take longer than the living that a kill would then cost.
            is_safe = piece.when != "end" or saved == clock
            return piece if is_safe else Checkpoint()
    if clock.phase_step >= end_of(agenda, phase, judged):
        return EndPhase()
    if saved is None or saved.phase != clock.phase:
        return Checkpoint()
    next_checkpoint = saved.env_steps + agenda.checkpoint_every
    if clock.env_steps >= next_checkpoint:
        return Checkpoint()
    start = clock.phase_start[0]
    ahead = [start + p for p in inside_points(agenda.evaluate, phase) if p > clock.phase_step]
    return Collect(min([next_checkpoint, start + phase.steps, *ahead]))


def end_of(agenda: Agenda, phase: PlannedPhase, judged: Mapping[Evaluate, float]) -> int:
    """Environment steps of a phase after which it is over: its budget, or the first evaluation
    inside it that came to `until_return`.
    """
    if phase.until_return is not None:
        for point in inside_points(agenda.evaluate, phase):
            eval_id, policy = f"{phase.number}@{point}", agenda.policies[0]
            piece = Evaluate(eval_id, "inside", phase.task, policy, "mode")
            if judged.get(piece, -math.inf) >= phase.until_return:
                return point
    return phase.steps


def inside_points(config: EvaluateConfig, phase: PlannedPhase) -> list[int]:
    """Environment steps of a phase at which it is judged inside, its ends excluded."""
    count = math.ceil(1 / config.inside_every - 1e-9)
    points = (round(k * config.inside_every * phase.steps) for k in range(1, count))
    return sorted({p for p in points if 0 < p < phase.steps})


def _due(
    agenda: Agenda, phase: PlannedPhase, clock: Clock, judged: Mapping[Evaluate, float]
) -> Iterator[Evaluate]:
    """Pieces of the newest evaluation whose time has come, and of those before training.

    An evaluation that was stepped over, as nothing in a normal life does, is not made up for: it
    would judge another agent than its name says.
    """
    if clock.env_steps == agenda.begun_at:
        lived = [p.eval_id for p in judged if p.when == "end" and p.phase == clock.phase - 1]
        if lived:  # a branch: what its origin did not judge, it judges at the end of that phase
            yield from _pieces(agenda, lived[0], "end", agenda.policies, agenda.evaluate.sampled)
        untrained = ["random"] if lived else [*agenda.policies, "random"]
        yield from _pieces(agenda, "0@0", "before", untrained, sampled=False)
    end = end_of(agenda, phase, judged)
    passed = [p for p in inside_points(agenda.evaluate, phase) if p <= min(clock.phase_step, end)]
    if passed and clock.phase_step < phase.steps:
        eval_id = f"{phase.number}@{passed[-1]}"
        policies = agenda.policies if agenda.evaluate.inside_heads else agenda.policies[:1]
        yield from _pieces(agenda, eval_id, "inside", policies, sampled=False)
    if clock.phase_step >= end:
        eval_id = f"{phase.number}@{end}"
        yield from _pieces(agenda, eval_id, "end", agenda.policies, agenda.evaluate.sampled)


def _pieces(
    agenda: Agenda,
    eval_id: str,
    when: Literal["before", "inside", "end"],
    policies: Sequence[str],
    sampled: bool,
) -> Iterator[Evaluate]:
    modes: tuple[Literal["mode", "sampled"], ...] = ("mode", "sampled") if sampled else ("mode",)
    for task in agenda.curriculum.tasks:
        for policy in dict.fromkeys(policies):
            for mode in ("mode",) if policy == "random" else modes:
                yield Evaluate(eval_id, when, task, policy, mode)
