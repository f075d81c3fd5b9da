"""From positions to a batch: rows of streams of different schemas, side by side, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from storage.batch import FRAMES, WRITTEN, Batch, Column, Schema, Where
from storage.sampling import frame_rung, images_first
from storage.stream import Stream
from storage.undo import Old

ACTION = "action."  # prefix of what was done in a row
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
    has_image = np.array([FRAMES in streams[s].schema for s in drawn.stream.tolist()], bool)
    order = images_first(has_image)
    return Where(drawn.stream[order], drawn.world[order], drawn.row[order]), order.astype(np.int32)


def gather_rows(
    streams: Sequence[Stream], tasks: Sequence[int], where: Where, draw: np.ndarray, order: Order
) -> Batch:
    """Copy all that never changes: everything but latents. Their place in the batch is empty.

    Args:
      streams: in order of opening; they hold every row of `where` and its context.
      tasks: task index of each stream.
      where, draw: from `arranged`.

    Returns:
      A batch that owns its memory; its `age` counts from 0 at the first row of all.
    """
    batch, length = len(where.row), order.length
    columns = _zeros(order.union, batch, length)
    actions = {name: column for name, column in order.union.items() if name.startswith(ACTION)}
    previous = _zeros(actions, batch, 1)
    shown = sum(FRAMES in streams[s].schema for s in where.stream.tolist())
    frames = _frames(streams, frame_rung(shown, batch), shown, length)
    newest = np.empty(batch, np.int64)
    for stream, at, worlds, rows in _by_stream(streams, where):
        for name, out in columns.items():
            if name in stream.schema:
                stream.gather(name, worlds, rows, out, at)
        for name, out in previous.items():
            if name in stream.schema:
                stream.gather(name, worlds, rows - 1, out, at)
        if FRAMES in stream.schema:
            stream.gather(FRAMES, worlds, rows, frames, at)
        newest[at] = stream.steps(worlds, rows + length - 1)
    return Batch(
        columns=columns,
        frames=frames,
        task=np.array(tasks, np.int32)[where.stream],
        previous={name: values[:, 0] for name, values in previous.items()},
        context={},
        draw=draw,
        age=-newest,
        latent_age=np.zeros(batch, np.int64),
        where=where,
    )


def add_latents(
    streams: Sequence[Stream], batch: Batch, latents: Schema, rows: int, writes: int
) -> Batch:
    """Fill in what the last update may have rewritten, and let ages count from now.

    Args:
      latents: columns of the context, those that the streams keep.
      rows: ever appended to the replay.
      writes: batches written back.
    """
    context = _zeros(latents, len(batch.draw), 1)
    written = np.full(len(batch.draw), writes, np.int64)
    for stream, at, worlds, rows_ in _by_stream(streams, batch.where):
        for name, out in context.items():
            stream.gather(name, worlds, rows_ - 1, out, at)
        if WRITTEN in stream.schema:
            written[at] = stream.written(worlds, rows_ - 1)
    return replace(
        batch,
        context={name: values[:, 0] for name, values in context.items()},
        age=batch.age + rows - 1,
        latent_age=writes - written,
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


def _by_stream(
    streams: Sequence[Stream], where: Where
) -> Iterator[tuple[Stream, np.ndarray, np.ndarray, np.ndarray]]:
    """(stream, places of its sequences in the batch, their worlds, their first trained rows)."""
    for s in np.unique(where.stream).tolist():
        at = np.flatnonzero(where.stream == s)
        yield streams[s], at, where.world[at], where.row[at]


def _zeros(schema: Schema, *leading: int) -> dict[str, np.ndarray]:
    return {name: np.zeros((*leading, *c.shape), c.dtype) for name, c in schema.items()}


def _frames(streams: Sequence[Stream], size: int, shown: int, length: int) -> np.ndarray:
    """[size, T, 64, 64, 3] to be filled up to `shown`, zero beyond: zeroing all costs a copy."""
    column = next((s.schema[FRAMES] for s in streams if FRAMES in s.schema), FRAME)
    frames = np.empty((size, length, *column.shape), column.dtype)
    frames[shown:] = 0
    return frames
