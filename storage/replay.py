"""Replay on disk: rows of all streams, sampled as sequences, kept through a kill.

See `storage.zarr_files` for what readers see, `storage.block` for what lies where,
`storage.commits` for what is gone back to, `storage.assemble` for what a batch is made of.
"""

from __future__ import annotations

import math
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from continual.errors import UserError, nearest
from continual.files import PARTIAL, lock_folder
from storage import commits, files, retention, sampling
from storage.assemble import Order, add_latents, arranged, gather_rows, rewrites
from storage.batch import LATENT, STEP, WRITTEN, Batch, Column, Schema, Where
from storage.block import Layout, block_length
from storage.commits import Commit
from storage.mirror import mirrored, nbytes_of
from storage.sampling import Runs, draw_where, make_runs
from storage.stream import Stream, StreamId, check_same
from storage.undo import UndoLog, read_log
from storage.zarr_files import COMMITS, check_capacity, create_store, has_store

CURSOR = 2  # version of what `commit` returns
MIRROR = 2**30  # bytes of small columns that are kept in memory at most

Unit = Literal["rows", "bytes"]


class Replay:
    """Rows over all streams, up to a capacity. Made by `open_replay`; not safe for threads.

    A row is one decision in one world; rows are numbered in the order of all appends, world by
    world, and that number is a row's age. What stays when the capacity is full is up to a rule; by
    the default one exactly the newest rows can be sampled.

    A commit survives a kill at any moment bit for bit, latents included, and so does the one before
    it until `release`: between `commit` and the moment at which its cursor is safe, both cursors
    can be gone back to.
    """

    def __init__(
        self,
        folder: Path,
        lock: int,
        *,
        capacity: int,
        unit: Unit,
        latents: Schema,
        tasks: Sequence[str],
        context: Literal["stored", "zero"],
        keep: retention.Rule,
        draw: sampling.Rule,
        seed: int,
        is_new: bool,
    ) -> None:
        self._folder = folder
        self._lock: int | None = lock
        self._capacity, self._unit = capacity, unit
        self._latents = dict(latents)
        self._kept = self._latents if context == "stored" else {}
        self._tasks = tuple(tasks)
        self._keep, self._draw, self._seed = keep, draw, seed
        self._maps = files.MappedFiles()
        self._is_settled = is_new
        self._forget()

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
        columns = self._columns(stream, schema)
        if stream in self._streams:
            there = self._streams[stream]
            check_same(self._folder / stream.name, "columns", dict(there.schema), columns)
            check_same(self._folder / stream.name, "parallel worlds", there.worlds, worlds)
            return
        if any(other.name == stream.name for other in self._streams):
            raise ValueError(f"{stream} has the group name of another stream: {stream.name}")
        size = self._size_of_row(columns)
        length = block_length(self._capacity / size, worlds)
        begun = self._stream(stream, Layout(self._folder / stream.name, columns, worlds, length))
        begun.create()
        self._streams[stream] = begun

    def append(self, stream: StreamId, rows: Mapping[str, np.ndarray]) -> None:
        """Add one row in each of a stream's N worlds.

        Args:
          rows: name -> [N, …] for every column of the schema and every latent; copied.

        Raises:
          ValueError: a column is missing or has another shape or dtype; nothing was added.
          UserError: the disk is full or fails; what was committed is as it was.
        """
        if not self._kept:
            rows = {name: v for name, v in rows.items() if name not in self._latents}
        into = self._streams[stream]
        begins = into.append(rows, self._rows, self._writes)
        self._rows += into.worlds
        if begins and not self._is_exact:
            self._make_room(into)
        elif self._oldest > self._evict_at:
            self._evict_old()

    # Looking

    @property
    def rows(self) -> int:
        """Ever appended: the cursor that batches are drawn at."""
        return self._rows

    @property
    def nbytes_held(self) -> int:
        """Bytes of the rows that can be sampled, all columns."""
        return sum(s.held_rows(self._oldest) * nbytes_of(s.schema) for s in self._streams.values())

    def held_rows(self) -> dict[str, int]:
        """Task -> rows that can be sampled, for every task that was ever lived."""
        held: dict[str, int] = {}
        for stream in self._streams.values():
            task = stream.id.task
            held[task] = held.get(task, 0) + stream.held_rows(self._oldest)
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
        streams = list(self._streams.values())
        tasks = self._stream_tasks()
        drawn = draw_where(rng, self._runs(), tasks, batch, length, self._draw)
        where, draw = arranged(streams, drawn)
        rows = gather_rows(streams, tasks, where, draw, Order(length, union))
        for task, count in zip(*np.unique(rows.task, return_counts=True), strict=True):
            self._drawn[self._tasks[task]] += int(count) * length
        return add_latents(streams, rows, self._kept, self._rows, self._writes)

    def write_latents(self, where: Where, latents: Mapping[str, np.ndarray]) -> int:
        """Overwrite the latents of a batch's rows; rows evicted since it was drawn are skipped.

        Args:
          where: of the batch.
          latents: name -> [B, T, …].

        Returns:
          Rows written, those that several sequences share counted for each; 0 with context `zero`.
        Raises:
          UserError: the disk is full or fails; a rewind finds what was committed.
        """
        if not self._kept:
            return 0
        if latents.keys() != self._kept.keys():
            raise ValueError(f"latents {sorted(latents)}, expected {sorted(self._kept)}")
        length = next(iter(latents.values())).shape[1]
        parts = list(rewrites(list(self._streams.values()), where, length, self._oldest))
        if self._undo is not None:
            last = self._commits[-1]
            old = [old for part in parts for old in part.old(last.writes, last.rows)]
            self._undo.append(old)
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
        for stream in self._streams.values():
            stream.flush()
            stream.sync()
        if self._undo is not None:
            self._undo.sync()
        for stream in self._streams.values():
            stream.publish(self._oldest)
        number = 1 + (self._commits[-1].number if self._commits else 0)
        commit = Commit(
            number=number,
            rows=self._rows,
            writes=self._writes,
            oldest=self._oldest,
            drawn=dict(self._drawn),
            boot=files.boot_id(),
            capacity={"size": self._capacity, "unit": self._unit},
            streams=tuple(commits.stream_state(s) for s in self._streams.values()),
        )
        checksum = commits.save_commit(self._folder, commit)
        self._begin_log(number)
        self._keep_commits([*self._commits[-1:], commit])
        return {"version": CURSOR, "commit": number, "rows": self._rows, "checksum": checksum}

    def release(self) -> None:
        """Free what only the commit before the last one needs: the last one's cursor is safe."""
        self._keep_commits(self._commits[-1:])

    def rewind(self, cursor: Mapping[str, Any] | None) -> None:
        """Hold exactly the rows and latents of a commit; drop what came later.

        Args:
          cursor: from the last `commit`, or the one before it unless it was released; None for an
            empty replay.

        Raises:
          UserError: a file is missing, cut, damaged or does not fit this run; no rows were dropped
            from the disk.
        """
        if cursor is not None and cursor.get("version") != CURSOR:
            raise UserError(
                f"{self._folder}: cursor of version {cursor.get('version')}, expected {CURSOR}"
            )
        self._close_files()
        if cursor is None:
            self._forget()
            self._drop_other_streams()
            for number in reversed(_numbers_of(self._folder)):
                commits.delete_commit(self._folder, number)
        else:
            self._go_back(cursor)
        self._is_settled = True

    def close(self) -> None:
        """Let another writer in. Writes nothing: what was not committed is not kept."""
        if self._lock is not None:
            self._close_files()
            os.close(self._lock)
            self._lock = None
        self._forget()

    # Inside

    @property
    def _is_exact(self) -> bool:
        """Whether the newest rows stay to the row, whatever block they are in."""
        return isinstance(self._keep, retention.Fifo) and self._unit == "rows"

    @property
    def _oldest(self) -> int:
        """Append index of the oldest row that can be sampled."""
        return max(0, self._rows - self._capacity) if self._is_exact else 0

    def _forget(self) -> None:
        self._streams: dict[StreamId, Stream] = {}
        self._rows = 0
        self._writes = 0
        self._drawn: Counter[str] = Counter()
        self._commits: list[Commit] = []
        self._undo: UndoLog | None = None
        self._evict_at = -1

    def _close_files(self) -> None:
        if self._undo is not None:
            self._undo.close()
        for stream in self._streams.values():
            stream.close()
        self._maps.clear()

    def _stream_tasks(self) -> list[int]:
        return [self._tasks.index(stream.task) for stream in self._streams]

    def _runs(self) -> Runs:
        return make_runs(
            (i, first, stop)
            for i, stream in enumerate(self._streams.values())
            for first, stop in stream.runs(self._oldest)
        )

    def _size_of_row(self, schema: Schema) -> int:
        return nbytes_of(schema) if self._unit == "bytes" else 1

    def _stream(self, stream: StreamId, layout: Layout) -> Stream:
        """A stream in memory; reads and writes nothing."""
        is_bounded = not isinstance(self._keep, retention.Unbounded)
        most = self._capacity / self._size_of_row(layout.schema) if is_bounded else math.inf
        return Stream(stream, layout, mirrored(layout.schema, most, MIRROR), self._maps)

    def _columns(self, stream: StreamId, schema: Schema) -> dict[str, Column]:
        if stream.task not in self._tasks:
            raise ValueError(f"unknown task {stream.task!r}, {nearest(stream.task, self._tasks)}")
        reserved = [n for n in schema if n == STEP or n.startswith(LATENT) or "/" in n]
        if reserved:
            raise ValueError(f"{stream}: names not free for columns: {reserved}")
        ours = {STEP: Column((), "int64")} | ({WRITTEN: Column((), "int64")} if self._kept else {})
        return {**schema, **self._kept, **ours}

    def _evict_old(self) -> None:
        """Let blocks go that hold no row of the newest."""
        self._evict_at = self._rows
        for stream in self._streams.values():
            for block in list(stream.blocks.values()):
                if block.rows == 0 or block.newest >= self._oldest:
                    self._evict_at = min(self._evict_at, max(block.newest, self._oldest))
                    break
                stream.evict(block.index)

    def _make_room(self, filling: Stream) -> None:
        """Let blocks go, by the rule, until the block that was begun has room to fill."""
        streams = list(self._streams.values())
        open_index = next(reversed(filling.blocks))
        held = []
        size = self._size_of_row(filling.schema) * filling.worlds * filling.length
        for number, stream in enumerate(streams):
            unit = self._size_of_row(stream.schema) * stream.worlds
            for block in stream.blocks.values():
                if stream is not filling or block.index != open_index:
                    draw = retention.number_of(self._seed, stream.id.name, block.index)
                    held.append(
                        (
                            block.first,
                            retention.Candidate(
                                number, block.index, stream.id.task, block.rows * unit, draw
                            ),
                        )
                    )
        candidates = [candidate for _, candidate in sorted(held, key=lambda pair: pair[0])]
        size += sum(candidate.size for candidate in candidates)
        while size > self._capacity and candidates:
            victim = self._keep.victim(candidates, self._capacity)
            if victim is None:
                return
            candidates.remove(victim)
            size -= victim.size
            streams[victim.stream].evict(victim.index)

    def _begin_log(self, number: int) -> None:
        if self._undo is not None:
            self._undo.close()
        self._undo = UndoLog(commits.undo_path(self._folder, number)) if self._kept else None

    def _keep_commits(self, kept: list[Commit]) -> None:
        """Delete all other commits, and the blocks that only they need."""
        self._commits = kept
        for number in reversed(_numbers_of(self._folder)):
            if number not in [commit.number for commit in kept]:
                commits.delete_commit(self._folder, number)
        for stream in self._streams.values():
            stream.needed = set().union(*(c.blocks_of(stream.id.name) for c in kept))
            stream.delete_retired()

    def _go_back(self, cursor: Mapping[str, Any]) -> None:
        commit, checksum = commits.load_commit(self._folder, int(cursor["commit"]))
        if checksum != cursor["checksum"]:
            path = commits.record_path(self._folder, commit.number)
            raise UserError(f"{path} is of another life, expected rows {cursor['rows']}")
        streams = [self._load(state, commit) for state in commit.streams]
        for number in reversed(commits.undo_logs_of(self._folder)):
            if number >= commit.number:
                for old in read_log(commits.undo_path(self._folder, number)):
                    if old.stream < len(streams):
                        streams[old.stream].restore(old)
        before = [n for n in commits.commits_of(self._folder) if n < commit.number]
        kept = [commits.load_commit(self._folder, n)[0] for n in before[-1:]] + [commit]
        for stream in streams:
            stream.load_latents()
            stream.sync()
        # From here on what came later is dropped; cut short anywhere, the same is done again.
        self._forget()
        self._streams = {stream.id: stream for stream in streams}
        self._rows, self._writes = commit.rows, commit.writes
        self._drawn = Counter(commit.drawn)
        self._drop_other_streams()
        for stream in streams:
            stream.needed = set().union(*(c.blocks_of(stream.id.name) for c in kept))
            stream.cut()
            stream.publish(self._oldest)
            stream.sync()
        for number in reversed(_numbers_of(self._folder)):
            if number > commit.number:
                commits.delete_commit(self._folder, number)
        files.delete_file(commits.undo_path(self._folder, commit.number))
        self._begin_log(commit.number)
        self._keep_commits(kept)

    def _load(self, state: Mapping[str, Any], commit: Commit) -> Stream:
        """Read what a commit holds of one stream, and see that it fits this run."""
        layout = commits.layout_of(self._folder, state)
        task = state["task"]
        if task not in self._tasks:
            hint = nearest(task, self._tasks)
            raise UserError(f"{layout.folder}: task {task!r} is not one of this run, {hint}")
        kept = {n: c for n, c in layout.schema.items() if n.startswith(LATENT) and n != WRITTEN}
        check_same(layout.folder, "latents", kept, self._kept)
        stream = self._stream(StreamId(state["phase"], task), layout)
        stream.rows, stream.blocks = int(state["rows"]), commits.blocks_of(state)
        stream.check_files()
        # What was durable is whole after a kill; after a loss of power it had better be looked at.
        stream.load_rows(verify_all=commit.boot != files.boot_id())
        return stream

    def _drop_other_streams(self) -> None:
        """Delete the groups of all streams but ours, and all files that are half written."""
        names = {stream.name for stream in self._streams}
        for path in sorted(self._folder.glob("phase_*")):
            if path.name not in names:
                with files.named(path, "delete"):
                    shutil.rmtree(path)
        for path in self._folder.rglob(f"*{PARTIAL}"):
            files.delete_file(path)


