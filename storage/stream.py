"""One stream: what is held of it in memory, and its files, which follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from continual.errors import UserError
from storage.batch import Schema
from storage.window import LATENT, STEP, Block, StreamWindow, block_length, make_block
from storage.zarr_files import StreamFiles, create_stream_files, open_stream_files, stream_name


@dataclass(frozen=True)
class StreamId:
    """Names a stream: one task as lived in one phase, with one schema and one set of worlds."""

    phase: int
    task: str

    @property
    def name(self) -> str:
        """Of its zarr group, such as `phase_0002_dmc_walker_walk`."""
        return stream_name(self.phase, self.task)


@dataclass
class Stream:
    """A stream in memory and on disk.

    Attributes:
      needed: index of the first block that the last commit can sample.
    """

    id: StreamId
    window: StreamWindow
    files: StreamFiles
    needed: int = 0

    def save_rows(self, block: Block) -> None:
        """Write all of a block but its latents, which wait for the commit."""
        immutable = {n: v for n, v in block.columns.items() if not n.startswith(LATENT)}
        self.files.write(block.index, immutable)
        block.rows_on_disk = block.rows

    def save_latents(self, block: Block) -> None:
        """Write the latents of a block."""
        self.files.write(
            block.index, {n: v for n, v in block.columns.items() if n.startswith(LATENT)}
        )
        block.latents_on_disk = True

    def commit(self, oldest: int) -> None:
        """Make what is held durable, and tell readers of it."""
        for block in self.window.blocks:
            if block.rows_on_disk < block.rows:
                self.save_rows(block)
            if not block.latents_on_disk:
                self.save_latents(block)
        self._publish(oldest)

    def forget(self) -> dict[str, Any]:
        """Delete what neither this commit nor the one before can sample. -> state for `load`."""
        self.files.delete_before(self.needed)
        self.needed = self.window.first_block
        return {
            "phase": self.id.phase,
            "task": self.id.task,
            "rows": self.window.rows,
            "needed": self.needed,
        }

    def truncate(self, oldest: int) -> None:
        """Drop rows on disk that are later than those in memory."""
        self.files.delete_from(self.window.next_block)
        for block in self.window.blocks[-1:]:
            if block.rows < self.window.length:
                self.save_rows(block)
                self.save_latents(block)
        self._publish(oldest)

    def _publish(self, oldest: int) -> None:
        self.files.publish(self.window.rows, int(self.window.first_rows(oldest).min()))
        self.files.sync()


def create_stream(
    folder: Path, stream: StreamId, columns: Schema, worlds: int, capacity: int
) -> Stream:
    """Begin a stream in a replay folder, without rows."""
    length = block_length(capacity, worlds)
    attributes = {"phase": stream.phase, "task": stream.task}
    files = create_stream_files(folder / stream.name, columns, worlds, length, attributes)
    return Stream(stream, StreamWindow(columns, worlds, length), files)


def load_stream(folder: Path, state: Mapping[str, Any], oldest: int) -> Stream:
    """Read what a commit can sample of one stream; writes nothing.

    Args:
      state: from `Stream.forget`.
      oldest: append index of the oldest row that the commit can sample.

    Raises:
      UserError: a file is missing or not whole.
    """
    stream, rows = StreamId(state["phase"], state["task"]), int(state["rows"])
    files = open_stream_files(folder / stream.name)
    window = StreamWindow(files.schema, files.worlds, files.length, rows)
    window.blocks = [
        _read_block(files, index, rows) for index in range(state["needed"], window.next_block)
    ]
    window.evict(oldest)
    return Stream(stream, window, files, state["needed"])


def _read_block(files: StreamFiles, index: int, rows: int) -> Block:
    """Read a block up to the stream's first `rows`; what is later becomes absent."""
    block = make_block(index, files.schema, files.worlds, files.length)
    there = min(files.length, rows - index * files.length)
    for name, values in files.read(index).items():
        block.columns[name][:, :there] = values[:, :there]
    steps = block.columns[STEP][:, :there]
    if (steps < 0).any() or (np.diff(steps, axis=1) <= 0).any():
        raise UserError(
            f"{files.folder.name}: array {STEP!r}, block {index}: found rows that are absent or "
            f"out of order, expected {there} rows in each world"
        )
    block.rows, block.newest = there, int(steps[-1, -1])
    block.rows_on_disk, block.latents_on_disk = there, True
    return block


def check_same(where: Path, what: str, found: object, expected: object) -> None:
    """Raises UserError: a stream on disk is not what this run asks for."""
    if found == expected:
        return
    if isinstance(found, dict) and isinstance(expected, dict):
        name = min(n for n in found | expected if found.get(n) != expected.get(n))
        what, found, expected = f"column {name!r}", found.get(name), expected.get(name)
    raise UserError(f"{where}: has {what} {found}, expected {expected}")
