"""A page about one run, made from its records and pictures alone."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from continual.files import named, write_atomically
from continual.strict_yaml import dump
from eval import plots, wording
from eval.as_json import to_json
from eval.autopsy import DEFINITIONS, Autopsy, TaskAutopsy, load_autopsy
from eval.calibration import judge_forks, load_calibration
from eval.crafter_score import ACHIEVEMENTS, PUBLISHED
from eval.findings import Findings, find, normalised
from eval.gate_behaviour import gate_curve
from eval.gate_sums import GATE_SUMS
from eval.latex import matrix_table
from eval.matrix import Cell, training_curve
from eval.run_folder import load_run

PAGE_BYTES = 4_800_000  # that pictures may fill a page up to: below 5 MB, it can be mailed


def write_report(run_folder: Path) -> Path:
    """Write index.html, matrix.csv, matrix.tex and summary.json into report/ of a run folder.

    The page is whole in itself: it opens offline and can be mailed. The same records give the same
    bytes.

    Returns:
      The page.

    Raises:
      UserError: the folder is not a run, or its records cannot be used.
    """
    findings = find(load_run(run_folder))
    folder = run_folder / "report"
    page = folder / "index.html"
    with named(folder, "make the report's folder"):
        folder.mkdir(exist_ok=True)
    write_atomically(folder / "matrix.csv", matrix_csv(findings))
    write_atomically(folder / "matrix.tex", matrix_table(findings))
    summary = json.dumps(to_json(findings), indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(folder / "summary.json", summary + "\n")
    write_atomically(page, render(findings))
    return page


def matrix_csv(f: Findings) -> str:
    """Forgetting matrices of raw returns, one under the other, headline policy first.

    Columns: policy, action_mode, phase (0: before training), trained (task), then one a task; empty
    where nothing was judged.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["policy", "action_mode", "phase", "trained", *f.run.tasks])
    for column in f.side_by_side:
        for phase, row in enumerate(column.rows):
            trained = f.run.plan[phase - 1].task if phase else ""
            means = ["" if math.isnan(c.mean) else repr(c.mean) for c in row]
            table.writerow([column.policy, column.action_mode, phase, trained, *means])
    return text.getvalue()


@dataclass(frozen=True)
class MatrixCell:
    """How one number of the forgetting matrix is shown.

    Attributes:
      shown: the raw mean return; empty where not judged.
      detail: what a pointer reveals.
      style: CSS; colour by normalised return, none before the task's first training.
      own: the phase trains this task.
    """

    shown: str
    detail: str
    style: str
    own: bool
    seen: bool


def matrix_cells(f: Findings) -> list[list[MatrixCell]]:
    """[K+1][N]"""
    trained = f.run.trained
    table = []
    for phase, row in enumerate(f.rows):
        cells = []
        for task, cell in enumerate(row):
            z = float(f.normalised[phase, task])
            seen = task in trained[:phase]
            coloured = seen and cell.n and not math.isnan(z)
            cells.append(
                MatrixCell(
                    shown=wording.number(cell.mean) if cell.n else "",
                    detail=f"n = {cell.n}, sd {wording.number(cell.sd)}, "
                    f"normalised {wording.number(z)}"
                    if cell.n
                    else "not judged",
                    style=ground_of(z) if coloured else "",
                    own=phase > 0 and trained[phase - 1] == task,
                    seen=seen,
                )
            )
        table.append(cells)
    return table


