"""Lives in processes of their own, killed at instants that nobody chose."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from continual import run
from continual.fingerprint import fingerprint

pytestmark = pytest.mark.slow

CURRICULUM = """
description: Three streams; the first ends when it is judged good enough, which everything is.
scale: smoke
phases:
  - {task: toy/reach, steps: 160, until_return: 0}
  - {task: dmc/ball_in_cup_catch, steps: 240}
  - {task: crafter/reward, steps: 80}
"""
SETTINGS = [
    "collect.budgets={}",
    "collect.start=80",
    "collect.train_ratio=16",
    "replay.length=8",
    "replay.capacity=300",
    "checkpoint.every=40",
    "evaluate.inside_every=0.5",
    "evaluate.inside_episodes=1",
    "evaluate.episodes=1",
    "evaluate.worlds=1",
    "log.every=10",
    "log.diagnose_every=25",
]


@pytest.fixture(scope="module", params=[1, 4], ids=["one world", "four worlds"])
def undisturbed(request, tmp_path_factory):
    """(folder, settings, fingerprint, seconds) of a life that nobody disturbed, twice."""
    folder = tmp_path_factory.mktemp("kills")
    (folder / "streams.yaml").write_text(CURRICULUM)
    settings = [*SETTINGS, f"collect.worlds={request.param}"]
    for name in ("first", "whole"):  # the first one compiles
        begin = time.monotonic()
        assert begun(folder, name, settings).wait() == 0
        seconds = time.monotonic() - begin
    found = fingerprint(folder / "runs" / "whole")
    assert found == fingerprint(folder / "runs" / "first")
    return folder, settings, found, seconds


def begun(folder: Path, name: str, settings: list[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "continual.run", "streams.yaml", f"name={name}", *settings]
    environment = {**os.environ, "PYTHONPATH": str(Path(run.__file__).parents[1])}
    with (folder / f"{name}.log").open("ab") as log:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)


@pytest.mark.parametrize(
    ("number", "times"), [(signal.SIGKILL, 30), (signal.SIGTERM, 10)], ids=["kill", "term"]
)
def test_a_life_killed_at_random_instants_is_the_life_that_was_not(undisturbed, number, times):
    folder, settings, expected, seconds = undisturbed
    name, rng = number.name.lower(), np.random.default_rng(int(number))
    disturbed = 0
    while disturbed < times:
        process = begun(folder, name, settings)
        try:
            # Most of a short life is its start, so any instant of it is as good as another.
            process.wait(rng.uniform(0.05, 0.9) * seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(number)
            disturbed += 1
            assert process.wait() in (-number, 128 + number, 0)
        else:
            assert process.returncode == 0, (folder / f"{name}.log").read_text()[-2000:]
            assert fingerprint(folder / "runs" / name) == expected
            name += "-again"  # it came to its end: the rest of the kills go to another life
    assert begun(folder, name, settings).wait() == 0
    assert fingerprint(folder / "runs" / name) == expected
