"""The states of a replay that can be gone back to: the last commit, and the one before it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from continual.errors import UserError
from continual.files import PARTIAL, named
from storage import commits, files
from storage.commits import Commit
from storage.held import Held
from storage.stream import Stream
from storage.undo import Old, UndoLog, read_log

CURSOR = 2  # version of what `History.commit` returns


class History:
    """Commits of one replay folder and the log of what was rewritten since the last.

    Attributes:
      commits: that can be gone back to, oldest first; two at most.
    """

    def __init__(self, folder: Path) -> None:
        self.commits: list[Commit] = []
        self._folder = folder
        self._undo: UndoLog | None = None

    def log(self, old: Sequence[Old]) -> None:
        """Keep what is about to be rewritten. Raises UserError: it cannot be kept."""
        assert self._undo is not None, "nothing is rewritten before the first commit"
        self._undo.append(old)

    def commit(self, held: Held, **state: Any) -> dict[str, Any]:
        """Make durable what is held; -> a cursor for `go_back`.

        Args:
          state: fields of the commit that are not read off `held`.
        Raises:
          UserError: the earlier commit stands.
        """
        streams = list(held.streams.values())
        for stream in streams:
            stream.flush()
        with ThreadPoolExecutor(1, "sync") as pool:
            syncing = pool.submit(self._sync, streams)
            for stream in streams:
                stream.sum_up()
            syncing.result()
        # Not before: readers shall not be told of rows that a loss of power takes back.
        for stream in streams:
            stream.publish(held.oldest())
        commit = Commit(
            number=1 + (self.commits[-1].number if self.commits else 0),
            rows=held.rows,
            oldest=held.oldest(),
            boot=files.boot_id(),
            streams=tuple(commits.stream_state(stream, held.oldest()) for stream in streams),
            **state,
        )
        checksum = commits.save_commit(self._folder, commit)
        self._begin_log(commit.number)
        self.keep([*self.commits[-1:], commit], streams)
        return {
            "version": CURSOR,
            "commit": commit.number,
            "rows": commit.rows,
            "checksum": checksum,
        }

    def release(self, held: Held) -> None:
        """Free what only the commit before the last one needs."""
        self.keep(self.commits[-1:], list(held.streams.values()))

    def keep(self, kept: list[Commit], streams: Sequence[Stream]) -> None:
        """Delete all other commits, and the blocks that only they need."""
        self.commits = kept
        for number in reversed(self._numbers()):
            if number not in [commit.number for commit in kept]:
                commits.delete_commit(self._folder, number)
        for stream in streams:
            stream.needed = self._needed(stream)
            stream.delete_retired()

    def find(self, cursor: Mapping[str, Any]) -> Commit:
        """The commit of a cursor. Raises UserError: it is missing, damaged, or of another life."""
        if cursor.get("version") != CURSOR:
            raise UserError(
                f"{self._folder}: cursor of version {cursor.get('version')}, expected {CURSOR}"
            )
        commit, checksum = commits.load_commit(self._folder, int(cursor["commit"]))
        if checksum != cursor["checksum"]:
            path = commits.record_path(self._folder, commit.number)
            raise UserError(f"{path} is of another life, expected rows {cursor['rows']}")
        return commit

    def undo_since(self, commit: Commit, streams: Sequence[Stream]) -> bool:
        """Put back the latents of a commit, in the files; -> whether any had been rewritten.

        Changes nothing that a later call would not change again, so it may be cut short.
        """
        found = False
        for number in reversed(commits.undo_logs_of(self._folder)):
            if number >= commit.number:
                for old in read_log(commits.undo_path(self._folder, number)):
                    found = True
                    if old.stream < len(streams):
                        streams[old.stream].restore(old)
        for stream in streams:
            stream.sync()
        return found

    def go_back(self, commit: Commit | None, held: Held) -> None:
        """Drop from the disk whatever is later than a commit, or everything.

        The latents must be those of the commit. Cut short anywhere, the same is done again by the
        next call: records and logs go from the newest to the oldest.
        """
        self.close()
        last = commit.number if commit else 0
        before = [n for n in commits.commits_of(self._folder) if n < last]
        kept = [commits.load_commit(self._folder, n)[0] for n in before[-1:]]
        self.commits = [*kept, commit] if commit else []
        self._drop_other_streams({stream.name for stream in held.streams})
        for stream in held.streams.values():
            stream.needed = self._needed(stream)
            stream.cut()
            stream.publish(held.oldest())
            stream.sync()
        for number in reversed(self._numbers()):
            if number > last:
                commits.delete_commit(self._folder, number)
        files.delete_file(commits.undo_path(self._folder, last))
        if commit:
            self._begin_log(last)
        self.keep(self.commits, list(held.streams.values()))

    def close(self) -> None:
        if self._undo is not None:
            self._undo.close()
            self._undo = None

    def _sync(self, streams: Sequence[Stream]) -> None:
        for stream in streams:
            stream.sync()
        if self._undo is not None:
            self._undo.sync()

    def _begin_log(self, number: int) -> None:
        self.close()
        self._undo = UndoLog(commits.undo_path(self._folder, number))

    def _needed(self, stream: Stream) -> set[int]:
        return {i for commit in self.commits for i in commit.blocks_of(stream.id.name)}

    def _numbers(self) -> list[int]:
        """Of all commits and undo logs, oldest first."""
        there = commits.commits_of(self._folder), commits.undo_logs_of(self._folder)
        return sorted(set().union(*there))

    def _drop_other_streams(self, names: set[str]) -> None:
        """Delete the groups of all streams but those named, and all files that are half written."""
        for path in sorted(self._folder.glob("phase_*")):
            if path.name not in names:
                with named(path, "delete"):
                    shutil.rmtree(path)
        for path in self._folder.rglob(f"*{PARTIAL}"):
            files.delete_file(path)
