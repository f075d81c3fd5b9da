"""What Weights & Biases is told, read back from the files that it writes offline."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wandb

from continual import publish, run, wandb_sink
from continual.collect import Living
from continual.errors import UserError
from continual.live_tracker import Cursor, WandbTracker, load_cursor
from continual.rundir import RunFolder
from continual.scheduler import Clock
from continual.strict_yaml import load
from continual.wandb_sink import WandbRun
from eval.findings import find
from eval.records import EpisodeRecord, PhaseRecord, TrainRecord, load_records
from eval.rows import Row, RowMaker
from eval.run_folder import load_run
from tests.synthetic_run import CUP, STEPS, WALKER, SyntheticRun
from tests.wandb_files import OfflineRun, offline_runs

pytestmark = pytest.mark.usefixtures("one_compilation", "nobody")

ROOT = Path(run.__file__).parents[1]
CURRICULUM = """
description: Two kinds of toys.
scale: smoke
phases:
  - {task: toy/reach, steps: 30}
  - {task: toy/match, steps: 20}
"""
LEARNING = [
    "variant=dreamer",
    *("collect.start=18", "replay.length=8", "replay.capacity=36", "log.every=4"),
    *("evaluate.inside_every=1", "evaluate.episodes=2", "checkpoint.every=10"),
]
RANDOM = ["variant=random", "evaluate.inside_every=1", "evaluate.episodes=2"]
KEY = "0123456789abcdef" * 3


def foreign_settings(place: Path) -> dict[str, str]:
    """Where W&B would look for keys and settings, and find none."""
    return {
        "HOME": str(place),
        "NETRC": str(place / "netrc"),
        "WANDB_CONFIG_DIR": str(place / "config"),
        "WANDB_CACHE_DIR": str(place / "cache"),
    }


@pytest.fixture(scope="module")
def nobody(tmp_path_factory):
    """Whoever runs this suite has no key of W&B's while they do."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            patch.delenv(name)
        for name, value in foreign_settings(tmp_path_factory.mktemp("nobody")).items():
            patch.setenv(name, value)
        yield
        wandb.teardown()


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toys.yaml").write_text(CURRICULUM)
    return tmp_path


def live(name: str, *more: str) -> int:
    return run.main(["toys.yaml", f"name={name}", *more])


class Killed(BaseException):
    """Stands for the end of the process: nothing below catches it."""


def live_until_killed(env_steps: int, name: str, *more: str) -> None:
    learn = Living._learn

    def dying(self: Living) -> None:
        learn(self)
        if self.life.clock.env_steps >= env_steps:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Living, "_learn", dying)
        with pytest.raises(Killed):
            live(name, *more)


def expected_rows(path: Path) -> dict[str, Row]:
    """Record -> row of everything that a run has recorded."""
    found: list[Row] = []
    for kind in (EpisodeRecord, TrainRecord, PhaseRecord):
        maker = RowMaker()
        for line, record in enumerate(load_records(path / "records", kind), start=1):
            found += maker.add(line, record)
        found += maker.rest()
    return {row.record: row for row in found}


def counts(told: list[OfflineRun]) -> Counter[str]:
    """How often each record was told."""
    return Counter(row["record"] for one in told for row in one.rows)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The folder of a life that learnt and that W&B was told of."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "toys.yaml").write_text(CURRICULUM)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert live("whole", *LEARNING, "track=wandb") == 0
    return folder / "runs" / "whole"


def test_a_life_is_told_by_rows_that_name_their_records_and_the_clock(whole):
    (told,) = offline_runs(whole)
    expected = expected_rows(whole)
    assert {file.partition(":")[0] for file in expected} == {
        "episodes.jsonl",
        "train.jsonl",
        "phases.jsonl",
    }
    assert counts([told]) == dict.fromkeys(expected, 1)
    for row in told.rows:
        made_of = expected[row["record"]]
        for name, value in {**made_of.axes, **made_of.values}.items():
            assert row[name] == pytest.approx(value)
    assert told.exit_code == 0


