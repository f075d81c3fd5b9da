"""All that the replay asks of a disk; whatever a disk can do wrong comes out here, in one line.

Files are written and read by system calls, which fail with an error where a map would end the
process.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from continual.errors import UserError
from continual.files import failed, named

# Where another machine's changes are seen late, or locks do not hold.
NETWORK = {"nfs", "nfs4", "cifs", "smb3", "lustre", "ceph", "glusterfs", "beegfs", "gpfs", "afs"}
NETWORK |= {"fuse.glusterfs", "fuse.sshfs", "fuse.s3fs", "fuse.gcsfuse"}


def create_file(path: Path, nbytes: int) -> int:
    """Make a file of zeros whose room is taken on the disk; -> descriptor to write to.

    Raises:
      UserError: there is no room, or the folder cannot be written; no file is left.
    """
    with named(path, f"take {nbytes:,} bytes"):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            # Without it a write to a full disk would fail rows later.
            os.posix_fallocate(descriptor, 0, nbytes)
        except BaseException:
            os.close(descriptor)
            path.unlink(missing_ok=True)
            raise
    return descriptor


def open_for_writing(path: Path) -> int:
    with named(path, "open for writing"):
        return os.open(path, os.O_WRONLY | os.O_CLOEXEC)


def open_for_reading(path: Path) -> int:
    with named(path, "open"):
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


@contextlib.contextmanager
def closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def write_at(path: Path, descriptor: int, values: np.ndarray, offset: int) -> None:
    """Write all of an array, in C order.

    Raises:
      UserError: it cannot be written; part of it may be.
    """
    try:
        whole = values if values.flags.c_contiguous else values.copy()
        done = os.pwrite(descriptor, whole.data, offset)
        if done < values.nbytes:
            rest = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
            while done < len(rest):
                done += os.pwrite(descriptor, rest[done:].data, offset + done)
    except OSError as error:
        raise failed(path, "write", error) from error


def write_all_at(path: Path, descriptor: int, parts: Sequence[memoryview], offset: int) -> None:
    """Write parts, 1024 at most, one after another; see `write_at`."""
    try:
        done = os.pwritev(descriptor, parts, offset)
    except OSError as error:
        raise failed(path, "write", error) from error
    if done < sum(len(part) for part in parts):
        rest = np.frombuffer(b"".join(parts)[done:], np.uint8)
        write_at(path, descriptor, rest, offset + done)


def read_at(path: Path, descriptor: int, into: memoryview, offset: int) -> None:
    """Fill `into` with the bytes of a file from `offset` on.

    Raises:
      UserError: the file ends before, or its disk cannot read it.
    """
    try:
        done = os.preadv(descriptor, (into,), offset)
        while done < len(into):
            more = os.preadv(descriptor, (into[done:],), offset + done)
            if not more:
                size, expected = os.fstat(descriptor).st_size, offset + len(into)
                raise UserError(f"{path} has {size} bytes, expected {expected} or more")
            done += more
    except OSError as error:
        raise failed(path, f"read bytes {offset} to {offset + len(into)}", error) from error


def append_or_nothing(path: Path, descriptor: int, size: int, content: bytes) -> int:
    """Append to a file of `size` bytes, all or, after a failure, nothing; -> its new size."""
    try:
        write_at(path, descriptor, np.frombuffer(content, np.uint8), size)
    except UserError:
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, size)
        raise
    return size + len(content)


def read_file(path: Path, nbytes: int | None = None) -> np.ndarray:
    """All bytes of a file [n] uint8.

    Raises:
      UserError: it is missing, cannot be read, or does not have the bytes that are expected.
    """
    with named(path, "read"), path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if nbytes is not None:
            expect_size(path, size, nbytes)
        values = np.empty(size, np.uint8)
        done = 0
        while done < size and (more := file.readinto(values[done:].data)):
            done += more
    expect_size(path, done, size)
    return values


def check_file(path: Path, nbytes: int) -> None:
    """Raises UserError: a file is missing or does not have the bytes that are expected."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise UserError(f"{path} is missing, expected {nbytes} bytes") from None
    expect_size(path, size, nbytes)


def is_shared(path: Path) -> bool:
    """Whether a file has another name as well."""
    with named(path, "look at"):
        return path.stat().st_nlink > 1


def sync_data(paths: Iterable[Path]) -> None:
    """Make durable what was written to files, or the names in folders.

    Raises:
      UserError: one of them failed.
    """
    _at_once(_sync_one, paths)


def _sync_one(path: Path) -> None:
    with named(path, "make durable"):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)


def delete_files(paths: Iterable[Path]) -> None:
    """Delete files, in any order; those that are missing are no error."""
    _at_once(delete_file, paths)


def _at_once(act: Callable[[Path], None], paths: Iterable[Path]) -> None:
    """Act on many paths at a time: a disk that writes a journal writes it once for many."""
    todo, hands = list(paths), 8

    def act_on(some: list[Path]) -> None:
        for path in some:
            act(path)

    with ThreadPoolExecutor(hands, "files") as pool:
        list(pool.map(act_on, (todo[first::hands] for first in range(min(hands, len(todo))))))


def delete_file(path: Path) -> None:
    with named(path, "delete"):
        path.unlink(missing_ok=True)


def refuse_network(folder: Path) -> None:
    """Raises UserError: the folder lies where writes and locks cannot be relied on."""
    kind = filesystem_of(folder)
    if kind in NETWORK:
        raise UserError(
            f"{folder}: lies on a network file system ({kind}), where a replay cannot be kept "
            "whole; expected a local disk, such as replay.scratch=/a/local/folder, from which "
            "checkpoints bring it here"
        )


def filesystem_of(folder: Path) -> str:
    """Type of the file system that a path lies on, such as `ext4`; empty where it is not told."""
    while not folder.exists():
        folder = folder.parent
    device = folder.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    for mount in mounts:
        fields = mount.split()
        if fields[2] == wanted:
            return fields[fields.index("-") + 1]
    return ""


def boot_id() -> str:
    """Names the time since the machine was started, so that a loss of power is noticed."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def sizes_below(folder: Path) -> Mapping[Path, int]:
    """Bytes on disk of every file below a folder; files that vanish meanwhile are left out."""
    found: dict[Path, int] = {}
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            if path.is_file():
                found[path] = status.st_blocks * 512
    return found


def expect_size(path: Path, size: int, nbytes: int) -> None:
    """Raises UserError: a file of `size` bytes is not whole."""
    if size != nbytes:
        raise UserError(f"{path} has {size} bytes, expected {nbytes}")
