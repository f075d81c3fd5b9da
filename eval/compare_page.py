"""A page that sets lives side by side, and the same numbers for other programs and for papers."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from continual.files import named, write_atomically
from eval import compare_plots, latex, wording
from eval.as_json import null_for_nan
from eval.comparison import HEADLINES, Comparison, Difference, Group, compare
from eval.judged import mean_of
from eval.matrix import Matrix
from eval.metrics import CAME_BACK
from eval.page import ground_of, make_environment
from eval.statistics import FEWEST_LIVES, MOST_ENUMERATED, Estimate, Summary

GATE_SHOWN = ("p", "chosen", "entropy_gap", "divergence", "penalty")


def write_comparison(runs: Sequence[Path], folder: Path, processes: int = 1) -> Path:
    """Write index.html, comparison.json, comparison.csv and comparison.tex.

    The page is whole in itself. The same runs give the same bytes.

    Args:
      processes: as for `comparison.compare`.
    Returns:
      The page.
    Raises:
      UserError: the runs cannot be compared, or the folder cannot be written.
    """
    found = compare(runs, processes)
    page = folder / "index.html"
    with named(folder, "make the folder"):
        folder.mkdir(parents=True, exist_ok=True)
    numbers = json.dumps(to_json(found), indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(folder / "comparison.json", numbers + "\n")
    write_atomically(folder / "comparison.csv", to_csv(found))
    write_atomically(folder / "comparison.tex", to_latex(found))
    write_atomically(page, render(found))
    return page


def render(c: Comparison) -> str:
    """The page as HTML text; every name from a file is escaped."""
    environment = make_environment()
    environment.filters |= {"interval": _interval, "p": _p, "mean": _mean, "mean_of": mean_of}
    return environment.get_template("compare.html.jinja").render(
        c=c,
        answer=list(answer(c)),
        legend=[(g.label, *compare_plots.style_of(i)[:2]) for i, g in enumerate(c.groups)],
        points=[(name, Markup(compare_plots.points_panel(c, name))) for name in _defined(c)],
        average=Markup(compare_plots.average_panel(c)),
        gate=Markup(compare_plots.gate_panel(c)) if _has_gate(c) else "",
        gate_rows=_gate_rows(c),
        crafter=[
            (task, group, scores)
            for task in c.groups[0].lives[0].crafter
            for group in c.groups
            if len(scores := group.crafter(task))
        ],
        transfers=[
            (group, row)
            for group in c.groups
            if not np.isnan(row := group.single_task_transfer()).all()
        ],
        matrices=[(group, _cells(group.mean("returns"), group)) for group in c.groups],
        metrics=list(c.definitions.values()),
        defined=_defined(c),
        has_intervals=any(s.mean for row in c.summaries.values() for s in row),
        tested=any(not math.isnan(d.p) for d in c.differences),
        least=FEWEST_LIVES,
        enumerated=MOST_ENUMERATED,
        headlines=HEADLINES,
        unfinished=[life.name for g in c.groups for life in g.lives if life.unfinished],
    )


def answer(c: Comparison) -> Iterator[str]:
    """What each group came to and what it forgot, and what may be concluded: a sentence each."""
    for name, said in zip(HEADLINES, ("Average performance", "Forgetting"), strict=True):
        parts = [
            f"{wording.score(_mean(summary))} for {group.label} ({_counted(group, summary)})"
            for group, summary in zip(c.groups, c.summaries[name], strict=True)
        ]
        last = c.groups[0].lives[0].last
        after = f"{last} {wording.plural('phase', last)}"
        also = _came_back(c) if said == "Forgetting" else ""
        yield f"{said} after {after}, on normalised returns: {wording.listed(parts)}{also}."
    yield _verdict(c)


def _came_back(c: Comparison) -> str:
    """What the end of the lives no longer shows, because it was learnt again."""
    if CAME_BACK not in _defined(c):
        return ""
    lost = [
        f"{wording.score(_mean(summary))} with {group.label}"
        for group, summary in zip(c.groups, c.summaries[CAME_BACK], strict=True)
    ]
    return f"; what was lost of a task when it came back: {wording.listed(lost)}"


def _verdict(c: Comparison) -> str:
    headlines = [d for d in c.differences if d.metric in HEADLINES]
    tested = [d for d in headlines if not math.isnan(d.p)]
    if not tested:
        why = _why_untested(c, headlines)
        return f"{why}, and a difference that is seen here may be one between seeds."
    if clear := [d for d in tested if d.p < 0.05]:
        return f"Beyond chance, after Holm's correction: {wording.listed(map(_difference, clear))}."
    if min(d.least_p for d in tested) >= 0.05:
        return (
            f"With {len(tested[0].differences)} pairs and {len(tested)} tests no difference could "
            f"have been told from chance: the smallest p there is comes to {_p(tested[0].least_p)}."
        )
    return "No difference in either is beyond what sign flips of the pairs give by chance."


def _why_untested(c: Comparison, headlines: Sequence[Difference]) -> str:
    fewest = min(len(group.lives) for group in c.groups)
    if fewest < FEWEST_LIVES or not headlines:
        return (
            f"With {_lives(fewest)} in the smallest group these are points: intervals and tests "
            f"are given from {FEWEST_LIVES} on"
        )
    pairs = max(len(d.differences) for d in headlines)
    return (
        f"Differences are not tested: {pairs} of the pairs with equal seeds have a number in both "
        f"groups, and tests are given from {FEWEST_LIVES} on"
    )


def _difference(d: Difference) -> str:
    mean = wording.score(float(np.mean(d.differences)))
    return f"{d.metric} of {d.label} by {mean} (p = {_p(d.p)})"


def _lives(count: int) -> str:
    return f"{count} {'life' if count == 1 else 'lives'}"


def _counted(group: Group, summary: Summary) -> str:
    """How many lives a number is of."""
    defined, lives = len(summary.points), len(group.lives)
    return _lives(lives) if defined == lives else f"{defined} of {_lives(lives)}"


def _defined(c: Comparison) -> list[str]:
    """Metrics that some life has a number for."""
    return [
        name for name in c.definitions if any(not np.isnan(g.values(name)).all() for g in c.groups)
    ]


def _has_gate(c: Comparison) -> bool:
    return any(not np.isnan(life.chosen).all() for group in c.groups for life in group.lives)


def _gate_rows(c: Comparison) -> list[tuple[Group, int, list[float]]]:
    """(group, phase, values of GATE_SHOWN), phase by phase, where there was a gate."""
    tables = [(group, np.stack([group.gate(n) for n in GATE_SHOWN], axis=1)) for group in c.groups]
    return [
        (group, k + 1, table[k].tolist())
        for k in range(len(c.plan))
        for group, table in tables
        if not np.isnan(table[k]).all()
    ]


def _cells(returns: Matrix, group: Group) -> list[list[tuple[str, str]]]:
    """[K+1][N] (mean return over lives, CSS by mean normalised return)."""
    z = group.mean("normalised")
    return [
        [
            (
                "" if math.isnan(value) else wording.number(float(value)),
                "" if math.isnan(z[k, i]) else ground_of(float(z[k, i])),
            )
            for i, value in enumerate(row)
        ]
        for k, row in enumerate(returns)
    ]


def to_csv(c: Comparison) -> str:
    """One row a life: group, run, seed, then one column a metric; empty where undefined."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["group", "run", "seed", *c.definitions])
    for group in c.groups:
        for life in group.lives:
            values = [life.metrics[name].value for name in c.definitions]
            cells = ["" if math.isnan(v) else repr(v) for v in values]
            table.writerow([group.label, life.name, life.seed, *cells])
    return text.getvalue()


