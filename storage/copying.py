"""Bringing what a commit holds of a replay to another folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from continual.files import named, put_file
from storage import commits, files
from storage.block import Block, Layout
from storage.chunks import ChunkFiles
from storage.history import History
from storage.open_files import OpenFiles
from storage.zarr_files import COMMITS, StreamId, StreamMetadata, create_store


def fork_replay(source: Path, cursor: Mapping[str, Any], target: Path) -> None:
    """Make a replay at `target` that can be gone back to one commit of `source`.

    Columns that never change share their files, block by block, where both folders lie on one disk
    (hard links); open blocks and latents are copied. Neither replay sees what becomes of the other.

    Args:
      source: not changed; nobody writes to it meanwhile.
      cursor: from a `commit` that can still be gone back to.
      target: not there yet, or an empty folder.
    Raises:
      UserError: the commit is missing or damaged, a file is, or there is no room.
    """
    commit = History(source).find(cursor)
    with named(target, "keep a replay"):
        (target / COMMITS).mkdir(parents=True, exist_ok=True)
    create_store(target, commit.capacity)
    for state in commit.streams:
        bring_stream(source, target, state, lambda block, layout: list(layout.schema), share=True)
    later = [n for n in commits.undo_logs_of(source) if n >= commit.number]
    names = [commits.undo_path(source, number) for number in later]
    for path in (*names, commits.record_path(source, commit.number)):
        content = files.read_file(path).tobytes()
        put_file(target / COMMITS / path.name, content, durable=True)


def bring_stream(
    source: Path,
    target: Path,
    state: Mapping[str, Any],
    wanted: Callable[[Block, Layout], Iterable[str]],
    *,
    share: bool,
) -> None:
    """Bring what a commit says of one stream from one replay to another, durably.

    Args:
      state: of the stream, as the commit has it.
      wanted: (block, where it will lie) -> columns to bring.
      share: link what will not change any more, where the disk can.
    Raises:
      UserError: there is no room, say.
    """
    theirs, ours = commits.layout_of(source, state), commits.layout_of(target, state)
    chunks = ChunkFiles(ours, OpenFiles())
    chunks.create_folders()
    for block in commits.blocks_of(state).values():
        is_full = block.rows == ours.length
        for name in wanted(block, ours):
            if share and is_full and name in ours.immutable:
                chunks.link(name, block.index, theirs)
            else:
                chunks.copy(name, block.index, theirs)
    chunks.sync()
    stream = StreamId(state["phase"], state["task"])
    attributes = {"phase": stream.phase, "task": stream.task}
    metadata = StreamMetadata(ours.folder, ours.schema, ours.worlds, ours.length, attributes)
    metadata.publish(state["rows"], state["first_row"])
