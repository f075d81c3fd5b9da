"""What a person is shown, and how often."""

from __future__ import annotations

import io

import pytest

from continual import progress
from continual.config import Config
from continual.progress import Progress
from continual.scheduler import Clock, Evaluate
from curricula.loader import NamedCurriculum, PlannedPhase

CURRICULUM = NamedCurriculum("two", "", None, (PlannedPhase(1, 1, "toy/reach", 100),))
FIRST, SECOND = (Evaluate("1@100", "end", "toy/reach", p, "mode") for p in ("gated", "random"))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def seconds(monkeypatch) -> list[float]:
    """A clock whose time is what the list holds."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_file_gets_a_line_in_thirty_seconds_also_while_one_piece_is_judged(seconds):
    out = io.StringIO()
    with Progress(CURRICULUM, Config(), out, Clock()) as shown:
        for piece in (FIRST, SECOND):
            for _ in range(100):
                seconds[0] += 1
                shown.judging(piece)
    lines = out.getvalue().splitlines()
    assert len(lines) == 6
    assert sum("judging gated on toy/reach (end)" in line for line in lines) == 3
    assert sum("judging random on toy/reach (end)" in line for line in lines) == 3


def test_a_terminal_shows_at_once_what_is_judged_next(seconds, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    with Progress(CURRICULUM, Config(), Terminal(), Clock()) as shown:
        for piece, policy in ((FIRST, "gated"), (SECOND, "random")):
            shown.judging(piece)
            assert f"judging {policy} on toy/reach" in shown.shown


def test_how_long_it_takes_is_told_from_updates_only(seconds):
    out = io.StringIO()
    with Progress(CURRICULUM, Config(), out, Clock()) as shown:
        for step in range(40):  # fast, before the first update
            seconds[0] += 1
            shown.lived(Clock(agent_steps=step, env_steps=step))
        seconds[0] += 3600
        shown.lived(Clock(agent_steps=50, env_steps=50, updates=1))  # was compiled
        for step in range(51, 61):  # ten seconds a step
            seconds[0] += 10
            shown.lived(Clock(agent_steps=step, env_steps=step, updates=step - 49))
    before, *_, last = out.getvalue().splitlines()
    assert "to live" not in before
    assert "0.1 updates/s" in last
    assert "about 7 min to live" in last  # 40 steps, or 400 s, are left


def test_a_compiler_at_work_in_mid_life_is_no_measure_of_it(seconds, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    with Progress(CURRICULUM, Config(), Terminal(), Clock()) as shown:
        told = {}
        for step in range(3, 90):
            seconds[0] += 20 if step == 80 else 1
            if step == 79:
                shown.judging(FIRST)
            shown.lived(Clock(agent_steps=step, env_steps=step, updates=step))
            told[step] = shown.shown
    assert "about 22 s to live" in told[78]
    assert "to live" not in told[80]
    assert "1.0 updates/s | about 15 s to live" in told[85]


def test_a_life_of_half_a_minute_a_step_is_told_how_long_it_takes(seconds):
    out = io.StringIO()
    with Progress(CURRICULUM, Config(), out, Clock()) as shown:
        for step in range(3, 20):
            seconds[0] += 30
            shown.lived(Clock(agent_steps=step, env_steps=step, updates=step))
    assert "about 40 min to live" in out.getvalue().splitlines()[-1]
