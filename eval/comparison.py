"""Several lives side by side: variants in groups, seeds as their members, numbers alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from continual.errors import UserError
from eval.aggregates import iqm, stratified_percentile_interval
from eval.curve_metrics import transfer_against_reference
from eval.findings import find
from eval.gate_sums import GATE_SUMS
from eval.judged import Metric
from eval.matrix import Matrix, Vector
from eval.run_folder import KeptPhase, load_run
from eval.statistics import (
    FEWEST_LIVES,
    Summary,
    holm,
    least_p,
    mean_interval,
    sign_flip_test,
    summarise,
)

SEED = 0  # of the intervals: the same runs give the same page

_MANY = 4  # runs that are worth the start of processes

HEADLINES = ("average performance", "forgetting")


@dataclass(frozen=True)
class Life:
    """What is kept of one run; its records are not.

    Attributes:
      settings: what lives of one group have in common, as `RecordedRun.settings`.
      last: the newest phase that was judged at its end.
      metrics: name -> metric.
      returns, normalised: [K+1, N].
      average: [K+1] mean of z over all tasks.
      gate: statistic -> [K], means while living; NaN without a gate.
      areas, reference_areas: [N], mean z inside a task's first phase, and of an agent that lived
        it alone.
      crafter: task of Crafter -> score of the lived episodes, in percent; NaN without any.
    """

    name: str
    seed: str
    variant: str
    headline: str
    settings: Mapping[str, Any]
    plan: tuple[KeptPhase, ...]
    tasks: tuple[str, ...]
    unfinished: str
    last: int
    metrics: Mapping[str, Metric]
    returns: Matrix
    normalised: Matrix
    average: Vector
    gate: Mapping[str, Vector]
    areas: Vector
    reference_areas: Vector
    crafter: Mapping[str, float]
    versions: Mapping[str, Any]
    command: str

    @property
    def chosen(self) -> Vector:
        return self.gate["chosen"]


@dataclass(frozen=True)
class Group:
    """Lives that differ in their seed alone."""

    label: str
    lives: tuple[Life, ...]

    def values(self, metric: str) -> Vector:
        """[lives]"""
        return np.array([life.metrics[metric].value for life in self.lives], np.float64)

    def reasons(self, metric: str) -> list[str]:
        """Why a metric is undefined in lives of the group, each reason once."""
        found = [life.metrics[metric].reason for life in self.lives]
        return list(dict.fromkeys(reason for reason in found if reason))

    def tasks_counted(self, metric: str) -> tuple[int, int]:
        """(fewest, most) tasks that a metric is the mean of, over lives in which it is defined."""
        counts = [len(life.tasks) - len(life.metrics[metric].left_out) for life in self.lives]
        counted = [n for n in counts if n]
        return (min(counted), max(counted)) if counted else (0, 0)

    def mean(self, name: str) -> np.ndarray:
        """Mean over lives of an array that each has, over those that are not NaN."""
        return _mean([getattr(life, name) for life in self.lives])

    def gate(self, name: str) -> Vector:
        """[K], mean over lives of a statistic of the gate."""
        return _mean([life.gate[name] for life in self.lives])

    def crafter(self, task: str) -> Vector:
        """[lives with a score], in percent; over lives Crafter states mean and population sd."""
        scores = np.array([life.crafter[task] for life in self.lives], np.float64)
        return scores[~np.isnan(scores)]

    def single_task_transfer(self) -> Vector:
        """FT_i of Continual World, [N]: areas are averaged over lives before the ratio.

        Over the lives that have a reference; NaN for a task without any.
        """
        have = [life for life in self.lives if not np.isnan(life.reference_areas).all()]
        if not have:
            return np.full(len(self.lives[0].tasks), math.nan)
        own = _mean([life.areas for life in have])
        alone = _mean([life.reference_areas for life in have])
        return transfer_against_reference(own, alone)


@dataclass(frozen=True)
class Difference:
    """A metric of a group minus that of the first group, life by life of equal seeds.

    Attributes:
      seeds, differences: [pairs] in which both lives have a number.
      undefined: seeds of the other pairs.
      unlike: seeds of pairs whose two numbers are means over different tasks.
      low, high: of the 95 % interval of the mean difference; NaN with fewer than 8 pairs.
      p: of the sign-flip test, Holm's correction applied over its family, which is the headlines of
        all groups or all else; NaN with fewer than 8 pairs.
      least_p: the smallest that p could have come to.
    """

    label: str
    metric: str
    seeds: tuple[str, ...]
    undefined: tuple[str, ...]
    differences: Vector
    unlike: tuple[str, ...] = ()
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    least_p: float = math.nan


@dataclass(frozen=True)
class Pooled:
    """IQM over all lives and tasks of z after the last phase, as rliable has it.

    Attributes:
      tasks: how many count; those that some life has no number for do not.
      low, high: of the stratified bootstrap, lives drawn anew within each task; NaN below 8 lives.
    """

    tasks: int
    value: float
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True)
class Comparison:
    """Groups that lived the same plan; the first one is what others are compared with.

    Attributes:
      summaries: metric -> one a group, of the lives in which it is defined.
      pooled: one a group, for comparison with papers; None where no task counts.
    """

    groups: tuple[Group, ...]
    pooled: Sequence[Pooled | None]
    definitions: Mapping[str, Metric]
    summaries: Mapping[str, Sequence[Summary]]
    differences: Sequence[Difference]

    @property
    def plan(self) -> tuple[KeptPhase, ...]:
        return self.groups[0].lives[0].plan

    @property
    def tasks(self) -> tuple[str, ...]:
        return self.groups[0].lives[0].tasks


def compare(folders: Sequence[Path], processes: int = 1) -> Comparison:
    """Read runs and set them side by side.

    Args:
      processes: that read them. More than one need a script that can be imported again, as
        `multiprocessing` asks of whoever starts some.

    Raises:
      UserError: a folder is no run, two are the same life, or their plans are not the same.
    """
    if len(folders) < 2:
        raise UserError(f"expected two runs or more, found {len(folders)}")
    return compare_lives(_load_all(folders, min(processes, len(folders))))


def compare_lives(lives: Sequence[Life]) -> Comparison:
    """Group lives that differ in their seed alone, and set the groups side by side.

    Raises:
      UserError: two are the same life, or they did not live the same plan as far as each other.
    """
    for life in lives[1:]:
        _refuse_another_plan(lives[0], life)
    groups = _groups(lives)
    definitions = lives[0].metrics
    rng = np.random.default_rng(SEED)
    summaries = {
        name: [_summary(group.values(name), rng) for group in groups] for name in definitions
    }
    differences = _differences(groups, list(definitions), rng)
    pooled = [_pooled(group, rng) for group in groups]
    return Comparison(groups, pooled, definitions, summaries, differences)


def _pooled(group: Group, rng: np.random.Generator) -> Pooled | None:
    final = np.stack([life.normalised[life.last] for life in group.lives])
    table = final[:, ~np.isnan(final).any(axis=0)]
    if not table.size:
        return None
    ends = [math.nan, math.nan]
    if len(table) >= FEWEST_LIVES:
        ends = stratified_percentile_interval(iqm, rng, table, resamples=2000).tolist()
    return Pooled(table.shape[1], iqm(table), *ends)


def _mean(arrays: Sequence[Vector]) -> np.ndarray:
    found = np.stack(arrays)
    counted = np.maximum((~np.isnan(found)).sum(axis=0), 1)
    return np.where(np.isnan(found).all(axis=0), np.nan, np.nansum(found, axis=0) / counted)


def _summary(values: Vector, rng: np.random.Generator) -> Summary:
    """Of the lives in which a metric is defined."""
    defined = values[~np.isnan(values)]
    return summarise(defined, rng) if len(defined) else Summary(defined, reason="undefined")


def _load_all(folders: Sequence[Path], processes: int) -> list[Life]:
    """To read records is all the work there is; of few runs a process takes longer to start."""
    if len(folders) < _MANY or processes < 2:
        return [_life(folder) for folder in folders]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        return list(pool.map(_life, folders))


def _life(folder: Path) -> Life:
    run = load_run(folder)
    f = find(run)
    return Life(
        name=run.name,
        seed=run.seed,
        variant=run.variant,
        headline=f.headline,
        settings=run.settings,
        plan=run.plan,
        tasks=run.tasks,
        unfinished=run.unfinished,
        last=f.last,
        metrics={metric.name: metric for metric in f.metrics},
        returns=f.returns,
        normalised=f.normalised,
        average=f.average,
        gate={
            name: np.array([getattr(g, name) if g.decisions else math.nan for g in f.lived])
            for name in GATE_SUMS
        },
        areas=f.areas,
        reference_areas=f.reference_areas,
        crafter={c.task: c.score for c in f.crafter},
        versions=run.versions,
        command=run.command,
    )


def _refuse_another_plan(first: Life, life: Life) -> None:
    if not life.metrics or not first.metrics:
        which = life if not life.metrics else first
        raise UserError(f"{which.name}: no phase of it has been judged at its end yet")
    if life.tasks != first.tasks or [p.task for p in life.plan] != [p.task for p in first.plan]:
        raise UserError(
            f"{life.name} lived {_shown(life)}, and {first.name} {_shown(first)}: only lives of "
            "one plan can be compared"
        )
    if life.last != first.last:
        raise UserError(
            f"{life.name} has been judged after phase {life.last}, and {first.name} after phase "
            f"{first.last}: only lives that have come as far as each other can be compared"
        )


def _shown(life: Life) -> str:
    tasks = [phase.task for phase in life.plan]
    return ", ".join(tasks[:4]) + (f" and {len(tasks) - 4} more phases" if len(tasks) > 4 else "")


def _groups(lives: Sequence[Life]) -> tuple[Group, ...]:
    """Lives of equal settings together, in the order in which the first of each was given."""
    kinds: list[tuple[str, Mapping[str, Any], list[Life]]] = []
    for life in lives:
        for variant, settings, members in kinds:
            if (variant, settings) == (life.variant, life.settings):
                if life.seed in [member.seed for member in members]:
                    twin = next(m.name for m in members if m.seed == life.seed)
                    raise UserError(
                        f"{life.name} and {twin} are the same life: settings and seed are equal"
                    )
                members.append(life)
                break
        else:
            kinds.append((life.variant, life.settings, [life]))
    labels = _labels([(variant, settings) for variant, settings, _ in kinds])
    return tuple(
        Group(label, tuple(sorted(members, key=lambda life: (len(life.seed), life.seed))))
        for label, (_, _, members) in zip(labels, kinds, strict=True)
    )


def _labels(kinds: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """The variant, and where two groups share it what tells them apart."""
    labels = []
    for variant, settings in kinds:
        same = [other for name, other in kinds if name == variant and other != settings]
        keys = {k for other in same for k in settings.keys() | other.keys()}
        apart = sorted(k for k in keys if any(o.get(k) != settings.get(k) for o in same))
        shown = [f"{k.split('.')[-1]}={settings.get(k, 'none')}" for k in apart[:3]]
        labels.append(", ".join([variant, *shown]))
    return labels


def _differences(
    groups: Sequence[Group], names: Sequence[str], rng: np.random.Generator
) -> list[Difference]:
    found = [_difference(groups[0], group, name, rng) for group in groups[1:] for name in names]
    tested = [i for i, d in enumerate(found) if not math.isnan(d.p)]
    # Headlines are not made to pay for everything else that is looked at.
    for is_headline in (True, False):
        family = [i for i in tested if (found[i].metric in HEADLINES) == is_headline]
        corrected = holm([found[i].p for i in family])
        for i, p in zip(family, corrected, strict=True):
            least = min(1.0, len(family) * found[i].least_p)
            found[i] = replace(found[i], p=float(p), least_p=least)
    return found


def _difference(first: Group, group: Group, metric: str, rng: np.random.Generator) -> Difference:
    """Before any correction of p."""
    ours = {life.seed: life.metrics[metric] for life in first.lives}
    theirs = {life.seed: life.metrics[metric] for life in group.lives if life.seed in ours}
    pairs = {seed: theirs[seed].value - ours[seed].value for seed in theirs}
    defined = {seed: value for seed, value in pairs.items() if not math.isnan(value)}
    found = Difference(
        group.label,
        metric,
        tuple(defined),
        tuple(seed for seed in pairs if seed not in defined),
        np.array(list(defined.values()), np.float64),
        tuple(s for s in defined if theirs[s].left_out.keys() != ours[s].left_out.keys()),
    )
    if len(found.differences) < FEWEST_LIVES:
        return found
    low, high = mean_interval(found.differences)
    p = sign_flip_test(found.differences, rng).p_value
    return replace(found, low=low, high=high, p=p, least_p=least_p(len(found.differences)))
