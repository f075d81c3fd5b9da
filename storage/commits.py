"""What a commit holds, on disk: one record a file, with a checksum, beside the undo log that leads
back to it.

    commits/00000012.json    record of commit 12
    commits/00000012.undo    latents as they were at commit 12, of rows rewritten since
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from continual.errors import UserError
from continual.files import put_file
from storage import files
from storage.batch import Column
from storage.block import Block, Layout
from storage.stream import Stream
from storage.zarr_files import COMMITS, StreamId

_RECORD, _UNDO = ".json", ".undo"


@dataclass(frozen=True)
class Commit:
    """A state that can be gone back to.

    Attributes:
      number: counts commits; the undo log of the same number leads back to it.
      rows: ever appended.
      writes: batches written back.
      oldest: append index before which nothing could be sampled.
      drawn: task -> rows handed out.
      boot: when the machine was started.
      capacity: `size` and `unit` that the replay was made for.
      streams: in order of opening.
    """

    number: int
    rows: int
    writes: int
    oldest: int
    drawn: Mapping[str, int]
    boot: str
    capacity: Mapping[str, Any]
    streams: tuple[Mapping[str, Any], ...]

    def blocks_of(self, name: str) -> set[int]:
        """Indices of the blocks that it holds of a stream's group."""
        found = [s for s in self.streams if StreamId(s["phase"], s["task"]).name == name]
        return {block["index"] for stream in found for block in stream["blocks"]}


def record_path(folder: Path, number: int) -> Path:
    return folder / COMMITS / f"{number:08d}{_RECORD}"


def undo_path(folder: Path, number: int) -> Path:
    return folder / COMMITS / f"{number:08d}{_UNDO}"


def save_commit(folder: Path, commit: Commit) -> int:
    """Write a record durably; -> its checksum.

    Raises:
      UserError: it cannot be written; there is none then.
    """
    text = json.dumps(vars(commit), separators=(",", ":"))
    total = zlib.crc32(text.encode())
    put_file(record_path(folder, commit.number), f"{total}\n{text}\n".encode(), durable=True)
    return total


def load_commit(folder: Path, number: int) -> tuple[Commit, int]:
    """-> (record, its checksum).

    Raises:
      UserError: it is missing or damaged.
    """
    path = record_path(folder, number)
    if not path.exists():
        there = ", ".join(str(n) for n in commits_of(folder)) or "none"
        raise UserError(f"{path} is missing; commits that can be gone back to: {there}")
    try:
        total, text = files.read_file(path).tobytes().decode().rstrip("\n").split("\n")
        if int(total) != zlib.crc32(text.encode()):
            raise ValueError("its checksum is another")
        values = json.loads(text)
        return Commit(**values | {"streams": tuple(values["streams"])}), int(total)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged, expected the record of a commit: {error}") from error


def commits_of(folder: Path) -> list[int]:
    """Numbers of the commits there are, oldest first."""
    return _numbers(folder, _RECORD)


def undo_logs_of(folder: Path) -> list[int]:
    """Numbers of the undo logs there are, oldest first."""
    return _numbers(folder, _UNDO)


def delete_commit(folder: Path, number: int) -> None:
    """Delete a record and its log."""
    files.delete_file(record_path(folder, number))
    files.delete_file(undo_path(folder, number))


def stream_state(stream: Stream, oldest: int) -> dict[str, Any]:
    """What a commit says of a stream; `oldest` is the append index of the oldest row of all."""
    return {
        "phase": stream.id.phase,
        "task": stream.id.task,
        "worlds": stream.worlds,
        "length": stream.length,
        "rows": stream.rows,
        "first_row": int(stream.first_rows(oldest).min()),
        "schema": {name: [list(c.shape), c.dtype] for name, c in stream.schema.items()},
        "blocks": [
            {"index": b.index, "rows": b.rows, "first": b.first, "newest": b.newest, "sums": b.sums}
            for b in stream.blocks.values()
        ],
    }


def layout_of(folder: Path, state: Mapping[str, Any]) -> Layout:
    """Inverse of `stream_state`, for what lies on the disk."""
    name = StreamId(state["phase"], state["task"]).name
    schema = {name: Column(tuple(shape), dtype) for name, (shape, dtype) in state["schema"].items()}
    return Layout(folder / name, schema, state["worlds"], state["length"])


def blocks_of(state: Mapping[str, Any]) -> dict[int, Block]:
    """Inverse of `stream_state`, for the blocks; all their rows are in the files."""
    return {b["index"]: Block(**b, flushed=b["rows"], summed=b["rows"]) for b in state["blocks"]}


def _numbers(folder: Path, suffix: str) -> list[int]:
    paths = (folder / COMMITS).glob(f"*{suffix}")
    return sorted(int(path.stem) for path in paths if path.stem.isdecimal())