def to_latex(c: Comparison) -> str:
    """A tabular: a row a metric, a column a group; mean, and its interval where there is one."""
    head = ["", *(latex.escaped(f"{g.label} ({_lives(len(g.lives))})") for g in c.groups)]
    rows = [
        [latex.escaped(name), *(_tex_number(summary) for summary in c.summaries[name])]
        for name in _defined(c)
    ]
    return latex.tabular(head, rows)


def to_json(c: Comparison) -> dict[str, Any]:
    """All numbers of the page. NaN is null."""
    numbers = {
        "schema": 1,
        "tasks": c.tasks,
        "phases": [phase.model_dump() for phase in c.plan],
        "metrics": {
            name: {"formula": metric.formula, "source": metric.source}
            for name, metric in c.definitions.items()
        },
        "groups": [
            {
                "label": group.label,
                "lives": [
                    {
                        "run": life.name,
                        "seed": life.seed,
                        "status": life.unfinished or "finished",
                        "metrics": {n: m.value for n, m in life.metrics.items()},
                        "undefined": {n: m.reason for n, m in life.metrics.items() if m.reason},
                        "left_out": {
                            n: {life.tasks[i]: why for i, why in m.left_out.items()}
                            for n, m in life.metrics.items()
                            if m.left_out
                        },
                        "returns": life.returns.tolist(),
                        "normalised": life.normalised.tolist(),
                        "gate": {n: v.tolist() for n, v in life.gate.items()},
                        "areas": life.areas.tolist(),
                        "reference_areas": life.reference_areas.tolist(),
                        "crafter_scores": life.crafter,
                        "settings": life.settings,
                        "versions": life.versions,
                    }
                    for life in group.lives
                ],
                "summaries": {n: asdict(c.summaries[n][i]) for n in c.definitions},
                "pooled": vars(c.pooled[i]) if c.pooled[i] else None,
                "single_task_transfer": group.single_task_transfer().tolist(),
            }
            for i, group in enumerate(c.groups)
        ],
        "differences": [
            vars(d) | {"to": c.groups[0].label, "differences": d.differences.tolist()}
            for d in c.differences
        ],
    }
    return {key: null_for_nan(value) for key, value in numbers.items()}


def _mean(summary: Summary) -> float:
    return float(summary.points.mean()) if len(summary.points) else math.nan


def _interval(estimate: Estimate | Difference) -> str:
    return f"{wording.score(estimate.low)} to {wording.score(estimate.high)}"


def _p(p: float) -> str:
    return "–" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _tex_number(summary: Summary) -> str:
    if not len(summary.points):
        return "--"
    shown = f"{_mean(summary):.3f}"
    if summary.mean:
        shown += f" [{summary.mean.low:.3f}, {summary.mean.high:.3f}]"
    return f"${shown}$"
