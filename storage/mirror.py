"""The small columns of a stream in memory: gathered at the speed of one copy a sequence.

Row r of a world lies at place r of a long array, whatever was evicted before it: address space is
plentiful, and memory is taken by the pages that hold rows and freed with their blocks. So a
sequence is contiguous across blocks, and a batch of them is one gather through overlapping windows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from storage import files
from storage.batch import STEP, WRITTEN, Column, Schema

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
    """Columns [N, M, …] of N worlds and up to M rows since the stream's birth.

    Attributes:
      columns: name -> [N, M, …]; replaced when M grows.
      places: M; row r of world w is at w * M + r of the flattened column.
    """

    def __init__(self, schema: Schema, worlds: int, places: int) -> None:
        self._schema = dict(schema)
        self._worlds = worlds
        self._memory = {n: files.memory(worlds * places * c.nbytes) for n, c in schema.items()}
        self.places = places
        self.columns = {n: self._view(n, c, places) for n, c in schema.items()}

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
            old = self.columns[name]
            self._memory[name] = files.memory(self._worlds * places * column.nbytes)
            self.columns[name] = self._view(name, column, places)
            for start, stop in spans:
                self.columns[name][:, start:stop] = old[:, start:stop]
        self.places = places

    def free(self, start: int, stop: int) -> None:
        """Give back the memory of rows that are held no more."""
        for name, column in self._schema.items():
            for world in range(self._worlds):
                place = world * self.places
                held = self._memory[name]
                files.give_back(
                    held, (place + start) * column.nbytes, (place + stop) * column.nbytes
                )

    def flat(self, name: str) -> np.ndarray:
        """[N * M, …]"""
        column = self.columns[name]
        return column.reshape(-1, *column.shape[2:])

    def gather(
        self, name: str, worlds: np.ndarray, rows: np.ndarray, out: np.ndarray, at: np.ndarray
    ) -> None:
        """Copy sequences: out[at[k]] = the T rows of worlds[k] that begin with rows[k].

        Args:
          worlds, rows, at: [K].
          out: [B, T, …], contiguous.
        """
        column = self._schema[name]
        window = np.dtype((np.void, out.shape[1] * column.nbytes))
        # Overlapping by all but one row: element p is the sequence that begins at place p.
        windows: np.ndarray = np.ndarray(
            (self._worlds * self.places - out.shape[1] + 1,),
            window,
            buffer=self._memory[name],
            strides=(column.nbytes,),
        )
        target = out.reshape(len(out), -1).view(np.uint8).view(window)[:, 0]
        target[at] = windows[worlds * self.places + rows]

    def _view(self, name: str, column: Column, places: int) -> np.ndarray:
        flat = np.frombuffer(self._memory[name], column.dtype)
        count = self._worlds * places * math.prod(column.shape)
        return flat[:count].reshape(self._worlds, places, *column.shape)


def nbytes_of(schema: Mapping[str, Column]) -> int:
    """Bytes of one row of one world."""
    return sum(column.nbytes for column in schema.values())
