"""Files kept open to be read: pieces of many of them at once, straight to where they are wanted.

A read that goes wrong is an error, where a map of a file that was cut ends the process by SIGBUS.
The system copies a tenth slower than a processor does from a map, and more than makes up for it
with two hands at it.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from storage.files import check_file, open_for_reading, read_at

Key = tuple[int, str, int]  # of a file: owner, name, block

_WORTH_A_HAND = 2**21  # bytes; handing over less takes as long as reading it


class OpenFile:
    """A file that stays open for as long as somebody holds this.

    Attributes:
      path, descriptor: of the file.
    """

    def __init__(self, path: Path, nbytes: int) -> None:
        """Raises UserError: the file is missing, cannot be read, or has another size."""
        check_file(path, nbytes)
        self.path, self.descriptor = path, open_for_reading(path)

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError, OSError):
            os.close(self.descriptor)


Piece = tuple[OpenFile, memoryview, int]  # what to read from, into which bytes, from which byte on


class OpenFiles:
    """The files used last. Each costs a descriptor, of which a process has few."""

    def __init__(self, most: int = 512) -> None:
        self._most = most
        self._files: OrderedDict[Key, OpenFile] = OrderedDict()
        self._lock = threading.Lock()  # a prefetch reads while the life goes on
        self._hand: ThreadPoolExecutor | None = None

    def get(self, key: Key, make: Callable[[Key], OpenFile]) -> OpenFile:
        """An open file; made where it is not. Raises UserError: what `make` does."""
        with self._lock:
            found = self._files.get(key)
            if found is None:
                found = self._files[key] = make(key)
                if len(self._files) > self._most:
                    self._files.popitem(last=False)
            else:
                self._files.move_to_end(key)
        return found

    def read(self, pieces: list[Piece]) -> None:
        """Read all pieces, and use up the list.

        Raises:
          UserError: a file was cut, or its disk cannot read it.
        """
        helper: Future[None] | None = None
        if sum([len(into) for _, into, _ in pieces]) >= _WORTH_A_HAND:
            with self._lock:
                self._hand = self._hand or ThreadPoolExecutor(1, "read")
            helper = self._hand.submit(_read_off, pieces)
        try:
            _read_off(pieces)
        finally:
            pieces.clear()
            # One that has not begun, because it reads for another thread, has nothing to do here.
            if helper is not None and not helper.cancel():
                helper.result()

    def forget(self, key: Key) -> None:
        with self._lock:
            self._files.pop(key, None)

    def clear(self) -> None:
        with self._lock:
            self._files.clear()
        if self._hand is not None:
            self._hand.shutdown()
            self._hand = None


def _read_off(pieces: list[Piece]) -> None:
    """Read pieces for as long as there are any; several threads may be at one list."""
    while pieces:
        try:
            file, into, offset = pieces.pop()
        except IndexError:  # another thread took the last one
            return
        read_at(file.path, file.descriptor, into, offset)
