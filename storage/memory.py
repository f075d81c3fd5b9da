"""Memory that is more than an array: files read in place, address space, buffers used again.

The pages of a map are asked for before they are touched: one that a disk cannot give, or that a cut
file no longer has, would otherwise end the process with SIGBUS.
"""

from __future__ import annotations

import errno
import math
import mmap
import os
import resource
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np

from continual.errors import UserError
from storage.files import check_file, expect_size, named

Key = tuple[int, str, int]  # of a map: owner, name, block
_POPULATE_READ = 22  # MADV_POPULATE_READ: maps pages, or says EFAULT where touching them would kill
_NO_RESERVE = 0x4000  # MAP_NORESERVE: address space that is not counted as memory
_PAGE = mmap.PAGESIZE
_PIECE = 64 * _PAGE  # of a map that is asked for at once


class Memory:
    """Zeros that take up room only where they were written, until they are given back.

    Attributes:
      values: all of it, to be written and read.
    """

    def __init__(self, shape: tuple[int, ...], dtype: str) -> None:
        count = math.prod(shape)
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE
        self._map = mmap.mmap(-1, count * np.dtype(dtype).itemsize, flags=flags)
        self.values: np.ndarray = np.frombuffer(self._map, dtype, count).reshape(shape)

    def give_back(self, part: np.ndarray) -> None:
        """Free the whole pages of a contiguous part of the values; they read as zeros again."""
        start = part.ctypes.data - self.values.ctypes.data
        first, last = -(-start // _PAGE) * _PAGE, (start + part.nbytes) // _PAGE * _PAGE
        if last > first:
            self._map.madvise(mmap.MADV_DONTNEED, first, last - first)


class MappedFile:
    """A file that is read in place.

    Attributes:
      values: all of it, read-only, in its shape; `look` and `ask` before every use.
    """

    def __init__(self, path: Path, dtype: str, shape: tuple[int, ...]) -> None:
        expected = math.prod(shape) * np.dtype(dtype).itemsize
        check_file(path, expected)
        with named(path, "read"):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                self._map = mmap.mmap(descriptor, expected, prot=mmap.PROT_READ)
            finally:
                os.close(descriptor)
        self._path = path
        self.values: np.ndarray = np.frombuffer(self._map, dtype).reshape(shape)
        self._asked, self._epoch = bytearray(), -1

    def look(self) -> None:
        """Raises UserError: the file was cut."""
        if self._map.size() != len(self._map):
            expect_size(self._path, self._map.size(), len(self._map))

    def ask(self, start: int, nbytes: int, epoch: int) -> None:
        """Have bytes in memory before they are touched.

        Args:
          epoch: what was in memory in the same epoch still is.
        Raises:
          UserError: the file was cut, or its disk cannot read it.
        """
        if epoch != self._epoch:
            self._asked, self._epoch = bytearray(-(-len(self._map) // _PIECE)), epoch
        first, last = start // _PIECE, -(-(start + nbytes) // _PIECE)
        if self._asked.find(0, first, last) < 0:
            return
        stop = min(last * _PIECE, len(self._map))
        try:
            self._map.madvise(_POPULATE_READ, first * _PIECE, stop - first * _PIECE)
        except OSError as error:
            if error.errno != errno.EINVAL:  # which a kernel before 5.14 says
                raise UserError(
                    f"{self._path}: cannot read bytes {start} to {start + nbytes}: "
                    f"{error.strerror}; its disk fails, or the file was cut"
                ) from error
        self._asked[first:last] = b"\1" * (last - first)


class MappedFiles:
    """The maps used last. Each costs a descriptor, of which a process has few.

    Attributes:
      epoch: counts the times that this process found pages gone from memory.
    """

    def __init__(self, most: int = 512) -> None:
        self.epoch = 0
        self._faults = 0
        self._most = most
        self._maps: OrderedDict[Key, MappedFile] = OrderedDict()
        self._lock = threading.Lock()  # a prefetch reads while the life goes on

    def look(self) -> None:
        """Begin an epoch if the system took pages back since the last look, to be asked for anew.

        While everything fits into memory, nobody waits for a disk and nothing is asked for twice.
        """
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_majflt
        if faults != self._faults:
            self._faults = faults
            self.epoch += 1

    def get(self, key: Key, make: Callable[[Key], MappedFile]) -> MappedFile:
        """The map of a file; made where there is none.

        Raises:
          UserError: the file is not whole, or its disk cannot read it.
        """
        with self._lock:
            found = self._maps.get(key)
            if found is None:
                found = self._maps[key] = make(key)
                if len(self._maps) > self._most:
                    self._maps.popitem(last=False)
            else:
                self._maps.move_to_end(key)
        found.look()
        return found

    def forget(self, key: Key) -> None:
        with self._lock:
            self._maps.pop(key, None)

    def clear(self) -> None:
        with self._lock:
            self._maps.clear()


class Buffers:
    """Large arrays that are used again once nobody holds them: fresh pages cost as much as a copy.

    They begin with a page, as what is copied into them does: otherwise copies take up to seven
    times as long. Whoever got an array may keep it or any view of it for as long as they like.
    """

    def __init__(self, most: int = 4) -> None:
        self._most = most
        self._whole: list[np.ndarray] = []

    def take(self, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        """An array with anything in it."""
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        for whole in self._whole:
            # Held by the list, this loop and the call alone; a view would hold it as its base.
            if len(whole) >= nbytes + _PAGE and sys.getrefcount(whole) == 3:
                break
        else:
            whole = np.empty(nbytes + _PAGE, np.uint8)
            self._whole = [whole, *self._whole[: self._most - 1]]
        first = -whole.ctypes.data % _PAGE
        return whole[first : first + nbytes].view(dtype).reshape(shape)
