"""What latents were at the last commit, for every row that was rewritten since.

A log is a sequence of records, each a head and the cells of `count` rows of one world, all latent
columns in the order of their names. It is written before the latents are, so that a kill leaves
nothing that cannot be undone; a record that was cut short had not begun to count.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from continual.files import named
from storage import files
from storage.batch import LATENT, Schema

_HEAD = struct.Struct("<4sIIqII")  # mark, stream, world, first row, rows, bytes that follow
_SUM = struct.Struct("<I")  # checksum of head and cells
_MARK = b"undo"


@dataclass(frozen=True)
class Old:
    """Latents of `count` rows of one world as they were.

    Attributes:
      stream: index of the stream in order of opening.
      row: the first, counted from the stream's birth.
      cells: bytes of all latent columns, in the order of their names.
    """

    stream: int
    world: int
    row: int
    count: int
    cells: bytes

    def columns(self, schema: Schema) -> Iterator[tuple[str, np.ndarray]]:
        """(name, [count, …]) of each latent of a schema."""
        at = 0
        for name in sorted(n for n in schema if n.startswith(LATENT)):
            column = schema[name]
            size = self.count * column.nbytes
            values = np.frombuffer(self.cells[at : at + size], column.dtype)
            yield name, values.reshape(self.count, *column.shape)
            at += size


class UndoLog:
    """The log of one commit, open for appending. Made with its first record."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._size = 0

    def append(self, records: Sequence[Old]) -> None:
        """Write records, all or none.

        Raises:
          UserError: such as a full disk.
        """
        if not records:
            return
        if self._descriptor is None:
            self._descriptor = files.create_file(self._path, 1)
        self._size = files.append_or_nothing(
            self._path, self._descriptor, self._size, b"".join(map(_packed, records))
        )

    def sync(self) -> None:
        """Make the log durable."""
        if self._descriptor is not None:
            files.sync_data([self._path])

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def read_log(path: Path) -> Iterator[Old]:
    """The records of a log, newest first, up to one that was cut short; none where there is none.

    Newest first, because the oldest record of a row is the one that counts.
    """
    if not path.exists():
        return
    with named(path, "read"), path.open("rb") as file:
        places: list[int] = []
        while _read_record(file):
            places.append(file.tell())
        starts = [0, *places[:-1]] if places else []
        for start in reversed(starts):
            file.seek(start)
            old = _read_record(file)
            assert old is not None, "it was whole a moment ago"
            yield old


def _read_record(file: BinaryIO) -> Old | None:
    """The record that begins here; None where there is no whole one."""
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    mark, stream, world, row, count, nbytes = _HEAD.unpack(head)
    if mark != _MARK:
        return None
    cells, total = file.read(nbytes), file.read(_SUM.size)
    if len(total) < _SUM.size or _SUM.unpack(total)[0] != zlib.crc32(cells, zlib.crc32(head)):
        return None
    return Old(stream, world, row, count, cells)


def _packed(old: Old) -> bytes:
    head = _HEAD.pack(_MARK, old.stream, old.world, old.row, old.count, len(old.cells))
    return head + old.cells + _SUM.pack(zlib.crc32(old.cells, zlib.crc32(head)))
