"""Where sequences start: pure functions from a numpy generator to positions. A rule is a class
here, which is its part of the configuration as well (`replay.sampling`), and a name in `Rule`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from continual.section import Section
from storage.batch import Where


@dataclass(frozen=True)
class Runs:
    """K unbroken runs of held rows, each within one world of one stream, oldest stream first.

    The runs of a stream's worlds over the same blocks are neighbours.

    Attributes:
      stream: [K] int64, index of the stream in order of opening.
      world: [K] int64, index among the stream's worlds.
      first: [K] int64, the run's first held row, counted from the stream's birth.
      stop: [K] int64, one past its last row.
    """

    stream: np.ndarray
    world: np.ndarray
    first: np.ndarray
    stop: np.ndarray

    _counts: dict[int, tuple[np.ndarray, np.ndarray]] = field(
        default_factory=dict, compare=False, repr=False
    )

    def starts(self, length: int) -> np.ndarray:
        """[K] number of positions at which 1 + `length` rows begin."""
        return self._counted(length)[0]

    def total(self, length: int) -> int:
        """Number of positions over all runs."""
        stops = self.stops(length)
        return int(stops[-1]) if stops.size else 0

    def stops(self, length: int) -> np.ndarray:
        """[K] number of positions in a run and all before it."""
        return self._counted(length)[1]

    def _counted(self, length: int) -> tuple[np.ndarray, np.ndarray]:
        found = self._counts.get(length)
        if found is None:
            starts = np.maximum(self.stop - self.first - length, 0)
            found = self._counts[length] = starts, starts.cumsum()
        return found

    def where(self, run: np.ndarray, position: np.ndarray) -> Where:
        """Sequences [B] at positions, counted from 0, of runs [B]."""
        return Where(self.stream[run], self.world[run], self.first[run] + position + 1)


def make_runs(streams: Iterable[tuple[int, np.ndarray, int]]) -> Runs:
    """Runs of (index of the stream, first held row of each world [N], one past the last row)."""
    streams = list(streams)
    worlds = [len(first) for _, first, _ in streams]
    return Runs(
        stream=np.repeat(np.array([s for s, _, _ in streams], np.int64), worlds),
        world=np.concatenate([np.zeros(0, np.int64), *(np.arange(n) for n in worlds)]),
        first=np.concatenate([np.zeros(0, np.int64), *(first for _, first, _ in streams)]),
        stop=np.repeat(np.array([rows for _, _, rows in streams], np.int64), worlds),
    )


class _Rule(Section):
    """What every rule is, unless it says otherwise.

    Attributes:
      knows_tasks: whether it goes by tasks or phases, a privilege that reports name
        (`eval.wording`).
    """

    knows_tasks: ClassVar[bool] = False

    def draw(
        self, rng: np.random.Generator, runs: Runs, tasks: Sequence[int], batch: int, length: int
    ) -> Where:
        """Sequences of a batch.

        Args:
          runs: that rows can be drawn from.
          tasks: index of each stream's.
          length: rows of a sequence.
        """
        raise NotImplementedError


class Uniform(_Rule):
    """Every start equally likely, as in DreamerV3."""

    kind: Literal["uniform"] = "uniform"

    def draw(
        self, rng: np.random.Generator, runs: Runs, tasks: Sequence[int], batch: int, length: int
    ) -> Where:
        del tasks
        starts, stops = runs.starts(length), runs.stops(length)
        position = rng.integers(runs.total(length), size=batch)
        if len(stops) == 1:  # one world, as in most lives: half of what a draw takes
            nothing = np.zeros(batch, np.int64)
            return Where(nothing + runs.stream, nothing + runs.world, position + runs.first + 1)
        run = stops.searchsorted(position, side="right")
        return runs.where(run, position - (stops - starts)[run])


class Recency(_Rule):
    """Newer starts are likelier: each is half as likely as one that is `half_life` starts newer.

    The geometric distribution, truncated to what is held. Streams count as newer in their order of
    opening.
    """

    kind: Literal["recency"] = "recency"
    half_life: Annotated[float, Field(gt=0)] = Field(
        100_000, description="rows after which a start is half as likely"
    )

    def draw(
        self, rng: np.random.Generator, runs: Runs, tasks: Sequence[int], batch: int, length: int
    ) -> Where:
        del tasks
        starts = runs.starts(length)
        total = int(starts.sum())
        decay = -np.log(2) / self.half_life
        # Inverse of the distribution function (1 - e^(decay (k + 1))) / (1 - e^(decay total)).
        u = rng.random(batch)
        rank = np.floor(np.log1p(u * np.expm1(decay * total)) / decay).astype(np.int64)
        return _nth_newest(runs, starts, np.minimum(rank, total - 1))


class TaskBalanced(_Rule):
    """Every task that can be drawn equally likely, then every start of it."""

    kind: Literal["task_balanced"] = "task_balanced"
    knows_tasks: ClassVar[bool] = True

    def draw(
        self, rng: np.random.Generator, runs: Runs, tasks: Sequence[int], batch: int, length: int
    ) -> Where:
        kind = np.array(tasks)[runs.stream]
        kinds = np.unique(kind[runs.starts(length) > 0])
        return _by_kind(rng, runs, kind, kinds[rng.integers(len(kinds), size=batch)], length)


class CurrentShare(_Rule):
    """The newest stream's starts with a fixed probability, else those of all others."""

    kind: Literal["current_share"] = "current_share"
    knows_tasks: ClassVar[bool] = True
    share: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.5, description="of the running phase, once both can be drawn"
    )

    def draw(
        self, rng: np.random.Generator, runs: Runs, tasks: Sequence[int], batch: int, length: int
    ) -> Where:
        kind = (runs.stream == len(tasks) - 1).astype(np.int64)
        possible = runs.starts(length) > 0
        share = self.share if possible[kind == 0].any() else 1.0
        share = share if possible[kind == 1].any() else 0.0
        chosen = (rng.random(batch) < share).astype(np.int64)
        return _by_kind(rng, runs, kind, chosen, length)


