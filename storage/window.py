"""The rows that can be sampled, in memory: a list of blocks for each stream, oldest first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from storage.batch import Column, Schema

STEP = (
    "step"  # our own column: index of the row in the order of all appends, -1 where there is none
)
LATENT = "latent."  # prefix of the columns that are rewritten after they were appended


def block_length(capacity: int, worlds: int) -> int:
    """Rows of each world in a block of a stream.

    A 64th of the capacity over all worlds, so that dropping whole blocks stays fine-grained in a
    small replay, within [128, 4096]; never under 8 for each world.
    """
    return max(min(max(capacity // 64, 128), 4096) // worlds, 8)


def fill_value(name: str) -> int:
    """What stands where no row was written."""
    return -1 if name == STEP else 0


@dataclass
class Block:
    """The same rows of every column: the unit of what is written, freed and deleted.

    Attributes:
      index: counts the stream's blocks from its birth.
      columns: name -> [N, L, …] for N worlds and L rows.
      rows: how many of the L rows are there.
      newest: append index of the last of them, -1 without any.
      rows_on_disk: how many of them have been written, latents apart.
      latents_on_disk: whether the latents on disk are those in memory.
    """

    index: int
    columns: dict[str, np.ndarray]
    rows: int = 0
    newest: int = -1
    rows_on_disk: int = 0
    latents_on_disk: bool = False


def make_block(index: int, schema: Schema, worlds: int, length: int) -> Block:
    """A block without rows. Memory is only touched as rows arrive, but for `step`."""
    columns = {name: np.zeros((worlds, length, *c.shape), c.dtype) for name, c in schema.items()}
    columns[STEP].fill(fill_value(STEP))
    return Block(index, columns)


@dataclass
class StreamWindow:
    """What is held of one stream.

    Attributes:
      schema: every column of a row, `step` and latents among them.
      worlds: N, parallel worlds.
      length: L, rows of each world in a block.
      rows: of each world since the stream's birth, evicted ones counted; index of the next row.
      blocks: held blocks of consecutive index, oldest first.
    """

    schema: Schema
    worlds: int
    length: int
    rows: int = 0
    blocks: list[Block] = field(default_factory=list)

    def append(self, rows: Mapping[str, np.ndarray], step: int) -> Block:
        """Add one row in each world.

        Args:
          rows: name -> [N, …] for every column but `step`; copied.
          step: append index of world 0's row; the other worlds' follow.

        Returns:
          The block that the rows are in.

        Raises:
          ValueError: a column is missing, is not of the schema, or has another shape or dtype;
            nothing was added.
        """
        self._check(rows)
        if not self.blocks or self.blocks[-1].rows == self.length:
            self._begin_block()
        block = self.blocks[-1]
        for name, values in rows.items():
            block.columns[name][:, block.rows] = values
        block.columns[STEP][:, block.rows] = np.arange(step, step + self.worlds)
        block.rows += 1
        block.newest = step + self.worlds - 1
        block.latents_on_disk = False
        self.rows += 1
        return block

    def evict(self, oldest: int) -> None:
        """Free the blocks that lie wholly before append index `oldest`."""
        while self.blocks and self.blocks[0].newest < oldest:
            del self.blocks[0]

    def first_rows(self, oldest: int) -> np.ndarray:
        """[N] the first row of each world with an append index of `oldest` or later.

        Blocks before it must have been evicted, so it is in the first one. Worlds differ by one row
        at most, because their rows are appended together.
        """
        if not self.blocks:
            return np.full(self.worlds, self.rows)
        block = self.blocks[0]
        steps = block.columns[STEP]
        row = int(steps[-1, : block.rows].searchsorted(oldest))
        return block.index * self.length + row + (steps[:, row] < oldest)

    @property
    def first_block(self) -> int:
        """Index of the oldest block that is held, or will be by the next append."""
        return self.blocks[0].index if self.blocks else self.next_block

    @property
    def next_block(self) -> int:
        """Index of the first block that is still without rows."""
        return -(-self.rows // self.length)

    def held_rows(self, oldest: int) -> int:
        """Over all worlds."""
        return int(self.worlds * self.rows - self.first_rows(oldest).sum())

    def spans(self, row: int, count: int) -> Iterator[tuple[Block, slice, slice]]:
        """Cut `count` rows from `row` on into (block, rows in the block, rows in the sequence)."""
        done = 0
        while done < count:
            at, offset = divmod(row + done, self.length)
            size = min(count - done, self.length - offset)
            block = self.blocks[at - self.blocks[0].index]
            yield block, slice(offset, offset + size), slice(done, done + size)
            done += size

    def _begin_block(self) -> None:
        # A stream that comes back after all its rows were evicted skips to a new block: the file of
        # the old one may be needed by a rewind and is never written with fewer rows.
        index = self.next_block
        self.rows = index * self.length
        self.blocks.append(make_block(index, self.schema, self.worlds, self.length))

    def _check(self, rows: Mapping[str, np.ndarray]) -> None:
        if len(rows) != len(self.schema) - 1:
            missing = sorted(self.schema.keys() - rows.keys() - {STEP})
            surplus = sorted(rows.keys() - self.schema.keys() | rows.keys() & {STEP})
            raise ValueError(f"row has columns missing: {missing}, or not of its stream: {surplus}")
        for name, values in rows.items():
            column = self.schema.get(name)
            if column is None or name == STEP:
                raise ValueError(f"column {name!r} is not of this stream: {sorted(self.schema)}")
            if values.shape != (self.worlds, *column.shape) or values.dtype != column.dtype:
                raise ValueError(
                    f"column {name!r} is {values.shape} {values.dtype}, "
                    f"expected {(self.worlds, *column.shape)} {column.dtype}"
                )


def row_nbytes(schema: Mapping[str, Column]) -> int:
    """Bytes of one row of one world."""
    return sum(column.nbytes for column in schema.values())
