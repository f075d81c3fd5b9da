"""A run folder becomes a log of l2logger: its rules, and what l2metrics itself makes of it."""

from __future__ import annotations

import csv
import errno
import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from continual.cli import run_door
from continual.errors import UserError
from eval import export_l2
from eval.export_l2 import blocks, l2_names, write_export
from eval.records import EpisodeRecord, load_records
from eval.run_folder import load_run
from tests.synthetic_run import CRAFTER, CUP, WALKER, SyntheticRun

NAMES = {
    CUP: "dmcballincupcatch_plain",
    WALKER: "dmcwalkerwalk_plain",
    CRAFTER: "crafterreward_plain",
}
COLUMNS = [
    *("block_num", "exp_num", "worker_id", "block_type", "block_subtype", "task_name"),
    *("task_params", "exp_status", "timestamp", "episode_step_count", "reward"),
]

# What l2metrics 3.1.0 was written for: on numpy 2 it breaks off (`np.NaN`) wherever a task has
# fewer than three train regimes. Python 3.11 is the last with wheels of them all.
PEERS = (
    "l2metrics==3.1.0",
    "l2logger==1.8.2",
    "numpy==1.26.4",
    "pandas==1.5.3",
    "scipy==1.11.4",
    "matplotlib==3.6.3",
    "seaborn==0.12.2",
    "pyarrow==15.0.2",  # of what they depend on the only one whose newest asks for numpy 2
)

# Runs in an environment that has l2metrics and not us; prints what it finds.
SCORE = """
import json, sys
from pathlib import Path
from l2metrics.report import MetricsReport

raw = {"normalization_method": "none", "smoothing_method": "none"}
report = MetricsReport(log_dir=Path(sys.argv[1]), **raw)
report.calculate()
regimes = report.regime_metrics_df[["block_num", "block_type", "task_name", "term_perf"]]
print(json.dumps({
    "regimes": json.loads(regimes.to_json(orient="records")),
    "tasks": json.loads(report.task_metrics_df.to_json(orient="index")),
    "lifetime": json.loads(report.ll_metrics_df.to_json(orient="records"))[0],
}))
"""


def log_of(folder: Path) -> list[dict[str, str]]:
    """All rows of an export in the order of their experiences, as l2logger gathers them."""
    rows: list[dict[str, str]] = []
    for file in folder.rglob("data-log.tsv"):
        with file.open(encoding="utf-8", newline="") as text:
            held = list(csv.DictReader(text, delimiter="\t"))
        assert held
        assert {f"{r['block_num']}-{r['block_type']}" for r in held} == {file.parent.name}
        assert {r["worker_id"] for r in held} == {file.parent.parent.name}
        rows += held
    return sorted(rows, key=lambda row: int(row["exp_num"]))


def told(rows: Sequence[dict[str, str]]) -> list[tuple[str, list[str]]]:
    """(type, tasks in order) of each block."""
    ours = {name: task for task, name in NAMES.items()}
    return [
        (kind, [ours[name] for name, _ in groupby(held, lambda r: r["task_name"])])
        for (_, kind), held in groupby(rows, lambda r: (r["block_num"], r["block_type"]))
    ]


def headline(run: Path, split: str) -> list[EpisodeRecord]:
    """Records that belong in the export of a gated run, in the order of the life."""
    wanted = {"train": ("gated", "sampled"), "eval": ("gated", "mode")}[split]
    records = load_records(run / "records", EpisodeRecord)
    return [r for r in records if r.split == split and (r.policy, r.action_mode) == wanted]


def info(folder: Path, name: str) -> dict[str, Any]:
    return dict(json.loads((folder / name).read_text(encoding="utf-8")))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if not p.is_dir()}


def record(task: str = CUP, **values: Any) -> EpisodeRecord:
    """Of an evaluation at the end of phase 1, unless told otherwise."""
    made = EpisodeRecord(
        split="eval",
        eval_id="1@100",
        when="end",
        task=task,
        variant="",
        policy="gated",
        action_mode="mode",
        phase=1,
        cycle=1,
        phase_step=100,
        env_steps=100,
        agent_steps=50,
        updates=3,
        world=0,
        episode=0,
        seed=0,
        return_=1.0,
        length=10,
        terminated=False,
    )
    return replace(made, **values)


