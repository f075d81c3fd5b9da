"""Replay on disk: rows of all streams, sampled as sequences, kept through a kill.

See `storage.zarr_files` for what readers see, `storage.block` for what lies where, `storage.held`
for what stays, `storage.history` for what can be gone back to, `storage.assemble` for what a batch
is made of.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from continual.errors import UserError, nearest
from storage import commits, files, memory, sampling
from storage.assemble import Order, arranged, gather_rows, rewrites, with_latents
from storage.batch import LATENT, STEP, WRITTEN, Batch, Column, Schema, Where
from storage.checks import check_same
from storage.commits import Commit
from storage.copying import fork_replay
from storage.held import Capacity, Held
from storage.history import History
from storage.mirror import nbytes_of
from storage.open_files import OpenFiles
from storage.prefetch import Prefetch
from storage.sampling import draw_where
from storage.staging import Home, has_commit
from storage.stream import Stream
from storage.zarr_files import StreamId


class Replay:
    """Rows over all streams, up to a capacity. Made by `open_replay`; not safe for threads.

    A row is one decision in one world; rows are numbered in the order of all appends, world by
    world, and that number is a row's age. What stays when the capacity is full is up to a rule; by
    the default one exactly the newest rows can be sampled.

    A commit survives a kill at any moment bit for bit, latents included, and so does the one before
    it until `release`: between `commit` and the moment at which its cursor is safe, both cursors
    can be gone back to.

    Attributes:
      notes: what the last `rewind` met that is worth a line, and was no reason to refuse.
    """

    def __init__(
        self,
        folder: Path,
        lock: int,
        *,
        capacity: Capacity,
        latents: Schema,
        tasks: Sequence[str],
        context: Literal["stored", "zero"],
        draw: sampling.Rule | sampling.OneTask,
        home: Home | None,
        is_new: bool,
    ) -> None:
        self.notes: list[str] = []
        self._folder = folder
        self._lock: int | None = lock
        self._capacity = capacity
        self._latents = dict(latents)
        self._kept = self._latents if context == "stored" else {}
        self._tasks = tuple(tasks)
        self._draw = draw
        self._home = home
        self._files = OpenFiles()
        self._prefetch = Prefetch()
        self._history = History(folder)
        self._is_settled = is_new
        self._buffers = memory.Buffers()
        self._hold(Held(folder, capacity, self._files), 0, {})

    # Filling

    def open_stream(self, stream: StreamId, schema: Schema, worlds: int) -> None:
        """Begin a stream, or continue one that is there after a rewind.

        Args:
          schema: columns of a row but the latents: `obs.*`, `action.*`, `reward` and so on.
          worlds: N, parallel worlds.

        Raises:
          UserError: the stream is there with another schema or number of worlds, or the disk is
            full.
          ValueError: unknown task, a reserved column name, or two streams of one group name.
        """
        assert self._is_settled, "rewind first: the folder may hold rows of an earlier life"
        columns, streams = self._columns(stream, schema), self._held.streams
        if stream in streams:
            there = streams[stream]
            check_same(self._folder / stream.name, "columns", dict(there.schema), columns)
            check_same(self._folder / stream.name, "parallel worlds", there.worlds, worlds)
            return
        if any(other.name == stream.name for other in streams):
            raise ValueError(f"{stream} has the group name of another stream: {stream.name}")
        self._held.begin_stream(stream, columns, worlds)

    def append(self, stream: StreamId, rows: Mapping[str, np.ndarray]) -> None:
        """Add one row in each of a stream's N worlds.

        Args:
          rows: name -> [N, …] for every column of the schema and every latent; copied.

        Raises:
          ValueError: a column is missing or has another shape or dtype; nothing was added.
          UserError: the disk is full or fails; what was committed is as it was.
        """
        if self._latents and not self._kept:
            rows = {name: v for name, v in rows.items() if name not in self._latents}
        self._held.append(stream, rows, self._writes)

    # Looking

    @property
    def rows(self) -> int:
        """Ever appended: the cursor that batches are drawn at."""
        return self._held.rows

    @property
    def nbytes_held(self) -> int:
        """Bytes of the rows that can be sampled, all columns."""
        return sum(self._held.rows_of(s) * nbytes_of(s.schema) for s in self._streams)

    def held_rows(self) -> dict[str, int]:
        """Task -> rows that can be sampled, for every task that was ever lived."""
        held: dict[str, int] = {}
        for stream in self._streams:
            held[stream.id.task] = held.get(stream.id.task, 0) + self._held.rows_of(stream)
        return held

    def sample(self, rng: np.random.Generator, batch: int, length: int, union: Schema) -> Batch:
        """Draw B sequences of T rows by the sampling rule, by default uniformly over all starts.

        A sequence lies within one world of one stream and may span episodes. What is drawn is a
        function of `rng` and of the rows appended so far.

        Args:
          rng: consumed.
          batch, length: B, T.
          union: columns of the batch that are neither frames nor latents.

        Raises:
          ValueError: no world holds `length` rows and the row before them yet.
          UserError: a file was cut, or its disk cannot read it.
        """
        where, draw = self._draw_where(rng, batch, length)
        order = Order(length, union)
        streams, copied = self._streams, self._prefetch.take(where, order)
        if copied is None:
            copied = gather_rows(streams, self._stream_tasks(), where, order, self._buffers)
        self._drawn += np.bincount(copied.task, minlength=len(self._tasks)) * length
        return with_latents(streams, copied, where, draw, self._kept, self.rows, self._writes)

    def prefetch(
        self, rng: np.random.Generator, batch: int, length: int, union: Schema, ahead: int
    ) -> None:
        """Begin to copy what `sample` will be asked for, while the caller does something else.

        Only a guess: a `sample` that turns out otherwise copies for itself, so that this changes no
        batch.

        Args:
          rng: as `sample` will get it; consumed.
          ahead: rows that the newest stream will have got by then.
        """
        try:
            where, _ = self._draw_where(rng, batch, length, ahead)
        except ValueError:
            return
        streams = self._streams
        there = np.array([stream.rows for stream in streams])[where.stream]
        if (where.row + length <= there).all():
            order, tasks = Order(length, union), self._stream_tasks()
            copy = lambda: gather_rows(streams, tasks, where, order, self._buffers)
            self._prefetch.begin(where, order, copy)

    def write_latents(self, where: Where, latents: Mapping[str, np.ndarray]) -> int:
        """Overwrite the latents of a batch's rows; rows evicted since it was drawn are skipped.

        Args:
          where: of the batch.
          latents: name -> [B, T, …].

        Returns:
          Rows written, those that several sequences share counted for each; 0 with context `zero`.
        Raises:
          UserError: the disk is full or fails.
        """
        if not self._kept:
            return 0
        if latents.keys() != self._kept.keys():
            raise ValueError(f"latents {sorted(latents)}, expected {sorted(self._kept)}")
        self._held.settle()
        length = next(iter(latents.values())).shape[1]
        parts = list(rewrites(self._streams, where, length, self._held.oldest()))
        if self._history.commits:
            last = self._history.commits[-1]
            self._history.log([o for part in parts for o in part.old(last.writes, last.rows)])
        self._writes += 1
        return sum(part.write(latents, self._writes) for part in parts)

    # Surviving

    def commit(self) -> dict[str, Any]:
        """Make durable what is held.

        Returns:
          A cursor for `rewind`, which JSON can hold. The one before it can be gone back to as well,
          until `release`.
        Raises:
          UserError: the disk is full or fails; the earlier commit stands.
        """
        assert self._is_settled, "rewind first: a commit failed half way"
        cursor = self._history.commit(
            self._held,
            writes=self._writes,
            drawn=dict(zip(self._tasks, self._drawn.tolist(), strict=True)),
            capacity=self._capacity.measure,
        )
        if self._home is not None:
            self._is_settled = False
            self._home.stage(self._folder, self._history.commits[-1])
            self._is_settled = True
        return cursor

    def fork(self, cursor: Mapping[str, Any], target: Path) -> None:
        """Make a replay at `target` that holds what the last commit does; see `fork_replay`."""
        fork_replay(self._folder, cursor, target)

    def release(self) -> None:
        """Free what only the commit before needs: the last one's cursor is safe."""
        self._history.release(self._held)
        if self._home is not None:
            self._home.release()

    def rewind(self, cursor: Mapping[str, Any] | None, *, leave_out: bool = False) -> None:
        """Hold exactly the rows and latents of a commit; drop what came later.

        Args:
          cursor: from the last `commit`, or the one before it unless it was released; None for an
            empty replay.
          leave_out: hold all but the blocks that are damaged; `notes` names them.

        Raises:
          UserError: a file is missing, damaged or does not fit this run; no rows were dropped.
        """
        self._close_files()
        self.notes.clear()
        if self._home is not None:
            self._home.go_back(cursor)
            if cursor is not None and not has_commit(self._folder, cursor):
                self._home.fetch(self._folder)
        held = Held(self._folder, self._capacity, self._files)
        commit = self._history.find(cursor) if cursor is not None else None
        if commit is None:
            self._hold(held, 0, {})
        else:
            held.rows = commit.rows
            loaded = [self._load(held, state, commit, leave_out) for state in commit.streams]
            held.streams = {stream.id: stream for stream in loaded}
            streams = list(held.streams.values())
            was_rewritten = self._history.undo_since(commit, streams)
            for stream in streams:
                stream.load_latents()
            if was_rewritten and commit.boot != files.boot_id():
                self.notes.append(
                    f"{self._folder}: the machine was started anew since the checkpoint; if it had "
                    "lost its power, some stored latents may be younger than the checkpoint"
                )
            self._hold(held, commit.writes, commit.drawn)
        self._history.go_back(commit, held)
        self._is_settled = True

    def close(self) -> None:
        """Let another writer in. Writes nothing: what was not committed is not kept."""
        if self._lock is not None:
            self._close_files()
            self._prefetch.close()
            os.close(self._lock)
            self._lock = None
        self._hold(Held(self._folder, self._capacity, self._files), 0, {})

    # Inside

    @property
    def _streams(self) -> list[Stream]:
        return list(self._held.streams.values())

    def _hold(self, held: Held, writes: int, drawn: Mapping[str, int]) -> None:
        self._held, self._writes = held, writes
        self._drawn = np.array([drawn.get(task, 0) for task in self._tasks], np.int64)

    def _close_files(self) -> None:
        self._prefetch.drop()
        self._history.close()
        for stream in self._streams:
            stream.close()
        self._files.clear()

    def _stream_tasks(self) -> list[int]:
        return [self._tasks.index(stream.id.task) for stream in self._streams]

    def _draw_where(
        self, rng: np.random.Generator, batch: int, length: int, ahead: int = 0
    ) -> tuple[Where, np.ndarray]:
        runs = self._held.runs(ahead)
        drawn = draw_where(rng, runs, self._stream_tasks(), batch, length, self._draw)
        return arranged(self._streams, drawn)

    def _columns(self, stream: StreamId, schema: Schema) -> dict[str, Column]:
        if stream.task not in self._tasks:
            raise ValueError(f"unknown task {stream.task!r}, {nearest(stream.task, self._tasks)}")
        reserved = [n for n in schema if n == STEP or n.startswith(LATENT) or "/" in n]
        if reserved:
            raise ValueError(f"{stream}: names not free for columns: {reserved}")
        ours = {STEP: Column((), "int64")} | ({WRITTEN: Column((), "int64")} if self._kept else {})
        return {**schema, **self._kept, **ours}

    def _load(
        self, held: Held, state: Mapping[str, Any], commit: Commit, leave_out: bool
    ) -> Stream:
        """Read what a commit holds of one stream, and see that it fits this run."""
        layout = commits.layout_of(self._folder, state)
        task = state["task"]
        if task not in self._tasks:
            hint = nearest(task, self._tasks)
            raise UserError(f"{layout.folder}: task {task!r} is not one of this run, {hint}")
        kept = {n: c for n, c in layout.schema.items() if n.startswith(LATENT) and n != WRITTEN}
        check_same(layout.folder, "latents", kept, self._kept)
        stream = held.stream(StreamId(state["phase"], task), layout)
        stream.rows, stream.blocks = int(state["rows"]), commits.blocks_of(state)
        # What was durable is whole after a kill; after a loss of power it had better be looked at.
        found = stream.load_rows(verify_all=commit.boot != files.boot_id())
        if found and not leave_out:
            raise UserError(f"{found[0]}; to go on without its block: replay.damaged=leave_out")
        self.notes += [f"{line}; its block is left out" for line in found]
        return stream
