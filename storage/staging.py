"""A replay that lives on a scratch disk, and its copy at home, which commits bring up to date.

The copy is a replay like any other: it can be read, inspected, and gone on with when the scratch
disk is gone. It is made in an order that leaves the commit before in reach until the new one is
whole: first the log that leads back, then blocks and latents, metadata, and the record.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from continual.errors import UserError
from continual.files import LOCK, named, put_file
from storage import commits, files
from storage.batch import STEP
from storage.block import Block, Layout
from storage.commits import Commit
from storage.copying import bring_stream
from storage.held import Capacity, Held
from storage.history import History
from storage.open_files import OpenFiles
from storage.stream import Stream
from storage.undo import read_log
from storage.zarr_files import COMMITS, StreamId, create_store, has_store


class Home:
    """The copy at home of a replay that lives elsewhere."""

    def __init__(self, folder: Path, capacity: Capacity) -> None:
        """Open the copy, making an empty one where there is none.

        Raises:
          UserError: the folder is something else, or cannot be written.
        """
        self._folder = folder
        self._capacity = capacity
        self._history = History(folder)
        if not has_store(folder):
            with named(folder, "keep a replay"):
                (folder / COMMITS).mkdir(parents=True, exist_ok=True)
            create_store(folder, capacity.measure)

    def stage(self, source: Path, commit: Commit) -> None:
        """Bring the copy to a commit that is whole at `source`.

        Raises:
          UserError: there is no room, say; the commit before can still be gone back to.
        """
        last = self._history.commits[-1] if self._history.commits else None
        rewritten = self._take_log(source, last, commit) if last else set()
        for number, state in enumerate(commit.streams):
            there = _rows_of(last, state)

            def changed(
                block: Block, layout: Layout, there: Mapping[int, int] = there, number: int = number
            ) -> list[str]:
                if there.get(block.index, 0) < block.rows:
                    return list(layout.schema)
                return layout.latents if (number, block.index) in rewritten else []

            bring_stream(source, self._folder, state, changed, share=False)
        commits.save_commit(self._folder, commit)
        self._keep([*self._history.commits[-1:], commit])

    def release(self) -> None:
        """Free what only the commit before the last needs."""
        self._keep(self._history.commits[-1:])

    def go_back(self, cursor: Mapping[str, Any] | None) -> None:
        """Bring the copy back to the commit of a cursor, or to nothing.

        Raises:
          UserError: it does not have that commit, or is damaged.
        """
        commit = self._history.find(cursor) if cursor is not None else None
        held = Held(self._folder, self._capacity, OpenFiles())
        if commit is not None:
            held = self._held(commit)
            for stream in held.streams.values():
                if wrong := stream.load_rows(verify_all=False):
                    raise UserError(wrong[0])
            self._history.undo_since(commit, list(held.streams.values()))
        self._history.go_back(commit, held)
        self._history.close()

    def fetch(self, target: Path) -> None:
        """Put a copy of what is at home in place of whatever replay is at `target`."""
        with named(target, "copy the replay"):
            for path in target.iterdir():
                if path.is_dir():
                    shutil.rmtree(path)
            shutil.copytree(self._folder, target, dirs_exist_ok=True, ignore=_but_not_the_lock)

    def _take_log(self, source: Path, last: Commit, commit: Commit) -> set[tuple[int, int]]:
        """Copy the log that leads back to the last commit; -> (stream, block) of what is in it."""
        log = commits.undo_path(source, last.number)
        if not log.exists():
            return set()
        content = files.read_file(log).tobytes()
        put_file(commits.undo_path(self._folder, last.number), content, durable=True)
        lengths = [state["length"] for state in commit.streams]
        return {
            (old.stream, block)
            for old in read_log(log)
            for block in range(
                old.row // lengths[old.stream],
                (old.row + old.count - 1) // lengths[old.stream] + 1,
            )
        }

    def _keep(self, kept: list[Commit]) -> None:
        """Delete all other commits, and the blocks that only they need."""
        streams = list(self._held(kept[-1]).streams.values()) if kept else []
        self._history.keep(kept, streams)
        for stream in streams:
            stream.cut()

    def _held(self, commit: Commit) -> Held:
        """The streams of a commit as they lie at home."""
        held = Held(self._folder, self._capacity, OpenFiles())
        held.rows = commit.rows
        for state in commit.streams:
            stream = StreamId(state["phase"], state["task"])
            layout = commits.layout_of(self._folder, state)
            held.streams[stream] = Stream(stream, layout, (STEP,), OpenFiles())
            held.streams[stream].rows = state["rows"]
            held.streams[stream].blocks = commits.blocks_of(state)
        return held


def has_commit(folder: Path, cursor: Mapping[str, Any]) -> bool:
    """Whether a replay folder holds the very commit of a cursor."""
    if cursor["commit"] not in commits.commits_of(folder):
        return False
    return bool(commits.load_commit(folder, cursor["commit"])[1] == cursor["checksum"])


def _rows_of(commit: Commit | None, stream: Mapping[str, Any]) -> dict[int, int]:
    """Block of a stream -> its rows in a commit."""
    for state in commit.streams if commit else ():
        if (state["phase"], state["task"]) == (stream["phase"], stream["task"]):
            return {block["index"]: block["rows"] for block in state["blocks"]}
    return {}


def _but_not_the_lock(folder: str, names: list[str]) -> set[str]:
    del folder
    return {LOCK} & set(names)
