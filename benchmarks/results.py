"""Lives every piece of every study that docs/results/ lacks, and writes its tables.

    python benchmarks/results.py                     # all that is missing, one life a core
    python benchmarks/results.py --study learning --minutes 50
    python benchmarks/results.py --tables            # only the tables, from what is there

A piece that is stopped or killed goes on where it was, and one that is not done five minutes after
the time is over is stopped. What a piece found is one JSON file; lives through several tasks
publish their records too, so that they can be set side by side although each was lived on another
day or machine. Runs and what they said stay under runs/results/ until somebody removes them. Lives
of this size get more done with a core each than one after the other with all: their products are
small.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from studies import STUDIES, Piece, Study

from continual.cli import run_door
from continual.errors import UserError, nearest
from continual.files import write_atomically
from eval.as_json import null_for_nan
from eval.compare_page import write_comparison
from eval.comparison import HEADLINES
from eval.findings import find
from eval.metrics import CAME_BACK
from eval.records import EpisodeRecord
from eval.run_folder import RecordedRun, load_run

ROOT = Path(__file__).parents[1]
RESULTS, RUNS = ROOT / "docs" / "results", ROOT / "runs" / "results"
LAST = 10  # training episodes that count as the end
GRACE = 5  # minutes that a piece has to end in when the time is over
HOW_IT_LEARNT = ("agent", "replay", "collect")  # sections of the config


def curriculum_of(piece: Piece) -> str:
    phases = ", ".join(f"{{task: {task}, steps: 1}}" for task, _ in piece.phases)
    return f"description: {piece.study}, {piece.label}\nphases: [{phases}]\n"


def command_of(piece: Piece, curriculum: Path) -> list[str]:
    return [
        *("continual.run", str(curriculum), "scale=laptop", f"seed={piece.seed}"),
        f"collect.budgets={json.dumps(dict(piece.phases))}",
        # What a single task came to is judged at its end alone.
        *(["evaluate.inside_every=1"] if len(piece.phases) == 1 else []),
        *piece.overrides,
        f"name={piece.name}",
        f"runs={RUNS}",
    ]


def live(piece: Piece, seconds: float) -> bool:
    """Live a piece on the cores of this thread, and keep what it found.

    Args:
      seconds: after which it is stopped.

    Returns:
      Whether it came to its end.

    Raises:
      UserError: the run did not end well.
    """
    RUNS.mkdir(parents=True, exist_ok=True)
    curriculum = RUNS / f"{piece.name}.yaml"
    write_atomically(curriculum, curriculum_of(piece))
    command = command_of(piece, curriculum)
    with (RUNS / f"{piece.name}.log").open("a", encoding="utf-8") as log:
        life = subprocess.Popen([sys.executable, "-m", *command], cwd=ROOT, stdout=log, stderr=log)
        try:
            code = life.wait(seconds)
        except subprocess.TimeoutExpired:
            # Not SIGINT, which who was started in the background may not hear.
            life.terminate()
            life.wait()
            return False
    if code:
        raise UserError(
            f"{piece.name}: ended with exit code {code}, see runs/results/{piece.name}.log; "
            "the same command goes on"
        )
    kept = [part.replace(f"{RUNS}", "runs/results") for part in command]
    kept[1] = curriculum.name
    found = {"piece": piece.__dict__, "command": f"python -m {shlex.join(kept)}", **summary(piece)}
    file_of(piece).parent.mkdir(parents=True, exist_ok=True)
    if len(piece.phases) > 1:
        publish_records(RUNS / piece.name, records_of(piece))
    # Last: a piece whose file is there is not lived again.
    write_atomically(file_of(piece), json.dumps(found, indent=1) + "\n")
    return True


def publish_records(run: Path, folder: Path) -> None:
    """Copy what eval/ reads of a run; neither its replay nor its checkpoints."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("config.yaml", "curriculum.yaml", "versions.json"):
        shutil.copyfile(run / name, folder / name)
    shutil.copytree(run / "records", folder / "records", dirs_exist_ok=True)


