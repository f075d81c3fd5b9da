"""One stream: its held blocks, their rows in files and in the mirror, and what readers see."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from continual.errors import UserError
from storage import files
from storage.batch import STEP, WRITTEN, Schema
from storage.block import Block, Layout, checksum
from storage.checks import check_rows, located
from storage.files import MappedFile, MappedFiles
from storage.mirror import Mirror
from storage.undo import Old
from storage.zarr_files import StreamMetadata, stream_name

_OURS = (STEP, WRITTEN)  # columns that no caller gives


@dataclass(frozen=True)
class StreamId:
    """Names a stream: one task as lived in one phase, with one schema and one set of worlds."""

    phase: int
    task: str

    @property
    def name(self) -> str:
        """Of its zarr group, such as `phase_0002_dmc_walker_walk`."""
        return stream_name(self.phase, self.task)


class Stream:
    """Rows of one stream; those of held blocks can be read and rewritten.

    Attributes:
      rows: of each world since the stream's birth, evicted ones counted; index of the next row.
      blocks: held blocks by index, oldest first.
      needed: indices of the blocks that a commit still needs; their files outlive the block.
    """

    def __init__(
        self, stream: StreamId, layout: Layout, small: Sequence[str], maps: MappedFiles
    ) -> None:
        self.id = stream
        self.layout = layout
        self.worlds, self.length = layout.worlds, layout.length
        self.rows = 0
        self.blocks: dict[int, Block] = {}
        self.needed: set[int] = set()
        self._maps = maps
        schema = layout.schema
        self._mirror = Mirror({n: schema[n] for n in small}, self.worlds, 4 * self.length)
        self._large = [name for name in schema if name not in small]
        # (name, shape, dtype, [M, N, …]) of what callers give and the mirror holds.
        self._targets: list[tuple[str, tuple[int, ...], np.dtype, np.ndarray]] = []
        self._open: dict[str, tuple[Path, int]] = {}  # the newest block's large columns
        self._open_block = -1
        self._unsynced: set[Path] = set()
        self._unsynced_folders: set[Path] = set()
        self._retired: set[int] = set()  # evicted blocks whose files are still there
        self._given = {
            name: ((self.worlds, *column.shape), np.dtype(column.dtype))
            for name, column in schema.items()
            if name not in _OURS
        }
        attributes = {"phase": stream.phase, "task": stream.task}
        self._metadata = StreamMetadata(layout.folder, schema, self.worlds, self.length, attributes)

    @property
    def schema(self) -> Schema:
        return self.layout.schema

    # Filling

    def create(self) -> None:
        """Make the folders of a stream without rows."""
        for name in self.schema:
            with files.named(self.layout.folder, "make"):
                (self.layout.folder / name).mkdir(parents=True, exist_ok=True)
            self._unsynced_folders.add(self.layout.folder / name)
        self._unsynced_folders |= {self.layout.folder, self.layout.folder.parent}
        self._metadata.publish(0, 0)

    def append(self, rows: Mapping[str, np.ndarray], step: int, writes: int) -> bool:
        """Add one row in each world; -> whether it began a block.

        Args:
          rows: name -> [N, …] for every column but our own; copied.
          step: append index of world 0's row; the other worlds' follow.
          writes: batches written back so far, which dates the latents.

        Raises:
          ValueError: a column is missing, is not of the schema, or has another shape or dtype.
          UserError: the disk is full or fails. In either case nothing was added.
        """
        row = self.rows
        block = self.blocks.get(row // self.length)
        if begins := block is None:
            check_rows(rows, self._given)
            block = self._begin_block()
            row = self.rows
        for name, shape, dtype, column in self._targets:
            values = rows.get(name)
            if values is None or values.shape != shape or values.dtype != dtype:
                break
            column[row] = values
        else:
            if len(rows) == len(self._given):
                self._finish_row(block, rows, step, writes)
                return begins
        # What was written is beyond the last row that counts.
        check_rows(rows, self._given)
        raise AssertionError("rows that do not fit are refused")

    def _finish_row(
        self, block: Block, rows: Mapping[str, np.ndarray], step: int, writes: int
    ) -> None:
        """Write what callers do not give or the mirror does not hold, and count the row."""
        row = self.rows
        if self._large:
            self._write_large(block.index, row % self.length, rows)
        columns = self._mirror.columns
        columns[STEP][:, row] = step if self.worlds == 1 else np.arange(step, step + self.worlds)
        if WRITTEN in columns:
            columns[WRITTEN][:, row] = writes
        if block.rows == 0:
            block.first = step
        block.rows += 1
        block.newest = step + self.worlds - 1
        self.rows += 1

    def evict(self, index: int) -> None:
        """Hold a block no more; its files go when no commit needs them."""
        del self.blocks[index]
        self._mirror.free(index * self.length, (index + 1) * self.length)
        for name in self._large:
            self._maps.forget((self.id, name, index))
        if index == self._open_block:
            self.close()
        self._retired.add(index)
        self.delete_retired()

    def delete_retired(self) -> None:
        """Delete the files of blocks that are neither held nor needed."""
        for index in sorted(self._retired - self.needed):
            self.layout.delete(index)
            self._unsynced -= {self.layout.path(name, index) for name in self.schema}
            self._retired.remove(index)

    # Looking

    def first_rows(self, oldest: int) -> np.ndarray:
        """[N] the first held row of each world with an append index of `oldest` or later.

        Blocks before it must have been evicted, so it is in the first one. Worlds differ by one row
        at most, because their rows are appended together.
        """
        if not self.blocks:
            return np.full(self.worlds, self.rows)
        block = next(iter(self.blocks.values()))
        start = block.index * self.length
        if block.first >= oldest:
            return np.full(self.worlds, start)
        steps = self._mirror.columns[STEP][:, start : start + block.rows]
        row = int(steps[-1].searchsorted(oldest))
        if row == block.rows:
            return np.full(self.worlds, start + row)
        return start + row + (steps[:, row] < oldest)

    def runs(self, oldest: int) -> Iterator[tuple[np.ndarray, int]]:
        """Unbroken runs of held rows: (first row of each world [N], one past the last)."""
        first, stop = self.first_rows(oldest), -1
        for block in self.blocks.values():
            start = block.index * self.length
            if stop not in (-1, start):
                yield first, stop
                first = np.full(self.worlds, start)
            stop = start + block.rows
        if self.blocks:
            yield first, stop

    def held_rows(self, oldest: int) -> int:
        """Over all worlds."""
        return sum(self.worlds * stop - int(first.sum()) for first, stop in self.runs(oldest))

    def is_held(self, worlds: np.ndarray, rows: np.ndarray, oldest: int) -> np.ndarray:
        """[K, T] which rows of worlds [K] can still be read; rows [K, T]."""
        held = np.isin(rows // self.length, list(self.blocks))
        held &= rows >= self.first_rows(oldest)[worlds][:, None]
        return held

    def gather(
        self, names: Collection[str], worlds: np.ndarray, rows: np.ndarray, length: int
    ) -> dict[str, np.ndarray]:
        """name -> [K, T, …] the `length` rows of worlds [K] that begin with rows [K], copied.

        Columns that the stream lacks are left out.

        Raises:
          UserError: a file was cut, or its disk cannot read it.
        """
        found = self._mirror.gather(names, worlds, rows, length)
        for name in self._large:
            if name in names:
                column = self.schema[name]
                found[name] = np.empty((len(rows), length, *column.shape), column.dtype)
                self.gather_into(name, worlds, rows, found[name], np.arange(len(rows)))
        return found

    def gather_into(
        self, name: str, worlds: np.ndarray, rows: np.ndarray, out: np.ndarray, at: np.ndarray
    ) -> None:
        """The same for one large column: out[at[k]] [T, …] = the rows, copied once."""
        if name in self._mirror.columns:
            out[at] = self._mirror.gather([name], worlds, rows, out.shape[1])[name]
            return
        self._maps.look()
        for world, row, b in zip(worlds.tolist(), rows.tolist(), at.tolist(), strict=True):
            for index, inside, outside in self._spans(row, out.shape[1]):
                out[b, outside] = self._mapped(name, index, world, inside)

    def steps(self, worlds: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Append indices of single rows."""
        steps: np.ndarray = self._mirror.columns[STEP][worlds, rows]
        return steps

    def written(self, worlds: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Batches that had been written back when the latents of single rows last were."""
        written: np.ndarray = self._mirror.columns[WRITTEN][worlds, rows]
        return written

    # Latents

    def old_latents(
        self, stream: int, worlds: np.ndarray, rows: np.ndarray, writes: int, oldest: int
    ) -> list[Old]:
        """What a log needs before rows are rewritten: those not rewritten since the last commit.

        Args:
          stream: index of this stream in the log.
          worlds, rows: [K], held ones.
          writes: batches written back at the last commit.
          oldest: append index of the first row after the last commit: it needs no undoing.
        """
        is_first = (self.written(worlds, rows) <= writes) & (self.steps(worlds, rows) < oldest)
        places = np.unique(worlds[is_first] * self._mirror.places + rows[is_first])
        found = []
        for run in np.split(places, np.flatnonzero(np.diff(places) != 1) + 1):
            if run.size:
                world, row = divmod(int(run[0]), self._mirror.places)
                cells = self._latent_cells(world, row, run.size)
                found.append(Old(stream, world, row, run.size, cells))
        return found

    def rewrite(
        self,
        worlds: np.ndarray,
        rows: np.ndarray,
        held: np.ndarray,
        latents: Mapping[str, np.ndarray],
        writes: int,
    ) -> int:
        """Overwrite the latents of held rows, in the order of the sequences; -> rows written.

        Args:
          worlds: [K].
          rows, held: [K, T], from `is_held`.
          latents: name -> [K, T, …].
          writes: batches written back, this one included.
        """
        chosen = (worlds[:, None] * self._mirror.places + rows)[held]
        for name, values in latents.items():
            if name in self._mirror.columns:
                self._mirror.flat(name)[chosen] = values[held]
                continue
            for k, world in enumerate(worlds.tolist()):
                there = np.flatnonzero(held[k])
                for run in np.split(there, np.flatnonzero(np.diff(there) != 1) + 1):
                    if run.size:
                        self._write_cells(name, world, int(rows[k, run[0]]), values[k, run])
        self._mirror.flat(WRITTEN)[chosen] = writes
        for index in set((rows[held] // self.length).tolist()):
            self.blocks[index].is_rewritten = True
        return len(chosen)

    def restore(self, old: Old) -> None:
        """Put latents back in the files, where the block is held."""
        at = 0
        for name in self.layout.latents:
            column = self.schema[name]
            size = old.count * column.nbytes
            values = np.frombuffer(old.cells[at : at + size], column.dtype)
            self._write_cells(name, old.world, old.row, values.reshape(old.count, *column.shape))
            at += size

    # On disk

    def flush(self) -> None:
        """Bring the files of all held blocks up to date, and sum what was appended."""
        for block in self.blocks.values():
            self._flush_block(block)
            if block.summed < block.rows:
                block.sums = {n: self._checksum(n, block) for n in self.layout.immutable}
                block.summed = block.rows

    def sync(self) -> None:
        """Make all that was written durable: files before the folders that name them."""
        files.sync_data(self._unsynced)
        files.sync_data(self._unsynced_folders)
        self._unsynced = {path for path, _ in self._open.values()}
        self._unsynced_folders.clear()

    def publish(self, oldest: int) -> None:
        """Tell readers how many rows there are."""
        self._metadata.publish(self.rows, int(self.first_rows(oldest).min()))

    def close(self) -> None:
        for _, descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

    # Coming back

    def check_files(self) -> None:
        """Raises UserError: a file of a held block is missing or not whole."""
        for block in self.blocks.values():
            for name in self.schema:
                with located(self.layout, name, block.index, block.rows):
                    files.check_file(self.layout.path(name, block.index), self.layout.nbytes(name))

    def load_rows(self, *, verify_all: bool) -> None:
        """Read what the mirror holds, latents apart, and compare its checksums.

        Args:
          verify_all: compare those of the other columns too.
        Raises:
          UserError: a file cannot be read, or holds something else.
        """
        self._reserve(-(-self.rows // self.length) * self.length, ())
        for block in self.blocks.values():
            for name in self.layout.immutable:
                if name in self._mirror.columns or verify_all:
                    self._load(name, block)

    def load_latents(self) -> None:
        """Read the mirror's latents."""
        for block in self.blocks.values():
            for name in self.layout.latents:
                if name in self._mirror.columns:
                    self._load(name, block)

    def cut(self) -> None:
        """Make rows absent that were appended after those that are held, and drop their blocks."""
        for block in self.blocks.values():
            steps = self.layout.read(STEP, block.index)
            if (steps[:, block.rows :] != -1).any():
                steps[:, block.rows :] = -1
                self._write_chunk(STEP, block.index, steps)
        self._retired = self.layout.blocks_on_disk() - self.blocks.keys()
        self.delete_retired()

    def verify(self) -> Iterator[str]:
        """One line for each damaged column of a held block."""
        for block in self.blocks.values():
            for name in self.schema:
                try:
                    self._load(name, block)
                except UserError as error:
                    yield str(error)

    # Inside

    def _begin_block(self) -> Block:
        # A stream that comes back after its newest block was evicted skips to a new one: the files
        # of the old one may be needed by a rewind.
        index = -(-self.rows // self.length)
        for block in self.blocks.values():
            self._flush_block(block)
        self._reserve((index + 1) * self.length, self.blocks.values())
        self.layout.create(index)
        self.close()
        self._unsynced |= {self.layout.path(name, index) for name in self.schema}
        self._unsynced_folders |= {self.layout.folder / name for name in self.schema}
        self.rows = index * self.length
        block = self.blocks[index] = Block(index)
        return block

    def _reserve(self, rows: int, there: Collection[Block]) -> None:
        """Have places for rows in the mirror, which has those of some blocks already."""
        starts = ((b.index * self.length, b.rows) for b in there)
        self._mirror.reserve(rows, [(start, start + count) for start, count in starts])
        self._targets = [
            (name, *self._given[name], column.swapaxes(0, 1))
            for name, column in self._mirror.columns.items()
            if name in self._given
        ]

    def _spans(self, row: int, count: int) -> Iterator[tuple[int, slice, slice]]:
        """Cut `count` rows into (block, rows in the block, rows in the sequence)."""
        done = 0
        while done < count:
            index, offset = divmod(row + done, self.length)
            size = min(count - done, self.length - offset)
            yield index, slice(offset, offset + size), slice(done, done + size)
            done += size

    def _mapped(self, name: str, index: int, world: int, inside: slice) -> np.ndarray:
        """Rows of a column that is not mirrored, where they lie."""
        file = self._maps.get((self.id, name, index), lambda: self._map(name, index))
        nbytes = self.schema[name].nbytes
        start = (world * self.length + inside.start) * nbytes
        file.ask(start, (inside.stop - inside.start) * nbytes, self._maps.epoch)
        values: np.ndarray = file.values[world, inside]
        return values

    def _map(self, name: str, index: int) -> MappedFile:
        path, dtype = self.layout.path(name, index), self.schema[name].dtype
        return MappedFile(path, dtype, self.layout.shape(name))

    def _cells(self, name: str, world: int, row: int, count: int) -> np.ndarray:
        """[count, …] rows of a column, wherever they are kept."""
        if name in self._mirror.columns:
            values: np.ndarray = self._mirror.columns[name][world, row : row + count]
            return values
        parts = [self._mapped(name, i, world, inside) for i, inside, _ in self._spans(row, count)]
        return np.concatenate(parts)

    def _latent_cells(self, world: int, row: int, count: int) -> bytes:
        parts = [self._cells(name, world, row, count) for name in self.layout.latents]
        return b"".join(part.tobytes() for part in parts)

    def _write_large(self, index: int, inside: int, rows: Mapping[str, np.ndarray]) -> None:
        """Write a row's columns that are not mirrored. Their files stay open, and unsynced."""
        for name in self._large:
            values = rows[name]
            path, descriptor = self._open.get(name) or self._open_file(name, index)
            shape, dtype = self._given[name]
            if values.shape != shape or values.dtype != dtype:
                check_rows(rows, self._given)
            for world in range(self.worlds):
                offset = self.layout.offset(name, world, inside)
                files.write_at(path, descriptor, values[world], offset)

    def _open_file(self, name: str, index: int) -> tuple[Path, int]:
        path = self.layout.path(name, index)
        self._open[name] = path, files.open_for_writing(path)
        self._open_block = index
        self._unsynced.add(path)
        return self._open[name]

    def _write_cells(self, name: str, world: int, row: int, values: np.ndarray) -> None:
        """Write rows of one world to the files of the blocks that are held."""
        for index, inside, outside in self._spans(row, len(values)):
            if index in self.blocks:
                path = self.layout.path(name, index)
                with files.closing(files.open_for_writing(path)) as descriptor:
                    offset = self.layout.offset(name, world, inside.start)
                    files.write_at(path, descriptor, values[outside], offset)
                self._unsynced.add(path)

    def _write_chunk(self, name: str, index: int, values: np.ndarray) -> None:
        path = self.layout.path(name, index)
        with files.closing(files.open_for_writing(path)) as descriptor:
            files.write_at(path, descriptor, values, 0)
        self._unsynced.add(path)

    def _flush_block(self, block: Block) -> None:
        """Write what only the mirror has of a block."""
        first, count = block.index * self.length + block.flushed, block.rows - block.flushed
        for name, column in self._mirror.columns.items():
            if block.is_rewritten and name in self.layout.latents:
                start, size = block.index * self.length, block.rows
            else:
                start, size = first, count
            if size == self.length:
                self._write_chunk(name, block.index, column[:, start : start + size])
            elif size:
                for world in range(self.worlds):
                    self._write_cells(name, world, start, column[world, start : start + size])
        block.flushed, block.is_rewritten = block.rows, False

    def _checksum(self, name: str, block: Block) -> int:
        start = block.index * self.length
        worlds = range(self.worlds)
        return checksum(self._cells(name, world, start, block.rows) for world in worlds)

    def _load(self, name: str, block: Block) -> None:
        """Read a chunk, compare its checksum if it has one, and mirror its rows."""
        with located(self.layout, name, block.index, block.rows):
            values = self.layout.read(name, block.index)[:, : block.rows]
            if name in block.sums and checksum(values) != block.sums[name]:
                path = self.layout.path(name, block.index)
                raise UserError(f"{path} is damaged: its checksum is not the one of the commit")
        if name in self._mirror.columns:
            start = block.index * self.length
            self._mirror.columns[name][:, start : start + block.rows] = values
