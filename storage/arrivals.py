"""The newest rows of a stream, until many at once are put where they are read from.

A call that writes many rows to a file, or to a column in memory, costs little more than one that
writes a single row.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from operator import itemgetter

import numpy as np

from storage.batch import STEP, WRITTEN, Schema
from storage.checks import check_rows

MOST_ROWS, MOST_BYTES = 512, 2**19  # that wait; what fits into a processor's cache


class Arrivals:
    """Rows of N worlds that wait, checked and copied.

    Attributes:
      most: rows of each world that should wait.
    """

    def __init__(self, worlds: int, schema: Schema, large: Collection[str]) -> None:
        """
        Args:
          schema: two columns or more besides our own, which no caller gives.
          large: names of columns that are handed out as bytes, row by row.
        """
        self._worlds = worlds
        self._given = given = {
            name: ((worlds, *column.shape), np.dtype(column.dtype))
            for name, column in schema.items()
            if name not in (STEP, WRITTEN)
        }
        names = sorted(given, key=lambda name: name in large)
        self._pick, self._columns = itemgetter(*names), len(names)
        self._shapes = [given[name][0] for name in names]
        self._dtypes = [given[name][1] for name in names]
        self._small = [name for name in names if name not in large]
        self._record = np.dtype([(n, given[n][1], given[n][0]) for n in self._small])
        self._records: list[bytes] = []
        self._large: dict[str, list[bytes]] = {n: [] for n in names if n in large}
        nbytes = worlds * sum(schema[name].nbytes for name in names)
        self.most = min(MOST_ROWS, max(1, MOST_BYTES // nbytes))

    @property
    def count(self) -> int:
        """Rows of each world that wait."""
        return len(self._records)

    def check(self, rows: Mapping[str, np.ndarray]) -> None:
        """Raises ValueError: what `add` would refuse."""
        check_rows(rows, self._given)

    def add(self, rows: Mapping[str, np.ndarray]) -> None:
        """Take one row of each world.

        Args:
          rows: name -> [N, …] for every column but our own; copied.
        Raises:
          ValueError: a column is missing, is not of the schema, or has another shape or dtype;
            nothing was added.
        """
        # As few steps a column as there can be: appending small rows consists of them.
        try:
            values = self._pick(rows)
            fits = len(rows) == self._columns
            for value, shape, dtype in zip(values, self._shapes, self._dtypes, strict=True):
                if value.shape != shape or value.dtype is not dtype:
                    fits = False
        except KeyError:
            fits = False
        if not fits:
            self.check(rows)
        if self._large:
            for cells, value in zip(self._large.values(), values[len(self._small) :], strict=True):
                cells.append(value.tobytes())
            values = values[: len(self._small)]
        try:
            self._records.append(b"".join(values))
        except (BufferError, TypeError, ValueError):  # some are views with gaps
            self._records.append(b"".join([value.tobytes() for value in values]))

    def columns(self) -> Iterator[tuple[str, np.ndarray]]:
        """(name, [N, K, …] the K rows that wait), but for large columns."""
        if self._small:
            records = np.frombuffer(b"".join(self._records), self._record)
            for name in self._small:
                yield name, records[name].swapaxes(0, 1)

    def large_columns(self) -> Iterator[tuple[str, list[list[memoryview]]]]:
        """(name, for each world the K cells that wait)."""
        for name, cells in self._large.items():
            size = len(cells[0]) // self._worlds
            views = [memoryview(cell) for cell in cells]
            worlds = range(0, self._worlds * size, size)
            yield name, [[view[start : start + size] for view in views] for start in worlds]

    def clear(self) -> None:
        """They are where they belong."""
        for waiting in (self._records, *self._large.values()):
            waiting.clear()
