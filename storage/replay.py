"""Replay on disk: the newest rows of all streams, sampled as sequences, kept through a kill.

What can be sampled is in memory; zarr is written behind it. See `storage.zarr_files` for the
layout, `storage.window` for blocks, `storage.assemble` for what a batch is made of.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from continual.errors import UserError, nearest
from continual.files import lock_folder, sync_path
from storage.assemble import assemble, scatter_latents
from storage.batch import Batch, Column, Schema, Where
from storage.sampling import Runs, draw_where, make_runs
from storage.stream import Stream, StreamId, check_same, create_stream, load_stream
from storage.window import LATENT, STEP, StreamWindow, row_nbytes
from storage.zarr_files import check_capacity, create_store, drop_other_streams, has_store

CURSOR = 1  # version of what `commit` returns


class Replay:
    """The newest `capacity` rows over all streams. Made by `open_replay`; not safe for threads.

    A row is one decision in one world; rows are numbered in the order of all appends, world by
    world, and that number is a row's age. Exactly the newest `capacity` of them can be sampled.

    Observations, actions, rewards and flags of a commit survive a kill at any moment bit for bit.
    Latents are written by `commit` alone: they too are those of the commit, unless the kill fell
    into a later `commit` or between one and the checkpoint that would have kept its cursor; then
    those rows' latents may be newer than the cursor that is rewound to.
    """

    def __init__(
        self,
        folder: Path,
        lock: int,
        *,
        capacity: int,
        latents: Schema,
        tasks: Sequence[str],
        context: Literal["stored", "zero"],
        is_new: bool,
    ) -> None:
        self._folder = folder
        self._lock: int | None = lock
        self._capacity = capacity
        self._latents = dict(latents)
        self._kept = self._latents if context == "stored" else {}
        self._tasks = tuple(tasks)
        self._streams: dict[StreamId, Stream] = {}
        self._rows = 0
        self._is_settled = is_new

    # Filling

    def open_stream(self, stream: StreamId, schema: Schema, worlds: int) -> None:
        """Begin a stream, or continue one that is there after a rewind.

        Args:
          schema: columns of a row but the latents: `obs.*`, `action.*`, `reward` and so on.
          worlds: N, parallel worlds.

        Raises:
          UserError: the stream is there with another schema or number of worlds.
          ValueError: unknown task, a reserved column name, or two streams of one group name.
        """
        assert self._is_settled, "rewind first: the folder may hold rows of an earlier life"
        columns = self._columns(stream, schema)
        if stream in self._streams:
            window = self._streams[stream].window
            check_same(self._folder / stream.name, "columns", dict(window.schema), columns)
            check_same(self._folder / stream.name, "parallel worlds", window.worlds, worlds)
            return
        if any(other.name == stream.name for other in self._streams):
            raise ValueError(f"{stream} has the group name of another stream: {stream.name}")
        self._streams[stream] = create_stream(self._folder, stream, columns, worlds, self._capacity)

    def append(self, stream: StreamId, rows: Mapping[str, np.ndarray]) -> None:
        """Add one row in each of a stream's N worlds; a block that gets full goes to disk.

        Args:
          rows: name -> [N, …] for every column of the schema and every latent.

        Raises:
          ValueError: a column is missing or has another shape or dtype; nothing was added.
          OSError: a full block cannot be written. Its rows are held, and written by the next
            `commit`; what was committed is as it was.
        """
        if not self._kept:
            rows = {name: v for name, v in rows.items() if name not in self._latents}
        into = self._streams[stream]
        block = into.window.append(rows, self._rows)
        self._rows += into.window.worlds
        for each in self._streams.values():
            each.window.evict(self._oldest)
        if block.rows == into.window.length:
            into.save_rows(block)

    # Looking

    @property
    def rows(self) -> int:
        """Ever appended: the cursor that batches are drawn at."""
        return self._rows

    @property
    def nbytes_held(self) -> int:
        """Bytes of the rows that can be sampled, all columns."""
        return sum(
            s.window.held_rows(self._oldest) * row_nbytes(s.window.schema)
            for s in self._streams.values()
        )

    def held_rows(self) -> dict[str, int]:
        """Task -> rows that can be sampled, for every task that was ever lived."""
        held: dict[str, int] = {}
        for stream in self._streams.values():
            task = stream.id.task
            held[task] = held.get(task, 0) + stream.window.held_rows(self._oldest)
        return held

    def sample(self, rng: np.random.Generator, batch: int, length: int, union: Schema) -> Batch:
        """Draw B sequences of T rows, every start among the held rows equally likely.

        A sequence lies within one world of one stream and may span episodes. What is drawn is a
        function of `rng` and of the rows appended so far.

        Args:
          rng: consumed.
          batch, length: B, T.
          union: columns of the batch that are neither frames nor latents.

        Raises:
          ValueError: no world holds `length` rows and the row before them yet.
        """
        return assemble(
            self._windows(),
            [self._tasks.index(stream.task) for stream in self._streams],
            draw_where(rng, self._runs(), batch, length),
            length=length,
            union=union,
            latents=self._kept,
            rows=self._rows,
        )

    def write_latents(self, where: Where, latents: Mapping[str, np.ndarray]) -> int:
        """Overwrite the latents of a batch's rows; rows evicted since it was drawn are skipped.

        Args:
          where: of the batch.
          latents: name -> [B, T, …].

        Returns:
          Rows written, those that several sequences share counted for each; 0 with context `zero`.
        """
        if not self._kept:
            return 0
        if latents.keys() != self._kept.keys():
            raise ValueError(f"latents {sorted(latents)}, expected {sorted(self._kept)}")
        return scatter_latents(self._windows(), where, latents, self._oldest)

    # Surviving

    def commit(self) -> dict[str, Any]:
        """Put all rows and latents on disk, durably, and delete blocks that nobody needs any more.

        Kept are the blocks that this commit or the one before it can sample: a kill before the
        caller has stored the new cursor makes the old one the last.

        Returns:
          The cursor for `rewind`, JSON-able.

        Raises:
          OSError: the earlier commit stands.
        """
        for stream in self._streams.values():
            stream.commit(self._oldest)
        return {
            "version": CURSOR,
            "rows": self._rows,
            "streams": [stream.forget() for stream in self._streams.values()],
        }

    def rewind(self, cursor: Mapping[str, Any] | None) -> None:
        """Hold exactly the rows of a commit; drop what came later from memory and disk.

        Args:
          cursor: from the last `commit` or the one before it; None for an empty replay.

        Raises:
          UserError: a file is missing, cut or does not fit this run; nothing was dropped from disk.
        """
        if cursor is not None and cursor.get("version") != CURSOR:
            raise UserError(
                f"{self._folder}: cursor of version {cursor.get('version')}, expected {CURSOR}"
            )
        rows = 0 if cursor is None else int(cursor["rows"])
        oldest = max(0, rows - self._capacity)
        streams = [self._load(state, oldest) for state in (cursor or {"streams": []})["streams"]]
        self._streams = {stream.id: stream for stream in streams}
        self._rows = rows
        self._is_settled = True
        drop_other_streams(self._folder, [stream.id.name for stream in streams])
        for stream in streams:
            stream.truncate(oldest)

    def close(self) -> None:
        """Let another writer in. Writes nothing: what was not committed is not kept."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        self._streams = {}

    # Inside

    @property
    def _oldest(self) -> int:
        """Append index of the oldest row that can be sampled."""
        return max(0, self._rows - self._capacity)

    def _windows(self) -> list[StreamWindow]:
        return [stream.window for stream in self._streams.values()]

    def _runs(self) -> Runs:
        return make_runs(
            (i, window.first_rows(self._oldest), window.rows)
            for i, window in enumerate(self._windows())
            if window.blocks
        )

    def _columns(self, stream: StreamId, schema: Schema) -> dict[str, Column]:
        if stream.task not in self._tasks:
            raise ValueError(f"unknown task {stream.task!r}, {nearest(stream.task, self._tasks)}")
        reserved = [n for n in schema if n == STEP or n.startswith(LATENT) or "/" in n]
        if reserved:
            raise ValueError(f"{stream}: names not free for columns: {reserved}")
        return {**schema, **self._kept, STEP: Column((), "int64")}

    def _load(self, state: Mapping[str, Any], oldest: int) -> Stream:
        """Read what a commit holds of one stream, and see that it fits this run."""
        stream = load_stream(self._folder, state, oldest)
        folder, task, schema = self._folder / stream.id.name, stream.id.task, stream.window.schema
        if task not in self._tasks:
            hint = nearest(task, self._tasks)
            raise UserError(f"{folder}: task {task!r} is not one of this run, {hint}")
        latents = {name: c for name, c in schema.items() if name.startswith(LATENT)}
        check_same(folder, "latents", latents, self._kept)
        return stream


