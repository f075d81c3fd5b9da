"""A block: the same rows of every column, one chunk file each; the unit of what is kept or lost."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from storage import files
from storage.batch import LATENT, Schema
from storage.zarr_files import chunk_name, fill_value

SMALLEST, LARGEST = 128, 4096  # rows of a block over all worlds, of which small rows may have more
ROOMY = 2**22  # bytes of a block up to which more rows cost nothing but room on the disk


def block_length(
    capacity: float, worlds: int, least: int = 8, of_small_rows: int | None = None
) -> int:
    """Rows of each world in a block of a stream.

    A 64th of the capacity over all worlds, so that dropping whole blocks stays fine-grained in a
    small replay, within [SMALLEST, LARGEST]; never under `least` for each world. Where blocks are
    a matter of files alone, small rows have up to an eighth of the capacity in one: a file costs
    the same to make, to sync and to delete, however much is in it.

    Args:
      capacity: in rows.
      of_small_rows: bytes of a row, where a row can go before its block does.
    """
    rows = min(max(capacity / 64, SMALLEST), LARGEST)
    if of_small_rows is not None:
        rows = max(rows, min(ROOMY / of_small_rows, capacity / 8))
    return max(int(rows) // worlds, least)


@dataclass(frozen=True)
class Layout:
    """Where and how the blocks of one stream lie.

    Attributes:
      folder: of the stream's group.
      schema: every column, `step` and latents among them.
      worlds, length: N, L, shape of a chunk.
    """

    folder: Path
    schema: Schema
    worlds: int
    length: int

    @property
    def immutable(self) -> list[str]:
        """Columns that never change once appended, and so have checksums."""
        return [name for name in self.schema if not name.startswith(LATENT)]

    @property
    def latents(self) -> list[str]:
        """Columns that are rewritten, in the order that undo logs have them."""
        return sorted(name for name in self.schema if name.startswith(LATENT))

    def path(self, name: str, block: int) -> Path:
        return self.folder / name / chunk_name(len(self.schema[name].shape), block)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.worlds, self.length, *self.schema[name].shape

    def nbytes(self, name: str) -> int:
        return self.worlds * self.length * self.schema[name].nbytes

    def offset(self, name: str, world: int, inside: int) -> int:
        """Of row `inside` of a block's world in its chunk file."""
        return (world * self.length + inside) * self.schema[name].nbytes

    def read(self, name: str, block: int) -> np.ndarray:
        """[N, L, …] a whole chunk. Raises UserError: it is missing or not whole."""
        values = files.read_file(self.path(name, block), self.nbytes(name))
        return values.view(self.schema[name].dtype).reshape(self.shape(name))

    def create(self, block: int) -> None:
        """Make the chunk files of a block, all of them or none: their room is taken on the disk."""
        made: list[Path] = []
        try:
            for name in self.schema:
                path = self.path(name, block)
                descriptor = files.create_file(path, self.nbytes(name))
                with files.closing(descriptor):
                    made.append(path)
                    if fill := fill_value(name):
                        values = np.full(self.shape(name), fill, self.schema[name].dtype)
                        files.write_at(path, descriptor, values, 0)
        except BaseException:
            for path in made:
                files.delete_file(path)
            raise

    def blocks_on_disk(self) -> set[int]:
        """Indices of the blocks that have files, whole or not."""
        return {
            int(path.name.split(".")[2])
            for name in self.schema
            for path in (self.folder / name).glob("c.0.*")
        }


@dataclass
class Block:
    """What is known of a block that is held.

    Attributes:
      index: counts the stream's blocks from its birth.
      rows: of each world that are there.
      first, newest: append index of its first and of its last row, -1 without any.
      flushed: rows whose mirrored columns are in the files; the others always are.
      is_rewritten: whether mirrored latents of flushed rows are newer than those in the files.
      summed: rows that `sums` covers.
      sums: checksum of each immutable column over the first `summed` rows, world by world.
    """

    index: int
    rows: int = 0
    first: int = -1
    newest: int = -1
    flushed: int = 0
    is_rewritten: bool = False
    summed: int = 0
    sums: dict[str, int] = field(default_factory=dict)


def unbroken(blocks: Iterable[Block], length: int) -> Iterator[tuple[int, int]]:
    """Rows of blocks of `length` that follow each other: (first, one past the last) of each run."""
    start = stop = -1
    for block in blocks:
        if block.index * length != stop:
            if stop > start:
                yield start, stop
            start = block.index * length
        stop = block.index * length + block.rows
    if stop > start:
        yield start, stop


def checksum(parts: Iterable[np.ndarray], total: int = 0) -> int:
    """Of the worlds' rows [rows, …] of a column, one after another; `total`: of those before."""
    for part in parts:
        if part.size:
            flat = part.reshape(-1)
            total = zlib.crc32(flat.view(np.uint8).data, total)
    return total
