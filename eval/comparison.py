"""Several lives side by side: variants in groups, seeds as their members, numbers alone."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from continual.dotted import leaves
from continual.errors import UserError
from eval.findings import Findings, find
from eval.judged import Metric
from eval.matrix import Matrix, Vector
from eval.run_folder import KeptPhase, load_run
from eval.statistics import FEWEST_LIVES, Summary, holm, sign_flip_test, summarise

SEED = 0  # of the intervals: the same runs give the same page

_MANY = 4  # runs that are worth the start of processes

# What says nothing of what a life is: settings that change no number, or name it.
_ASIDE = ("seed", "variant", "scale", "log.", "checkpoint.", "evaluate.worlds")


@dataclass(frozen=True)
class Life:
    """What is kept of one run; its records are not.

    Attributes:
      settings: flattened config, but for what says nothing of what it is.
      metrics: name -> metric.
      returns, normalised: [K+1, N].
      average: [K+1] mean of z over all tasks.
      chosen: [K], choice rate of the gate while living; NaN without one.
    """

    name: str
    seed: str
    variant: str
    headline: str
    settings: Mapping[str, Any]
    plan: tuple[KeptPhase, ...]
    tasks: tuple[str, ...]
    unfinished: str
    metrics: Mapping[str, Metric]
    returns: Matrix
    normalised: Matrix
    average: Vector
    chosen: Vector


@dataclass(frozen=True)
class Group:
    """Lives that differ in their seed alone."""

    label: str
    lives: tuple[Life, ...]

    def values(self, metric: str) -> Vector:
        """[lives]"""
        return np.array([life.metrics[metric].value for life in self.lives], np.float64)

    def mean(self, name: str) -> np.ndarray:
        """Mean over lives of an array that each has, over those that are not NaN."""
        found = np.stack([getattr(life, name) for life in self.lives])
        with np.errstate(invalid="ignore"):
            counted = np.maximum((~np.isnan(found)).sum(axis=0), 1)
            means = np.nansum(found, axis=0) / counted
        return np.where(np.isnan(found).all(axis=0), np.nan, means)


@dataclass(frozen=True)
class Difference:
    """A metric of a group minus that of the first group, life by life of equal seeds.

    Attributes:
      differences: [pairs].
      p: of the exact sign-flip test, Holm's correction applied over all of the table; NaN with
        fewer than 8 pairs, or where one is undefined.
    """

    label: str
    metric: str
    seeds: tuple[str, ...]
    differences: Vector
    p: float


@dataclass(frozen=True)
class Comparison:
    """Groups that lived the same plan; the first one is what others are compared with.

    Attributes:
      summaries: metric -> one a group, of the lives in which it is defined.
    """

    groups: tuple[Group, ...]
    definitions: Mapping[str, Metric]
    summaries: Mapping[str, Sequence[Summary]]
    differences: Sequence[Difference]

    @property
    def plan(self) -> tuple[KeptPhase, ...]:
        return self.groups[0].lives[0].plan

    @property
    def tasks(self) -> tuple[str, ...]:
        return self.groups[0].lives[0].tasks


def compare(folders: Sequence[Path]) -> Comparison:
    """Read runs, a few at a time, and set them side by side.

    Raises:
      UserError: a folder is no run, two are the same life, or their plans are not the same.
    """
    if len(folders) < 2:
        raise UserError(f"expected two runs or more, found {len(folders)}")
    lives = _load_all(folders)
    for life in lives[1:]:
        _refuse_another_plan(lives[0], life)
    groups = _groups(lives)
    definitions = lives[0].metrics
    rng = np.random.default_rng(SEED)
    summaries = {
        name: [_summary(group.values(name), rng) for group in groups] for name in definitions
    }
    differences = _differences(groups, list(definitions), rng)
    return Comparison(groups, definitions, summaries, differences)


def _summary(values: Vector, rng: np.random.Generator) -> Summary:
    """Of the lives in which a metric is defined."""
    defined = values[~np.isnan(values)]
    return summarise(defined, rng) if len(defined) else Summary(defined, reason="undefined")


def _load_all(folders: Sequence[Path]) -> list[Life]:
    """In processes of their own where there are many: reading records is all the work there is."""
    workers = min(len(os.sched_getaffinity(0)), len(folders))
    if len(folders) < _MANY or workers < 2:
        return [_life(folder) for folder in folders]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return list(pool.map(_life, folders))


def _life(folder: Path) -> Life:
    run = load_run(folder)
    f = find(run)
    return Life(
        name=run.name,
        seed=run.seed,
        variant=run.variant,
        headline=f.headline,
        settings={k: v for k, v in leaves(run.config).items() if not k.startswith(_ASIDE)},
        plan=run.plan,
        tasks=run.tasks,
        unfinished=run.unfinished,
        metrics={metric.name: metric for metric in f.metrics},
        returns=f.returns,
        normalised=f.normalised,
        average=f.average,
        chosen=_chosen(f),
    )


def _chosen(f: Findings) -> Vector:
    return np.array([g.chosen if g.decisions else math.nan for g in f.lived], np.float64)


def _refuse_another_plan(first: Life, life: Life) -> None:
    if not life.metrics or not first.metrics:
        which = life if not life.metrics else first
        raise UserError(f"{which.name}: no phase of it has been judged at its end yet")
    if life.tasks != first.tasks or [p.task for p in life.plan] != [p.task for p in first.plan]:
        raise UserError(
            f"{life.name} lived {_shown(life)}, and {first.name} {_shown(first)}: only lives of "
            "one plan can be compared"
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
    first, found = groups[0], []
    ours = {life.seed: life for life in first.lives}
    for group in groups[1:]:
        pairs = [(life, ours[life.seed]) for life in group.lives if life.seed in ours]
        for name in names:
            values = np.array(
                [a.metrics[name].value - b.metrics[name].value for a, b in pairs], np.float64
            )
            p = math.nan
            if len(values) >= FEWEST_LIVES and not np.isnan(values).any():
                p = sign_flip_test(values, rng).p_value
            seeds = tuple(life.seed for life, _ in pairs)
            found.append(Difference(group.label, name, seeds, values, p))
    tested = [i for i, d in enumerate(found) if not math.isnan(d.p)]
    for i, p in zip(tested, holm([found[i].p for i in tested]), strict=True):
        d = found[i]
        found[i] = Difference(d.label, d.metric, d.seeds, d.differences, float(p))
    return found
