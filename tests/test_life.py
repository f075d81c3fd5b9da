"""A whole life, small: begun, stopped, killed, gone on with, refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.agent import make_agent
from continual import run
from continual.collect import Living
from continual.errors import UserError
from continual.opening import Opened

CURRICULUM = """
description: Three kinds of toys.
scale: smoke
phases:
  - {task: toy/reach, steps: 120}
  - {task: toy/match, steps: 60}
  - {task: toy/picture, steps: 60}
"""
SMALL = ["collect.start=80", "replay.length=8", "checkpoint.every=50", "evaluate.inside_every=0.5"]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toys.yaml").write_text(CURRICULUM)
    return tmp_path


@pytest.fixture(scope="module", autouse=True)
def one_compilation():
    """Lives with the same agent share its compiled functions, as they would within one process."""
    made = {}

    def cached(config, interfaces):
        key = (config.model_dump_json(), *interfaces.tasks)
        if key not in made:
            made[key] = make_agent(config, interfaces)
        return made[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("continual.opening.make_agent", cached)
        yield


def live(name: str, *more: str) -> int:
    return run.main(["toys.yaml", f"name={name}", *SMALL, *more])


def records(folder: Path, name: str) -> dict[str, str]:
    """Everything a run recorded but its wall-clock times."""
    kept = (folder / "runs" / name / "records").glob("*.jsonl")
    return {p.name: p.read_text() for p in kept if p.name != "timing.jsonl"}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """A life that nobody stopped."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "toys.yaml").write_text(CURRICULUM)
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert live("whole") == 0
    finally:
        os.chdir(before)
    return folder, records(folder, "whole")


def test_a_life_leaves_records_of_every_phase_and_a_report(undisturbed):
    folder, kept = undisturbed
    phases = [json.loads(line) for line in kept["phases.jsonl"].splitlines()]
    assert [(p["phase"], p["task"]) for p in phases] == [
        (1, "toy/reach"),
        (2, "toy/match"),
        (3, "toy/picture"),
    ]
    assert phases[0]["env_steps"] == [0, 120]
    assert phases[-1]["env_steps"][1] == 240
    episodes = [json.loads(line) for line in kept["episodes.jsonl"].splitlines()]
    judged = [e for e in episodes if e["split"] == "eval"]
    assert {e["policy"] for e in judged} == {"gated", "dreamer_actor", "awac_actor", "random"}
    for phase in (1, 2, 3):
        ends = [e for e in judged if e["when"] == "end" and e["phase"] == phase]
        assert {e["task"] for e in ends} == {"toy/reach", "toy/match", "toy/picture"}
    report = folder / "runs" / "whole" / "report" / "index.html"
    assert "toy/picture" in report.read_text()


def test_lived_episodes_are_numbered_without_hole_or_repeat(undisturbed):
    _, kept = undisturbed
    episodes = [json.loads(line) for line in kept["episodes.jsonl"].splitlines()]
    for phase in (1, 2, 3):
        lived = [e["episode"] for e in episodes if e["split"] == "train" and e["phase"] == phase]
        assert lived == list(range(len(lived)))
        assert lived


@pytest.mark.parametrize("stops", [(7,), (33, 34, 91), (121, 160, 239)])
def test_a_life_stopped_by_ctrl_c_and_gone_on_with_is_the_same_life(
    folder, undisturbed, monkeypatch, stops
):
    left = list(stops)
    learn = Living._learn

    def interrupting(self: Living) -> None:
        learn(self)
        if left and self._life.clock.env_steps >= left[0]:
            left.pop(0)
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Living, "_learn", interrupting)
    for _ in stops:
        assert live("stopped") == 130
    assert live("stopped") == 0
    assert records(folder, "stopped") == undisturbed[1]


class Killed(BaseException):
    """Stands for the end of the process: nothing below catches it."""


@pytest.mark.parametrize("after", [3, 75, 130, 200])
def test_a_life_killed_between_checkpoints_is_the_same_life(
    folder, undisturbed, monkeypatch, after
):
    learn = Living._learn

    def dying(self: Living) -> None:
        learn(self)
        if self._life.clock.env_steps >= after:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Living, "_learn", dying)
        with pytest.raises(Killed):
            live("killed")
    assert live("killed") == 0
    assert records(folder, "killed") == undisturbed[1]


def test_a_life_killed_while_it_is_judged_is_the_same_life(folder, undisturbed, monkeypatch):
    evaluate = Opened.evaluate
    count = []

    def dying(self: Opened, piece) -> None:
        evaluate(self, piece)
        count.append(piece)
        if len(count) == 17:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Opened, "evaluate", dying)
        with pytest.raises(Killed):
            live("judged")
    assert live("judged") == 0
    assert records(folder, "judged") == undisturbed[1]


def test_a_finished_run_says_so_and_changes_nothing(undisturbed, monkeypatch, capsys):
    folder, kept = undisturbed
    monkeypatch.chdir(folder)
    assert live("whole") == 0
    assert "finished" in capsys.readouterr().out
    assert records(folder, "whole") == kept


def test_a_run_with_other_settings_is_refused_by_the_names_of_the_keys(undisturbed, monkeypatch):
    folder, _ = undisturbed
    monkeypatch.chdir(folder)
    with pytest.raises(UserError, match=r"agent\.optim\.lr: 0\.0004 there, 0\.001 here"):
        live("whole", "agent.optim.lr=1e-3")


def test_fresh_begins_beside_a_run_and_never_over_it(folder):
    short = ["variant=random", "fresh=true", "collect.budgets={toy: 20}"]
    assert live("again", *short) == 0
    first = records(folder, "again")
    assert live("again", *short) == 0
    assert records(folder, "again") == first
    assert records(folder, "again-2") == first


def test_a_second_process_is_kept_out(folder):
    command = [sys.executable, "-m", "continual.run", "toys.yaml", "name=twice", *SMALL]
    root = str(Path(run.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root}
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        manifest = folder / "runs" / "twice" / "checkpoints" / "latest"
        for _ in range(600):
            if manifest.exists():
                break
            time.sleep(0.1)
        with pytest.raises(UserError, match=f"process {process.pid}"):
            live("twice")
    finally:
        process.kill()
        process.communicate()


def test_a_dry_run_says_what_would_happen_and_leaves_nothing(folder, capsys):
    assert live("dry", "--dry-run") == 0
    said = capsys.readouterr().out
    for word in ("toy/reach", "120 steps", "head:toy.match", "rider awac", "disk"):
        assert word in said
    assert not (folder / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["tyos.yaml"], "no such file"),
        (["toys.yaml", "agent.optim.rl=1"], "did you mean 'agent.optim.lr'"),
        (["toys.yaml", "sede=1"], "did you mean 'seed'"),
        (["toys.yaml", "replay.capacity=ten"], "expected a whole number"),
        (["toys.yaml", "replay.capacity=10"], "replay.capacity=10 is below"),
        (["toys.yaml", "variant=gatd"], "did you mean 'gated'"),
        (["toys.yaml", "name=../x"], "expected letters"),
        (["toys.yaml", "collect.budgets={dcm: 10}"], "did you mean 'dmc'"),
        (["toys.yaml", "--dryrun"], "--dry-run"),
        ([], "expected one curriculum"),
    ],
)
def test_a_mistake_on_the_command_line_takes_one_line_and_leaves_nothing(
    folder, arguments, expected
):
    with pytest.raises(UserError) as caught:
        run.main(arguments)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (folder / "runs").exists()
