"""Numbers of one task's curve over a life: pure functions of arrays.

A curve is (times [M], values [M]): evaluations in the order they were made, times in environment
steps, or in whatever the boundaries are counted in. What is undefined is NaN; a curve of two
lengths, or one that goes back in time, is refused (ValueError).

The boundary of a phase belongs to the phase that it ends, but for the functions after CORA: there a
point on a boundary belongs to neither side, as in its code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Vector = NDArray[np.float64]


def mean_inside(times: ArrayLike, values: ArrayLike, start: float, stop: float) -> float:
    """Plain mean of the evaluations in (start, stop]: Continual World's area under the curve.

    Source: Continual World (arXiv:2105.10919), AUC_i of success over task i's own phase, which is
    the mean of evaluations at equal distances; in [0, 1] if values are.
    """
    found = _inside(times, values, start, stop)
    return float(found.mean()) if len(found) else math.nan


def time_mean(times: ArrayLike, values: ArrayLike, start: float, stop: float) -> float:
    """Area under the curve from `start` to `stop` over its length, straight lines in between.

    Unlike `mean_inside` it does not depend on where evaluations lie densely. NaN where the curve
    does not reach from one end to the other.
    """
    t, v = _arrays(times, values)
    if len(t) < 2 or t[0] > start or t[-1] < stop or start >= stop:
        return math.nan
    kept = (t > start) & (t < stop)
    at = np.concatenate([[start], t[kept], [stop]])
    heights = np.interp(at, t, v)
    return float(np.trapezoid(heights, at) / (stop - start))


def end_performance(
    times: ArrayLike, values: ArrayLike, start: float, stop: float, *, last: int = 5
) -> float:
    """Mean of the last evaluations in (start, stop], as many as there are up to `last`.

    Forgetting and average performance of Continual World (arXiv:2105.10919) are made of these, for
    the span of a task's own phase and for that of the whole life; ours, `eval.matrix_metrics`, take
    the one evaluation at the end, of more episodes.
    """
    found = _inside(times, values, start, stop)
    return float(found[-last:].mean()) if len(found) else math.nan


def isolated_forgetting(
    times: ArrayLike,
    values: ArrayLike,
    spans: Sequence[tuple[float, float]],
    first: int,
    *,
    scale: float = 1.0,
) -> Vector:
    """What each phase alone took from a task, [K]; positive is forgotten.

        F_k = (p(last before phase k) - p(last inside phase k)) / scale,   k > first

    So in the first cycle the phases after the task's own count, and in later cycles every phase,
    its own among them, where a negative number is what was learnt again.

    Source: CORA (arXiv:2110.10067), isolated forgetting F_{i,j}; its tables show 10 F.

    Args:
      spans: (start, stop) of the K phases.
      first: number of the phase that trained the task first, from 1.
      scale: CORA takes the largest magnitude of any return on the task, in all runs.
    """
    changes = _changes(times, values, spans, strictly_after=-math.inf)
    changes[:first] = math.nan
    return -changes / scale


def zero_shot_transfer(
    times: ArrayLike,
    values: ArrayLike,
    spans: Sequence[tuple[float, float]],
    first: int,
    *,
    scale: float = 1.0,
) -> Vector:
    """What each phase alone gave to a task before that was ever trained, [K]; positive is gained.

        Z_k = (p(last inside phase k) - p(last before phase k)) / scale,   k < first

    For the first phase "before" is the first evaluation of all.

    Source: CORA (arXiv:2110.10067), isolated zero-shot forward transfer; its tables show 10 Z. As
    in its code an evaluation at time 0 counts for the first phase only.

    Args:
      spans, first, scale: as for `isolated_forgetting`.
    """
    changes = _changes(times, values, spans, strictly_after=0.0)
    found = np.asarray(values, np.float64)
    if len(spans) and len(found):
        changes[0] = _last(_between(times, values, *spans[0])) - found[0]
    changes[first - 1 :] = math.nan
    return changes / scale


def stability_gap(
    times: ArrayLike, values: ArrayLike, start: float, stop: float, *, share: float = 1.0
) -> float:
    """How far a task fell inside a phase, at worst, below what it was before.

        p(last until start) - min p over (start, start + share * (stop - start)]

    Negative: it never fell below. An evaluation at the switch alone shows nothing; the finer the
    evaluations, the larger the gap that is found.

    Source: De Lange et al. 2023 (arXiv:2205.13452), whose min-ACC is the mean of such minima.
    """
    before = _inside(times, values, -math.inf, start)
    after = _inside(times, values, start, start + share * (stop - start))
    return _last(before) - float(after.min()) if len(after) else math.nan


def steps_to_recover(
    times: ArrayLike, values: ArrayLike, start: float, stop: float, target: float
) -> float:
    """Time into a phase until an evaluation inside it reaches `target`; NaN if none does.

    Source: recovery time of l2metrics (arXiv:2201.08278), which counts training experiences and
    sets length + 1 where it is never reached; here that is undefined and says so.
    """
    t, v = _arrays(times, values)
    reached = t[(t > start) & (t <= stop) & (v >= target)]
    return float(reached[0] - start) if len(reached) else math.nan


def auc_ratio(
    times: ArrayLike, values: ArrayLike, again: tuple[float, float], first: tuple[float, float]
) -> float:
    """Area under the curve of a repeated phase over that of the first; 1: learnt no worse.

    Args:
      again, first: (start, stop) of the two phases. The curve should be 0 at chance, or the ratio
        compares offsets. NaN where the first area is not above 0.
    """
    below = mean_inside(times, values, *first)
    return mean_inside(times, values, *again) / below if below > 0 else math.nan


def half_life(since: ArrayLike, values: ArrayLike) -> float:
    """Time until a skill has fallen to half of what it was, by straight lines between evaluations.

    Args:
      since: [M] time since the skill lost its support, first at or after 0, ascending.
      values: [M], 0 being the level of chance; the first one is what is halved.
    Returns:
      NaN where it never falls so far, or was not above 0 to begin with.
    """
    t, v = _arrays(since, values)
    if not len(v) or v[0] <= 0:
        return math.nan
    half = v[0] / 2
    below = np.flatnonzero(v <= half)
    if not len(below):
        return math.nan
    j = int(below[0])
    return float(np.interp(half, [v[j], v[j - 1]], [t[j], t[j - 1]]))


def _changes(
    times: ArrayLike,
    values: ArrayLike,
    spans: Sequence[tuple[float, float]],
    strictly_after: float,
) -> Vector:
    """p(last inside) - p(last before) of every phase, points on boundaries in neither."""
    return np.array(
        [
            _last(_between(times, values, start, stop))
            - _last(_between(times, values, strictly_after, start))
            for start, stop in spans
        ]
    )


def _between(times: ArrayLike, values: ArrayLike, start: float, stop: float) -> Vector:
    t, v = _arrays(times, values)
    return v[(t > start) & (t < stop)]


def _inside(times: ArrayLike, values: ArrayLike, start: float, stop: float) -> Vector:
    t, v = _arrays(times, values)
    return v[(t > start) & (t <= stop)]


def _last(values: Vector) -> float:
    return float(values[-1]) if len(values) else math.nan


def _arrays(times: ArrayLike, values: ArrayLike) -> tuple[Vector, Vector]:
    t, v = np.asarray(times, np.float64), np.asarray(values, np.float64)
    if t.shape != v.shape or t.ndim != 1:
        raise ValueError(f"times {t.shape} and values {v.shape}, expected [M] and [M]")
    if back := np.flatnonzero(np.diff(t) < 0).tolist():
        raise ValueError(f"time {t[back[0] + 1]:g} after {t[back[0]]:g}, expected them to rise")
    return t, v
