"""The door `python -m eval.export_l2 runs/NAME [out=FOLDER]`: a run as l2metrics reads it.

l2metrics (Johns Hopkins APL, arXiv:2201.08278) judges lifelong learning by its own definitions,
from logs of l2logger. This writes such a log, format version 1.1, so that its numbers come from its
own code:

    python -m l2metrics -l runs/NAME/l2 -d runs/NAME/l2/data_range.json

A life becomes blocks, in its order: what was lived between two evaluations is a `train` block, an
evaluation of the headline policy a `test` block. A row is a whole episode.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from continual.cli import asked_of_run, run_door
from continual.errors import UserError
from continual.files import PARTIAL, named
from continual.section import Section
from eval.findings import find
from eval.records import EpisodeRecord
from eval.run_folder import RecordedRun, load_run

FORMAT_VERSION = "1.1"
LOGGER_INFO, SCENARIO_INFO, DATA_RANGE = "logger_info.json", "scenario_info.json", "data_range.json"
WORKER = "worker-default"  # l2logger's own name where one agent lives one life
METRICS = ("episode_step_count", "reward")  # alphabetical, as l2logger writes them
COLUMNS = (
    "block_num",
    "exp_num",
    "worker_id",
    "block_type",
    "block_subtype",
    "task_name",
    "task_params",
    "exp_status",
    "timestamp",
    *METRICS,
)
# l2metrics copies these words to its tables and computes nothing from them; nobody has rated ours.
SCENARIO = {"complexity": "2-intermediate", "difficulty": "2-medium", "scenario_type": "custom"}
# No clock of the wall is in the records: an environment step counts as a microsecond, so that the
# longest curriculum has room, and `runtime` in l2metrics reads as millions of environment steps.
BEGINNING = datetime(2000, 1, 1)


class Asked(Section):
    """What is to be written where."""

    out: str = Field("", description="folder of the export; else l2 in the run's")


@dataclass(frozen=True)
class Block:
    """A stretch of living, or an evaluation, in l2logger's words.

    Attributes:
      episodes: of one task in a `train` block; task by task in a `test` block. Never empty.
    """

    type: Literal["train", "test"]
    episodes: Sequence[EpisodeRecord]


def write_export(run_folder: Path, out: Path | None = None) -> Path:
    """Write a run as a log of l2logger: whole or not at all. The same records give the same bytes.

    Args:
      out: made, or replaced where it is an earlier export; None: `l2` in the run's folder.
    Returns:
      The folder.
    Raises:
      UserError: no run, nothing recorded yet, or a folder that is not ours to replace.
    """
    files = export_files(load_run(run_folder))
    folder = run_folder / "l2" if out is None else out
    with named(folder, "write the export"):
        _refuse_foreign(folder)
        _put(folder.resolve(), files)
    return folder


def export_files(run: RecordedRun) -> dict[str, str]:
    """The export as texts by their paths in its folder.

    Raises:
      UserError: not one whole episode is recorded.
    """
    findings = find(run)
    life = blocks(run.episodes, findings.headline, findings.mode)
    if not life:
        raise UserError(f"{run.path}: no whole episode is recorded yet, so there is none to export")
    names = l2_names(run.tasks)
    about = {
        **SCENARIO,
        "run": run.name,
        "status": run.unfinished or "finished",
        "tasks": {name: task for task, name in names.items()},
        "judged": {"policy": findings.headline, "action_mode": findings.mode},
        "units": {"episode_step_count": "decisions", "reward": "undiscounted return"},
    }
    logger = {"metrics_columns": list(METRICS), "log_format_version": FORMAT_VERSION}
    files = {LOGGER_INFO: _json(logger), SCENARIO_INFO: _json(about)}
    if set(run.tasks) <= set(run.return_ranges):  # l2metrics takes the ranges of all tasks, or none
        ranges = {
            names[t]: dict(zip(("min", "max"), run.return_ranges[t], strict=True))
            for t in run.tasks
        }
        files[DATA_RANGE] = _json(ranges)
    experiences = itertools.count()
    for number, block in enumerate(life):
        path = f"{WORKER}/{number}-{block.type}/data-log.tsv"
        files[path] = _table(_rows(block, number, experiences, names))
    return files


def blocks(episodes: Iterable[EpisodeRecord], policy: str, mode: str) -> list[Block]:
    """What was lived and how it was judged, in the order of the life.

    Left out are episodes that a phase's end cut, for they would read as poor ones, and what other
    policies than the headline's came to.

    Args:
      episodes: in the order in which they were recorded.
      policy, mode: of the evaluations.
    """
    told = (
        e
        for e in episodes
        if not (e.cut or e.variant)
        and (e.split == "train" or (e.policy, e.action_mode) == (policy, mode))
    )
    return [
        Block("train", list(group)) if split == "train" else Block("test", _task_by_task(group))
        for (split, _), group in itertools.groupby(told, _stretch)
    ]


def l2_names(tasks: Iterable[str]) -> dict[str, str]:
    """Our name of each task -> its name in the log: `dmc/walker_walk` -> `dmcwalkerwalk_plain`.

    l2logger lowers names and wants `<label>_<variant>`; l2metrics may be asked to look at labels
    alone. As `dmc_walker_walk` all of the control suite would be one task, so a label holds all of
    a name's letters and digits; where two tasks share them the later one gets a number.
    """
    names: dict[str, str] = {}
    for task in tasks:
        label = re.sub("[^a-z0-9]", "", task.lower()) or "task"
        numbered = itertools.chain([label], (f"{label}{n}" for n in itertools.count(2)))
        candidates = (f"{name}_plain" for name in numbered)
        names[task] = next(name for name in candidates if name not in names.values())
    return names


def _stretch(e: EpisodeRecord) -> tuple[str, int]:
    """What the episodes of a block share: the phase they were lived in, or when they were judged.

    An instant and not its `eval_id`: a branch judges new tasks where its origin's phase ended, and
    that is one evaluation.
    """
    return e.split, e.phase if e.split == "train" else e.env_steps


def _task_by_task(evaluation: Iterable[EpisodeRecord]) -> list[EpisodeRecord]:
    """An evaluation with each task once, in one piece.

    A phase that `until_return` ends is judged twice at that instant, inside and at its end: the
    same agent in the same episodes. The later one counts.
    """
    judged: dict[str, dict[str, list[EpisodeRecord]]] = {}
    for e in evaluation:
        judged.setdefault(e.task, {}).setdefault(e.when, []).append(e)
    return [e for by_when in judged.values() for e in list(by_when.values())[-1]]


def _rows(
    block: Block, number: int, experiences: Iterator[int], names: Mapping[str, str]
) -> Iterator[Sequence[Any]]:
    for e in block.episodes:
        yield (
            number,
            next(experiences),
            WORKER,
            block.type,
            "wake",
            names[e.task],
            json.dumps({"task": e.task}),
            "complete",
            f"{BEGINNING + timedelta(microseconds=e.env_steps):%Y%m%dT%H%M%S.%f}",
            e.length,
            e.return_,
        )


def _table(rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    table = csv.writer(text, delimiter="\t", lineterminator="\n")
    table.writerow(COLUMNS)
    table.writerows(rows)
    return text.getvalue()


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2) + "\n"


def _refuse_foreign(folder: Path) -> None:
    """Raises UserError: what is there is not an export alone, and replacing it would lose it."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"{folder}: a file; expected a folder for the export")
    ours = {LOGGER_INFO, SCENARIO_INFO, DATA_RANGE, WORKER}
    foreign = {path.name for path in folder.iterdir()} - ours
    if foreign:
        raise UserError(
            f"{folder}: holds {min(foreign)!r}, which is not of an export; name another folder"
        )


def _put(folder: Path, files: Mapping[str, str]) -> None:
    """Give a folder these files and no others.

    A kill leaves it as it was or with all of them; between the two renames it is not there, and
    what it held and what it shall hold both lie whole beside it.
    """
    beside = folder.with_name(folder.name + PARTIAL)
    shutil.rmtree(beside, ignore_errors=True)
    try:
        for name, text in files.items():
            path = beside / "new" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    if folder.exists():
        folder.rename(beside / "old")
    (beside / "new").rename(folder)
    shutil.rmtree(beside)


def main(argv: list[str]) -> int:
    run, asked = asked_of_run(
        argv,
        Asked,
        prog="eval.export_l2",
        description="Write a run's records as a log of l2logger, for l2metrics. A run that is not "
        "finished yet is written as far as it has come.",
    )
    print(write_export(run, Path(asked.out) if asked.out else None))
    return 0


if __name__ == "__main__":
    run_door(main)
