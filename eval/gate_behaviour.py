"""What the gate did in each phase: how often it trusted which of its two policies."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from continual.envs.registry import keys_of, task_names
from eval.gate_sums import GateMeans, gate_means
from eval.matrix import ActionMode, Cell, Evaluation, Matrix, cell, cells
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
CHANGES: tuple[Change, ...] = get_args(Change)


@dataclass(frozen=True)
class Switch:
    """The gate where a phase begins, from lived episodes.

    Attributes:
      phase: that begins.
      changed: `task` within a domain, such as dmc/walker: the same body, other rewards. Where
        `nothing` did, whatever the gate does differently is a false alarm.
      before, after: mean over the last `SWITCH_DECISIONS` or so decisions of the phase before, and
        over the first of this one; in whole episodes.
      rates_before, rates_after: choice rates of these episodes, one each.
      latency: environment steps into this phase until the end of its first episode whose choice
        rate lies beyond two standard deviations of `rates_before`; NaN if none does, or if that has
        fewer than two episodes.
    """

    phase: int
    changed: Change
    before: GateMeans
    after: GateMeans
    rates_before: Cell
    rates_after: Cell
    latency: float

    @property
    def shift(self) -> float:
        """By how much the choice rate moved."""
        return self.after.chosen - self.before.chosen

    @property
    def alarm(self) -> bool | None:
        """Whether it moved by more than two standard errors; None below two episodes on a side.

        Chance alone does that about once in 16 times with ten episodes on each side, and more often
        with fewer. Learning, too, moves it slowly.
        """
        noise = 2 * math.hypot(self.rates_before.se, self.rates_after.se)
        moved = abs(self.rates_after.mean - self.rates_before.mean)
        return None if math.isnan(noise) else moved > noise


SWITCH_DECISIONS = 2500


@dataclass(frozen=True)
class Alarms:
    """The switches of one kind. At those where nothing changed, alarms are false.

    Attributes:
      told: at which it can be said whether there was one.
      raised: at which there was.
      shift: mean of how far the choice rate moved, up or down, at all of them.
    """

    changed: Change
    told: int
    raised: int
    shift: float


def alarms(found: Iterable[Switch]) -> list[Alarms]:
    """One for each kind of change that there was."""
    kinds: dict[Change, list[Switch]] = {}
    for switch in sorted(found, key=lambda switch: CHANGES.index(switch.changed)):
        kinds.setdefault(switch.changed, []).append(switch)
    return [
        Alarms(
            changed,
            sum(switch.alarm is not None for switch in own),
            sum(switch.alarm is True for switch in own),
            float(np.mean([abs(switch.shift) for switch in own])),
        )
        for changed, own in kinds.items()
    ]


def switches(records: Iterable[EpisodeRecord]) -> list[Switch]:
    """One for every two phases that follow each other and were both lived with a gate."""
    lived: dict[int, list[EpisodeRecord]] = {}
    for r in records:
        if r.split == "train" and r.gate:
            lived.setdefault(r.phase, []).append(r)
    return [
        _switch(lived[phase - 1], own) for phase, own in sorted(lived.items()) if phase - 1 in lived
    ]


def _switch(old: Sequence[EpisodeRecord], new: Sequence[EpisodeRecord]) -> Switch:
    before, after = list(_until(reversed(old))), list(_until(new))
    rates = cell([_rate(r) for r in before])
    beyond = (r.phase_step for r in new if abs(_rate(r) - rates.mean) > 2 * rates.sd)
    return Switch(
        new[0].phase,
        _changed(old[-1].task, new[0].task),
        gate_means(r.gate for r in before),
        gate_means(r.gate for r in after),
        rates,
        cell([_rate(r) for r in after]),
        float(next(beyond, math.nan)),
    )


def _rate(episode: EpisodeRecord) -> float:
    return gate_means([episode.gate]).chosen


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