def test_charts_of_a_life_have_environment_steps_and_those_of_a_phase_begin_at_its_start(whole):
    (told,) = offline_runs(whole)
    assert {told.axes[f"{kind}/*"] for kind in ("lived", "judged", "learner")} == {"env_steps"}
    assert told.axes["phase/*"] == "phase_step"
    second = [row for row in told.rows if "phase/2/judged/dreamer_actor" in row]
    assert [row["phase_step"] for row in second] == [20]
    assert [row["env_steps"] for row in second] == [50]
    assert not any(
        name.startswith("phase/2/") for row in told.rows if row["phase"] == 1 for name in row
    )


def test_a_live_run_says_which_life_it_is_and_nothing_of_the_machine(whole):
    (told,) = offline_runs(whole)
    assert (told.run.display_name, told.run.job_type) == ("whole live", "live")
    assert re.fullmatch("toys-smoke-dreamer-[0-9a-f]{6}", told.run.run_group)
    assert list(told.run.tags) == ["smoke", "dreamer", "toy/reach", "toy/match"]
    assert told.run.project == "continual"
    assert (told.config["life"], told.config["seed"]) == ("whole", 0)
    assert told.run.host == ""
    assert "machine" not in told.config["versions"]
    files = {path.name for path in told.folder.rglob("*") if path.is_file()}
    assert not files & {"requirements.txt", "wandb-metadata.json", "output.log", "diff.patch"}


def test_telling_leaves_nothing_outside_the_run_and_no_trace_in_its_settings(whole):
    assert {path.name for path in whole.parents[1].iterdir()} == {"toys.yaml", "runs"}
    kept = load((whole / "config.yaml").read_text(), "config.yaml").value
    assert "track" not in kept


def test_what_a_life_goes_back_behind_is_not_told_twice(folder):
    live_until_killed(37, "back", *RANDOM, "track=wandb", "checkpoint.every=10")
    path = folder / "runs" / "back"
    newest = max((path / "checkpoints").iterdir())
    (newest / "agent.safetensors").write_bytes(b"")
    assert live("back", *RANDOM, "track=wandb", "checkpoint.every=10") == 0
    first, second = offline_runs(path)
    assert first.run.run_id == second.run.run_id
    assert (first.run.resume, second.run.resume) == (False, True)
    assert counts([first, second]) == dict.fromkeys(expected_rows(path), 1)
    assert min(row["env_steps"] for row in second.rows) >= 30  # where the damaged one stood


def test_a_life_begun_in_silence_is_told_whole_and_gone_on_with_in_silence(folder):
    live_until_killed(12, "late", *RANDOM)
    live_until_killed(33, "late", *RANDOM, "track=wandb")
    live_until_killed(43, "late", *RANDOM)
    assert live("late", *RANDOM, "track=wandb") == 0
    path = folder / "runs" / "late"
    told = offline_runs(path)
    assert len(told) == 2
    assert set(counts(told)) == set(expected_rows(path))


def test_what_is_left_of_a_life_that_began_anew_is_not_sent_with_it(folder):
    live_until_killed(2, "anew", *RANDOM, "track=wandb")
    path = folder / "runs" / "anew"
    (path / "wandb" / "live.json").unlink()
    assert live("anew", *RANDOM, "track=wandb") == 0
    (told,) = offline_runs(path)
    assert counts([told]) == dict.fromkeys(expected_rows(path), 1)


