"""Metrics of the curves between the ends of phases; see `eval.curves` for the functions."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from eval.curves import (
    auc_ratio,
    isolated_forgetting,
    mean_inside,
    stability_gap,
    steps_to_recover,
    time_mean,
    zero_shot_transfer,
)
from eval.judged import (
    ALONE_AFTER,
    FIRST,
    LAST,
    NO_REFERENCE,
    NOT_LEARNED,
    NOT_REPEATED,
    NOT_TRAINED,
    NOTHING_EARLY,
    NOTHING_INSIDE,
    NOTHING_LATE,
    PERFECT_REFERENCE,
    Judged,
    Metric,
    mean_of,
    mean_over_tasks,
)
from eval.matrix import NARROW, Vector

# Of a phase. Where evaluations lie further apart, none is the last before a switch in CORA's sense,
# or just after one in that of De Lange et al.
NEAR = 0.2


def average_performance_of_life(judged: Judged) -> Metric:
    """What the agent could do over its life, not in the end, trained tasks or not.

    Source: area under the average performance curve of Continual World (arXiv:2105.10919, Fig. 1).
    """
    found = _none(judged)
    if judged.curves and judged.spans:
        start, stop = judged.spans[0][0], judged.spans[-1][1]
        found = np.array([time_mean(*curve, start, stop) for curve in judged.curves], np.float64)
    return mean_over_tasks(
        judged,
        "average performance, over the life",
        found,
        {},
        "mean over all tasks i of the mean over time of z_i(t), straight lines between evaluations",
        "area under the average performance of Continual World (Wołczyk et al. 2021)",
    )


def single_task_transfer(judged: Judged) -> Metric:
    """FT = mean_i (AUC_i - AUC_i^ref) / (1 - AUC_i^ref), over the task's first phase.

    Source: Continual World (arXiv:2105.10919), of success in [0, 1]; here of z, which an agent
    worse than chance takes below 0. One life against one reference: over seeds, average both areas
    first.
    """
    own, alone = areas(judged), reference_areas(judged)
    gained = _none(judged)
    left_out: dict[int, str] = {}
    for task in judged.tasks:
        if not judged.phases_of(task):
            left_out[task] = NOT_TRAINED
        elif task not in judged.references:
            left_out[task] = NO_REFERENCE
        elif judged.curves:
            gained[task] = transfer_against_reference(own[task], alone[task])
            if task in judged.not_normalised:
                continue
            if math.isnan(own[task]) or math.isnan(alone[task]):
                left_out[task] = NOTHING_INSIDE
            elif math.isnan(gained[task]):
                left_out[task] = PERFECT_REFERENCE
    denominators = ", ".join(f"{1 - area:.3f}" for area in alone if not math.isnan(area))
    return mean_over_tasks(
        judged,
        "forward transfer, single-task",
        gained,
        left_out,
        "FT = mean over tasks i of (AUC_i − AUC_i^ref) / (1 − AUC_i^ref); AUC over i's first phase"
        + (f"; denominators {denominators}" if denominators else ""),
        "Continual World (Wołczyk et al. 2021); of z instead of success",
    )


def areas(judged: Judged) -> Vector:
    """AUC_i, mean z over the evaluations inside the first phase of task i, [N]."""
    found = _none(judged)
    for task in judged.tasks:
        phases = judged.phases_of(task)
        if phases and judged.curves:
            found[task] = mean_inside(*judged.curves[task], *judged.spans[phases[0] - 1])
    return found


def reference_areas(judged: Judged) -> Vector:
    """AUC_i^ref of an agent that lived task i alone, [N]."""
    found = _none(judged)
    for task, alone in judged.references.items():
        found[task] = alone.area
    return found


def transfer_against_reference(area: ArrayLike, reference: ArrayLike) -> Vector:
    """(AUC - AUC^ref) / (1 - AUC^ref), element by element.

    NaN where the reference is nearer to 1 than 1e-6.

    Source: Continual World (arXiv:2105.10919), Eq. for FT_i; FT is the mean over tasks.

    Args:
      area, reference: [...] in [0, 1], each averaged over seeds.
    """
    own, alone = np.asarray(area, np.float64), np.asarray(reference, np.float64)
    return (own - alone) / np.where(np.abs(1 - alone) < NARROW, np.nan, 1 - alone)


def isolated(judged: Judged) -> Metric:
    """Mean of what each phase alone took from a task, over tasks and later phases of other tasks.

    What a task's own repeats give is learning, and would hide what the others took.
    """
    lost = _none(judged)
    left_out: dict[int, str] = {}
    for task in judged.tasks:
        phases = judged.phases_of(task)
        if not phases or phases[0] == judged.last:
            left_out[task] = LAST if phases else NOT_TRAINED
        elif not any(map(judged.taught, phases)):
            left_out[task] = NOT_LEARNED
        elif not _others_after(judged, task, phases[0]):
            left_out[task] = ALONE_AFTER
        elif judged.curves and not _is_judged_late(judged, task):
            left_out[task] = NOTHING_LATE
        elif judged.curves:
            found = isolated_forgetting(*judged.curves[task], judged.spans, phases[0])
            found[[phase - 1 for phase in phases]] = math.nan
            lost[task] = mean_of(found)
    return mean_over_tasks(
        judged,
        "forgetting, isolated",
        lost,
        left_out,
        "mean over tasks i, and over phases k without i after i's first, of p_i(last before k) − "
        "p_i(last inside k)",
        "CORA (Powers et al. 2022); of z instead of returns over their largest magnitude, of all "
        "cycles instead of the first",
    )


def zero_shot(judged: Judged) -> Metric:
    """Mean of what each phase alone gave to tasks that were not trained yet."""
    gained = _none(judged)
    left_out: dict[int, str] = {}
    for task in judged.tasks:
        phases = judged.phases_of(task)
        if not phases or phases[0] == 1:
            left_out[task] = FIRST if phases else NOT_TRAINED
        elif judged.curves and not _is_judged_late(judged, task):
            left_out[task] = NOTHING_LATE
        elif judged.curves:
            found = zero_shot_transfer(*judged.curves[task], judged.spans, phases[0])
            gained[task] = mean_of(found)
    return mean_over_tasks(
        judged,
        "forward transfer, isolated",
        gained,
        left_out,
        "mean over tasks i, phases k before i's first, of p_i(last inside k) − p_i(last before k)",
        "CORA (Powers et al. 2022); of z instead of returns over their largest magnitude",
    )


def gap(judged: Judged) -> Metric:
    """Mean over tasks and later phases of the fall just after a switch, at its worst.

    Later than the first phase that taught the task.
    """
    fallen = _none(judged)
    left_out: dict[int, str] = {}
    for task in judged.tasks:
        phases = judged.phases_of(task)
        taught = [phase for phase in phases if judged.taught(phase)]
        if not phases or phases[0] == judged.last:
            left_out[task] = LAST if phases else NOT_TRAINED
        elif not taught:
            left_out[task] = NOT_LEARNED
        elif not (later := _others_after(judged, task, taught[0])):
            left_out[task] = ALONE_AFTER
        elif judged.curves:
            found = [
                stability_gap(*judged.curves[task], *judged.spans[k - 1], share=NEAR) for k in later
            ]
            fallen[task] = mean_of(np.array(found, np.float64))
            if math.isnan(fallen[task]) and task not in judged.not_normalised:
                left_out[task] = NOTHING_EARLY
    return mean_over_tasks(
        judged,
        "stability gap",
        fallen,
        left_out,
        "mean over tasks i and later phases k without i of z_i(start of k) − min of z_i in the "
        f"first {NEAR:.0%} of k",
        "De Lange et al. 2023; as fine as the evaluations inside phases are",
    )


def recovery(judged: Judged) -> Metric:
    """Share of a repeated phase until its task is where it was at the end of the one before.

    What never came so far counts as the whole phase: without it, an agent that seldom recovers
    would look fast.
    """

    def share(task: int, before: int, again: int) -> float:
        start, stop = judged.spans[again - 1]
        target = float(judged.z[before, task])
        if judged.z[again - 1, task] >= target:
            return 0.0
        if math.isnan(mean_inside(*judged.curves[task], start, stop)):
            return math.nan
        needed = steps_to_recover(*judged.curves[task], start, stop, target)
        return 1.0 if math.isnan(needed) else needed / (stop - start)

    return _over_repeats(
        judged,
        "recovery",
        share,
        "mean over repeats of the share of the phase until z_i is again what it was at the end of "
        "i's phase before, which taught it; 0: nothing was lost; 1: at its very end, or not at all",
        "after l2metrics (New et al. 2022), which counts experiences, length + 1 where it fails",
        consecutive=True,
    )


def plasticity(judged: Judged) -> Metric:
    """Area under the curve of repeated phases over that of the first phase of the task."""

    def ratio(task: int, first: int, again: int) -> float:
        spans = judged.spans
        return auc_ratio(*judged.curves[task], spans[again - 1], spans[first - 1])

    return _over_repeats(
        judged,
        "plasticity",
        ratio,
        "mean over repeats of AUC_i(repeat) / AUC_i(first phase of i, which taught it); AUC = mean "
        "z inside a phase",
        "learning on repeats; 1: as fast and as far as the first time",
        consecutive=False,
    )


CURVE_METRICS: tuple[Callable[[Judged], Metric], ...] = (
    average_performance_of_life,
    single_task_transfer,
    isolated,
    zero_shot,
    gap,
    recovery,
    plasticity,
)


def _over_repeats(
    judged: Judged,
    name: str,
    of_pair: Callable[[int, int, int], float],
    formula: str,
    source: str,
    *,
    consecutive: bool,
) -> Metric:
    """Mean over tasks of the mean over repeats.

    Args:
      of_pair: (task, earlier phase, repeat) -> number.
      consecutive: the earlier phase is the one before the repeat, not the first.
    """
    found = _none(judged)
    left_out: dict[int, str] = {}
    for task in judged.tasks:
        phases = judged.phases_of(task)
        if len(phases) < 2:
            left_out[task] = NOT_REPEATED if phases else NOT_TRAINED
        elif judged.curves:
            earlier = phases[:-1] if consecutive else phases[:1] * (len(phases) - 1)
            pairs = zip(earlier, phases[1:], strict=True)
            taught = [(a, b) for a, b in pairs if judged.taught(a)]
            found[task] = mean_of(np.array([of_pair(task, a, b) for a, b in taught], np.float64))
            if not taught:
                left_out[task] = NOT_LEARNED
            elif math.isnan(found[task]) and not np.isnan(judged.z[:, task]).all():
                left_out[task] = "no repeat that counts"
    return mean_over_tasks(judged, name, found, left_out, formula, source)


def _others_after(judged: Judged, task: int, phase: int) -> list[int]:
    """Phases after one, without those of a task's own."""
    return [k for k in range(phase + 1, judged.last + 1) if judged.trained[k - 1] != task]


def _is_judged_late(judged: Judged, task: int) -> bool:
    """Whether every phase has an evaluation of a task near its end, the end itself aside.

    Unknown where the task cannot be normalised, which is said elsewhere.
    """
    times, z = judged.curves[task]
    late = [stop - NEAR * (stop - start) for start, stop in judged.spans]
    return bool(np.isnan(z).all()) or all(
        ((times >= from_) & (times < stop)).any()
        for from_, (_, stop) in zip(late, judged.spans, strict=True)
    )


def _none(judged: Judged) -> Vector:
    return np.full(len(judged.tasks), np.nan)