def live_all(pieces: Sequence[Piece], minutes: float) -> int:
    """Live pieces, a core each; -> how many did not end because the time was over.

    Raises:
      UserError: one of them did not end well; the others were lived.
    """
    start, cores = time.monotonic(), sorted(os.sched_getaffinity(0))
    free = iter(cores)

    def one(piece: Piece) -> bool:
        left = 60 * minutes - (time.monotonic() - start)
        if left < 0:
            return False
        print(f"begins: {piece.name}", flush=True)
        is_done = live(piece, left + 60 * GRACE)
        print(f"{'ended' if is_done else 'stopped'}: {piece.name}", flush=True)
        return is_done

    def settle() -> None:
        os.sched_setaffinity(0, {next(free)})  # of this thread, and of processes that it starts

    with ThreadPoolExecutor(len(cores), initializer=settle) as pool:
        begun = [pool.submit(one, piece) for piece in pieces]
    return sum(not done.result() for done in begun)


def compare(study: Study) -> None:
    """Set the lives of a study through several tasks side by side, once all were lived."""
    if study.has_plans and all(file_of(piece).exists() for piece in study.pieces()):
        folders = [records_of(piece) for piece in study.pieces()]
        print(write_comparison(folders, RUNS / study.name), flush=True)


def summary(piece: Piece) -> dict[str, Any]:
    """The numbers of a finished piece, from its records."""
    run = load_run(RUNS / piece.name)
    lived = [e.return_ for e in run.episodes if e.split == "train" and not e.cut]
    ends = [e for e in run.episodes if e.split == "eval" and e.when == "end"]
    random = [e.return_ for e in run.episodes if e.policy == "random" and e.when == "before"]
    quarter = run.train[-max(1, len(run.train) // 4) :]
    return {
        **(judged_over_phases(run) if len(piece.phases) > 1 else {}),
        "versions": {name: run.versions.get(name) for name in ("python", "jax", "mujoco")},
        "config": {section: run.config[section] for section in HOW_IT_LEARNT},
        "episodes": len(lived),
        "last_training_returns": lived[-LAST:],
        "training_return": mean(lived[-LAST:]),
        "random_return": mean(random),
        "judged": {
            f"{policy} {mode}": mean(
                e.return_ for e in ends if (e.policy, e.action_mode) == (policy, mode)
            )
            for policy, mode in sorted({(e.policy, e.action_mode) for e in ends})
        },
        "gate_choice": gate_choice(run.episodes),
        "effective_samples": mean(
            r.riders["awac"]["effective_samples"] for r in quarter if "awac" in r.riders
        ),
        "positive_share": mean(
            r.riders["awac"]["positive_share"] for r in quarter if "awac" in r.riders
        ),
    }


def judged_over_phases(run: RecordedRun) -> dict[str, Any]:
    """The forgetting matrix, and every metric that is defined."""
    found = find(run)
    defined = {m.name: m.value for m in found.metrics if not math.isnan(m.value)}
    return {
        "tasks": list(run.tasks),
        "matrix": null_for_nan(found.returns),
        "metrics": defined,
    }


def gate_choice(episodes: Iterable[EpisodeRecord]) -> float | None:
    """Share of lived decisions that the partner took."""
    sums = [e.gate for e in episodes if e.split == "train" and e.gate]
    return sum(g["chosen"] for g in sums) / sum(g["n"] for g in sums) if sums else None


def mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return statistics.fmean(found) if found else None


def file_of(piece: Piece, results: Path = RESULTS) -> Path:
    return results / piece.study / f"{piece.name}.json"


def records_of(piece: Piece) -> Path:
    """The run folder of a published life, as far as eval/ reads it."""
    return RESULTS / piece.study / "runs" / piece.name


def tables(results: Path = RESULTS) -> str:
    """All tables as Markdown, from the files alone."""
    lines = [
        "# Measured",
        "",
        "Made by `make results` from the JSON files beside this page; each names the command that "
        "makes it. Training return: mean of the last 10 training episodes, actions sampled, the "
        "gate at work. The actors: 10 episodes at the end, modes of the distributions.",
    ]
    for study in STUDIES:
        lines += [
            "",
            f"## {study.name}",
            "",
            f"{study.question} {study.env_steps:,} environment steps, scale `laptop`.",
            "",
            *settings_of(study),
            "",
            *table_of(study, results),
        ]
    return "\n".join(lines) + "\n"


def settings_of(study: Study) -> list[str]:
    """What each setting of a study changes of the scale."""
    return [
        f"- {label}: {', '.join(f'`{o}`' for o in overrides) or 'the scale as it is'}"
        for label, overrides in study.labels.items()
    ]


def table_of(study: Study, results: Path) -> list[str]:
    what, columns, cells_of = (
        ("plan", OVER_PHASES, cells_over_phases)
        if study.has_plans
        else ("task", ON_ONE_TASK, cells_on_one_task)
    )
    lines = [
        f"| {what} | setting | seeds | {' | '.join(columns)} |",
        f"|{'---|' * (3 + len(columns))}",
    ]
    for task, label in study.pairs:
        if found := published(study, task, label, results):
            cells = [task, label, str(len(found)), *cells_of(found)]
            lines.append(f"| {' | '.join(cells)} |")
    return lines if len(lines) > 2 else ["Nothing measured yet."]


ON_ONE_TASK = (
    "training return",
    "each seed",
    "random",
    "gated",
    "Dreamer actor",
    "AWAC actor",
    "choice rate",
    "effective samples",
)


def cells_on_one_task(found: Sequence[dict[str, Any]]) -> list[str]:
    pick = lambda key, digits=0: number((f[key] for f in found), digits)
    judged = lambda policy: number(f["judged"].get(f"{policy} mode") for f in found)
    return [
        pick("training_return"),
        ", ".join(number([f["training_return"]]) for f in found),
        pick("random_return"),
        judged("gated"),
        judged("dreamer_actor"),
        judged("awac_actor"),
        pick("gate_choice", 2),
        pick("effective_samples", 2),
    ]


JUDGED = (*HEADLINES, CAME_BACK)
OVER_PHASES = (*(column for name in JUDGED for column in (name, "each seed")), "choice rate")


def cells_over_phases(found: Sequence[dict[str, Any]]) -> list[str]:
    cells = []
    for name in JUDGED:
        values = [f["metrics"].get(name) for f in found]
        cells += [number(values, 2), ", ".join(number([v], 2) or "–" for v in values)]
    return [*cells, number((f["gate_choice"] for f in found), 2)]


def published(study: Study, task: str, label: str, results: Path) -> list[dict[str, Any]]:
    """What was found for a row of a table, seed by seed."""
    files = [
        file_of(piece, results)
        for piece in study.pieces()
        if (piece.task, piece.label) == (task, label)
    ]
    return [json.loads(file.read_text(encoding="utf-8")) for file in files if file.exists()]


def number(values: Iterable[float | None], digits: int = 0) -> str:
    found = [v for v in values if v is not None and not math.isnan(v)]
    return f"{statistics.fmean(found):.{digits}f}" if found else ""


def chosen(name: str | None) -> Sequence[Study]:
    found = [study for study in STUDIES if name in (None, study.name)]
    if not found:
        raise UserError(f"study {name!r}: {nearest(str(name), [s.name for s in STUDIES])}")
    return found


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--study", help=", ".join(study.name for study in STUDIES))
    parser.add_argument("--only", default="", help="pieces whose name holds this")
    parser.add_argument("--minutes", type=float, default=50, help="begin no piece after so many")
    parser.add_argument("--tables", action="store_true", help="live nothing")
    arguments = parser.parse_args(argv)
    missing = [
        piece
        for study in chosen(arguments.study)
        for piece in study.pieces()
        if arguments.only in piece.name and not file_of(piece).exists()
    ]
    if not arguments.tables:
        print(f"{len(missing)} pieces are missing", flush=True)
        if left := live_all(missing, arguments.minutes):
            print(f"{left} pieces are left; the same command goes on", flush=True)
        for study in chosen(arguments.study):
            compare(study)
    RESULTS.mkdir(parents=True, exist_ok=True)
    write_atomically(RESULTS / "README.md", tables())
    return 0


if __name__ == "__main__":
    run_door(main)
