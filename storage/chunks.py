"""The chunk files of one stream: written by system calls, read in place through maps."""

from __future__ import annotations

import itertools
import os
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from storage import files
from storage.block import Layout
from storage.files import MappedFile, MappedFiles

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

    def __init__(self, layout: Layout, maps: MappedFiles) -> None:
        self._layout = layout
        self._maps = maps
        self._owner = next(_owners)  # of maps; a folder would do, and takes long to compare
        self._row_nbytes = {name: column.nbytes for name, column in layout.schema.items()}
        self._open: dict[str, tuple[Path, int]] = {}  # of the block that is being filled
        self._open_block = -1
        self._unsynced: set[Path] = set()
        self._unsynced_folders: set[Path] = set()

    def create_folders(self) -> None:
        """Make the folders of a stream."""
        layout = self._layout
        for name in layout.schema:
            with files.named(layout.folder, "make"):
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

    def delete(self, index: int) -> None:
        """Delete the files of a block."""
        self._layout.delete(index)
        self._unsynced -= {self._layout.path(name, index) for name in self._layout.schema}

    def leave(self, names: Sequence[str], index: int) -> None:
        """Keep no map or descriptor of a block."""
        for name in names:
            self._maps.forget((self._owner, name, index))
        if index == self._open_block:
            self.close()

    def close(self) -> None:
        """Close what is open for writing."""
        for _, descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def sync(self) -> None:
        """Make all that was written durable: files before the folders that name them."""
        files.sync_data(self._unsynced)
        files.sync_data(self._unsynced_folders)
        self._unsynced = {path for path, _ in self._open.values()}
        self._unsynced_folders.clear()

    # Reading

    def look(self) -> None:
        """See `MappedFiles.look`."""
        self._maps.look()

    def mapped(self, name: str, index: int, world: int, inside: slice) -> np.ndarray:
        """[rows, …] rows of a block where they lie."""
        maps, nbytes = self._maps, self._row_nbytes[name]
        file = maps.get((self._owner, name, index), self._map)
        start = (world * self._layout.length + inside.start) * nbytes
        file.ask(start, (inside.stop - inside.start) * nbytes, maps.epoch)
        values: np.ndarray = file.values[world, inside]
        return values

    def read(self, name: str, world: int, row: int, count: int) -> np.ndarray:
        """[count, …] rows of a world, copied."""
        parts = spans(self._layout.length, row, count)
        return np.concatenate([self.mapped(name, i, world, inside) for i, inside, _ in parts])

    # Writing

    def write_row(
        self, names: Sequence[str], index: int, inside: int, rows: Mapping[str, np.ndarray]
    ) -> None:
        """Write some columns of the newest row [N, …]; their files stay open, and unsynced."""
        length = self._layout.length
        for name in names:
            path, descriptor = self._open.get(name) or self._open_file(name, index)
            nbytes = self._row_nbytes[name]
            for world, values in enumerate(rows[name]):
                files.write_at(path, descriptor, values, (world * length + inside) * nbytes)

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

    def _map(self, key: tuple[int, str, int]) -> MappedFile:
        _, name, index = key
        path, dtype = self._layout.path(name, index), self._layout.schema[name].dtype
        return MappedFile(path, dtype, self._layout.shape(name))
