"""Files kept open: pieces of many at once, errors of either thread, few descriptors."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest

from continual.errors import UserError
from storage import files
from storage.open_files import OpenFile, OpenFiles

NBYTES = 3 * 2**20


@pytest.fixture
def folder(tmp_path):
    """Five files of bytes that nobody can guess."""
    rng = np.random.default_rng(0)
    for name in "abcde":
        (tmp_path / name).write_bytes(rng.bytes(NBYTES))
    return tmp_path


def got(opened: OpenFiles, folder, name: str) -> OpenFile:
    return opened.get((0, name, 0), lambda key: OpenFile(folder / key[1], NBYTES))


def pieces_of(opened: OpenFiles, folder, into: np.ndarray):
    """Bytes k to 1 MiB + k of every file, in one row of `into` each."""
    return [
        (got(opened, folder, name), into[k].data, k) for k, name in enumerate("abcde"[: len(into)])
    ]


def test_large_and_small_pieces_arrive_whole(folder):
    opened = OpenFiles()
    for size in (0, 1, 100, 2**20):
        into = np.zeros((5, size), np.uint8)
        opened.read(pieces_of(opened, folder, into))
        for k, name in enumerate("abcde"):
            assert into[k].tobytes() == (folder / name).read_bytes()[k : k + size]


def test_a_read_that_comes_in_parts_is_finished(folder, monkeypatch):
    opened, whole = OpenFiles(), os.preadv
    monkeypatch.setattr(
        os, "preadv", lambda fd, parts, at: whole(fd, [part[:1000] for part in parts], at)
    )
    into = np.zeros((5, 2**16), np.uint8)
    opened.read(pieces_of(opened, folder, into))
    assert into[4].tobytes() == (folder / "e").read_bytes()[4 : 4 + 2**16]


@pytest.mark.parametrize("name", ["a", "e"])
def test_a_cut_file_is_an_error_whichever_thread_meets_it(folder, name):
    opened = OpenFiles()
    into = np.zeros((5, 2**20), np.uint8)
    pieces = pieces_of(opened, folder, into)
    os.truncate(folder / name, 1000)
    with pytest.raises(UserError, match=f"{name} has 1000 bytes, expected 10485[0-9]+ or more"):
        opened.read(pieces)
    opened.read(pieces_of(opened, folder, into[:, :500]))  # and the next read is none the worse


def test_no_thread_writes_to_a_batch_after_its_read_failed(folder, monkeypatch):
    """Its memory may be somebody else's by then."""
    opened, read_at = OpenFiles(), files.read_at
    main, slow, failing = threading.get_ident(), threading.Event(), threading.Event()

    def fails_in_one(path, descriptor, into, offset):
        if threading.get_ident() == main:
            failing.set()
            slow.wait(10)
            raise UserError("no")
        slow.set()
        failing.wait(10)  # or there might be nothing left to fail at
        read_at(path, descriptor, into, offset)

    monkeypatch.setattr("storage.open_files.read_at", fails_in_one)
    into = np.zeros((5, 2**20), np.uint8)
    with pytest.raises(UserError, match="no"):
        opened.read(pieces_of(opened, folder, into))
    into[:] = 0
    opened.clear()
    assert not into.any()


def test_a_file_stays_open_for_whoever_reads_it(folder):
    """Another thread's files may push it out of the few that are kept."""
    opened = OpenFiles(most=2)
    first = got(opened, folder, "a")
    for name in "bcde":
        got(opened, folder, name)
    os.fstat(first.descriptor)
    again = got(opened, folder, "a")
    assert again is not first
    descriptor = first.descriptor
    del first
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_a_file_of_another_size_is_not_opened(folder):
    with pytest.raises(UserError, match=f"a has {NBYTES} bytes, expected 7"):
        OpenFile(folder / "a", 7)
    with pytest.raises(UserError, match="none is missing, expected 7 bytes"):
        OpenFile(folder / "none", 7)
