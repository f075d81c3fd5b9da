"""What the gate did in each phase: how often it trusted which of its two policies."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from continual.envs.registry import keys_of, task_names
from eval.gate_sums import GateMeans, gate_means
from eval.matrix import ActionMode, Cell, Evaluation, Matrix, cells
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


Change = Literal["nothing", "task", "domain"]


@dataclass(frozen=True)
class Switch:
    """The gate where a phase begins, from lived episodes.

    Attributes:
      phase: that begins.
      changed: `task` within a domain, such as dmc/walker: the same body, other rewards. Where
        `nothing` did, whatever the gate does differently is a false alarm.
      before, after: mean over the last `SWITCH_DECISIONS` or so decisions of the phase before, and
        over the first of this one; in whole episodes.
    """

    phase: int
    changed: Change
    before: GateMeans
    after: GateMeans


SWITCH_DECISIONS = 2500


def switches(records: Iterable[EpisodeRecord]) -> list[Switch]:
    """One for every two phases that follow each other and were both lived with a gate."""
    lived: dict[int, list[EpisodeRecord]] = {}
    for r in records:
        if r.split == "train" and r.gate:
            lived.setdefault(r.phase, []).append(r)
    return [
        Switch(
            phase,
            _changed(lived[phase - 1][-1].task, own[0].task),
            gate_means(r.gate for r in _until(reversed(lived[phase - 1]))),
            gate_means(r.gate for r in _until(own)),
        )
        for phase, own in sorted(lived.items())
        if phase - 1 in lived
    ]


def _until(episodes: Iterable[EpisodeRecord]) -> Iterator[EpisodeRecord]:
    """The first of them, as many as hold `SWITCH_DECISIONS` decisions; one at least."""
    decisions = 0.0
    for episode in episodes:
        yield episode
        decisions += episode.gate["n"]
        if decisions >= SWITCH_DECISIONS:
            return


def _changed(before: str, after: str) -> Change:
    if before == after:
        return "nothing"
    return "task" if domain_of(before) == domain_of(after) else "domain"


def domain_of(task: str) -> str:
    """Such as `dmc/walker`; the task itself where it has none, or is known to no world any more."""
    return keys_of(task)[1] if task in task_names() else task


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

    def means(self) -> Matrix:
        return np.array([[c.mean for c in row] for row in self.rows], np.float64)


def regret(
    columns: Sequence[SideBySide], mode: ActionMode, choices: Collection[str]
) -> Matrix | None:
    """Return of the better of the policies that the gate chooses between, minus its own.

    [phases+1, tasks]; below 0 the gate was better than either. None without a gate and a policy
    that was judged alone.

    Args:
      choices: names of those policies; other riders may have been judged as well.
    """
    found = {c.policy: c.means() for c in columns if c.action_mode == mode}
    own = found.get("gated")
    alone = [means for policy, means in found.items() if policy in choices]
    if own is None or not alone:
        return None
    better: Matrix = np.fmax.reduce(alone) - own
    return better


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