def open_replay(
    folder: Path,
    *,
    capacity: int,
    latents: Schema,
    tasks: Sequence[str],
    context: Literal["stored", "zero"],
) -> Replay:
    """Lock a replay folder, making it first where there is none. The replay holds nothing yet.

    Where a run goes on, `rewind` to its cursor comes next; where it begins anew in an old folder,
    `rewind(None)`.

    Args:
      folder: made with its parents.
      capacity: rows over all streams that can be sampled; fixed for the life of the folder.
      latents: the columns that `write_latents` rewrites, `latent.*`.
      tasks: all tasks of the run; the position of a task is its index in `Batch.task`.
      context: `stored` keeps latents with the rows; `zero` keeps none and hands out zeros.

    Raises:
      UserError: the folder is something else, is locked, or was made for another capacity.
    """
    if capacity < 1:
        raise UserError(f"replay capacity of {capacity} rows, expected 1 or more")
    misnamed = [name for name in latents if not name.startswith(LATENT)]
    if misnamed:
        raise ValueError(f"latent columns {misnamed}, expected names that begin with {LATENT!r}")
    exists = has_store(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lock = lock_folder(folder, "a replay has one writer, wait for it")
    try:
        if exists:
            check_capacity(folder, capacity)
        else:
            create_store(folder, capacity)
            sync_path(folder / "zarr.json")
            sync_path(folder)
    except BaseException:
        os.close(lock)
        raise
    return Replay(
        folder,
        lock,
        capacity=capacity,
        latents=latents,
        tasks=tasks,
        context=context,
        is_new=not exists,
    )
