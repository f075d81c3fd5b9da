"""All that the replay asks of a disk; whatever a disk can do wrong comes out here, in one line.

Files are written by system calls, which fail with an error, and read through maps, whose pages are
asked for first: a page that a disk cannot give, or that a cut file no longer has, would otherwise
end the process with SIGBUS.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import resource
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from continual.errors import UserError
from continual.files import replace_file, sync_path

# What maps of another machine's changes do not see, or locks do not hold on.
NETWORK = {"nfs", "nfs4", "cifs", "smb3", "lustre", "ceph", "glusterfs", "beegfs", "gpfs", "afs"}
NETWORK |= {"fuse.glusterfs", "fuse.sshfs", "fuse.s3fs", "fuse.gcsfuse"}
Key = tuple[int, str, int]  # of a map: owner, name, block
_POPULATE_READ = 22  # MADV_POPULATE_READ: maps pages, or says EFAULT where touching them would kill
_NO_RESERVE = 0x4000  # MAP_NORESERVE: address space that is not counted as memory
_PAGE = mmap.PAGESIZE
_PIECE = 64 * _PAGE  # of a map that is asked for at once


@contextlib.contextmanager
def named(path: Path, doing: str) -> Iterator[None]:
    """Turn an OSError into one line that names the file and, on a full disk, the room left."""
    try:
        yield
    except OSError as error:
        raise _failed(path, doing, error) from error


def create_file(path: Path, nbytes: int) -> int:
    """Make a file of zeros whose room is taken on the disk; -> descriptor to write to.

    Raises:
      UserError: there is no room, or the folder cannot be written; no file is left.
    """
    with named(path, f"take {nbytes:,} bytes"):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            # Without it a write to a full disk would fail rows later, and in a map by a signal.
            os.posix_fallocate(descriptor, 0, nbytes)
        except BaseException:
            os.close(descriptor)
            path.unlink(missing_ok=True)
            raise
    return descriptor


def open_for_writing(path: Path) -> int:
    with named(path, "open for writing"):
        return os.open(path, os.O_WRONLY | os.O_CLOEXEC)


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
        raise _failed(path, "write", error) from error


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
            _expect(path, size, nbytes)
        values = np.empty(size, np.uint8)
        done = 0
        while done < size and (more := file.readinto(values[done:].data)):
            done += more
    _expect(path, done, size)
    return values


def check_file(path: Path, nbytes: int) -> None:
    """Raises UserError: a file is missing or does not have the bytes that are expected."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise UserError(f"{path} is missing, expected {nbytes} bytes") from None
    _expect(path, size, nbytes)


def put_file(path: Path, content: bytes, *, durable: bool) -> None:
    """Put a small file in place: all of it, or what was there before."""
    with named(path, "write"):
        replace_file(path, content, durable=durable)
        if durable:
            sync_path(path.parent)


def sync_data(paths: Iterable[Path]) -> None:
    """Make durable what was written to files, or the names in folders.

    Many at once, so that a disk that writes a journal writes it once for many.

    Raises:
      UserError: one of them failed.
    """
    with ThreadPoolExecutor(8, "sync") as pool:
        list(pool.map(_sync_one, paths))


def _sync_one(path: Path) -> None:
    with named(path, "make durable"):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)


def delete_file(path: Path) -> None:
    with named(path, "delete"):
        path.unlink(missing_ok=True)


def refuse_network(folder: Path) -> None:
    """Raises UserError: the folder lies where maps and locks cannot be relied on."""
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


class Memory:
    """Zeros that take up room only where they were written, until they are given back.

    Attributes:
      values: all of it, to be written and read.
    """

    def __init__(self, shape: tuple[int, ...], dtype: str) -> None:
        count = int(np.prod(shape))
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
      values: all of it, read-only, in its shape; `ask` before every use.
    """

    def __init__(self, path: Path, dtype: str, shape: tuple[int, ...]) -> None:
        expected = int(np.prod(shape)) * np.dtype(dtype).itemsize
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

    def ask(self, start: int, nbytes: int, epoch: int) -> None:
        """Have bytes in memory before they are touched.

        Args:
          epoch: what was in memory in the same epoch still is.
        Raises:
          UserError: the file was cut, or its disk cannot read it.
        """
        if self._map.size() != len(self._map):
            _expect(self._path, self._map.size(), len(self._map))
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
        """The map of a file; made where there is none."""
        with self._lock:
            found = self._maps.get(key)
            if found is None:
                found = self._maps[key] = make(key)
                if len(self._maps) > self._most:
                    self._maps.popitem(last=False)
            else:
                self._maps.move_to_end(key)
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
        nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        for whole in self._whole:
            # Held by the list, this loop and the call alone; a view would hold it as its base.
            if len(whole) >= nbytes + _PAGE and sys.getrefcount(whole) == 3:
                break
        else:
            whole = np.empty(nbytes + _PAGE, np.uint8)
            self._whole = [whole, *self._whole[: self._most - 1]]
        first = -whole.ctypes.data % _PAGE
        return whole[first : first + nbytes].view(dtype).reshape(shape)


def sizes_below(folder: Path) -> Mapping[Path, int]:
    """Bytes on disk of every file below a folder; files that vanish meanwhile are left out."""
    found: dict[Path, int] = {}
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            if path.is_file():
                found[path] = status.st_blocks * 512
    return found


def _failed(path: Path, doing: str, error: OSError) -> UserError:
    reason = error.strerror or str(error)
    if error.errno == errno.ENOSPC:
        reason += f", {_free_bytes(path):,} bytes free; make room, what was committed is safe"
    return UserError(f"{path}: cannot {doing}: {reason}")


def _expect(path: Path, size: int, nbytes: int) -> None:
    if size != nbytes:
        raise UserError(f"{path} has {size} bytes, expected {nbytes}")


def _free_bytes(path: Path) -> int:
    try:
        status = os.statvfs(path.parent)
    except OSError:
        return 0
    return status.f_bavail * status.f_frsize