@dataclass(frozen=True)
class OneTask:
    """Starts of one task alone, each equally likely. No rule to live by, so no configuration.

    Attributes:
      task: index.
    """

    task: int

    def draw(
        self, rng: np.random.Generator, runs: Runs, tasks: Sequence[int], batch: int, length: int
    ) -> Where:
        kind = np.array(tasks)[runs.stream]
        if not runs.starts(length)[kind == self.task].any():
            raise ValueError(f"no world holds {length + 1} rows of the task in a row")
        return _by_kind(rng, runs, kind, np.full(batch, self.task), length)


Rule = Annotated[Uniform | Recency | TaskBalanced | CurrentShare, Field(discriminator="kind")]


def draw_where(
    rng: np.random.Generator,
    runs: Runs,
    tasks: Sequence[int],
    batch: int,
    length: int,
    rule: Rule | OneTask,
) -> Where:
    """Draw `batch` sequences of 1 + `length` rows, with replacement.

    A function of the generator's state and of what is held, whatever the blocks look like.

    Args:
      tasks: task of every stream, in order of opening.
    Raises:
      ValueError: no run is long enough.
    """
    if not runs.total(length):
        raise ValueError(f"no world holds {length + 1} rows in a row yet")
    return rule.draw(rng, runs, tasks, batch, length)


def images_first(has_image: np.ndarray) -> np.ndarray:
    """[B] order in which image sequences come first, and each kind keeps the order of the draw."""
    return np.argsort(~has_image, kind="stable")


def frame_rung(images: int, batch: int) -> int:
    """B_img: `images` rounded up to 0, half of `batch` or all of it, so that few sizes occur.

    Each size is one compilation of whatever eats the batch.
    """
    half = -(-batch // 2)
    return min(-(-images // half) * half, batch)


def _by_kind(
    rng: np.random.Generator, runs: Runs, kind: np.ndarray, chosen: np.ndarray, length: int
) -> Where:
    """Starts of runs of the chosen kinds [B], uniform within each; `kind` [K] is that of a run."""
    order = np.argsort(kind, kind="stable")
    starts = runs.starts(length)[order]
    stops = np.cumsum(starts)
    ends = np.searchsorted(kind[order], chosen, side="right")
    begins = np.searchsorted(kind[order], chosen, side="left")
    before = np.concatenate([[0], stops])
    position = before[begins] + rng.integers(before[ends] - before[begins])
    run = np.searchsorted(stops, position, side="right")
    return runs.where(order[run], position - (stops - starts)[run])


def _nth_newest(runs: Runs, starts: np.ndarray, rank: np.ndarray) -> Where:
    """Starts by their rank [B]: 0 is the newest there is, of the last world of the last run."""
    # Worlds of a stream were appended together: their starts are counted side by side.
    same = (np.diff(runs.stream) == 0) & (np.diff(runs.stop) == 0)
    group = np.concatenate([[0], np.cumsum(~same)])
    stops = np.cumsum(np.bincount(group, starts)[::-1]).astype(np.int64)
    found, positions = [], []
    for r in rank.tolist():
        back = int(np.searchsorted(stops, r, side="right"))
        members = np.flatnonzero(group == group[-1] - back)[::-1]
        r -= int(stops[back - 1]) if back else 0
        held = starts[members]
        whole = int(held.min()) * len(members)
        if r < whole:
            row, member = divmod(r, len(members))
        else:
            row, member = int(held.min()), int(np.flatnonzero(held > held.min())[r - whole])
        found.append(members[member])
        positions.append(held[member] - 1 - row)
    return runs.where(np.array(found), np.array(positions))
