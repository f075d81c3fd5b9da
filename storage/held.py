"""What is held: the streams, and which of their rows can be sampled."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from continual.errors import UserError
from storage import retention
from storage.batch import Schema
from storage.block import Layout, block_length
from storage.mirror import mirrored, nbytes_of
from storage.open_files import OpenFiles
from storage.sampling import Runs, make_runs
from storage.stream import Stream
from storage.zarr_files import StreamId

MIRROR = 2**30  # bytes of small columns that are kept in memory at most

_LEAST_BLOCKS = 4  # that a rule which lets whole blocks go needs to be of use

Unit = Literal["rows", "bytes"]


@dataclass(frozen=True)
class Capacity:
    """How much is held, and what stays.

    Attributes:
      size: rows, or bytes of rows.
      keep: the rule.
      seed: of rules that draw lots.
      block_rows: rows of each world in a block, at least. A rule that leaves holes leaves blocks
        alone, which are of use only when they hold whole sequences.
    """

    size: int
    unit: Unit = "rows"
    keep: retention.Rule = field(default_factory=retention.Fifo)
    seed: int = 0
    block_rows: int = 8

    @property
    def is_exact(self) -> bool:
        """Whether the newest rows stay to the row, whatever block they are in."""
        return self.keep.is_recency and self.unit == "rows"

    @property
    def measure(self) -> dict[str, Any]:
        """What is fixed for the life of a folder."""
        return {"size": self.size, "unit": self.unit}

    def of_row(self, schema: Schema) -> int:
        """What a row of one world counts."""
        return nbytes_of(schema) if self.unit == "bytes" else 1

    def in_rows(self, schema: Schema) -> float:
        """The most rows of one schema that can be held; infinite where nothing bounds them."""
        if not self.keep.is_bounded:
            return math.inf
        return self.size / self.of_row(schema)


class Held:
    """The streams of a replay. A row's append index counts all rows, world by world.

    Attributes:
      streams: in order of opening.
      rows: ever appended.
    """

    def __init__(self, folder: Path, capacity: Capacity, opened: OpenFiles) -> None:
        self.streams: dict[StreamId, Stream] = {}
        self.rows = 0
        self._folder = folder
        self._capacity = capacity
        self._files = opened
        self._is_exact = capacity.is_exact
        # As soon as more rows were appended than this.
        self._evict_when = capacity.size if capacity.is_exact else math.inf
        self._last_id: StreamId | None = None  # of the stream that rows came to last
        self._last: Stream = None  # type: ignore[assignment]
        self._runs: tuple[tuple[int, int, int], Runs] | None = None  # of the last call

    def begin_stream(self, stream: StreamId, columns: Schema, worlds: int) -> None:
        """Make a stream without rows.

        Raises:
          UserError: the capacity is too small for its blocks, or the disk is full.
        """
        capacity = self._capacity
        of_row = capacity.of_row(columns)
        row_bytes = nbytes_of(columns) if capacity.is_exact else None
        length = block_length(capacity.size / of_row, worlds, capacity.block_rows, row_bytes)
        block = length * worlds * of_row
        if (
            capacity.keep.is_bounded
            and not capacity.is_exact
            and capacity.size < _LEAST_BLOCKS * block
        ):
            raise UserError(
                f"{self._folder}: capacity of {capacity.size:,} {capacity.unit}, expected "
                f"{_LEAST_BLOCKS * block:,} or more: {_LEAST_BLOCKS} blocks of {worlds} x {length} "
                f"rows of {stream.task}"
            )
        begun = self.stream(stream, Layout(self._folder / stream.name, columns, worlds, length))
        begun.create()
        self.streams[stream] = begun

    def stream(self, stream: StreamId, layout: Layout) -> Stream:
        """A stream in memory; reads and writes nothing."""
        small = mirrored(layout.schema, self._capacity.in_rows(layout.schema), MIRROR)
        return Stream(stream, layout, small, self._files)

    def append(self, stream: StreamId, rows: Mapping[str, np.ndarray], writes: int) -> None:
        """Add one row in each world, and let go what no longer fits; see `Stream.append`."""
        if stream is not self._last_id:
            self._turn_to(stream)
        into = self._last
        begins = into.append(rows, self.rows, writes)
        self.rows += into.worlds
        if self.rows > self._evict_when:
            self._evict_old()
        if begins and not self._is_exact:
            self._make_room(into)

    def oldest(self, ahead: int = 0) -> int:
        """Append index of the oldest row that can be sampled once `ahead` more rows are there."""
        return max(0, self.rows + ahead - self._capacity.size) if self._is_exact else 0

    def runs(self, ahead: int = 0) -> Runs:
        """Unbroken runs of rows that can be sampled, once `ahead` more are in the newest stream.

        Those that are there already can be read.
        """
        key = self.rows, len(self.streams), ahead
        if self._runs is not None and self._runs[0] == key:
            return self._runs[1]
        self.settle()
        oldest = self.oldest(ahead)
        found = [
            (i, first, stop)
            for i, stream in enumerate(self.streams.values())
            for first, stop in stream.runs(oldest)
        ]
        if ahead and found:
            i, first, stop = found[-1]
            found[-1] = i, first, stop + ahead // len(first)
        self._runs = key, make_runs(found)
        return self._runs[1]

    def settle(self) -> None:
        """See `Stream.settle`."""
        for stream in self.streams.values():
            stream.settle()

    def rows_of(self, stream: Stream) -> int:
        """Of one stream that can be sampled, over all worlds."""
        stream.settle()
        return stream.held_rows(self.oldest())

    def _turn_to(self, stream: StreamId) -> None:
        """Let rows come to a stream."""
        into = self.streams[stream]
        if into is not self._last:
            self.settle()
        self._last_id, self._last = stream, into

    def _evict_old(self) -> None:
        """Let blocks go that hold no row of the newest."""
        self.settle()
        oldest = self.oldest()
        evict_at = self.rows
        for stream in self.streams.values():
            for block in list(stream.blocks.values()):
                if block.rows == 0 or block.newest >= oldest:
                    evict_at = min(evict_at, max(block.newest, oldest))
                    break
                stream.evict(block.index)
        self._evict_when = evict_at + self._capacity.size

    def _make_room(self, filling: Stream) -> None:
        """Let blocks go, by the rule, until the block that was begun has room to fill."""
        self.settle()
        streams, capacity = list(self.streams.values()), self._capacity
        begun = next(reversed(filling.blocks))
        blocks = [
            (
                block.first,
                retention.Candidate(
                    stream=number,
                    index=block.index,
                    task=stream.id.task,
                    size=block.rows * stream.worlds * capacity.of_row(stream.schema),
                    draw=retention.number_of(capacity.seed, stream.id.name, block.index),
                ),
            )
            for number, stream in enumerate(streams)
            for block in stream.blocks.values()
            if stream is not filling or block.index != begun
        ]
        blocks.sort(key=lambda pair: pair[0])
        room = filling.length * filling.worlds * capacity.of_row(filling.schema)
        candidates = [candidate for _, candidate in blocks]
        for victim in retention.let_go(capacity.keep, candidates, room, capacity.size):
            streams[victim.stream].evict(victim.index)
