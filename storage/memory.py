"""Memory that is more than an array: address space, and buffers that are used again."""

from __future__ import annotations

import math
import mmap
import sys

import numpy as np

_NO_RESERVE = 0x4000  # MAP_NORESERVE: address space that is not counted as memory
_PAGE = mmap.PAGESIZE


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
