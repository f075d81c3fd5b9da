"""Where a life's records go: always to JSON lines, which are the truth; to other sinks as well."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from continual.files import named
from continual.rundir import RecordBook
from continual.scheduler import Clock, Evaluate
from eval.records import Record


class Tracker(Protocol):
    """Hears of everything that a life records or does."""

    def record(self, record: Record) -> None:
        """A record, in the order of the life."""
        ...

    def lived(self, clock: Clock) -> None:
        """A decision was taken, and the updates it owed were done."""
        ...

    def judging(self, piece: Evaluate) -> None:
        """A piece of an evaluation begins, or goes on by one decision."""
        ...

    def saved(self) -> None:
        """A checkpoint was made: what was recorded so far stays."""
        ...


class JsonLines:
    """The records on disk."""

    def __init__(self, book: RecordBook) -> None:
        self._book = book

    def record(self, record: Record) -> None:
        self._book.append(record)

    def lived(self, clock: Clock) -> None:
        del clock

    def judging(self, piece: Evaluate) -> None:
        del piece

    def saved(self) -> None:
        """Nothing: the checkpoint names the cursors of the book."""


class Timing:
    """Wall-clock times in a file of their own, so that records of two runs compare bit for bit."""

    def __init__(self, path: Path, every: float = 10.0) -> None:
        self._path, self._every, self._last = path, every, 0.0

    def record(self, record: Record) -> None:
        del record

    def lived(self, clock: Clock) -> None:
        now = time.time()
        if now - self._last >= self._every:
            self._last = now
            line = {"time": now, "env_steps": clock.env_steps, "updates": clock.updates}
            with named(self._path, "write"), self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    def judging(self, piece: Evaluate) -> None:
        del piece

    def saved(self) -> None:
        """Nothing: times are no part of a life."""


class Trackers:
    """Several trackers as one."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self._trackers = trackers

    def record(self, record: Record) -> None:
        for tracker in self._trackers:
            tracker.record(record)

    def lived(self, clock: Clock) -> None:
        for tracker in self._trackers:
            tracker.lived(clock)

    def judging(self, piece: Evaluate) -> None:
        for tracker in self._trackers:
            tracker.judging(piece)

    def saved(self) -> None:
        for tracker in self._trackers:
            tracker.saved()
