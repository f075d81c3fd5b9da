"""The door `python -m continual.publish runs/*`: phases side by side in Weights & Biases.

Of every life its phases become W&B runs that begin at step 0, and the life one with the forgetting
matrix and the report. All is made from the records, under ids that are the same every time.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from continual.cli import Parser, run_door
from continual.errors import UserError
from continual.files import replace_file
from continual.wandb_sink import (
    Description,
    Mode,
    Wandb,
    content_hash,
    describe_run,
    refuse_without_wandb,
)
from eval import plots, rows
from eval.findings import Findings, find
from eval.page import matrix_csv, write_report
from eval.records import Record
from eval.rows import Row, make_rows, merged, own_values
from eval.run_folder import RecordedRun, Span, load_run

PHASE_AXES = dict.fromkeys((*rows.KINDS, "own"), "phase_step")
LIFE_AXES = {"matrix": "phase", "average": "phase"}
REPORT = ("index.html", "matrix.csv", "matrix.tex", "summary.json")


@dataclass(frozen=True)
class Part:
    """What one W&B run shall hold.

    Attributes:
      rows: axes and values by name, and `record`, where they come from.
      summary: what is said of the whole.
      table: columns and rows of the forgetting matrix.
      picture: the matrix, as PNG.
      files: report.
    """

    description: Description
    rows: Sequence[Mapping[str, float | str]]
    summary: Mapping[str, float | str]
    table: tuple[Sequence[str], Sequence[Sequence[Any]]] | None = None
    picture: bytes = b""
    files: Sequence[Path] = ()

    @property
    def content(self) -> str:
        """Hash of all that is sent."""
        files = [hashlib.sha256(path.read_bytes()).hexdigest() for path in self.files]
        picture = hashlib.sha256(self.picture).hexdigest()
        held = [asdict(self.description), list(self.rows), self.summary, self.table, picture, files]
        return content_hash(held)


def publish(folder: Path, wandb: Wandb) -> tuple[int, int]:
    """Send what W&B does not have yet of a life; -> W&B runs written, W&B runs left alone.

    The report is written again, as it is sent. What has changed since it was sent takes the place
    of what was there.

    Raises:
      UserError: no run, or its records cannot be used; or W&B's process died.
    """
    write_report(folder)
    findings = find(load_run(folder))
    path = folder / "wandb" / "published.json"
    sent = _load_sent(path)
    written = alone = 0
    for part in [*phase_parts(findings), life_part(findings)]:
        key, content = part.description.id, part.content
        there = sent.get(key, {})
        if there.get("content") == content and wandb.mode in ("offline", there.get("mode")):
            alone += 1
            continue
        mode = _write(part, folder, wandb)
        sent[key] = {"content": content, "mode": mode}
        replace_file(path, json.dumps(sent, indent=1).encode(), durable=False)
        written += 1
    return written, alone


def phase_parts(f: Findings) -> Iterator[Part]:
    """One for each phase that was begun."""
    run = f.run
    records: list[Sequence[Record]] = [run.episodes, run.train, run.phases]
    made = [row for kind in records for row in make_rows(enumerate(kind, start=1))]
    for span in run.spans:
        cycle = run.plan[span.number - 1].cycle
        yield Part(
            describe_run(
                run,
                f"phase {span.number}",
                PHASE_AXES,
                title=f"{run.name} phase {span.number}: {span.task}",
                tags=[span.task],
                config={"phase": span.number, "task": span.task, "cycle": cycle},
            ),
            [_phase_row(row, f, span) for row in _of_phase(made, span)],
            _outcome(f, span.task) if _is_last_of_its_task(run, span) else {},
        )


def life_part(f: Findings) -> Part:
    """The life as a whole: averages by phase, metrics, forgetting matrix, report."""
    run = f.run
    points: list[dict[str, float | str]] = []
    for phase in range(f.last + 1):
        values = {f"matrix/{task}": f.returns[phase, i] for i, task in enumerate(run.tasks)}
        values |= {"average/all": f.average[phase], "average/seen": f.average_seen[phase]}
        known = {name: float(v) for name, v in values.items() if not math.isnan(v)}
        points.append({"record": f"report/matrix.csv:{phase + 2}", "phase": phase, **known})
    metrics = {f"metric/{m.name}": m.value for m in f.metrics if not math.isnan(m.value)}
    columns, *lines = csv.reader(io.StringIO(matrix_csv(f)))
    table = [[*line[:2], int(line[2]), line[3], *map(_number, line[4:])] for line in lines]
    labels = ["before", *(f"{k}: {phase.task}" for k, phase in enumerate(run.plan, start=1))]
    return Part(
        describe_run(run, "life", LIFE_AXES, tags=list(run.tasks)),
        points,
        {"status": run.unfinished or "finished", **metrics},
        (columns, table),
        plots.matrix_picture(f.returns, f.normalised, labels, run.tasks),
        [run.path / "report" / name for name in REPORT],
    )


def _write(part: Part, folder: Path, wandb: Wandb) -> Mode:
    with wandb.begin(part.description, folder) as run:
        for row in part.rows:
            run.log(row)
        if part.table:
            run.log_table("forgetting_matrix", *part.table)
        if part.picture:
            picture = folder / "wandb" / "forgetting_matrix.png"
            replace_file(picture, part.picture, durable=False)
            caption = "mean returns at the end of each phase, coloured by normalised return"
            run.log_picture("forgetting_matrix_picture", picture, caption)
        if part.files:
            run.log_files(f"report-{part.description.id}", "report", part.files)
        run.summarise(part.summary)
    if run.lost:
        raise UserError(f"{folder}: W&B's process ended early ({run.lost}); try again")
    return run.mode


def _of_phase(made: Sequence[Row], span: Span) -> Iterator[Row]:
    """Rows of a phase by its own steps, one for each file and step.

    What was judged when it began, at the end of the phase before or before training, is its step 0.
    """
    found: list[Row] = []
    for row in made:
        is_at_start = row.axes["env_steps"] == span.start and row.axes["phase"] < span.number
        if row.axes["phase"] == span.number:
            found.append(row)
        elif is_at_start and all(name.startswith("judged") for name in row.values):
            axes = {**row.axes, "phase": span.number, "phase_step": 0}
            found.append(replace(row, axes=axes))
    place: Callable[[Row], tuple[int, str]] = lambda row: (row.axes["phase_step"], row.file)
    for _, same in groupby(sorted(found, key=place), key=place):
        yield merged(list(same))


def _phase_row(row: Row, f: Findings, span: Span) -> dict[str, float | str]:
    own = own_values(row.values, span.task)
    scale = f.scales[f.run.tasks.index(span.task)]
    if not scale.note:
        z = {
            f"{name.replace('judged', 'normalised', 1)}": (value - scale.zero)
            / (scale.high - scale.zero)
            for name, value in own.items()
            if name.startswith("judged")
        }
        own |= {name: value for name, value in z.items() if not math.isnan(value)}
    shown = {f"own/{name}": value for name, value in own.items()}
    return {"record": row.record, **row.axes, **row.values, **shown}


def _is_last_of_its_task(run: RecordedRun, span: Span) -> bool:
    return all(phase.task != span.task for phase in run.plan[span.number :])


def _outcome(f: Findings, task: str) -> dict[str, float | str]:
    (outcome,) = (o for o in f.outcomes if o.task == task)
    numbers = {
        "return at the end of its phase": outcome.own.mean,
        "return at the end of the life": outcome.final.mean,
        "share forgotten": outcome.forgotten,
    }
    return {name: value for name, value in numbers.items() if not math.isnan(value)}


def _number(text: str) -> float | None:
    return float(text) if text else None


def _load_sent(path: Path) -> dict[str, dict[str, str]]:
    """W&B run -> hash of what was sent, and how."""
    if not path.exists():
        return {}
    try:
        return {str(k): dict(v) for k, v in json.loads(path.read_text(encoding="utf-8")).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: damaged ({error}); delete it, and all is sent again") from error


def main(argv: list[str]) -> int:
    parser = Parser(
        prog="python -m continual.publish",
        description="Send run folders to Weights & Biases, from their records alone: every phase "
        "as a W&B run of its own, so that phases overlay, and the life with its forgetting matrix "
        "and report. Without a key it is written into the run's folder, to be sent later. What was "
        "sent before and has not changed is left alone.",
        epilog="example: python -m continual.publish runs/*",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a folder runs/NAME")
    folders = parser.parse_args(argv).runs
    refuse_without_wandb("python -m continual.publish")
    wandb = Wandb(print)
    for folder in folders:
        written, alone = publish(folder, wandb)
        print(f"{folder}: {written} W&B runs written, {alone} unchanged")
        if written and wandb.mode == "offline":
            print(wandb.how_to_send(folder))
    return 0


if __name__ == "__main__":
    run_door(main)
