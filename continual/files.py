"""What a run asks of a file system: whole files or none, durable ones, one writer, plain words."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from continual.errors import UserError

PARTIAL = ".partial"  # suffix of what is being written; zarr uses the same
LOCK = "LOCK"  # name of the file in a folder that its writer locks; says who that is


@contextlib.contextmanager
def named(path: Path, doing: str) -> Iterator[None]:
    """Turn an OSError into one line that names the file and, on a full disk, the room left."""
    try:
        yield
    except OSError as error:
        raise failed(path, doing, error) from error


def failed(path: Path, doing: str, error: OSError) -> UserError:
    """What a person is told of something that a disk did not do."""
    reason = error.strerror or str(error)
    if error.errno == errno.ENOSPC:
        reason += f", {_free_bytes(path):,} bytes free; make room, what was committed is safe"
    return UserError(f"{path}: cannot {doing}: {reason}")


def write_atomically(path: Path, text: str) -> None:
    """Put a text file in place for good: all of the text or what was there before."""
    put_file(path, text.encode(), durable=True)


def put_file(path: Path, content: bytes, *, durable: bool) -> None:
    """Put a small file in place, and, if durable, its name: all of it, or what was there before."""
    replace_file(path, content, durable=durable)
    if durable:
        with named(path, "make durable"):
            sync_path(path.parent)


def replace_file(path: Path, content: bytes | memoryview, *, durable: bool) -> None:
    """Write a file under another name and rename it, so that a reader or a kill sees no half.

    Args:
      durable: the content is on the disk before it has the name; the name itself is not, until
        somebody calls `sync_path` on the folder.
    Raises:
      UserError: such as a full disk; what was there before still is.
    """
    partial = path.with_name(path.name + PARTIAL)
    try:
        with named(path, "write"):
            with partial.open("wb") as file:
                file.write(content)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def sync_path(path: Path) -> None:
    """Make a file durable, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lock_folder(folder: Path, remedy: str) -> int:
    """Keep other processes out of a folder until the returned descriptor is closed.

    The kernel drops the lock when its owner ends, however it ends, so the file that a killed
    process leaves behind locks nothing. It is never deleted: another process may be about to lock.

    Args:
      remedy: what the person can do whose process is kept out.
    Raises:
      UserError: another process holds the folder; says which.
    """
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
        os.close(descriptor)
        raise UserError(f"{folder}: in use by {owner}; {remedy}") from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"process {os.getpid()} on {platform.node()}\n".encode(), 0)
    return descriptor


def _free_bytes(path: Path) -> int:
    try:
        status = os.statvfs(path.parent)
    except OSError:
        return 0
    return status.f_bavail * status.f_frsize