def lived(task: str = CUP, **values: Any) -> EpisodeRecord:
    training = {"split": "train", "eval_id": "", "when": "", "action_mode": "sampled"}
    return record(task, **(training | values))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return SyntheticRun(tmp_path_factory.mktemp("runs") / "synthetic").write()


@pytest.fixture(scope="module")
def exported(run: Path) -> Path:
    return write_export(run)


def test_a_life_becomes_blocks_in_its_order(exported: Path):
    everything = ("test", [CUP, WALKER, CRAFTER])
    stretches = [
        block for task in (CUP, WALKER, CRAFTER) for block in [("train", [task]), everything] * 5
    ]
    assert told(log_of(exported)) == [everything, *stretches]


def test_every_row_follows_the_rules_of_the_format(exported: Path):
    rows = log_of(exported)
    assert {tuple(row) for row in rows} == {tuple(COLUMNS)}
    assert [int(row["exp_num"]) for row in rows] == list(range(len(rows)))
    numbers = [int(row["block_num"]) for row in rows]
    assert numbers == sorted(numbers)
    assert set(numbers) == set(range(31))
    assert {row["block_subtype"] for row in rows} == {"wake"}
    assert {row["exp_status"] for row in rows} == {"complete"}
    assert all(re.fullmatch(r"[a-z0-9]+_[a-z0-9]+", row["task_name"]) for row in rows)
    assert {row["task_params"] for row in rows} == {json.dumps({"task": t}) for t in NAMES}
    at = [datetime.strptime(row["timestamp"], "%Y%m%dT%H%M%S.%f") for row in rows]
    assert at == sorted(at)
    assert (at[-1] - at[0]).total_seconds() == pytest.approx(0.15)  # millions of steps


def test_the_two_files_about_a_log_say_what_the_format_asks_and_name_the_tasks(exported: Path):
    assert info(exported, "logger_info.json") == {
        "metrics_columns": ["episode_step_count", "reward"],
        "log_format_version": "1.1",
    }
    scenario = info(exported, "scenario_info.json")
    assert scenario["complexity"] in ("1-low", "2-intermediate", "3-high")
    assert scenario["difficulty"] in ("1-easy", "2-medium", "3-hard")
    assert scenario["scenario_type"] == "custom"
    assert scenario["status"] == "finished"
    assert scenario["judged"] == {"policy": "gated", "action_mode": "mode"}
    assert scenario["tasks"] == {name: task for task, name in NAMES.items()}


@pytest.mark.parametrize(("split", "kind"), [("train", "train"), ("eval", "test")])
def test_rows_are_the_episodes_of_the_headline_to_the_last_bit(
    run: Path, exported: Path, split: str, kind: str
):
    rows = [row for row in log_of(exported) if row["block_type"] == kind]
    found = [
        (row["task_name"], float(row["reward"]), int(row["episode_step_count"])) for row in rows
    ]
    assert found == [(NAMES[r.task], r.return_, r.length) for r in headline(run, split)]


def test_the_same_records_give_the_same_bytes_wherever_they_are_written(run: Path, tmp_path: Path):
    first = write_export(run, tmp_path / "deep" / "first")
    assert contents(write_export(run)) == contents(first) == contents(write_export(run, first))
    assert [p.name for p in first.parent.iterdir()] == ["first"]


