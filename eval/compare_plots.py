"""Figures of a comparison: one colour and dash a group, one mark a life."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from eval.comparison import Comparison
from eval.matrix import Vector
from eval.plots import PANEL_INCHES, chart_style, svg_of

STYLES = (
    ("#0072B2", "-", "o"),
    ("#D55E00", "--", "s"),
    ("#009E73", "-.", "^"),
    ("#CC79A7", ":", "D"),
    ("#E69F00", "--", "v"),
    ("#56B4E9", "-.", "P"),
)


def style_of(group: int) -> tuple[str, str, str]:
    """(colour, dash, marker); from the seventh group on they come again."""
    return STYLES[group % len(STYLES)]


def points_panel(c: Comparison, metric: str) -> str:
    """Every life as a mark, the mean as a bar, its interval as a line where there is one."""
    with chart_style():
        figure = Figure(figsize=(PANEL_INCHES[0], 0.5 + 0.42 * len(c.groups)), layout="constrained")
        axes = figure.add_subplot()
        for g, (group, summary) in enumerate(zip(c.groups, c.summaries[metric], strict=True)):
            colour, _, marker = style_of(g)
            values = group.values(metric)
            # Side by side within the row, or equal values would hide each other.
            places = g + 0.24 * (np.arange(len(values)) / max(len(values) - 1, 1) - 0.5)
            axes.plot(values, places, marker, color=colour, markersize=6, alpha=0.75)
            if len(summary.points):
                mean = summary.points.mean()
                axes.plot([mean, mean], [g - 0.3, g + 0.3], "-", color=colour, linewidth=2.5)
            if summary.mean:
                ends = [summary.mean.low, summary.mean.high]
                axes.plot(ends, [g, g], "-", color=colour, linewidth=1.5)
        axes.axvline(0, color="#999999", linewidth=0.8, zorder=0)
        axes.set_yticks(range(len(c.groups)), [group.label for group in c.groups])
        axes.set_ylim(len(c.groups) - 0.5, -0.5)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
        return svg_of(figure, f"points-{metric}", f"{metric} of every life")


def average_panel(c: Comparison) -> str:
    """Average performance at each phase end: lives as thin lines, their mean as a thick one."""
    return _over_phases(c, "average", 0, "mean normalised return")


def gate_panel(c: Comparison) -> str:
    """Choice rate of the gate while living, phase by phase."""
    return _over_phases(c, "chosen", 1, "gate's choice rate", limits=(-0.03, 1.03))


def _over_phases(
    c: Comparison,
    name: str,
    first: int,
    label: str,
    limits: tuple[float, float] | None = None,
) -> str:
    with chart_style():
        figure = Figure(figsize=PANEL_INCHES, layout="constrained")
        axes = figure.add_subplot()
        for g, group in enumerate(c.groups):
            colour, dash, marker = style_of(g)
            for life in group.lives:
                values: Vector = getattr(life, name)
                phases = np.arange(first, first + len(values))
                axes.plot(phases, values, dash, color=colour, linewidth=0.8, alpha=0.5)
            means = group.mean(name)
            phases = np.arange(first, first + len(means))
            marker = marker if len(means) <= 20 else ""
            axes.plot(phases, means, dash, color=colour, marker=marker, markersize=4)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True))
        axes.set_xlabel("phase")
        axes.set_ylim(limits)
        axes.set_ylabel(label)
        return svg_of(figure, name, f"{label} by phase")
