"""From episode records to the forgetting matrix and to curves.

K phases, N tasks. R is [K+1, N]: R[k, i] is the mean return on task i at the end of phase k;
row 0 is the agent before any training. NaN stands where nothing was judged.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eval.records import EpisodeRecord

Matrix = NDArray[np.float64]  # [K+1, N]
Vector = NDArray[np.float64]  # [N], or [K+1] for a curve over phases
ActionMode = Literal["mode", "sampled"]

NARROW = 1e-6  # a return range narrower than this cannot be normalised by


@dataclass(frozen=True)
class Cell:
    """Returns of one evaluation in brief.

    Attributes:
      mean, sd: of the returns; sd with n - 1 in the denominator, NaN below two episodes.
      n: episodes.
    """

    mean: float = math.nan
    sd: float = math.nan
    n: int = 0

    @property
    def se(self) -> float:
        """Standard error of the mean; NaN below two episodes."""
        return self.sd / math.sqrt(self.n) if self.n else math.nan


@dataclass(frozen=True)
class Evaluation:
    """The episodes of one policy on one task at one moment of the life.

    Attributes:
      phase: 0 is before training.
      env_steps, updates: of the life so far.
      returns: one an episode.
    """

    when: str
    phase: int
    env_steps: int
    updates: int
    task: str
    policy: str
    action_mode: str
    returns: tuple[float, ...]

    @property
    def cell(self) -> Cell:
        return cell(self.returns)


@dataclass(frozen=True)
class TrainingEpisode:
    """A whole episode that was lived: when it ended, and its return."""

    phase: int
    env_steps: int
    return_: float


def cell(returns: Sequence[float]) -> Cell:
    if not returns:
        return Cell()
    values = np.asarray(returns, np.float64)
    sd = float(values.std(ddof=1)) if len(values) > 1 else math.nan
    return Cell(float(values.mean()), sd, len(values))


def evaluations(records: Iterable[EpisodeRecord]) -> list[Evaluation]:
    """Gather evaluation episodes of the plain tasks (no shift), in the order they were begun."""
    groups: dict[tuple[str, str, int, int, int, str, str, str], list[float]] = {}
    for r in records:
        if r.split == "eval" and not r.variant and not r.cut:
            clock = r.phase, r.env_steps, r.updates
            key = (r.eval_id, r.when, *clock, r.task, r.policy, r.action_mode)
            groups.setdefault(key, []).append(r.return_)
    return [Evaluation(*key[1:], tuple(returns)) for key, returns in groups.items()]


def cells(
    judged: Iterable[Evaluation], tasks: Sequence[str], phases: int, policy: str, mode: ActionMode
) -> list[list[Cell]]:
    """The forgetting matrix with counts and spreads, [phases+1][tasks]."""
    rows = [[Cell() for _ in tasks] for _ in range(phases + 1)]
    for e in judged:
        if e.when in ("before", "end") and (e.policy, e.action_mode) == (policy, mode):
            rows[e.phase][tasks.index(e.task)] = e.cell
    return rows


def forgetting_matrix(rows: Sequence[Sequence[Cell]]) -> Matrix:
    """R [K+1, N], the means of `cells`."""
    return np.array([[c.mean for c in row] for row in rows], np.float64)


def random_cells(judged: Sequence[Evaluation], tasks: Sequence[str]) -> list[Cell]:
    """The random agent on each task before training, [N]; empty cells where it was not judged."""
    found = {e.task: e.cell for e in judged if e.policy == "random" and e.when == "before"}
    return [found.get(task, Cell()) for task in tasks]


def normalise(returns: ArrayLike, zero: ArrayLike, high: ArrayLike) -> Matrix:
    """z = (R - zero) / (high - zero), per task; not clipped.

    Source: the human-normalised score of Mnih et al. 2015 (Nature 518:529), whose 0 is a random
    agent too; differs: `high` is the highest possible return, not what an expert, or a
    single-task run of the same agent, reaches. So 1 may be out of anybody's reach, and a z of 0.5
    is not the same skill in two tasks.

    Args:
      returns: [..., N].
      zero: [N] or one for all, return of the random agent: z = 0.
      high: likewise, highest possible return, or whatever shall be z = 1. Where the two are nearer
        than 1e-6 the task cannot be normalised: NaN, never 0.
    """
    R, z0, z1 = (np.asarray(a, np.float64) for a in (returns, zero, high))
    scaled: Matrix = (R - z0) / np.where(np.abs(z1 - z0) < NARROW, np.nan, z1 - z0)
    return scaled


def is_above(one: Cell, other: Cell) -> bool | None:
    """Whether one mean is above another beyond chance.

        mean_one - mean_other > 2 sqrt(se_one^2 + se_other^2)

    Standard errors are of the means over episodes and count as 0 below two episodes.

    Returns:
      None where either was not judged, so that nothing can be said.
    """
    if not one.n or not other.n:
        return None
    noise = math.hypot(*(0.0 if math.isnan(c.se) else c.se for c in (one, other)))
    return one.mean - other.mean > 2 * noise


def clears_random(own: Cell, random: Cell) -> bool | None:
    """Whether a task was learned: is its mean above the random agent's beyond chance?"""
    return is_above(own, random)


def evaluation_curve(
    judged: Iterable[Evaluation], task: str, policy: str, mode: ActionMode
) -> list[tuple[int, Cell]]:
    """p_i(t) of one policy: (env_steps, returns) of each of its evaluations on a task, by time."""
    return [(e.env_steps, e.cell) for e in evaluations_of(judged, task, policy, mode)]


def evaluations_of(
    judged: Iterable[Evaluation], task: str, policy: str, mode: ActionMode
) -> list[Evaluation]:
    """The evaluations of one policy on a task, by time.

    An agent that was judged twice at one time, as where a phase ends by its return, counts once: by
    the evaluation at the phase's end, of more episodes.
    """
    own = [e for e in judged if (e.task, e.policy, e.action_mode) == (task, policy, mode)]
    points: dict[int, Evaluation] = {}
    for e in sorted(own, key=lambda e: (e.env_steps, e.when == "end")):
        points[e.env_steps] = e
    return list(points.values())


def training_curve(records: Iterable[EpisodeRecord], task: str) -> list[TrainingEpisode]:
    """Whole training episodes on a task, as lived; cut ones would read as poor returns."""
    return [
        TrainingEpisode(r.phase, r.env_steps, r.return_)
        for r in records
        if r.split == "train" and r.task == task and not r.cut
    ]


def rolling_mean(values: Vector, window: int) -> Vector:
    """Mean of the last `window` values at each place, [n] -> [n]; fewer at the start.

    NaN where one of them is.
    """
    padded = np.concatenate([np.zeros(window - 1), values])
    means: Vector = np.convolve(padded, np.ones(window), "valid") / np.minimum(
        np.arange(1, len(values) + 1), window
    )
    return means