def test_a_life_told_offline_loses_no_row_when_a_key_is_there_and_the_server_is_not(
    folder, monkeypatch, capsys
):
    live_until_killed(33, "stays", *RANDOM, "checkpoint.every=10", "track=wandb")
    begin = wandb.init

    def unreachable(*, mode: str, **settings: Any) -> Any:
        if mode == "online":
            raise wandb.errors.CommError("Timed out\nwhile retrying")
        return begin(mode=mode, **settings)

    monkeypatch.setattr(wandb, "init", unreachable)
    monkeypatch.setattr(wandb_sink, "_find_key", lambda say: KEY)
    assert live("stays", *RANDOM, "checkpoint.every=10", "track=wandb") == 0
    assert "W&B cannot be reached, so it is written offline: Timed out" in capsys.readouterr().out
    path = folder / "runs" / "stays"
    told = offline_runs(path)
    assert len(told) == 2
    assert set(counts(told)) == set(expected_rows(path))


def test_a_killed_process_without_key_terminal_or_input_asks_nothing_and_loses_no_row(folder):
    code = f"""
        import os, signal, time
        os.close(0)
        from continual import run
        from continual.collect import Living
        learn = Living._learn
        def dying(self):
            learn(self)
            if self.life.clock.env_steps == 22:
                time.sleep(2.2)  # what was told until the checkpoint at 21 settles
            if self.life.clock.env_steps == 25:
                time.sleep(1.2)  # until W&B's process has written what it was told
                os.kill(os.getpid(), signal.SIGKILL)
        Living._learn = dying
        run.main(["toys.yaml", "name=gone", "track=wandb", "checkpoint.every=3", *{RANDOM!r}])
    """
    left = in_another_process(code, folder)
    assert left.returncode == -signal.SIGKILL
    assert "no key was found, so written offline. This sends it: wandb login" in left.stdout
    path = folder / "runs" / "gone"
    assert live("gone", *RANDOM, "checkpoint.every=3", "track=wandb") == 0
    first, second = offline_runs(path, killed=1)
    assert first.rows
    assert second.rows
    # However close checkpoints are: what is on the disk is not told again.
    assert counts([first, second]) == dict.fromkeys(expected_rows(path), 1)


def in_another_process(code: str, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {n: v for n, v in os.environ.items() if not n.startswith("WANDB_")}
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=folder,
        env={**environment, "PYTHONPATH": path, **foreign_settings(folder / "home"), **more},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        start_new_session=True,  # no terminal to ask at
        check=False,
    )


def test_a_key_stands_in_no_file_and_a_server_that_is_not_there_costs_no_row(folder):
    SyntheticRun(folder / "run", plan=[CUP], episodes=2).write()
    code = """
        from continual import publish, wandb_sink
        wandb_sink._CONNECT = 1.0
        publish.main(["run"])
    """
    more = {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": "http://127.0.0.1:9"}
    left = in_another_process(code, folder, **more)
    assert left.returncode == 0, left.stderr
    assert "W&B cannot be reached, so it is written offline: " in left.stdout
    assert [told.run.job_type for told in offline_runs(folder / "run")] == ["phase 1", "life"]
    assert KEY not in left.stdout + left.stderr
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


def test_a_life_goes_on_when_the_process_of_wandb_is_gone(tmp_path):
    class Gone:
        def log(self, row: dict[str, Any]) -> None:
            raise ConnectionResetError("Connection lost")

    said: list[str] = []
    told = WandbRun(Gone(), "offline", goes_on=False)
    tracker = WandbTracker(RunFolder(tmp_path), [CUP], told, {}, said.append)
    SyntheticRun(tmp_path / "run", plan=[CUP], episodes=2).write()
    for record in load_records(tmp_path / "run" / "records", EpisodeRecord):
        tracker.record(record)
        tracker.lived(Clock())
    tracker.saved()
    tracker.closed()
    assert said == ["W&B hears no more of this life, which goes on: Connection lost"]
    assert load_cursor(RunFolder(tmp_path)) == Cursor()  # a later start tells what is missing


@pytest.mark.parametrize(
    ("key", "wish", "mode"),
    [
        (None, "", "offline"),
        (KEY, "", "online"),
        (KEY, "offline", "offline"),
        (None, "online", "offline"),
    ],
)
def test_wandb_is_online_where_there_is_a_key_and_no_wish_to_be_offline(
    monkeypatch, key, wish, mode
):
    monkeypatch.setattr(wandb_sink, "_find_key", lambda say: key)
    monkeypatch.setenv("WANDB_MODE", wish)
    assert wandb_sink.Wandb(print).mode == mode


@pytest.mark.parametrize("found", [None, SimpleNamespace(origin=None)])
def test_without_the_package_one_line_says_how_to_get_it(folder, monkeypatch, found):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: found)
    expected = r"needs the package wandb: pip install 'continual\[wandb\]'"
    with pytest.raises(UserError, match=expected):
        live("none", "track=wandb")
    with pytest.raises(UserError, match=expected):
        publish.main(["runs/none"])
    assert not (folder / "runs").exists()


