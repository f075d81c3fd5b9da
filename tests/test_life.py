"""A whole life, small: begun, stopped, killed, gone on with, refused."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from continual import run
from continual.checkpoint import find_checkpoint, load_leaves
from continual.collect import Living
from continual.envs.toy import ToyWorld
from continual.envs.world import TimeStep
from continual.errors import UserError
from continual.files import lock_folder
from continual.fingerprint import fingerprint
from continual.fingerprint import main as fingerprint_door
from continual.running import Opened, Stop
from eval.records import EpisodeRecord

pytestmark = pytest.mark.usefixtures("one_compilation")

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
        if left and self.life.clock.env_steps >= left[0]:
            left.pop(0)
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Living, "_learn", interrupting)
    for _ in stops:
        assert live("stopped") == 130
    assert live("stopped") == 0
    assert records(folder, "stopped") == undisturbed[1]
    whole = undisturbed[0] / "runs" / "whole"
    assert fingerprint(folder / "runs" / "stopped") == fingerprint(whole)


@pytest.mark.parametrize("number", [signal.SIGUSR1])
def test_other_signals_than_ctrl_c_save_and_say_so_in_the_exit_code(
    folder, undisturbed, monkeypatch, number
):
    learn = Living._learn

    def interrupting(self: Living) -> None:
        learn(self)
        if self.life.clock.env_steps == 130:
            os.kill(os.getpid(), number)

    with monkeypatch.context() as patch:
        patch.setattr(Living, "_learn", interrupting)
        assert live(f"signal{number}") == 128 + number
    assert live(f"signal{number}") == 0
    assert records(folder, f"signal{number}") == undisturbed[1]


def test_a_damaged_newest_checkpoint_costs_no_more_than_the_way_from_the_one_before(
    folder, undisturbed, monkeypatch, capsys
):
    learn = Living._learn

    def interrupting(self: Living) -> None:
        learn(self)
        if self.life.clock.env_steps == 131:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Living, "_learn", interrupting)
        assert live("damaged") == 130
    newest = max((folder / "runs" / "damaged" / "checkpoints").iterdir())
    (newest / "agent.safetensors").write_bytes(b"")
    capsys.readouterr()
    assert live("damaged") == 0
    assert f"{newest.name}/agent.safetensors: damaged" in capsys.readouterr().out
    assert records(folder, "damaged") == undisturbed[1]


def test_a_fingerprint_tells_what_of_two_lives_differs(folder, undisturbed, capsys):
    shutil.copytree(undisturbed[0] / "runs" / "whole", folder / "runs" / "other")
    before = fingerprint(folder / "runs" / "other")
    assert len(set(before.values())) == 5
    episodes = folder / "runs" / "other" / "records" / "episodes.jsonl"
    episodes.write_text(episodes.read_text().replace("0.", "1.", 1))
    rewards = next((folder / "runs" / "other" / "replay").glob("phase_*/reward/c.0.0"))
    content = bytearray(rewards.read_bytes())
    content[0] ^= 1
    rewards.write_bytes(content)
    after = fingerprint(folder / "runs" / "other")
    assert {part for part in before if after[part] != before[part]} == {"records", "replay"}
    assert fingerprint_door([str(folder / "runs" / "other")]) == 0
    assert f"parameters  {before['parameters']}" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"expected a run's folder, found no config.yaml"):
        fingerprint_door(["toys.yaml"])


class Killed(BaseException):
    """Stands for the end of the process: nothing below catches it."""


def raise_killed(*_: object) -> None:
    raise Killed


def live_until_killed(
    monkeypatch, name: str, method: Callable[..., object], is_time: Callable[[Any], bool]
) -> None:
    """Live until `is_time(self)` holds after a call of the method."""

    def dying(self, *arguments):
        method(self, *arguments)
        if is_time(self):
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(f"{method.__module__}.{method.__qualname__}", dying)
        with pytest.raises(Killed):
            live(name)


@pytest.mark.parametrize("after", [3, pytest.param(75, marks=pytest.mark.slow), 130, 200])
def test_a_life_killed_between_checkpoints_is_the_same_life(
    folder, undisturbed, monkeypatch, after
):
    is_time = lambda living: living.life.clock.env_steps >= after
    live_until_killed(monkeypatch, "killed", Living._learn, is_time)
    if after == 200:
        with pytest.raises(UserError, match="its replay is ahead of that"):
            fingerprint(folder / "runs" / "killed")
    assert live("killed") == 0
    assert records(folder, "killed") == undisturbed[1]


def test_a_life_on_a_scratch_disk_that_is_lost_is_the_same_life(folder, undisturbed, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_after_decision(patch, 130)
        assert live("moved", f"replay.scratch={folder}/fast") == 130
    assert (folder / "fast" / "moved" / "replay" / "zarr.json").exists()
    shutil.rmtree(folder / "fast")
    assert live("moved", f"replay.scratch={folder}/other") == 0
    assert records(folder, "moved") == undisturbed[1]


def test_a_life_killed_while_it_is_judged_is_the_same_life(folder, undisturbed, monkeypatch):
    live_until_killed(
        monkeypatch, "judged", Opened.evaluate, lambda opened: len(opened.judged) == 17
    )
    assert live("judged") == 0
    assert records(folder, "judged") == undisturbed[1]


def test_a_life_killed_while_it_is_saved_again_where_it_stands_is_the_same_life(
    folder, undisturbed, monkeypatch, capsys
):
    is_time = lambda living: living.life.clock.env_steps >= 75
    live_until_killed(monkeypatch, "saved", Living._learn, is_time)
    with monkeypatch.context() as patch:
        patch.setattr(Stop, "asked", True)
        patch.setattr("continual.checkpoint.save_file", raise_killed)
        with pytest.raises(Killed):
            live("saved")
    capsys.readouterr()
    assert live("saved") == 0
    assert "goes on: runs/saved, from 50 environment steps" in capsys.readouterr().out
    assert records(folder, "saved") == undisturbed[1]


def test_train_records_tell_phases_apart_and_leave_nothing_out(undisturbed):
    _, kept = undisturbed
    phases = [json.loads(line) for line in kept["phases.jsonl"].splitlines()]
    trained = [json.loads(line) for line in kept["train.jsonl"].splitlines()]
    for phase in phases:
        own = [t for t in trained if t["phase"] == phase["phase"]]
        assert own[-1]["updates"] == phase["updates"][1]
        assert {task for t in own for task in t["gate"]} == {phase["task"]}
        decisions = sum(t["gate"][phase["task"]]["n"] for t in own)
        assert decisions == phase["env_steps"][1] - phase["env_steps"][0]
    assert max(t["sampled_latent_age"] for t in trained) > 1  # in updates
    sampled = sum(rows for t in trained for rows in t["sampled_rows"].values())
    assert sampled == phases[-1]["updates"][1] * 4 * 8  # batch and length


@pytest.mark.slow
def test_a_life_by_other_rules_of_memory_is_lived_and_gone_on_with(folder, monkeypatch):
    rules = [
        "replay.retention.kind=half_recent",
        "replay.sampling.kind=current_share",
        "replay.sampling.share=0.25",
        "replay.capacity=200",
        "replay.context=burn_in",
        "replay.burn_in=2",
    ]
    monkeypatch.setattr("storage.block.SMALLEST", 24)
    assert live("whole", *rules) == 0
    with monkeypatch.context() as patch:
        interrupt_after_decision(patch, 200)
        assert live("stopped", *rules) == 130
    assert live("stopped", *rules) == 0
    kept = records(folder, "whole")
    assert records(folder, "stopped") == kept
    trained = [json.loads(line) for line in kept["train.jsonl"].splitlines()]
    assert all(t["sampled_latent_age"] == 0 for t in trained)  # none are stored
    assert set(trained[-1]["held_rows"]) == {"toy/reach", "toy/match", "toy/picture"}
    assert sum(trained[-1]["held_rows"].values()) <= 200


def test_phases_as_short_as_can_be_are_learnt_from(folder):
    tight = ["collect.budgets={toy: 9}", "collect.start=18", "replay.capacity=36"]
    assert run.main(["toys.yaml", "name=tight", *SMALL[1:], *tight]) == 0
    phases = records(folder, "tight")["phases.jsonl"].splitlines()
    assert json.loads(phases[-1])["updates"][1] > 0


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


def test_a_run_in_use_says_so_before_anything_else(undisturbed, monkeypatch):
    folder, _ = undisturbed
    monkeypatch.chdir(folder)
    lock = lock_folder(folder / "runs" / "whole", "wait")
    with pytest.raises(UserError, match=f"in use by process {os.getpid()}"):
        live("whole", "agent.optim.lr=1e-3")
    os.close(lock)


def test_a_disk_without_room_for_records_stops_the_life_which_goes_on_later(
    folder, undisturbed, monkeypatch
):
    opened, lines = Path.open, []

    def on_a_small_disk(self, *how, **more):
        if self.name == EpisodeRecord.file and how == ("a",):
            lines.append(self)
            self = Path("/dev/full") if len(lines) > 40 else self
        return opened(self, *how, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", on_a_small_disk)
        with pytest.raises(UserError, match=r"episodes.jsonl: cannot write: No space left on dev"):
            live("tight")
    assert live("tight") == 0
    assert records(folder, "tight") == undisturbed[1]


def test_records_that_were_damaged_are_refused_in_one_line(folder):
    assert live_shortly("name=odd") == 0
    path = folder / "runs" / "odd" / "records" / EpisodeRecord.file
    first, *rest = path.read_text().splitlines(keepends=True)
    path.write_text("".join([first.replace("{", "(", 1), *rest]))
    with pytest.raises(UserError, match=r"episodes.jsonl:1: no EpisodeRecord: Expecting value"):
        live_shortly("name=odd")


SHORT = ["variant=random", "collect.budgets={toy: 20}", "evaluate.inside_every=1"]


def live_shortly(*more: str) -> int:
    return run.main(["toys.yaml", *SHORT, *more])


def test_fresh_begins_beside_a_run_and_never_over_it(folder):
    assert live_shortly("name=again", "fresh=true") == 0
    first = records(folder, "again")
    assert live_shortly("name=again", "fresh=true") == 0
    assert records(folder, "again") == first
    assert records(folder, "again-2") == first


def interrupt_after_decision(patch: pytest.MonkeyPatch, env_steps: int) -> None:
    learn = Living._learn

    def interrupting(self: Living) -> None:
        learn(self)
        if self.life.clock.env_steps == env_steps:
            os.kill(os.getpid(), signal.SIGINT)

    patch.setattr(Living, "_learn", interrupting)


def test_a_stopped_fresh_run_goes_on_by_the_command_it_says(folder, monkeypatch, capsys):
    assert live_shortly("fresh=true") == 0
    with monkeypatch.context() as patch:
        interrupt_after_decision(patch, 30)
        assert live_shortly("fresh=true") == 130
    said = capsys.readouterr().out
    assert "stopped at 30 environment steps in phase 2, all of it saved. " in said
    _, _, door, *arguments = shlex.split(said[said.index("This goes on: ") + 14 :])
    assert door == "continual.run"
    assert run.main(arguments) == 0
    assert len(list((folder / "runs").iterdir())) == 2
    first, second = (records(folder, p.name) for p in sorted((folder / "runs").iterdir()))
    assert first == second


def test_a_phase_that_came_to_its_return_ends_early_also_in_a_life_that_was_stopped(
    folder, monkeypatch
):
    phases = "[{task: toy/reach, steps: 40, until_return: -99}, {task: toy/match, steps: 20}]"
    (folder / "early.yaml").write_text(f"scale: smoke\nphases: {phases}\n")

    def live_early(name: str) -> int:
        budgets = "collect.budgets={toy/reach: 40, toy/match: 20}"
        settings = ["variant=random", budgets, "evaluate.inside_every=0.25"]
        return run.main(["early.yaml", f"name={name}", *settings])

    assert live_early("whole") == 0
    kept = records(folder, "whole")["phases.jsonl"].splitlines()
    first, second = (json.loads(line) for line in kept)
    assert (first["boundary"], first["env_steps"]) == ("return", [0, 10])
    assert (second["boundary"], second["env_steps"]) == ("steps", [10, 30])
    with monkeypatch.context() as patch:
        interrupt_after_decision(patch, 9)
        assert live_early("stopped") == 130
    assert live_early("stopped") == 0
    assert records(folder, "stopped") == records(folder, "whole")


def test_a_run_stopped_when_all_is_lived_names_no_phase_that_is_not_there(
    folder, monkeypatch, capsys
):
    with monkeypatch.context() as patch:
        patch.setattr(Opened, "report", raise_killed)
        with pytest.raises(Killed):
            live_shortly("name=lived")
    with monkeypatch.context() as patch:
        patch.setattr(Stop, "asked", True)
        live_shortly("name=lived")
    assert "stopped at 60 environment steps after the last phase, " in capsys.readouterr().out


def test_a_stopped_run_closes_every_world_it_opened(folder, monkeypatch):
    used: set[ToyWorld] = set()
    reset = ToyWorld.reset

    def resetting(self: ToyWorld, seed: int) -> TimeStep:
        used.add(self)
        return reset(self, seed)

    monkeypatch.setattr(ToyWorld, "reset", resetting)
    monkeypatch.setattr(ToyWorld, "close", lambda self: used.discard(self))
    interrupt_after_decision(monkeypatch, 30)
    assert live_shortly("name=closed") == 130
    assert used == set()


def test_a_world_that_cannot_be_repeated_is_refused_before_the_life_begins(folder, monkeypatch):
    monkeypatch.setattr(ToyWorld, "deterministic", False)
    with pytest.raises(UserError, match="toy/reach: not a deterministic world"):
        live_shortly()
    assert not (folder / "runs").exists()


@pytest.mark.parametrize("runs", ["toys.yaml", "toys.yaml/below", "/proc/none"])
def test_a_place_that_cannot_hold_a_run_is_refused_in_one_line(folder, runs):
    with pytest.raises(UserError, match=r"cannot be used: [A-Z].*; choose another runs=") as caught:
        live_shortly(f"runs={runs}")
    assert "\n" not in str(caught.value)


def test_a_second_ctrl_c_leaves_at_once_with_the_cursor_shown():
    code = """
        import os, signal
        from continual.running import Stop
        with Stop().listening():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            print("still here")
    """
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(Path(run.__file__).parents[1])}
    left = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env=environment, stdout=theirs, check=False
    )
    os.close(theirs)
    assert left.returncode == 130
    assert os.read(ours, 100).startswith(b"\x1b[?25h")
    os.close(ours)


def test_a_second_process_is_kept_out(folder):
    command = [sys.executable, "-m", "continual.run", "toys.yaml", "name=twice", *SMALL]
    root = str(Path(run.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root}
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        config = folder / "runs" / "twice" / "config.yaml"
        for _ in range(600):
            if config.exists():
                break
            time.sleep(0.1)
        with pytest.raises(UserError, match=f"in use by process {process.pid}"):
            live("twice")
    finally:
        process.kill()
        process.communicate()


def test_what_a_replay_may_hold_goes_by_its_unit_its_rule_and_its_columns(folder, capsys):
    def held(*settings: str) -> tuple[int, float]:
        """(rows, MB on disk)"""
        assert live("dry", "--dry-run", "collect.budgets={toy: 4000}", *settings) == 0
        said = capsys.readouterr().out
        ((size, rows),) = re.findall(r"replay +(\d+) MB on disk, up to ([0-9,]+) rows", said)
        return int(rows.replace(",", "")), float(size)

    wide = "agent.model.deter=512"  # a kilobyte a row
    rows, size = held("replay.capacity=6000", wide)
    assert rows == 6000
    assert held("replay.capacity=6000", "replay.retention={kind: unbounded}")[0] == 12_003
    limited, weighs = held("replay.capacity=1_000_000", "replay.unit=bytes")
    assert limited < 12_003
    assert weighs == 1
    assert held("replay.capacity=6000", "replay.context=zero", wide)[1] <= size - 6


def test_a_dry_run_says_what_would_happen_and_leaves_nothing(folder, undisturbed, capsys):
    assert live("dry", "--dry-run") == 0
    said = capsys.readouterr().out
    saved = find_checkpoint(undisturbed[0] / "runs" / "whole" / "checkpoints")
    for line, part in (
        ("all but the riders", "learner/params/"),
        ("rider awac", "riders/awac/params/"),
    ):
        size = sum(x.size for name, x in load_leaves(saved).items() if name.startswith(part))
        assert re.search(rf"{line} +{size:,}\n", said), said
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
        (["toys.yaml", "collect.repeat.dcm=2"], "override collect.repeat.dcm=2: 'dcm'"),
        (["toys.yaml", "collect.budgets={toy/match: 9}"], "phase 2 (toy/match): 9 steps"),
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
