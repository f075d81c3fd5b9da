"""The small columns of a stream in memory: gathered at the speed of one copy a sequence.

Row r of a world lies at place r of a long array, whatever was evicted before it: address space is
plentiful, and memory is taken by the pages that hold rows and freed with their blocks. So a
sequence is contiguous across blocks, and a batch of them is one gather through overlapping windows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from storage.batch import STEP, WRITTEN, Column, Schema
from storage.memory import Memory

SMALL = 1024  # bytes of a cell up to which a copy in memory pays


def mirrored(schema: Schema, rows: float, most: int) -> list[str]:
    """Names of the columns to mirror: small ones, smallest first, within a bound in bytes.

    Args:
      rows: that are held at most; infinite where nothing bounds them.
      most: bytes. What a replay itself reads all the time, 16 bytes a row, is mirrored anyway.
    """
    chosen = [name for name in (STEP, WRITTEN) if name in schema]
    nbytes = sum(schema[name].nbytes for name in chosen)
    others = {name: c for name, c in schema.items() if name not in chosen and c.nbytes <= SMALL}
    for name in sorted(others, key=lambda name: (others[name].nbytes, name)):
        nbytes += others[name].nbytes
        if nbytes * rows > most:
            break
        chosen.append(name)
    return chosen


class Mirror:
    """Columns of N worlds, with M places for rows since the stream's birth.

    Attributes:
      columns: name -> [N, M, …]; replaced when M grows.
      places: M; row r of world w is at w * M + r of the flattened column.
    """

    def __init__(self, schema: Schema, worlds: int, places: int) -> None:
        self._schema = dict(schema)
        self._worlds = worlds
        self.places = places
        self._memory = {n: Memory((worlds, places, *c.shape), c.dtype) for n, c in schema.items()}
        self.columns = {name: memory.values for name, memory in self._memory.items()}
        self._windows: dict[tuple[str, int], Windows] = {}

    def reserve(self, rows: int, held: Iterable[tuple[int, int]]) -> None:
        """Have a place for rows before `rows`, and one more, so that worlds do not touch.

        Args:
          held: ranges of rows to be kept where the places have to be moved.
        """
        if rows < self.places:
            return
        spans, places = list(held), self.places
        while rows >= places:
            places *= 2
        # Column by column, so that no more than one is there twice.
        for name, column in self._schema.items():
            moved = Memory((self._worlds, places, *column.shape), column.dtype)
            for start, stop in spans:
                moved.values[:, start:stop] = self.columns[name][:, start:stop]
            self._memory[name], self.columns[name] = moved, moved.values
        self._windows = {}
        self.places = places

    def free(self, start: int, stop: int) -> None:
        """Give back the memory of rows that are held no more."""
        for name in self._schema:
            for world in range(self._worlds):
                self._memory[name].give_back(self.columns[name][world, start:stop])

    def flat(self, name: str) -> np.ndarray:
        """[N * M, …]"""
        column = self.columns[name]
        return column.reshape(-1, *column.shape[2:])

    def gather(
        self, names: Iterable[str], worlds: np.ndarray, rows: np.ndarray, length: int
    ) -> dict[str, np.ndarray]:
        """name -> [K, T, …] the `length` rows of worlds [K] that begin with rows [K], copied.

        Columns that are not mirrored are left out.
        """
        found, places, at = {}, 0, rows
        for name in names:
            if name not in self._schema:
                continue
            windows = self._windows.get((name, length)) or self._make_windows(name, length)
            if windows.places != places:  # another thread may be moving the columns
                places = windows.places
                at = worlds * places + rows
            taken: np.ndarray = windows.starts[at]  # `take` would copy all windows first
            found[name] = taken.view(windows.dtype).reshape(len(rows), *windows.shape)
        return found

    def _make_windows(self, name: str, length: int) -> Windows:
        column, kind = self.columns[name], self._schema[name]
        starts: np.ndarray = np.ndarray(
            (self._worlds * column.shape[1] - length + 1,),
            np.dtype((np.void, length * kind.nbytes)),
            buffer=column.reshape(-1).view(np.uint8).data,
            strides=(kind.nbytes,),
        )
        shape = (length, *kind.shape)
        made = Windows(starts, column.shape[1], np.dtype(kind.dtype), shape)
        self._windows[name, length] = made
        return made


class Windows(NamedTuple):
    """All sequences of one length in a column.

    Attributes:
      starts: element p is the sequence that begins at place p, as bytes: neighbours overlap.
      places: M.
      dtype, shape: of a sequence.
    """

    starts: np.ndarray
    places: int
    dtype: np.dtype
    shape: tuple[int, ...]


def nbytes_of(schema: Mapping[str, Column]) -> int:
    """Bytes of one row of one world."""
    return sum(column.nbytes for column in schema.values())
