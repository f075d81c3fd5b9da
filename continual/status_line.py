"""One line that says how far work is: live in a terminal, elsewhere a plain one now and then."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.status import Status

PLAIN_EVERY = 30.0  # seconds between plain lines
LIVE_EVERY = 0.25


class StatusLine:
    """A context in which the line is shown."""

    def __init__(self, out: TextIO) -> None:
        self._console = Console(file=out, highlight=False)
        self._status: Status | None = None
        self._last_shown = time.monotonic()

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._status = self._console.status("starting")
            self._status.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._status:
            self._status.stop()
            self._status = None

    @property
    def is_live(self) -> bool:
        return self._status is not None

    @property
    def shown(self) -> str:
        """What a live line says; empty elsewhere."""
        return str(self._status.status) if self._status else ""

    def say(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, markup=False, soft_wrap=True)

    def show(self, line: Callable[[], str], *, at_once: bool = False) -> None:
        """Show a line, which is made only if it is time for one, or `at_once`."""
        now = time.monotonic()
        if now - self._last_shown < (LIVE_EVERY if self._status else PLAIN_EVERY) and not at_once:
            return
        self._last_shown = now
        if self._status:
            self._status.update(line())
        else:
            self.say(line())


def duration(seconds: float) -> str:
    """A time as it is said: 40 s, 12 min, 2.5 h."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
