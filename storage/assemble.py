"""From positions to a batch: copy rows of streams of different schemas side by side, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from storage.batch import FRAMES, Batch, Column, Schema, Where
from storage.sampling import frame_rung, images_first
from storage.window import STEP, StreamWindow

ACTION = "action."  # prefix of what was done in a row
FRAME = Column((64, 64, 3), "uint8")  # of a batch whose streams have never shown any


def assemble(
    streams: Sequence[StreamWindow],
    tasks: Sequence[int],
    drawn: Where,
    *,
    length: int,
    union: Schema,
    latents: Schema,
    rows: int,
) -> Batch:
    """Gather the sequences that were drawn.

    Args:
      streams: in order of opening; they hold every row of `drawn` and its context.
      tasks: task index of each stream.
      drawn: positions, in the order of the draw.
      length: T, rows of a sequence after its context row.
      union: columns of the batch, neither frames nor latents; zeros where a stream lacks one.
      latents: columns of the context, those that the streams keep.
      rows: ever appended to the replay, the origin of `Batch.age`.

    Returns:
      A batch that owns its memory; image sequences come first.
    """
    has_image = np.array([FRAMES in streams[s].schema for s in drawn.stream.tolist()], bool)
    order = images_first(has_image)
    where = Where(drawn.stream[order], drawn.world[order], drawn.row[order])
    batch = len(order)
    shown = int(has_image.sum())

    actions = {name: column for name, column in union.items() if name.startswith(ACTION)}
    columns = _zeros(union, batch, length)
    previous, context = _zeros(actions, batch), _zeros(latents, batch)
    frames = _frames(streams, frame_rung(shown, batch), shown, length)
    newest = np.empty(batch, np.int64)
    for b, (stream, world, row) in enumerate(_positions(streams, where)):
        _copy_sequence(stream, world, row, length, columns, b)
        if b < shown:
            _copy_sequence(stream, world, row, length, {FRAMES: frames}, b)
        _copy_row(stream, world, row - 1, previous, b)
        _copy_row(stream, world, row - 1, context, b)
        newest[b] = _cell(stream, STEP, world, row + length - 1)
    return Batch(
        columns=columns,
        frames=frames,
        task=np.array(tasks, np.int32)[where.stream],
        previous=previous,
        context=context,
        draw=order.astype(np.int32),
        age=rows - 1 - newest,
        where=where,
    )


def scatter_latents(
    streams: Sequence[StreamWindow],
    where: Where,
    latents: Mapping[str, np.ndarray],
    oldest: int,
) -> int:
    """Overwrite the latents of the rows that are still held, in the order of the batch.

    Args:
      latents: name -> [B, T, …], of the T trained rows of each sequence.
      oldest: append index of the oldest held row; earlier rows are skipped.

    Returns:
      Number of rows written.
    """
    first = {s: streams[s].first_rows(oldest) for s in set(where.stream.tolist())}
    length = next(iter(latents.values())).shape[1]
    written = 0
    for b, (stream, world, row) in enumerate(_positions(streams, where)):
        held = max(row, int(first[int(where.stream[b])][world]))
        skipped = held - row
        for block, inside, outside in stream.spans(held, length - skipped):
            part = slice(outside.start + skipped, outside.stop + skipped)
            for name, values in latents.items():
                block.columns[name][world, inside] = values[b, part]
            block.latents_on_disk = False
            written += part.stop - part.start
    return written


def _positions(
    streams: Sequence[StreamWindow], where: Where
) -> Iterator[tuple[StreamWindow, int, int]]:
    """(stream, world, first trained row) of each sequence, as fast Python numbers."""
    indices = zip(where.stream.tolist(), where.world.tolist(), where.row.tolist(), strict=True)
    return ((streams[s], world, row) for s, world, row in indices)


def _zeros(schema: Schema, *leading: int) -> dict[str, np.ndarray]:
    return {name: np.zeros((*leading, *c.shape), c.dtype) for name, c in schema.items()}


def _frames(streams: Sequence[StreamWindow], size: int, shown: int, length: int) -> np.ndarray:
    """[size, T, 64, 64, 3] to be filled up to `shown`, zero beyond: zeroing all costs a copy."""
    column = next((s.schema[FRAMES] for s in streams if FRAMES in s.schema), FRAME)
    frames = np.empty((size, length, *column.shape), column.dtype)
    frames[shown:] = 0
    return frames


def _copy_sequence(
    stream: StreamWindow, world: int, row: int, length: int, out: dict[str, np.ndarray], b: int
) -> None:
    names = [name for name in out if name in stream.schema]
    for block, inside, outside in stream.spans(row, length):
        for name in names:
            out[name][b, outside] = block.columns[name][world, inside]


def _copy_row(
    stream: StreamWindow, world: int, row: int, out: dict[str, np.ndarray], b: int
) -> None:
    for name in out:
        if name in stream.schema:
            out[name][b] = _cell(stream, name, world, row)


def _cell(stream: StreamWindow, name: str, world: int, row: int) -> np.ndarray:
    block, inside, _ = next(stream.spans(row, 1))
    cell: np.ndarray = block.columns[name][world, inside.start]
    return cell
