"""Figures, as SVG text or PNG: same numbers, same bytes; in colours all can tell apart."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, cast

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from eval.findings import ACTOR, GATED, RANDOM
from eval.gate_behaviour import GatePoint
from eval.matrix import Cell, Matrix, TrainingEpisode, Vector, rolling_mean
from eval.run_folder import Span
from eval.wording import number, steps

# Okabe & Ito 2008. Lines differ in dash as well, for print without colour.
INK = "#1a1a1a"
POLICY_STYLES: Mapping[str, tuple[str, str]] = {
    GATED: ("#0072B2", "-"),
    ACTOR: ("#D55E00", "--"),
    "awac_actor": ("#009E73", "-."),
    RANDOM: ("#777777", ":"),
}
OTHER_STYLES = (("#CC79A7", "--"), ("#E69F00", "-."), ("#56B4E9", "--"))
PROBABILITY, CHOICE = ("#CC79A7", "--"), ("#0072B2", "-")
OWN_PHASE, OTHER_PHASE = "#f9eecb", "#f2f2f2"

POINTS = 400  # of a policy or a cloud in a panel; more cannot be seen and makes the page heavy
MARKED = 100  # points of a line up to which each has a marker
PANEL_INCHES = (4.6, 2.5)
STYLE: Mapping[str, object] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "lines.linewidth": 1.8,
}


def policy_style(policy: str, policies: Sequence[str]) -> tuple[str, str]:
    """Colour and dash; riders without a place of their own take the spare ones in turn."""
    if policy in POLICY_STYLES:
        return POLICY_STYLES[policy]
    riders = [p for p in policies if p not in POLICY_STYLES]
    return OTHER_STYLES[riders.index(policy) % len(OTHER_STYLES)]


def cell_colours(z: float) -> tuple[str, str]:
    """(ground, ink) of a cell of normalised return z, clipped to [0, 1]; viridis."""
    red, green, blue, _ = matplotlib.colormaps["viridis"](float(np.clip(z, 0, 1)))
    ground = "#" + "".join(f"{round(255 * c):02x}" for c in (red, green, blue))
    light = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2
    return ground, "#000000" if light > 0.18 else "#ffffff"


def evaluation_panel(
    task: str, curves: Mapping[str, Sequence[tuple[int, Cell]]], random: Cell, spans: Sequence[Span]
) -> str:
    """Mean return against environment steps, one line a policy, with +-1 standard error.

    A policy that was judged once is a level, if it is the random agent, else a point.
    """
    with chart_style():
        figure, axes = _panel(spans, task)
        if random.n:
            colour, dash = POLICY_STYLES[RANDOM]
            axes.axhline(random.mean, color=colour, linestyle=dash, linewidth=1.6)
        for policy, points in curves.items():
            if policy == RANDOM and random.n and len(points) < 2:
                continue
            colour, dash = policy_style(policy, list(curves))
            kept = _thinned(len(points), POINTS)
            t = np.array([at for at, _ in points], np.float64)[kept]
            mean = np.array([c.mean for _, c in points])[kept]
            se = np.nan_to_num(np.array([c.se for _, c in points]))[kept]
            axes.fill_between(t, mean - se, mean + se, color=colour, alpha=0.15, linewidth=0)
            marker = "o" if len(t) <= MARKED else ""
            axes.plot(t, mean, color=colour, linestyle=dash, marker=marker, markersize=3)
        axes.set_ylabel("evaluation return")
        return svg_of(figure, f"eval-{task}", f"Evaluation return on {task} over the life")


def training_panel(task: str, episodes: Sequence[TrainingEpisode], spans: Sequence[Span]) -> str:
    """Return of every lived episode as a dot; mean of the last 10 of its phase as a line."""
    with chart_style():
        figure, axes = _panel(spans, task)
        for phase in dict.fromkeys(e.phase for e in episodes):
            own = [e for e in episodes if e.phase == phase]
            t = np.array([e.env_steps for e in own], np.float64)
            returns = np.array([e.return_ for e in own])
            kept = _thinned(len(own), POINTS * len(own) // len(episodes))
            axes.plot(t[kept], returns[kept], ".", color="#888888", markersize=3, alpha=0.6)
            axes.plot(t[kept], rolling_mean(returns, 10)[kept], color=INK)
        axes.set_ylabel("training return")
        return svg_of(figure, f"train-{task}", f"Return of lived episodes of {task}")


def gate_panel(points: Sequence[GatePoint], spans: Sequence[Span]) -> str:
    """Probability and choice rate of lived episodes, means of the last 10 of the phase."""
    with chart_style():
        figure, axes = _panel(spans, "")
        for phase in dict.fromkeys(p.phase for p in points):
            own = [p for p in points if p.phase == phase]
            t = np.array([p.env_steps for p in own], np.float64)
            kept = _thinned(len(own), POINTS * len(own) // len(points))
            for values, (colour, dash) in (
                ([p.chosen for p in own], CHOICE),
                ([p.p for p in own], PROBABILITY),
            ):
                axes.plot(t[kept], rolling_mean(np.array(values), 10)[kept], dash, color=colour)
        axes.set_ylim(-0.03, 1.03)
        axes.set_ylabel("share of decisions")
        return svg_of(figure, "gate", "Gate probability and choice rate over the life")


def average_panel(average: Vector, seen: Vector) -> str:
    """Average performance at each phase end: over all tasks, and over those trained so far."""
    with chart_style():
        figure = Figure(figsize=PANEL_INCHES, layout="constrained")
        axes = figure.add_subplot()
        phases = np.arange(len(average))
        axes.plot(phases, average, "-", color=CHOICE[0], marker="o", markersize=5)
        axes.plot(phases, seen, "--", color=PROBABILITY[0], marker="s", markersize=5)
        shown = np.concatenate([average, seen])
        shown = shown[~np.isnan(shown)]
        axes.set_ylim(min([-0.03, *(shown - 0.05)]), max([1.03, *(shown + 0.05)]))
        axes.set_xlim(-0.2, len(average) - 0.8)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True))
        axes.set_xlabel("end of phase (0: before training)")
        axes.set_ylabel("mean normalised return")
        return svg_of(figure, "average", "Average performance at each phase end")


def matrix_picture(
    returns: Matrix, z: Matrix, phases: Sequence[str], tasks: Sequence[str]
) -> bytes:
    """The forgetting matrix as PNG: mean returns, coloured by normalised return where known.

    Args:
      returns, z: [K+1, N]; NaN where nothing was judged.
      phases: [K+1], names of the rows.
    """
    with chart_style():
        height, width = returns.shape
        figure = Figure(figsize=(2.5 + 1.6 * width, 0.9 + 0.42 * height), dpi=120)
        figure.set_layout_engine("constrained")
        axes = figure.add_subplot()
        for (phase, task), value in np.ndenumerate(returns):
            is_known = not np.isnan(z[phase, task])
            ground, ink = cell_colours(float(z[phase, task])) if is_known else ("#ffffff", INK)
            axes.add_patch(Rectangle((task, phase), 1, 1, facecolor=ground, edgecolor="#ffffff"))
            if not np.isnan(value):
                axes.text(
                    task + 0.5,
                    phase + 0.5,
                    number(float(value)),
                    color=ink,
                    horizontalalignment="center",
                    verticalalignment="center",
                )
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)  # phase 1 on top
        axes.xaxis.tick_top()
        axes.set_xticks(np.arange(width) + 0.5, tasks)
        axes.set_yticks(np.arange(height) + 0.5, phases)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        picture = io.BytesIO()
        figure.savefig(picture, format="png", metadata={"Software": None})
        return picture.getvalue()


def chart_style() -> AbstractContextManager[None]:
    return matplotlib.rc_context(cast(Any, STYLE))


def _panel(spans: Sequence[Span], task: str) -> tuple[Figure, Axes]:
    """Axes over the whole life, phases marked and numbered, those that train `task` in gold."""
    figure = Figure(figsize=PANEL_INCHES, layout="constrained")
    axes = figure.add_subplot()
    for i, span in enumerate(spans):
        own = span.task == task
        if own or i % 2:
            ground = OWN_PHASE if own else OTHER_PHASE
            axes.axvspan(span.start, span.stop, color=ground, linewidth=0, zorder=0)
        if i:
            axes.axvline(span.start, color="#aaaaaa", linewidth=0.8, zorder=1)
        if len(spans) <= 12:
            axes.text(
                (span.start + span.stop) / 2,
                1.02,
                f"phase {span.number}" if len(spans) <= 4 else f"{span.number}",
                transform=axes.get_xaxis_transform(),
                horizontalalignment="center",
                verticalalignment="bottom",
                fontsize=9,
                fontweight="bold" if own else "normal",
                color="#444444",
            )
    if spans and spans[-1].stop > 0:
        # A first or last evaluation lies on the border itself; room for its marker.
        room = 0.015 * spans[-1].stop
        axes.set_xlim(-room, spans[-1].stop + room)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda count, _: steps(count)))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.set_xlabel("environment steps")
    return figure, axes


def _thinned(count: int, most: int) -> np.ndarray:
    """Indices of at most `most` of `count`, evenly, first and last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, max(most, 2))).round().astype(int))


def svg_of(figure: Figure, name: str, label: str) -> str:
    """SVG for pasting into a page: no prolog, no date, ids that no other figure has."""
    prefix = re.sub(r"\W+", "-", name) + "-"
    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": prefix}):
        figure.savefig(text, format="svg", transparent=True)
    svg = text.getvalue()
    # The metadata hold the date, which would make every report of a run a different file.
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}", svg)
    label = label.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
