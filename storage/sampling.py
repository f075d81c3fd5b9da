"""Where sequences start: pure functions from a numpy generator to positions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from storage.batch import Where


@dataclass(frozen=True)
class Runs:
    """K unbroken runs of held rows, each within one world of one stream, oldest stream first.

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

    def starts(self, length: int) -> np.ndarray:
        """[K] number of positions at which 1 + `length` rows begin."""
        starts: np.ndarray = np.maximum(self.stop - self.first - length, 0)
        return starts


def make_runs(streams: Iterable[tuple[int, np.ndarray, int]]) -> Runs:
    """Runs of (index of the stream, first held row of each world [N], rows of the stream)."""
    streams = list(streams)
    worlds = [len(first) for _, first, _ in streams]
    return Runs(
        stream=np.repeat(np.array([s for s, _, _ in streams], np.int64), worlds),
        world=np.concatenate([np.zeros(0, np.int64), *(np.arange(n) for n in worlds)]),
        first=np.concatenate([np.zeros(0, np.int64), *(first for _, first, _ in streams)]),
        stop=np.repeat(np.array([rows for _, _, rows in streams], np.int64), worlds),
    )


def draw_where(rng: np.random.Generator, runs: Runs, batch: int, length: int) -> Where:
    """Draw `batch` sequences of 1 + `length` rows, with replacement, every start equally likely.

    A function of the generator's state and of what is held, whatever the blocks look like.

    Raises:
      ValueError: no run is long enough.
    """
    stops = np.cumsum(runs.starts(length))
    if not stops.size or stops[-1] == 0:
        raise ValueError(f"no world holds {length + 1} rows in a row yet")
    position = rng.integers(stops[-1], size=batch)
    run = np.searchsorted(stops, position, side="right")
    begins = stops[run] - runs.starts(length)[run]
    return Where(
        stream=runs.stream[run],
        world=runs.world[run],
        row=runs.first[run] + (position - begins) + 1,
    )


def images_first(has_image: np.ndarray) -> np.ndarray:
    """[B] order in which image sequences come first, and each kind keeps the order of the draw."""
    return np.argsort(~has_image, kind="stable")


def frame_rung(images: int, batch: int) -> int:
    """B_img: `images` rounded up to 0, half of `batch` or all of it, so that few sizes occur.

    Each size is one compilation of whatever eats the batch.
    """
    half = -(-batch // 2)
    return min(-(-images // half) * half, batch)