def make_environment() -> jinja2.Environment:
    """For templates whose every name comes from a file, and is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("eval"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": wording.number,
        "score": wording.score,
        "percent": wording.percent,
        "steps": wording.steps,
        "policy": wording.policy_name,
        "breakable": _breakable,
        "yaml": dump,
    }
    environment.globals["crafter_published"] = PUBLISHED
    return environment


def render(f: Findings) -> str:
    """The page as HTML text, with as many pictures as it has room for."""
    template = make_environment().get_template("report.html.jinja")
    context = _context(f)
    room = PAGE_BYTES - len(template.render(context | {"pictures": []}).encode())
    return template.render(context | {"pictures": _pictures(f.run.path / "pictures", room)})


def _context(f: Findings) -> dict[str, Any]:
    run, spans = f.run, f.run.spans
    shown = [p for p in f.policies if any(f.curve(task, p) for task in run.tasks)]
    lived = {task: training_curve(run.episodes, task) for task in run.tasks}
    gate_points = gate_curve(run.episodes)
    random = {o.task: o.random for o in f.outcomes}
    autopsy = load_autopsy(run.path)
    calibration = load_calibration(run.path)
    return {
        "f": f,
        "run": run,
        "answer": wording.answer(f),
        "achievements": ACHIEVEMENTS,
        "privileges": wording.privileges(run),
        "matrix": matrix_cells(f),
        "ramp": [plots.cell_colours(i / 10)[0] for i in range(11)],
        "evaluation_legend": [
            (wording.policy_name(p), *plots.policy_style(p, shown)) for p in shown
        ],
        "gate_legend": [("choice rate", *plots.CHOICE), ("probability p", *plots.PROBABILITY)],
        "average_legend": [("all tasks", *plots.CHOICE), ("tasks seen", *plots.PROBABILITY)],
        "evaluation_panels": [
            (
                task,
                Markup(
                    plots.evaluation_panel(
                        task, {p: f.curve(task, p) for p in shown}, random[task], spans
                    )
                ),
            )
            for task in run.tasks
        ]
        if shown and spans
        else [],
        "training_panels": [
            (task, Markup(plots.training_panel(task, episodes, spans)))
            for task, episodes in lived.items()
            if episodes
        ],
        "gate_panel": Markup(plots.gate_panel(gate_points, spans)) if gate_points else "",
        "average_panel": Markup(plots.average_panel(f.average, f.average_seen)) if f.last else "",
        "switch_details": ("p", "entropy_gap", "divergence", "penalty"),
        "gate_details": [name for name in GATE_SUMS if name not in ("p", "chosen")],
        "gate_matrix": [
            (phase, [(g, ground_of(g.chosen) if g.decisions else "") for g in row])
            for phase, row in enumerate(f.judged)
            if any(g.decisions for g in row)
        ],
        "policy_groups": list(_policy_groups(f)),
        "calibration": [
            (t.task, judge_forks(t.forks), t.skill)
            for t in (calibration.tasks if calibration else ())
        ],
        "forking": calibration,
        "autopsy": autopsy,
        "autopsy_definitions": DEFINITIONS,
        "transplants": [(t, _transplants(f, autopsy, t)) for t in autopsy.tasks] if autopsy else [],
        "videos": list(_videos(run.path / "videos")),
    }


def _transplants(f: Findings, autopsy: Autopsy, t: TaskAutopsy) -> list[list[MatrixCell]]:
    """[phases][phases]: world model of the row's phase, heads of the column's; own and final agent
    are outlined.
    """
    (scale,) = (s for s in f.scales if s.task == t.task)
    found = {(p.world_model, p.heads): p for p in t.transplants}
    phases = [agent.phase for agent in autopsy.agents]

    def shown(i: int, j: int) -> MatrixCell:
        judged = found[i, j]
        z = float(normalised(np.array([judged.cell.mean]), [scale])[0])
        return MatrixCell(
            shown=wording.number(judged.cell.mean) if judged.returns else "",
            detail=f"n = {judged.cell.n}, sd {wording.number(judged.cell.sd)}, "
            f"normalised {wording.number(z)}"
            if judged.returns
            else judged.reason,
            style="" if math.isnan(z) else ground_of(z),
            own=i == j and i in (t.own_phase, autopsy.last_phase),
            seen=True,
        )

    return [[shown(i, j) for j in phases] for i in phases]


def _policy_groups(f: Findings) -> Iterator[tuple[int, list[tuple[str, list[tuple[Cell, bool]]]]]]:
    """Per judged phase the tasks and their cells; bold goes to the best of the headline's mode."""
    for phase in range(len(f.run.plan) + 1):
        rows = []
        for task, name in enumerate(f.run.tasks):
            cells = [(column.action_mode, column.rows[phase][task]) for column in f.side_by_side]
            rivals = [c.mean for mode, c in cells if mode == f.mode and c.n]
            if any(c.n for _, c in cells):
                best = max(rivals, default=math.nan)
                bold = [phase > 0 and mode == f.mode and c.mean == best for mode, c in cells]
                rows.append((name, [(c, b) for (_, c), b in zip(cells, bold, strict=True)]))
        if rows:
            yield phase, rows


def _pictures(folder: Path, room: int) -> list[tuple[str, str]]:
    """(caption, data URI) of what the model expected at the end of each phase.

    The newest, as many as `room` bytes hold.
    """
    found: list[tuple[str, str]] = []
    for path in sorted(folder.glob("open_loop-*.png"), reverse=True):
        phase, _, task = path.stem.removeprefix("open_loop-phase").partition("-")
        data = base64.b64encode(path.read_bytes()).decode()
        room -= len(data)
        if room < 0:
            break
        found.append((f"{task}, end of phase {int(phase)}", f"data:image/png;base64,{data}"))
    return found[::-1]


def _videos(folder: Path) -> Iterator[tuple[str, str]]:
    """(caption, place beside the report) of the films that a run kept; they are not in the page."""
    for path in sorted(folder.glob("phase*.mp4")):
        phase, _, task = path.stem.removeprefix("phase").partition("-")
        yield f"{task}, end of phase {int(phase)}", f"../videos/{path.name}"


def ground_of(share: float) -> str:
    """CSS of a cell that is coloured by a share."""
    ground, ink = plots.cell_colours(share)
    return f"background:{ground};color:{ink}"


def _breakable(name: str) -> Markup:
    """A name that a narrow column may break after its provider."""
    return Markup(str(Markup.escape(name)).replace("/", "/<wbr>"))
