"""What the gate did in each phase: how often it trusted which of its two policies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from eval.gate_sums import GateMeans, gate_means
from eval.matrix import ActionMode, Cell, Evaluation, Vector, cells
from eval.records import EpisodeRecord


@dataclass(frozen=True)
class GatePoint:
    """Gate of one lived episode, at the clock when it ended."""

    phase: int
    env_steps: int
    p: float
    chosen: float


def gate_while_living(records: Iterable[EpisodeRecord], phases: int) -> list[GateMeans]:
    """Per phase, [phases]; episodes that were cut count too: their decisions were taken."""
    lived: list[list[EpisodeRecord]] = [[] for _ in range(phases)]
    for r in records:
        if r.split == "train" and r.gate:
            lived[r.phase - 1].append(r)
    return [gate_means(r.gate for r in episodes) for episodes in lived]


def gate_when_judged(
    records: Iterable[EpisodeRecord], tasks: Sequence[str], phases: int, mode: ActionMode
) -> list[list[GateMeans]]:
    """Of the gated policy at the end of each phase and before training, [phases+1][tasks]."""
    judged: list[list[list[EpisodeRecord]]] = [[[] for _ in tasks] for _ in range(phases + 1)]
    for r in records:
        at_end = r.split == "eval" and r.when in ("before", "end")
        if at_end and r.gate and not r.variant and r.action_mode == mode:
            judged[r.phase][tasks.index(r.task)].append(r)
    return [[gate_means(r.gate for r in episodes) for episodes in row] for row in judged]


def gate_curve(records: Iterable[EpisodeRecord]) -> list[GatePoint]:
    """Mean probability and choice rate of every lived episode, in the order they ended."""
    return [
        GatePoint(r.phase, r.env_steps, g.p, g.chosen)
        for r in records
        if r.split == "train" and r.gate and (g := gate_means([r.gate])).decisions
    ]


def choice_rates(records: Iterable[EpisodeRecord]) -> dict[str, float]:
    """Task -> share of the lived decisions that the partner took; tasks with a gate only."""
    lived: dict[str, list[EpisodeRecord]] = {}
    for r in records:
        if r.split == "train" and r.gate:
            lived.setdefault(r.task, []).append(r)
    return {task: gate_means(r.gate for r in episodes).chosen for task, episodes in lived.items()}


@dataclass(frozen=True)
class SideBySide:
    """One policy in one action mode, at phase ends: what the gate's trust can be compared with.

    Attributes:
      rows: [phases+1][tasks].
    """

    policy: str
    action_mode: ActionMode
    rows: list[list[Cell]]

    @property
    def is_empty(self) -> bool:
        return not any(c.n for row in self.rows for c in row)

    def means(self) -> Vector:
        return np.array([[c.mean for c in row] for row in self.rows], np.float64)


def side_by_side(
    judged: Sequence[Evaluation], tasks: Sequence[str], phases: int, policies: Sequence[str]
) -> list[SideBySide]:
    """Every policy in every mode that was judged before training or at a phase's end."""
    modes: tuple[ActionMode, ActionMode] = ("mode", "sampled")
    table = [
        SideBySide(policy, mode, cells(judged, tasks, phases, policy, mode))
        for policy in policies
        for mode in modes
    ]
    return [column for column in table if not column.is_empty]
