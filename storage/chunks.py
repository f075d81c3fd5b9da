"""The chunk files of one stream: written and read by system calls."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Collection, Container, Iterator, Sequence
from pathlib import Path

import numpy as np

from continual.files import named, put_file
from storage import files
from storage.batch import STEP
from storage.block import Layout, checksum
from storage.open_files import Key, OpenFile, OpenFiles

_PART = 2**20  # bytes that are summed up at a time

_owners = itertools.count()


def spans(length: int, row: int, count: int) -> Iterator[tuple[int, slice, slice]]:
    """Cut `count` rows into (block of `length` rows, rows in the block, rows in the sequence)."""
    done = 0
    while done < count:
        index, offset = divmod(row + done, length)
        size = min(count - done, length - offset)
        yield index, slice(offset, offset + size), slice(done, done + size)
        done += size


class ChunkFiles:
    """Reads and writes cells, and knows what is not durable yet.

    Errors of the disk come out as UserErrors.
    """

    def __init__(self, layout: Layout, opened: OpenFiles) -> None:
        self._layout = layout
        self._files = opened
        self._owner = next(_owners)  # of open files; a folder would do, and takes long to compare
        self._nbytes = {name: column.nbytes for name, column in layout.schema.items()}
        self._open: dict[str, tuple[Path, int]] = {}  # of the block that is being filled
        self._open_block = -1
        self._unsynced: set[Path] = set()
        self._unsynced_folders: set[Path] = set()

    def create_folders(self) -> None:
        """Make the folders of a stream."""
        layout = self._layout
        for name in layout.schema:
            with named(layout.folder, "make"):
                (layout.folder / name).mkdir(parents=True, exist_ok=True)
            self._unsynced_folders.add(layout.folder / name)
        self._unsynced_folders |= {layout.folder, layout.folder.parent}

    def create(self, index: int) -> None:
        """Make the files of a block, all of them or none."""
        layout = self._layout
        layout.create(index)
        self.close()
        self._unsynced |= {layout.path(name, index) for name in layout.schema}
        self._unsynced_folders |= {layout.folder / name for name in layout.schema}

    def deletion_of(self, indices: Collection[int]) -> Callable[[], None]:
        """A job that deletes blocks: first the files that say that their rows are there."""
        layout = self._layout
        first = [layout.path(STEP, index) for index in indices]
        others = [layout.path(n, i) for i in indices for n in layout.schema if n != STEP]
        self._unsynced.difference_update(first, others)

        def delete() -> None:
            files.delete_files(first)
            files.delete_files(others)

        return delete

    def leave(self, names: Sequence[str], index: int) -> None:
        """Keep no descriptor of a block."""
        for name in names:
            self._files.forget((self._owner, name, index))
        if index == self._open_block:
            self.close()

    def close(self) -> None:
        """Close what is open for writing."""
        for _, descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def sync_of_now(self) -> Callable[[], None]:
        """A job that makes durable what has been written to files so far.

        Files are deleted only by jobs that are done after it.
        """
        paths, self._unsynced = self._unsynced, {path for path, _ in self._open.values()}

        def sync() -> None:
            try:
                files.sync_data(paths)
            except BaseException:
                self._unsynced |= paths
                raise

        return sync

    def sync(self) -> None:
        """Make all that was written durable: files before the folders that name them."""
        self.sync_of_now()()
        files.sync_data(self._unsynced_folders)
        self._unsynced_folders.clear()

    # Reading

    def read_into(
        self, name: str, worlds: np.ndarray, rows: np.ndarray, out: np.ndarray, at: np.ndarray
    ) -> None:
        """out[at[k]] [T, …] = the T rows of worlds[k] from rows[k] on, copied once.

        Raises:
          UserError: a file was cut, or its disk cannot read it.
        """
        length, size, nbytes = out.shape[1], self._layout.length, self._nbytes[name]
        owner, opened, make = self._owner, self._files, self._make_file
        flat = out.data.cast("B")
        found: dict[int, OpenFile] = {}
        pieces = []
        for world, row, b in zip(worlds.tolist(), rows.tolist(), at.tolist(), strict=True):
            done = 0
            while done < length:
                index, first = divmod(row + done, size)
                count = min(length - done, size - first)
                file = found.get(index)
                if file is None:
                    file = found[index] = opened.get((owner, name, index), make)
                place = (b * length + done) * nbytes
                into = flat[place : place + count * nbytes]
                pieces.append((file, into, (world * size + first) * nbytes))
                done += count
        opened.read(pieces)

    def checksum(self, name: str, index: int, count: int) -> int:
        """Of the first rows of a block, world by world."""
        return checksum(self._parts(name, index, count))

    def _parts(self, name: str, index: int, count: int) -> Iterator[np.ndarray]:
        """The bytes of the first rows of a block, world by world and not all at once."""
        file = self._files.get((self._owner, name, index), self._make_file)
        nbytes = self._nbytes[name]
        buffer = np.empty(min(_PART, count * nbytes), np.uint8)
        for world in range(self._layout.worlds):
            start = world * self._layout.length * nbytes
            stop = start + count * nbytes
            while start < stop:
                part = buffer[: stop - start]
                files.read_at(file.path, file.descriptor, part.data, start)
                yield part
                start += len(part)

    def read(self, name: str, world: int, row: int, count: int) -> np.ndarray:
        """[count, …] rows of a world, copied."""
        column = self._layout.schema[name]
        found = np.empty((1, count, *column.shape), column.dtype)
        self.read_into(name, np.array([world]), np.array([row]), found, np.array([0]))
        values: np.ndarray = found[0]
        return values

    # Writing

    def write_cells(
        self, name: str, index: int, inside: int, cells: Sequence[Sequence[memoryview]]
    ) -> None:
        """Write the newest rows of a column, cells[world][row], from row `inside` of a block on.

        The file stays open, and unsynced.
        """
        path, descriptor = self._open.get(name) or self._open_file(name, index)
        for world, of_world in enumerate(cells):
            offset = self._layout.offset(name, world, inside)
            files.write_all_at(path, descriptor, of_world, offset)

    def write(
        self, name: str, world: int, row: int, values: np.ndarray, blocks: Container[int]
    ) -> None:
        """Write rows [K, …] of one world, those that are in some blocks."""
        for index, inside, outside in spans(self._layout.length, row, len(values)):
            if index in blocks:
                offset = self._layout.offset(name, world, inside.start)
                self._write_at(self._layout.path(name, index), values[outside], offset)

    def write_chunk(self, name: str, index: int, values: np.ndarray) -> None:
        """Write a whole chunk [N, L, …]."""
        self._write_at(self._layout.path(name, index), values, 0)

    def copy(self, name: str, index: int, source: Layout) -> None:
        """Write a chunk as it is elsewhere; one that is there is overwritten in place."""
        path = self._layout.path(name, index)
        content = files.read_file(source.path(name, index), self._layout.nbytes(name))
        if path.exists():
            self._write_at(path, content, 0)
            return
        with files.closing(files.create_file(path, content.nbytes)) as descriptor:
            files.write_at(path, descriptor, content, 0)
        self._unsynced.add(path)
        self._unsynced_folders.add(path.parent)

    def link(self, name: str, index: int, source: Layout) -> None:
        """Share a chunk that nobody will write to any more; on another disk, copy it."""
        path, theirs = self._layout.path(name, index), source.path(name, index)
        files.check_file(theirs, self._layout.nbytes(name))
        try:
            path.hardlink_to(theirs)
        except OSError:  # another disk, one without links, or too many of them
            self.copy(name, index, source)
        self._unsynced_folders.add(path.parent)

    def unshare(self, index: int) -> None:
        """Have a block's chunks for oneself, to write to them.

        Others may have linked them when they were full, before an earlier commit was gone back to.
        """
        for name in self._layout.schema:
            path = self._layout.path(name, index)
            if files.is_shared(path):
                content = files.read_file(path, self._layout.nbytes(name)).tobytes()
                put_file(path, content, durable=True)

    def _write_at(self, path: Path, values: np.ndarray, offset: int) -> None:
        with files.closing(files.open_for_writing(path)) as descriptor:
            files.write_at(path, descriptor, values, offset)
        self._unsynced.add(path)

    def _open_file(self, name: str, index: int) -> tuple[Path, int]:
        path = self._layout.path(name, index)
        self._open[name] = path, files.open_for_writing(path)
        self._open_block = index
        self._unsynced.add(path)
        return self._open[name]

    def _make_file(self, key: Key) -> OpenFile:
        _, name, index = key
        return OpenFile(self._layout.path(name, index), self._layout.nbytes(name))
