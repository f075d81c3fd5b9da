"""From positions to a batch: rows of streams of different schemas, side by side, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from storage.batch import FRAMES, STEP, WRITTEN, Batch, Column, Schema, Where
from storage.memory import Buffers
from storage.sampling import frame_rung, images_first
from storage.stream import Stream
from storage.undo import Old

ACTION = "action."  # prefix of what was done in a row
Part = tuple[Stream, np.ndarray, np.ndarray, np.ndarray]  # places in a batch, worlds, first rows
FRAME = Column((64, 64, 3), "uint8")  # of a batch whose streams have never shown any


@dataclass(frozen=True)
class Order:
    """What is asked of a batch besides its positions.

    Attributes:
      length: T, rows of a sequence after its context row.
      union: columns of the batch, neither frames nor latents; zeros where a stream lacks one.
    """

    length: int
    union: Schema


def arranged(streams: Sequence[Stream], drawn: Where) -> tuple[Where, np.ndarray]:
    """Image sequences first; -> (positions, [B] their places in the draw)."""
    shows = [FRAMES in stream.schema for stream in streams]
    if all(shows) or not any(shows):
        return drawn, np.arange(len(drawn.row), dtype=np.int32)
    order = images_first(np.array(shows)[drawn.stream])
    return Where(drawn.stream[order], drawn.world[order], drawn.row[order]), order.astype(np.int32)


class Copied(NamedTuple):
    """What of a batch never changes; see `Batch`.

    Attributes:
      newest: [B] append index of the last row of each sequence.
    """

    columns: dict[str, np.ndarray]
    frames: np.ndarray
    task: np.ndarray
    previous: dict[str, np.ndarray]
    newest: np.ndarray


def gather_rows(
    streams: Sequence[Stream], tasks: Sequence[int], where: Where, order: Order, buffers: Buffers
) -> Copied:
    """Copy everything but latents.

    Args:
      streams: in order of opening; they hold every row of `where` and its context.
      tasks: task index of each stream.
      where: from `arranged`.
      buffers: for frames.
    """
    batch, length = len(where.row), order.length
    parts = list(_by_stream(streams, where))
    actions = {name: c for name, c in order.union.items() if name.startswith(ACTION)}
    previous = _gathered(parts, actions, batch, -1, 1)
    shown = sum(len(at) for stream, at, _, _ in parts if FRAMES in stream.schema)
    frames = _frames(streams, frame_rung(shown, batch), shown, length, buffers)
    newest = np.empty(batch, np.int64)
    for stream, at, worlds, rows in parts:
        if FRAMES in stream.schema:
            stream.gather_into(FRAMES, worlds, rows, frames, at)
        newest[at] = stream.ours(STEP, worlds, rows + (length - 1))
    return Copied(
        columns=_gathered(parts, order.union, batch, 0, length),
        frames=frames,
        task=np.array(tasks, np.int32)[where.stream],
        previous={name: values[:, 0] for name, values in previous.items()},
        newest=newest,
    )


def with_latents(
    streams: Sequence[Stream],
    copied: Copied,
    where: Where,
    draw: np.ndarray,
    latents: Schema,
    rows: int,
    writes: int,
) -> Batch:
    """The batch, with what the last update may have rewritten.

    Args:
      where, draw: from `arranged`.
      latents: columns of the context, those that the streams keep.
      rows: ever appended to the replay.
      writes: batches written back.
    """
    found: dict[str, np.ndarray] = {}
    if latents:
        wanted = {**latents, WRITTEN: Column((), "int64")}
        parts = list(_by_stream(streams, where))
        found = {n: v[:, 0] for n, v in _gathered(parts, wanted, len(draw), -1, 1).items()}
    return Batch(
        columns=copied.columns,
        frames=copied.frames,
        task=copied.task,
        previous=copied.previous,
        latent_age=writes - found.pop(WRITTEN) if found else np.zeros(len(draw), np.int64),
        context=found,
        draw=draw,
        age=(rows - 1) - copied.newest,
        where=where,
    )


@dataclass(frozen=True)
class Rewrite:
    """Rows of one stream whose latents are to be overwritten.

    Attributes:
      worlds: [K]
      rows: [K, T]
      held: [K, T] those that are still there.
      at: [K] places of the sequences in the batch.
      index: of the stream.
    """

    stream: Stream
    index: int
    worlds: np.ndarray
    rows: np.ndarray
    held: np.ndarray
    at: np.ndarray

    def old(self, writes: int, oldest: int) -> list[Old]:
        """What an undo log needs first; see `Stream.old_latents`."""
        worlds = np.broadcast_to(self.worlds[:, None], self.rows.shape)[self.held]
        return self.stream.old_latents(self.index, worlds, self.rows[self.held], writes, oldest)

    def write(self, latents: Mapping[str, np.ndarray], writes: int) -> int:
        """Overwrite; -> rows written."""
        own = {name: values[self.at] for name, values in latents.items()}
        return self.stream.rewrite(self.worlds, self.rows, self.held, own, writes)


def rewrites(
    streams: Sequence[Stream], where: Where, length: int, oldest: int
) -> Iterator[Rewrite]:
    """What a batch's latents overwrite, stream by stream.

    Args:
      oldest: append index of the oldest row that can be sampled.
    """
    for stream, at, worlds, first in _by_stream(streams, where):
        rows = first[:, None] + np.arange(length)
        held = stream.is_held(worlds, rows, oldest)
        yield Rewrite(stream, streams.index(stream), worlds, rows, held, at)


def _by_stream(streams: Sequence[Stream], where: Where) -> Iterator[Part]:
    """The sequences of a batch, stream by stream."""
    stream = where.stream
    if (stream == stream[0]).all():
        yield streams[int(stream[0])], np.arange(len(stream)), where.world, where.row
        return
    for s in np.unique(stream).tolist():
        at = np.flatnonzero(stream == s)
        yield streams[s], at, where.world[at], where.row[at]


def _gathered(
    parts: Sequence[Part], schema: Schema, batch: int, first: int, length: int
) -> dict[str, np.ndarray]:
    """name -> [B, T, …] of columns, zeros where a stream lacks one.

    Args:
      first: from which row on, 0 being the first trained one.
    """
    if len(parts) == 1:
        stream, _, worlds, rows = parts[0]
        found = stream.gather(schema, worlds, rows + first, length)
        if len(found) == len(schema):
            return found
    found = {n: np.zeros((batch, length, *c.shape), c.dtype) for n, c in schema.items()}
    for stream, at, worlds, rows in parts:
        for name, values in stream.gather(schema, worlds, rows + first, length).items():
            found[name][at] = values
    return found


def _frames(
    streams: Sequence[Stream], size: int, shown: int, length: int, buffers: Buffers
) -> np.ndarray:
    """[size, T, 64, 64, 3] to be filled up to `shown`, zero beyond: zeroing all costs a copy."""
    column = next((s.schema[FRAMES] for s in streams if FRAMES in s.schema), FRAME)
    if not size:
        return np.empty((0, length, *column.shape), column.dtype)
    frames = buffers.take((size, length, *column.shape), column.dtype)
    frames[shown:] = 0
    return frames