def open_replay(
    folder: Path,
    *,
    capacity: int,
    latents: Schema,
    tasks: Sequence[str],
    context: Literal["stored", "zero"],
    unit: Unit = "rows",
    keep: retention.Rule | None = None,
    draw: sampling.Rule | None = None,
    seed: int = 0,
) -> Replay:
    """Lock a replay folder, making it first where there is none. The replay holds nothing yet.

    Where a run goes on, `rewind` to its cursor comes next; where it begins anew in an old folder,
    `rewind(None)`.

    Args:
      folder: made with its parents.
      capacity: over all streams that can be sampled; fixed for the life of the folder.
      latents: the columns that `write_latents` rewrites, `latent.*`.
      tasks: all tasks of the run; the position of a task is its index in `Batch.task`.
      context: `stored` keeps latents with the rows; `zero` keeps none and hands out zeros.
      unit: what capacity counts, rows or bytes of rows.
      keep: what stays when the replay is full, by default the newest rows.
      draw: where sequences start, by default anywhere.
      seed: of rules that draw lots.

    Raises:
      UserError: the folder is something else, cannot be written, lies on a network file system, is
        locked, or was made for another capacity.
    """
    if capacity < 1:
        raise UserError(f"replay capacity of {capacity} {unit}, expected 1 or more")
    misnamed = [name for name in latents if not name.startswith(LATENT) or name == WRITTEN]
    if misnamed:
        raise ValueError(f"latent columns {misnamed}, expected names that begin with {LATENT!r}")
    files.refuse_network(folder)
    exists = has_store(folder)
    there = commits.commits_of(folder)
    with files.named(folder, "keep a replay"):
        (folder / COMMITS).mkdir(parents=True, exist_ok=True)
        lock = lock_folder(folder, "a replay has one writer, wait for it")
    try:
        size = {"size": capacity, "unit": unit}
        if not exists:
            made_for = commits.load_commit(folder, there[-1])[0].capacity if there else size
            create_store(folder, made_for)
        check_capacity(folder, size)
    except BaseException:
        os.close(lock)
        raise
    return Replay(
        folder,
        lock,
        capacity=capacity,
        unit=unit,
        latents=latents,
        tasks=tasks,
        context=context,
        keep=keep or retention.Fifo(),
        draw=draw or sampling.Uniform(),
        seed=seed,
        is_new=not exists and not there,
    )


def _numbers_of(folder: Path) -> list[int]:
    """Of all commits and undo logs, oldest first."""
    return sorted({*commits.commits_of(folder), *commits.undo_logs_of(folder)})
