"""What W&B's own process has put on the disk: its log of everything that a run was told.

A file begins with a header and goes on in blocks of 32 KiB; a record is one part, or several where
it crosses blocks (the layout of LevelDB's log, with CRC-32 over kind and content).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

HEADER = b":W&B" + struct.pack("<HB", 0xBEE1, 0)
_BLOCK = 32 * 1024
_PART = struct.Struct("<IHB")  # checksum, size, kind
_WHOLE, _FIRST, _LAST = 1, 2, 4


def log_records(path: Path) -> Iterator[bytes]:
    """Every record that is whole, as it was written: a `Record` in protobuf.

    A file may end in the midst of one, as when W&B's process is killed.

    Raises:
      ValueError: another header, or a checksum that is wrong.
    """
    data = path.read_bytes()
    if data[: len(HEADER)] != HEADER:
        raise ValueError(f"{path}: begins with {data[: len(HEADER)]!r}, expected {HEADER!r}")
    at, parts = len(HEADER), b""
    while at + _PART.size <= len(data):
        left = _BLOCK - at % _BLOCK
        if left < _PART.size:
            at += left
            continue
        checksum, size, kind = _PART.unpack_from(data, at)
        start, stop = at + _PART.size, at + _PART.size + size
        if stop > len(data):
            return
        if checksum != zlib.crc32(data[start - 1 : stop]):
            raise ValueError(f"{path}: damaged at byte {at}")
        parts = data[start:stop] if kind in (_WHOLE, _FIRST) else parts + data[start:stop]
        at = stop
        if kind in (_WHOLE, _LAST):
            yield parts
