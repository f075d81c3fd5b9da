"""What replay hands to a learner: sequences of rows of different schemas, side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

FRAMES = "obs.image"  # the one column that is handed out only for the rows that have it
STEP = "step"  # index of a row in the order of all appends, -1 where there is none
LATENT = "latent."  # prefix of the columns that are rewritten after they were appended
WRITTEN = "latent.written"  # how many batches had been written back when a row's latents last were


@dataclass(frozen=True)
class Column:
    """Shape and dtype of one quantity of a row, e.g. `obs.dmc.walker.height` () float32."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


Schema = Mapping[str, Column]  # column name -> shape and dtype


@dataclass(frozen=True)
class Where:
    """Which held rows a batch's T rows are: (stream, world, first row), each [B].

    Attributes:
      stream: index of the stream in order of opening.
      world: index among the stream's parallel worlds.
      row: index, since the stream's birth, of the first trained row (the one after the context
        row).
    """

    stream: np.ndarray
    world: np.ndarray
    row: np.ndarray


@dataclass(frozen=True)
class Batch:
    """B sequences of T rows, each from one world of one stream, plus the row before: its context.

    Sequences that show images come first, so that frame k belongs to sequence k.

    Attributes:
      columns: name -> [B, T, …] for every column of the union of schemas but images and latents;
        zeros where a sequence's stream lacks the column.
      frames: [B_img, T, 64, 64, 3] uint8; B_img is the number of image sequences rounded up to a
        rung of the ladder, surplus rows are zeros; B_img = 0 where there are none.
      task: [B] int32, index of the sequence's task; all masks follow from it.
      previous: name -> [B, …], the `action.*` columns of the context rows.
      context: name -> [B, …], the `latent.*` columns of the context rows; none if none are kept.
      draw: [B] int32, identity of each sequence in the draw, before images were put first: keys
        its noise.
      age: [B] int64, agent steps between the sequence's last row and the newest row of the
        replay.
      latent_age: [B] int64, batches that were written back since the context was; 0 without one.
      where: for writing new latents back.
    """

    columns: Mapping[str, np.ndarray]
    frames: np.ndarray
    task: np.ndarray
    previous: Mapping[str, np.ndarray]
    context: Mapping[str, np.ndarray]
    draw: np.ndarray
    age: np.ndarray
    latent_age: np.ndarray
    where: Where
