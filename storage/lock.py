"""One writer at a time: an advisory lock that dies with the process that held it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from continual.errors import UserError

LOCK = "LOCK"  # name of the file that is locked; holds the owner's process id, for people


def acquire_lock(folder: Path) -> int:
    """Lock a folder for this process; the returned descriptor is the lock.

    The kernel drops the lock when its owner ends, however it ends, so a file left behind by a
    killed process locks nothing.

    Raises:
      UserError: somebody else holds it, by process id.
    """
    path = folder / LOCK
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise UserError(
            f"{path}: locked by pid {owner}; a replay has one writer, expected none to be running"
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def release_lock(descriptor: int) -> None:
    """Give the lock back; the file stays, since another process may be about to lock it."""
    os.close(descriptor)