def test_another_sink_than_wandb_is_refused(folder):
    with pytest.raises(UserError, match="override track='wnadb': expected wandb"):
        live("none", "track=wnadb")


PLAN = [CUP, WALKER, CUP]


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    path = SyntheticRun(
        tmp_path_factory.mktemp("published") / "life", plan=PLAN, episodes=2
    ).write()
    assert publish.main([str(path)]) == 0
    return path


def test_every_phase_is_a_run_of_its_own_in_the_group_of_the_life(published):
    told = offline_runs(published)
    assert [one.run.job_type for one in told] == ["phase 1", "phase 2", "phase 3", "life"]
    (group,) = {one.run.run_group for one in told}
    assert re.fullmatch("dmc_then_crafter-laptop-gated-[0-9a-f]{6}", group)
    assert [list(one.run.tags) for one in told[:3]] == [["laptop", "gated", task] for task in PLAN]
    assert [one.run.display_name for one in told[1:3]] == [
        f"life phase 2: {WALKER}",
        f"life phase 3: {CUP}",
    ]
    assert [one.config["phase"] for one in told[:3]] == [1, 2, 3]
    assert not any(set(one.run.run_id) & set(":;,#?/") for one in told)


def test_a_group_holds_lives_that_differ_in_their_seed_alone(tmp_path):
    def group(name: str, **life: Any) -> str:
        run = load_run(SyntheticRun(tmp_path / name, plan=PLAN, episodes=1, **life).write())
        return wandb_sink.describe_run(run, "life", {}).group

    sparse = {"agent": {"gate": {"bias": 0.2}}}
    assert group("a", seed=0) == group("b", seed=1)
    assert group("a2", settings=sparse) == group("b2", settings=sparse, seed=1) != group("a3")


def test_phases_overlay_as_each_begins_at_step_0_with_what_was_judged_before_it(published):
    *phases, _ = offline_runs(published)
    f = find(load_run(published))
    for number, told in enumerate(phases, start=1):
        assert set(told.axes.values()) == {"", "phase_step"}
        assert {told.axes[f"{kind}/*"] for kind in ("own", "lived", "judged")} == {"phase_step"}
        by_step = {row["phase_step"]: row for row in told.rows if "own/judged/gated" in row}
        assert (min(by_step), max(by_step)) == (0, STEPS)
        task = f.run.trained[number - 1]
        assert by_step[0]["own/judged/gated"] == pytest.approx(f.returns[number - 1, task])
        assert by_step[STEPS]["own/judged/gated"] == pytest.approx(f.returns[number, task])
        assert by_step[STEPS]["own/normalised/gated"] == pytest.approx(f.normalised[number, task])
        assert by_step[STEPS][f"judged/{PLAN[number - 1]}/gated"] == pytest.approx(
            f.returns[number, task]
        )