def test_an_export_is_replaced_with_nothing_of_it_left(tmp_path: Path):
    run = SyntheticRun(tmp_path / "run").write()
    folder = write_export(run)
    episodes = run / "records" / "episodes.jsonl"
    lines = episodes.read_text().splitlines(keepends=True)
    episodes.write_text("".join(lines[: len(lines) // 2]))
    assert max(int(row["block_num"]) for row in log_of(write_export(run))) < 30
    assert folder == run / "l2"


def test_an_unfinished_run_is_written_as_far_as_it_has_come(tmp_path: Path):
    run = SyntheticRun(tmp_path / "run", finished=1).write()
    last = lived(WALKER, phase=2, env_steps=71_000)
    with (run / "records" / "episodes.jsonl").open("a") as file:
        file.write(f'{last.to_json()}\n{{"schema":1,"split":"ev')  # torn as it is written
    folder = write_export(run)
    assert told(log_of(folder))[-3:] == [
        ("train", [WALKER]),
        ("test", [CUP, WALKER, CRAFTER]),
        ("train", [WALKER]),
    ]
    assert info(folder, "scenario_info.json")["status"] == "unfinished: phase 2 of 3"


def test_a_task_that_comes_back_keeps_its_name_and_one_that_is_judged_is_never_lived(
    tmp_path: Path,
):
    plan = (CUP, CRAFTER, CUP, CRAFTER)
    run = SyntheticRun(tmp_path / "run", plan=plan, judged=(WALKER,)).write()
    found = told(log_of(write_export(run)))
    assert [tasks for kind, tasks in found if kind == "train"] == [
        [t] for t in plan for _ in "12345"
    ]
    assert all(tasks == [CUP, CRAFTER, WALKER] for kind, tasks in found if kind == "test")
    assert [kind for kind, _ in found] == ["test"] + ["train", "test"] * 20


def test_a_run_without_a_learner_is_written_by_what_was_judged_of_it(tmp_path: Path):
    run = SyntheticRun(tmp_path / "run", policies=("random",)).write()
    folder = write_export(run)
    judged = info(folder, "scenario_info.json")["judged"]
    assert judged == {"policy": "random", "action_mode": "sampled"}
    assert told(log_of(folder))[0] == ("test", [CUP, WALKER, CRAFTER])


def test_episodes_that_a_phase_cut_are_left_out():
    episodes = [lived(episode=0), lived(episode=1, cut=True), lived(episode=2)]
    (block,) = blocks(episodes, "gated", "mode")
    assert [e.episode for e in block.episodes] == [0, 2]


def test_living_in_two_phases_is_two_blocks_even_where_nothing_was_judged_between():
    found = blocks([lived(phase=1), lived(CRAFTER, phase=2)], "gated", "mode")
    assert [(b.type, len(b.episodes)) for b in found] == [("train", 1), ("train", 1)]


def test_a_phase_that_ends_early_is_judged_once_at_its_end():
    inside = [record(task, when="inside", return_=1.0) for task in (CUP, WALKER)]
    end = [record(CUP, return_=2.0), record(CUP, return_=3.0)]  # killed before the other task
    (block,) = blocks([*inside, *end], "gated", "mode")
    assert [(e.task, e.return_) for e in block.episodes] == [(CUP, 2.0), (CUP, 3.0), (WALKER, 1.0)]


def test_what_a_branch_judges_before_it_lives_belongs_to_the_evaluation_that_it_goes_on_from():
    before = record(CRAFTER, eval_id="0@0", when="before", phase=0, phase_step=0)
    (block,) = blocks([record(), before], "gated", "mode")
    assert [e.task for e in block.episodes] == [CUP, CRAFTER]


def test_every_task_has_a_label_of_its_own():
    names = l2_names(["dmc/ball_in_cup", "dmc/ballin_cup", "DMC/ballincup", "dmc/ballincup2", "/"])
    labels = [name.partition("_")[0] for name in names.values()]
    assert labels == ["dmcballincup", "dmcballincup2", "dmcballincup3", "dmcballincup22", "task"]


def test_ranges_are_written_when_every_task_has_one(tmp_path: Path, exported: Path):
    ranges = info(exported, "data_range.json")
    assert ranges[NAMES[CRAFTER]] == {"min": 0.0, "max": 22.0}
    assert set(ranges) == set(NAMES.values())
    run = SyntheticRun(tmp_path / "run", plan=(CUP,), judged=("toy/unknown",)).write()
    assert not (write_export(run) / "data_range.json").exists()


def test_a_disk_that_is_full_leaves_the_export_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run = SyntheticRun(tmp_path / "run", plan=(CUP,)).write()
    before = contents(write_export(run).parent)
    written = iter(range(3))

    def write(path: Path, *args: Any, **kwargs: Any) -> int:
        if next(written, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return whole(path, *args, **kwargs)

    whole: Callable[..., int] = Path.write_text
    monkeypatch.setattr(Path, "write_text", write)
    with pytest.raises(UserError, match="l2: cannot write the export: No space left"):
        write_export(run)
    assert contents(run) == before


def test_what_a_kill_left_behind_is_cleared_away(tmp_path: Path):
    run = SyntheticRun(tmp_path / "run", plan=(CUP,)).write()
    left = run / "l2.partial" / "new"
    left.mkdir(parents=True)
    (left / "logger_info.json").write_text("{")
    assert info(write_export(run), "logger_info.json")["log_format_version"] == "1.1"
    assert not left.parent.exists()


def test_door_prints_the_folder_and_exits_0(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert export_l2.main([str(run), f"out={tmp_path / 'log'}"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'log'}\n"
    assert log_of(tmp_path / "log")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "expected one run, such as runs/NAME, found 0"),
        (["run", "other"], "found 2"),
        (["rum"], "rum: no such run folder; did you mean 'run'?"),
        (["run", "uot=there"], "did you mean 'out'?"),
        (["run", "--out=there"], "unknown flag"),
        (["run", "out=run"], "run: holds 'config.yaml', which is not of an export"),
        (["run", "out=run/config.yaml"], "config.yaml: a file; expected a folder"),
        (["run", "out=run/config.yaml/l2"], "cannot write the export: Not a directory"),
        (["new"], "new: no whole episode is recorded yet"),
    ],
)
def test_what_cannot_be_exported_takes_one_line_and_changes_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    says: str,
):
    monkeypatch.chdir(tmp_path)
    SyntheticRun(tmp_path / "run", plan=(CUP,), episodes=1).write()
    new = SyntheticRun(tmp_path / "new", plan=(CUP,), episodes=1).write()
    (new / "records" / "episodes.jsonl").unlink()
    before = contents(tmp_path)
    monkeypatch.setattr(sys, "argv", ["export_l2", *arguments])
    with pytest.raises(SystemExit) as left:
        run_door(export_l2.main)
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert contents(tmp_path) == before


# What follows asks l2metrics itself.


@pytest.fixture(scope="module")
def peer(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs Python in an environment of its own that has l2metrics."""
    home = tmp_path_factory.mktemp("peer")
    python = home / "venv" / "bin" / "python"
    ours = ("PYTHON", "VIRTUAL_ENV")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    environment |= {"L2DATA": str(home / "l2data"), "MPLBACKEND": "agg"}

    def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [python, *arguments],
            cwd=home,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    subprocess.run([sys.executable, "-m", "venv", home / "venv"], check=True)
    installed = ask("-m", "pip", "install", "--quiet", *PEERS)
    if installed.returncode:
        pytest.fail(
            f"pip could not install l2metrics beside us, so nothing was compared (Python "
            f"{sys.version_info.major}.{sys.version_info.minor}, pins for 3.11):\n"
            f"{installed.stderr[-2000:]}",
            pytrace=False,
        )
    return ask


@pytest.fixture(scope="module", params=["once", "cycles", "unfinished"])
def judged_elsewhere(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Runs of which l2metrics is asked."""
    settings: dict[str, Any] = {
        "once": {},
        "cycles": {"plan": (CUP, CRAFTER, CUP, CRAFTER), "judged": (WALKER,)},
        "unfinished": {"finished": 1},
    }[request.param]
    return SyntheticRun(tmp_path_factory.mktemp(request.param) / "run", **settings).write()


def scored(ask: Callable[..., subprocess.CompletedProcess[str]], folder: Path) -> dict[str, Any]:
    """What l2metrics' own report finds in a log, in raw returns."""
    done = ask("-W", "ignore", "-c", SCORE, str(folder))
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def maintained(records: Sequence[EpisodeRecord], plan: Sequence[str], task: str) -> Iterator[float]:
    """Each evaluation of a task after the first that followed its newest training, minus that one.

    Of a life that judges at the end of every stretch, so that the evaluations of a task's own
    phases are all first ones.
    """
    reference = None
    for _, group in groupby(records, lambda r: (r.phase, r.env_steps)):
        held = list(group)
        mean = statistics.fmean(r.return_ for r in held if r.task == task)
        if held[0].phase and plan[held[0].phase - 1] == task:
            reference = mean
        elif reference is not None:
            yield mean - reference


@pytest.mark.slow
def test_l2loggers_own_check_passes_without_a_warning(peer, judged_elsewhere: Path):
    done = peer("-m", "l2logger.validate", str(write_export(judged_elsewhere)))
    assert done.returncode == 0
    assert "Log format validation passed!" in done.stdout
    assert done.stderr == ""


@pytest.mark.slow
def test_l2metrics_finds_the_terminal_performance_that_the_records_hold(
    peer, judged_elsewhere: Path
):
    found = scored(peer, write_export(judged_elsewhere))["regimes"]
    records = headline(judged_elsewhere, "eval")
    tests = [
        (NAMES[task], statistics.fmean(r.return_ for r in group))
        for (_, task), group in groupby(records, lambda r: (r.env_steps, r.task))
    ]
    assert [(r["task_name"], r["term_perf"]) for r in found if r["block_type"] == "test"] == [
        (name, pytest.approx(mean, rel=1e-9)) for name, mean in tests
    ]
    # The last tenth of the ten episodes between two evaluations is the last of them.
    last = [r.return_ for r in headline(judged_elsewhere, "train")][9::10]
    trained = [r["term_perf"] for r in found if r["block_type"] == "train"]
    assert trained == pytest.approx(last, rel=1e-9)


@pytest.mark.slow
def test_l2metrics_finds_the_maintenance_that_the_records_hold(peer, judged_elsewhere: Path):
    found = scored(peer, write_export(judged_elsewhere))
    records = headline(judged_elsewhere, "eval")
    plan = [phase.task for phase in load_run(judged_elsewhere).plan]
    by_hand = {
        NAMES[task]: statistics.fmean(values)
        for task in dict.fromkeys(r.task for r in records)
        if (values := list(maintained(records, plan, task)))
    }
    maintenance = {name: task["perf_maintenance_mrlep"] for name, task in found["tasks"].items()}
    assert by_hand[NAMES[CUP]] < -10  # a synthetic life forgets
    assert {k: v for k, v in maintenance.items() if v is not None} == pytest.approx(by_hand)
    lifetime = statistics.fmean(by_hand.values())
    assert found["lifetime"]["perf_maintenance_mrlep"] == pytest.approx(lifetime)


@pytest.mark.slow
def test_l2metrics_scores_a_run_from_its_command_line_in_the_given_ranges(
    peer, judged_elsewhere: Path, tmp_path: Path
):
    folder = write_export(judged_elsewhere)
    ranges = info(folder, "data_range.json")
    plain = scored(peer, folder)
    done = peer(
        *("-m", "l2metrics", "-l", str(folder), "-d", str(folder / "data_range.json")),
        *("-g", "none", "--no-plot", "-O", str(tmp_path)),
    )
    assert done.returncode == 0, done.stderr
    assert "Lifetime Metrics:" in done.stdout
    assert "Traceback" not in done.stderr
    for name, task in info(tmp_path, "l2_metrics.json")["task_metrics"].items():
        raw = plain["tasks"][name]["perf_maintenance_mrlep"]
        if raw is not None:
            scale = 100 / (ranges[name]["max"] - ranges[name]["min"])
            assert task["perf_maintenance_mrlep"] == pytest.approx(raw * scale)
