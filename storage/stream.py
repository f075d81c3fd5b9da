"""One stream: its held blocks, their rows in files and in the mirror, and what readers see."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from continual.errors import UserError
from storage.arrivals import Arrivals
from storage.background import Background
from storage.batch import STEP, WRITTEN
from storage.block import Block, Layout, checksum, unbroken
from storage.checks import check_files, read_checked
from storage.chunks import ChunkFiles
from storage.mirror import Mirror
from storage.open_files import OpenFiles
from storage.undo import Old
from storage.zarr_files import StreamId, StreamMetadata


class Stream:
    """Rows of one stream; those of held blocks can be read and rewritten.

    Attributes:
      schema: of the rows, our own columns included.
      rows: of each world since the stream's birth, evicted ones counted; index of the next row.
      blocks: held blocks by index, oldest first.
      needed: indices of the blocks that a commit still needs; their files outlive the block.
    """

    def __init__(
        self, stream: StreamId, layout: Layout, small: Sequence[str], opened: OpenFiles
    ) -> None:
        self.id = stream
        self.layout = layout
        self.worlds, self.length = layout.worlds, layout.length
        self.rows = 0
        self.blocks: dict[int, Block] = {}
        self.needed: set[int] = set()
        self.schema = schema = layout.schema
        self._mirror = Mirror({n: schema[n] for n in small}, self.worlds, 4 * self.length)
        self._large = [name for name in schema if name not in small]
        self._chunks = ChunkFiles(layout, opened)
        self._background = Background(is_used=bool(self._large))
        self._retired: set[int] = set()  # evicted blocks whose files are still there
        self._arrivals = Arrivals(self.worlds, schema, self._large)
        self._filled = Block(-1)  # takes rows as long as there are fewer than
        self._full_at = 0
        self._step = self._writes = 0  # of the newest row
        attributes = {"phase": stream.phase, "task": stream.task}
        self._metadata = StreamMetadata(layout.folder, schema, self.worlds, self.length, attributes)

    # Filling

    def create(self) -> None:
        """Make the folders of a stream without rows."""
        self._chunks.create_folders()
        self._metadata.publish(0, 0)

    def append(self, rows: Mapping[str, np.ndarray], step: int, writes: int) -> bool:
        """Add one row in each world; -> whether it began a block.

        Args:
          rows: name -> [N, …] for every column but our own; copied.
          step: append index of world 0's row; the other worlds' follow. From one `settle` to the
            next there are no rows of another stream between.
          writes: batches written back so far, which dates the latents; the same until `settle`.

        Raises:
          ValueError: a column is missing, is not of the schema, or has another shape or dtype.
          UserError: the disk is full or fails. In either case nothing was added.
        """
        begins = self.rows >= self._full_at and self._make_room(rows, step)
        self._arrivals.add(rows)
        self.rows += 1
        self._step, self._writes = step, writes
        return begins

    def settle(self) -> None:
        """Put the newest rows where all below reads. Raises UserError: a failed disk; they wait."""
        count = self._arrivals.count
        if not count:
            return
        new, columns = slice(self.rows - count, self.rows), self._mirror.columns
        for name, values in self._arrivals.columns():
            columns[name][:, new] = values
        for name, cells in self._arrivals.large_columns():
            self._chunks.write_cells(name, *divmod(new.start, self.length), cells)
        stop = self._step + self.worlds
        columns[STEP][:, new] = np.arange(stop - count * self.worlds, stop).reshape(count, -1).T
        if WRITTEN in columns:
            columns[WRITTEN][:, new] = self._writes
        self._filled.rows += count
        self._filled.newest = stop - 1
        self._arrivals.clear()

    def evict(self, index: int) -> None:
        """Hold a block no more; its files go when no commit needs them."""
        self.settle()
        if self.blocks[index].summed < self.blocks[index].rows:
            self._background.finish()  # which may be at it
        self._full_at = 0
        del self.blocks[index]
        self._mirror.free(index * self.length, (index + 1) * self.length)
        self._chunks.leave(self._large, index)
        self._retired.add(index)
        self.delete_retired()

    def delete_retired(self) -> None:
        """Delete the files of blocks that are neither held nor needed, or begin to."""
        if gone := self._retired - self.needed:
            self._retired -= gone
            self._background.begin(self._chunks.deletion_of(gone))

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
        first = self.first_rows(oldest)
        for start, stop in unbroken(self.blocks.values(), self.length):
            yield np.maximum(first, start), stop

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
        self._chunks.read_into(name, worlds, rows, out, at)

    def ours(self, name: str, worlds: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """`STEP` or `WRITTEN` of single rows."""
        values: np.ndarray = self._mirror.columns[name][worlds, rows]
        return values

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
        is_first = self.ours(WRITTEN, worlds, rows) <= writes
        is_first &= self.ours(STEP, worlds, rows) < oldest
        places = np.unique(worlds[is_first] * self._mirror.places + rows[is_first])
        found = []
        for run in np.split(places, np.flatnonzero(np.diff(places) != 1) + 1):
            if run.size:
                world, row = divmod(int(run[0]), self._mirror.places)
                cells = [self._cells(n, world, row, run.size) for n in self.layout.latents]
                content = b"".join(values.tobytes() for values in cells)
                found.append(Old(stream, world, row, run.size, content))
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
                        first = int(rows[k, run[0]])
                        self._chunks.write(name, world, first, values[k, run], self.blocks)
        self._mirror.flat(WRITTEN)[chosen] = writes
        for index in set((rows[held] // self.length).tolist()):
            self.blocks[index].is_rewritten = True
        return len(chosen)

    def restore(self, old: Old) -> None:
        """Put latents back in the files, where the block is held."""
        for name, values in old.columns(self.schema):
            self._chunks.write(name, old.world, old.row, values, self.blocks)

    # On disk

    def flush(self) -> None:
        """Bring the files of all held blocks up to date, and end what was begun.

        Raises:
          UserError: the disk fails, or failed in the meantime.
        """
        self._background.finish()
        self.settle()
        for block in self.blocks.values():
            self._flush_block(block)

    def sum_up(self) -> None:
        """Checksum what was appended."""
        for block in self.blocks.values():
            if block.summed < block.rows:
                self._sum_up(block)

    def sync(self) -> None:
        """Make all that was written durable: files before the folders that name them."""
        self._chunks.sync()

    def publish(self, oldest: int) -> None:
        """Tell readers how many rows there are."""
        self._metadata.publish(self.rows, int(self.first_rows(oldest).min()))

    def close(self) -> None:
        """Let go of all files; what failed in the meantime is of no account."""
        self._background.drop()
        self._chunks.close()

    # Coming back

    def load_rows(self, *, verify_all: bool) -> list[str]:
        """Read what the mirror holds, latents apart, and compare its checksums.

        Args:
          verify_all: compare those of the other columns too.
        Returns:
          What is wrong, a line for each block that is damaged; they are held no more.
        """
        self._mirror.reserve(-(-self.rows // self.length) * self.length, ())
        wrong = []
        for block in list(self.blocks.values()):
            try:
                check_files(self.layout, block)
                for name in self.layout.immutable:
                    if name in self._mirror.columns or verify_all:
                        self._load(name, block)
            except UserError as error:
                wrong.append(str(error))
                del self.blocks[block.index]
        return wrong

    def load_latents(self) -> None:
        """Read the mirror's latents."""
        for block in self.blocks.values():
            for name in self._mirror.columns.keys() & self.layout.latents:
                self._load(name, block)

    def cut(self) -> None:
        """Make rows absent that were appended after those that are held, and drop their blocks."""
        for block in self.blocks.values():
            if block.rows < self.length:
                self._chunks.unshare(block.index)
            steps = self.layout.read(STEP, block.index)
            if (steps[:, block.rows :] != -1).any():
                steps[:, block.rows :] = -1
                self._chunks.write_chunk(STEP, block.index, steps)
        self._retired = self.layout.blocks_on_disk() - self.blocks.keys()
        self.delete_retired()
        self._background.finish()

    # Inside

    def _make_room(self, rows: Mapping[str, np.ndarray], step: int) -> bool:
        """Have room for these rows and some more; -> whether that began a block."""
        self._arrivals.check(rows)
        self.settle()
        block = self.blocks.get(self.rows // self.length)
        begins = block is None
        self._filled = block or self._begin_block(step)
        self._full_at = min((self._filled.index + 1) * self.length, self.rows + self._arrivals.most)
        return begins

    def _begin_block(self, step: int) -> Block:
        # A stream that comes back after its newest block was evicted skips to a new one: the files
        # of the old one may be needed by a rewind.
        index = -(-self.rows // self.length)
        for block in self.blocks.values():
            self._flush_block(block)
        if self._large and self._filled.index in self.blocks:
            self._seal(self._filled)
        held = unbroken(self.blocks.values(), self.length)
        self._mirror.reserve((index + 1) * self.length, held)
        self._chunks.create(index)
        self.rows = index * self.length
        block = self.blocks[index] = Block(index, first=step)
        return block

    def _seal(self, block: Block) -> None:
        """Begin to make a full block durable and to sum it up, so that a commit has less to do."""
        sync = self._chunks.sync_of_now()

        def seal() -> None:
            sync()
            self._sum_up(block)

        self._background.begin(seal)

    def _cells(self, name: str, world: int, row: int, count: int) -> np.ndarray:
        """[count, …] rows of a column, wherever they are kept."""
        if name in self._mirror.columns:
            values: np.ndarray = self._mirror.columns[name][world, row : row + count]
            return values
        return self._chunks.read(name, world, row, count)

    def _flush_block(self, block: Block) -> None:
        """Write what only the mirror has of a block."""
        first, count = block.index * self.length + block.flushed, block.rows - block.flushed
        for name, column in self._mirror.columns.items():
            if block.is_rewritten and name in self.layout.latents:
                start, size = block.index * self.length, block.rows
            else:
                start, size = first, count
            if size == self.length:
                self._chunks.write_chunk(name, block.index, column[:, start : start + size])
            elif size:
                for world in range(self.worlds):
                    part = column[world, start : start + size]
                    self._chunks.write(name, world, start, part, self.blocks)
        block.flushed, block.is_rewritten = block.rows, False

    def _sum_up(self, block: Block) -> None:
        block.sums = {name: self._checksum(name, block) for name in self.layout.immutable}
        block.summed = block.rows

    def _checksum(self, name: str, block: Block) -> int:
        if name not in self._mirror.columns:
            return self._chunks.checksum(name, block.index, block.rows)
        start = block.index * self.length
        # New rows of a single world come after all that were summed up before.
        done = block.summed if self.worlds == 1 else 0
        before = block.sums[name] if done else 0
        return checksum(self._mirror.columns[name][:, start + done : start + block.rows], before)

    def _load(self, name: str, block: Block) -> None:
        """Read a chunk, compare its checksum if it has one, and mirror its rows."""
        values = read_checked(self.layout, name, block)
        if name in self._mirror.columns:
            start = block.index * self.length
            self._mirror.columns[name][:, start : start + block.rows] = values