def test_rows_of_a_phase_name_every_record_of_it_once(published):
    lines = (published / "records" / "episodes.jsonl").read_text().splitlines()
    told = offline_runs(published)[1]
    named = [line for row in told.rows if row["phase_step"] for line in numbers(row["record"])]
    of_phase = [n for n, line in enumerate(lines, start=1) if json.loads(line)["phase"] == 2]
    assert sorted(n for file, n in named if file == "episodes.jsonl") == of_phase
    assert [n for file, n in named if file == "phases.jsonl"] == [2]


def numbers(record: str) -> list[tuple[str, int]]:
    """(file, line) of what `episodes.jsonl:3-5,9` names."""
    file, _, ranges = record.partition(":")
    found: list[tuple[str, int]] = []
    for part in ranges.split(","):
        first, _, last = part.partition("-")
        found += [(file, n) for n in range(int(first), int(last or first) + 1)]
    return found


def test_the_life_holds_the_forgetting_matrix_as_table_and_picture_and_its_report(published):
    *_, told = offline_runs(published)
    f = find(load_run(published))
    table = json.loads(told.file("forgetting_matrix").read_text())
    assert table["columns"] == ["policy", "action_mode", "phase", "trained", *f.run.tasks]
    headline = [row for row in table["data"] if row[:2] == [f.headline, f.mode]]
    assert [row[2] for row in headline] == [0, 1, 2, 3]
    assert [row[4:] for row in headline] == pytest.approx(f.returns)
    picture = told.file("forgetting_matrix_picture").read_bytes()
    assert picture.startswith(b"\x89PNG")
    report = ["index.html", "matrix.csv", "matrix.tex", "summary.json"]
    assert told.artifacts[f"report-{told.run.run_id}"] == report
    assert [row["average/all"] for row in told.rows] == pytest.approx(f.average)
    known = {f"metric/{m.name}": m.value for m in f.metrics if m.value == m.value}
    assert {name: told.summary[name] for name in known} == pytest.approx(known)
    assert told.summary["status"] == "finished"


def files(path: Path) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in (path / "wandb").rglob("*") if p.is_file()}


def test_publishing_twice_changes_nothing(published, capsys):
    before = files(published)
    assert publish.main([str(published)]) == 0
    assert files(published) == before
    assert capsys.readouterr().out == f"{published}: 0 W&B runs written, 4 unchanged\n"


def test_what_has_changed_takes_the_place_of_what_was_published(tmp_path, capsys):
    path = SyntheticRun(tmp_path / "life", plan=PLAN[:2], finished=1, episodes=2).write()
    publish.main([str(path)])
    before = {one.run.job_type: one.run.run_id for one in offline_runs(path)}
    lines = (path / "records" / "episodes.jsonl").read_text().splitlines(keepends=True)
    newest = next(line for line in reversed(lines) if '"split":"train"' in line)
    with (path / "records" / "episodes.jsonl").open("a") as file:
        file.write(newest)
    capsys.readouterr()
    publish.main([str(path)])
    after = {one.run.job_type: one.run.run_id for one in offline_runs(path)}
    assert len(offline_runs(path)) == 3
    assert after == before
    assert "1 unchanged" in capsys.readouterr().out  # the first phase


def test_another_header_is_refused(tmp_path):
    (tmp_path / "wandb" / "offline-run-1").mkdir(parents=True)
    (tmp_path / "wandb" / "offline-run-1" / "run.wandb").write_bytes(b":W&B\xe1\xbe\x01")
    with pytest.raises(ValueError, match="expected"):
        offline_runs(tmp_path)


@pytest.mark.parametrize("name", ["live.json", "published.json"])
def test_a_damaged_note_of_what_was_told_is_named(published, tmp_path, name):
    path = SyntheticRun(tmp_path / "life", plan=[CUP], episodes=2).write()
    (path / "wandb").mkdir()
    (path / "wandb" / name).write_text("[1]")
    with pytest.raises(UserError, match=rf"{name}: damaged .*; delete it"):
        publish.main([str(path)]) if name == "published.json" else load_cursor(RunFolder(path))
