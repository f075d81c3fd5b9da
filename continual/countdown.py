"""What a person sees of work whose pieces are known beforehand: how far it is, and how long yet."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import TextIO

from continual.status_line import StatusLine, duration


class Countdown(StatusLine):
    """Counts pieces down.

    Args:
      todo: kind of piece -> how many there are; pieces of a kind take about as long as each other.
    """

    def __init__(self, todo: Mapping[str, int], out: TextIO) -> None:
        super().__init__(out)
        self._todo, self._done = dict(todo), Counter[str]()
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._doing = ""
        self._last_done = time.monotonic()

    def begin(self, doing: str) -> None:
        """What the pieces to come are for."""
        self._doing = doing

    def done(self, kind: str) -> None:
        """A piece is."""
        now = time.monotonic()
        if self._done[kind]:  # the first one of a kind waits for a compiler
            self._seconds[kind] += now - self._last_done
        self._done[kind] += 1
        self._last_done = now
        self.show(self._line)

    def _line(self) -> str:
        parts = [self._doing]
        parts += [f"{self._done[kind]:,} of {todo:,} {kind}" for kind, todo in self._todo.items()]
        if (left := self._left()) is not None:
            parts.append(f"about {duration(left)} left")
        return " | ".join(parts)

    def _left(self) -> float | None:
        """Seconds; None while a kind that is still to come has not been timed."""
        total = 0.0
        for kind, todo in self._todo.items():
            timed = self._done[kind] - 1
            if left := max(0, todo - self._done[kind]):
                if timed < 1:
                    return None
                total += left * self._seconds[kind] / timed
        return total
