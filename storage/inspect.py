"""The door `python -m storage.inspect PATH [--verify]`: what a replay holds, if it is whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from continual.cli import Parser, run_door
from continual.errors import UserError
from storage import commits
from storage.batch import STEP
from storage.checks import read_checked
from storage.commits import Commit
from storage.files import sizes_below
from storage.mirror import nbytes_of
from storage.open_files import OpenFiles
from storage.stream import Stream
from storage.undo import read_log
from storage.zarr_files import StreamId

_BINS = 8  # of the histogram of ages


def main(argv: list[str]) -> int:
    """-> 0, or 1 where a file is damaged. Raises UserError: there is no replay to look at."""
    parser = Parser(
        prog="python -m storage.inspect",
        description="Streams, rows, bytes, ages and shares of a replay as of its last commit. "
        "Reads only; a run may be using it.",
        epilog="example: python -m storage.inspect runs/smoke-smoke-gated-s0/replay --verify",
    )
    parser.add_argument("path", type=Path, metavar="PATH", help="a folder runs/NAME/replay")
    parser.add_argument("--verify", action="store_true", help="read every checksum")
    given = parser.parse_args(argv)
    commit, streams = open_commit(given.path)
    print("\n".join(description(given.path, commit, streams)))
    damage = [line for s in streams for line in damaged(s)] if given.verify else []
    if given.verify:
        print("\n".join(damage) if damage else "every committed row is as it was written")
    return 1 if damage else 0


def open_commit(folder: Path) -> tuple[Commit, list[Stream]]:
    """The last commit, and its streams with the blocks that it holds.

    Raises:
      UserError: there is none.
    """
    numbers = commits.commits_of(folder)
    if not numbers:
        raise UserError(f"{folder}: found no commit of a replay, expected runs/NAME/replay")
    commit, _ = commits.load_commit(folder, numbers[-1])
    streams = []
    for state in commit.streams:
        layout = commits.layout_of(folder, state)
        stream = Stream(StreamId(state["phase"], state["task"]), layout, (), OpenFiles())
        stream.rows, stream.blocks = state["rows"], commits.blocks_of(state)
        streams.append(stream)
    return commit, streams


def is_at(folder: Path, cursor: Mapping[str, Any]) -> bool:
    """Whether the files are as they were at the commit of a cursor: nothing came after it."""
    last = commits.commits_of(folder)[-1:]
    log = commits.undo_path(folder, cursor["commit"])
    return last == [cursor["commit"]] and not any(True for _ in read_log(log))


def description(folder: Path, commit: Commit, streams: Sequence[Stream]) -> Iterator[str]:
    """What there is, line by line."""
    capacity = commit.capacity
    yield f"{folder}: commit {commit.number}, {commit.rows:,} rows appended, made for "
    yield f"{capacity['size']:,} {capacity['unit']}; {sum(sizes_below(folder).values()):,} bytes"
    held: Counter[str] = Counter()
    ages = []
    yield f"{'stream':<40} {'worlds':>6} {'rows':>12} {'held':>12} {'evicted':>12} {'bytes':>16}"
    for stream in streams:
        steps = _held_steps(stream, commit.oldest)
        held[stream.id.task] += len(steps)
        ages.append(commit.rows - 1 - steps)
        total = stream.worlds * stream.rows
        yield (
            f"{stream.id.name:<40} {stream.worlds:>6} {total:>12,} {len(steps):>12,} "
            f"{total - len(steps):>12,} {len(steps) * nbytes_of(stream.schema):>16,}"
        )
    yield from _histogram(np.concatenate([np.zeros(0, np.int64), *ages]))
    drawn = Counter(commit.drawn)
    yield f"{'task':<40} {'share held':>12} {'share drawn':>12}"
    for task in held:
        shares = [counts[task] / max(1, counts.total()) for counts in (held, drawn)]
        yield f"{task:<40} {shares[0]:>12.1%} {shares[1]:>12.1%}"


def damaged(stream: Stream) -> Iterator[str]:
    """One line for each chunk of a held block that is not what was committed."""
    for block in stream.blocks.values():
        for name in stream.schema:
            try:
                read_checked(stream.layout, name, block)
            except UserError as error:
                yield str(error)


def rows_of(stream: Stream, oldest: int) -> Iterator[tuple[str, np.ndarray]]:
    """(column, [K, …] held rows of one block, world by world), block by block."""
    for block in stream.blocks.values():
        held = stream.layout.read(STEP, block.index)[:, : block.rows] >= oldest
        for name in stream.schema:
            yield name, stream.layout.read(name, block.index)[:, : block.rows][held]


def _held_steps(stream: Stream, oldest: int) -> np.ndarray:
    """[K] append indices of the held rows of a stream."""
    parts = [
        stream.layout.read(STEP, block.index)[:, : block.rows].reshape(-1)
        for block in stream.blocks.values()
    ]
    steps = np.concatenate([np.zeros(0, np.int64), *parts])
    return steps[steps >= oldest]


def _histogram(ages: np.ndarray) -> Iterator[str]:
    if not len(ages):
        return
    edges = np.linspace(0, int(ages.max()) + 1, _BINS + 1)
    counts, _ = np.histogram(ages, edges)
    yield f"{'age in rows':<40} {'held':>12}"
    for start, stop, count in zip(edges[:-1], edges[1:], counts.tolist(), strict=True):
        bar = "#" * round(30 * count / max(1, counts.max()))
        yield f"{f'{start:,.0f} to {stop:,.0f}':<40} {count:>12,} {bar}"


if __name__ == "__main__":
    run_door(main)
