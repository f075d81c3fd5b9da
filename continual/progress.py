"""What a person sees while a life goes on: a live line in a terminal, plain lines elsewhere."""

from __future__ import annotations

import itertools
import time
from collections import deque
from statistics import median
from typing import TextIO

from continual.config import Config
from continual.pacing import repeat_of, train_ratio_of
from continual.scheduler import Clock, Evaluate
from continual.status_line import StatusLine, duration
from curricula.loader import NamedCurriculum
from eval.records import EpisodeRecord, PhaseRecord, Record

_WINDOW = 60.0  # seconds over which rates are taken
_COMPILING = 2  # updates of a phase that may wait for a compiler
_FEWEST = 3  # stretches of a second or more, of which the middle one is typical


class Progress(StatusLine):
    """A tracker that prints. Time is what it shows, never what it changes."""

    def __init__(
        self, curriculum: NamedCurriculum, config: Config, out: TextIO, clock: Clock
    ) -> None:
        super().__init__(out)
        self._curriculum, self._config = curriculum, config
        self._now = clock
        self._doing = ""
        self._last_return = self._last_p = ""
        self._samples: deque[tuple[float, float, int]] = deque()  # seconds, decisions, updates

    def record(self, record: Record) -> None:
        if isinstance(record, EpisodeRecord) and record.split == "train":
            self._last_return = f"last return {record.return_:.1f}"
            if n := record.gate.get("n"):
                self._last_p = f"gate p {record.gate['p'] / n:.2f}"
        elif isinstance(record, PhaseRecord):
            self._last_return = self._last_p = ""
            self.say(
                f"phase {record.phase} is over: {record.task}, {self._now.env_steps:,} steps in all"
            )

    def lived(self, clock: Clock) -> None:
        now = time.monotonic()
        task = self._curriculum.plan[clock.phase - 1].task
        learns = train_ratio_of(task, self._config.collect) > 0
        first = learns and _updates(clock) <= _COMPILING
        if clock.phase != self._now.phase or first:
            self._samples.clear()  # no measure of what is to come
        self._now = clock
        self._doing = f"living in {task}"
        if not self._samples or now - self._samples[-1][0] > 1.0:
            self._samples.append((now, clock.agent_steps, clock.updates))
            while now - self._samples[0][0] > _WINDOW and len(self._samples) > _FEWEST + 1:
                self._samples.popleft()
        self.show(self._line)

    def judging(self, piece: Evaluate) -> None:
        doing = f"judging {piece.policy} on {piece.task} ({piece.when})"
        is_new, self._doing = doing != self._doing, doing
        self._samples.clear()  # judging is no measure of how fast life goes
        self.show(self._line, at_once=is_new and self.is_live)

    def saved(self) -> None:
        """Nothing that a person waits for."""

    def _line(self) -> str:
        clock, plan = self._now, self._curriculum.plan
        phase = plan[min(clock.phase, len(plan)) - 1]
        parts = [
            f"phase {phase.number}/{len(plan)}",
            self._doing,
            f"{min(clock.phase_step, phase.steps):,} of {phase.steps:,} steps",
        ]
        parts += [part for part in (self._last_return, self._last_p) if part]
        if len(self._samples) > _FEWEST:
            seconds, updates = self._pace()
            parts.append(f"{updates:.1f} updates/s")
            left = duration(self._remaining() * seconds)
            parts.append(f"about {left} to live, judging aside")
        return " | ".join(parts)

    def _pace(self) -> tuple[float, float]:
        """Seconds of a decision, and updates in a second; a batch of another kind may be compiled
        at any time, so that means would be those of compilers.
        """
        stretches = [
            (t1 - t0, a1 - a0, u1 - u0)
            for (t0, a0, u0), (t1, a1, u1) in itertools.pairwise(self._samples)
        ]
        return median(t / a for t, a, _ in stretches), median(u / t for t, _, u in stretches)

    def _remaining(self) -> float:
        """Decisions left in the life."""
        left = 0.0
        for phase in self._curriculum.plan[self._now.phase - 1 :]:
            steps = phase.steps - (self._now.phase_step if phase.number == self._now.phase else 0)
            left += max(0, steps) / repeat_of(phase.task, self._config.collect)
        return left


def _updates(clock: Clock) -> int:
    """Made in this phase."""
    return clock.updates - clock.phase_start[2]
