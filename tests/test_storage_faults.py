"""What a disk, a kill or a person can do to a replay, and what is said of it."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import zarr

from continual.errors import UserError
from storage import FRAMES
from storage.files import filesystem_of
from tests.storage_cases import (
    CRAFTER,
    CRAFTER_SCHEMA,
    LATENTS,
    UNION,
    WALKER,
    WALKER_SCHEMA,
    content,
    fill,
    open_at,
    rows_at,
    seen_steps,
    steps_of,
)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "replay"


def failing(number: int, after: int = 0):
    """A system call that fails with an error number once it was called `after` times."""
    calls = iter(range(after))

    def call(original):
        def failing_call(*arguments):
            if next(calls, None) is None:
                raise OSError(number, os.strerror(number))
            return original(*arguments)

        return failing_call

    return call


def break_call(patch, name: str, number: int, after: int = 0) -> None:
    patch.setattr(f"storage.files.os.{name}", failing(number, after)(getattr(os, name)))


def latents_of(batch, value):
    """New latents for the rows of a batch."""
    shape = batch.columns["reward"].shape
    return {name: np.full((*shape, *c.shape), value, c.dtype) for name, c in LATENTS.items()}


def as_read_by_stock_readers(folder, rows, worlds=1):
    """Compare every published row with what was appended."""
    group = zarr.open_group(folder / WALKER.name, mode="r")
    steps = np.arange(rows * worlds).reshape(rows, worlds).T
    for name, column in WALKER_SCHEMA.items():
        expected = content(column, steps.ravel()).reshape(worlds, rows, *column.shape)
        np.testing.assert_array_equal(group[name][:], expected)


# Kills. A kill between two system calls leaves what they left, so one is tried after every call.


class Killed(BaseException):
    """Stands for the end of the process: nothing below catches it."""


def kill_at(patch, chosen: int) -> None:
    """Let the process end before its `chosen`-th call that changes the disk."""
    count = iter(range(chosen))

    def mortal(original):
        def call(*arguments, **options):
            if next(count, None) is None:
                raise Killed
            return original(*arguments, **options)

        return call

    for name in ("pwrite", "pwritev", "posix_fallocate", "fdatasync", "fsync"):
        patch.setattr(f"os.{name}", mortal(getattr(os, name)))
    for name in ("unlink", "replace"):
        patch.setattr(f"pathlib.Path.{name}", mortal(getattr(Path, name)))


def live_a_little(replay, store):
    """Append, evict, write back and commit twice; `store(cursor)` once a cursor is there."""
    fill(replay, WALKER, WALKER_SCHEMA, 60)
    batch = replay.sample(np.random.default_rng(1), 8, 6, UNION)
    replay.write_latents(batch.where, latents_of(batch, 5))
    fill(replay, CRAFTER, CRAFTER_SCHEMA, 3)
    store(replay.commit())
    fill(replay, WALKER, WALKER_SCHEMA, 90)
    batch = replay.sample(np.random.default_rng(2), 8, 6, UNION)
    replay.write_latents(batch.where, latents_of(batch, 6))
    store(replay.commit())


def contents(replay):
    """All that can be sampled, latents included, by the number of the row."""
    found = {}
    for seed in range(5):
        batch = replay.sample(np.random.default_rng(seed), 60, 1, UNION)
        for b, step in enumerate(steps_of(batch)[:, 0].tolist()):
            found[step] = [values[b].tolist() for values in batch.context.values()]
            found[step] += [values[b].tolist() for values in batch.columns.values()]
    return found


@pytest.mark.parametrize("small", [0, 1024])
def test_a_kill_before_a_change_of_the_disk_leads_back_to_the_stored_cursor(
    folder, monkeypatch, small
):
    kill_everywhere(folder, monkeypatch, small, step=31)


@pytest.mark.slow
@pytest.mark.parametrize("small", [0, 1024])
def test_a_kill_before_every_change_of_the_disk_leads_back_to_the_stored_cursor(
    folder, monkeypatch, small
):
    kill_everywhere(folder, monkeypatch, small, step=1)


def kill_everywhere(folder, monkeypatch, small, step):
    """Cut one life short before every `step`-th change, and see what is there each time.

    Args:
      small: bytes up to which a column is kept in memory as well.
    """
    monkeypatch.setattr("storage.mirror.SMALL", small)
    before = folder.with_name("before")
    replay = open_at(before, capacity=150)
    fill(replay, WALKER, WALKER_SCHEMA, 140)
    batch = replay.sample(np.random.default_rng(0), 8, 6, UNION)
    replay.write_latents(batch.where, latents_of(batch, 4))
    begin = json.dumps(replay.commit()), contents(replay)
    replay.close()
    for kills in range(10_000):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(before, folder)
        replay = open_at(folder, capacity=150)
        replay.rewind(json.loads(begin[0]))
        stored = [begin]

        def store(cursor):
            stored.append((json.dumps(cursor), contents(replay)))  # noqa: B023
            replay.release()  # noqa: B023

        with monkeypatch.context() as patch:
            kill_at(patch, kills * step)
            try:
                live_a_little(replay, store)
                break
            except Killed:
                replay.close()
        for name in {WALKER.name, CRAFTER.name} & {p.name for p in folder.iterdir()}:
            if (folder / name / "zarr.json").exists():
                group = zarr.open_group(folder / name, mode="r")
                steps, rewards = group["step"][0], group["reward"][0]
                at = steps >= 0
                np.testing.assert_array_equal(rewards[at], content(UNION["reward"], steps[at]))
        replay = open_at(folder, capacity=150)
        replay.rewind(json.loads(stored[-1][0]))
        assert contents(replay) == stored[-1][1]
        replay.close()
    assert kills > 150 / step  # or the life did next to nothing
    assert len(stored) == 3
    replay.close()


# Disks


def test_a_disk_that_is_full_when_a_block_begins_stops_the_life_in_one_line(folder, monkeypatch):
    replay = open_at(folder)
    fill(replay, WALKER, WALKER_SCHEMA, 100)
    cursor = replay.commit()
    with monkeypatch.context() as patch:
        break_call(patch, "posix_fallocate", errno.ENOSPC, after=4)
        with pytest.raises(UserError, match=r"cannot take .* bytes: No space left .* bytes free"):
            fill(replay, WALKER, WALKER_SCHEMA, 200)
    assert {p.name for p in folder.rglob("c.0.*")} == {"c.0.0", "c.0.0.0"}
    replay.close()
    as_read_by_stock_readers(folder, 100)
    replay = open_at(folder)
    replay.rewind(cursor)
    fill(replay, WALKER, WALKER_SCHEMA, 200)  # room was made
    assert seen_steps(replay) == set(range(300))
    replay.close()


def test_a_disk_that_is_really_full_loses_nothing_and_goes_on_once_there_is_room(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        (disk / "ballast").write_bytes(bytes(2**20))
        replay = open_at(disk / "replay", capacity=100_000)
        fill(replay, WALKER, WALKER_SCHEMA, 1000)
        cursor = replay.commit()
        fill(replay, CRAFTER, CRAFTER_SCHEMA, 0)
        with pytest.raises(
            UserError, match=r"cannot take [\d,]+ bytes: No space left .* bytes free"
        ):
            fill(replay, CRAFTER, CRAFTER_SCHEMA, 1000)
        replay.close()
        as_read_by_stock_readers(disk / "replay", 1000)
        (disk / "ballast").unlink()
        replay = open_at(disk / "replay", capacity=100_000)
        replay.rewind(cursor)
        fill(replay, WALKER, WALKER_SCHEMA, 1000)
        replay.commit()
        replay.close()
        as_read_by_stock_readers(disk / "replay", 2000)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize(
    ("call", "later", "number", "said"),
    [
        ("fdatasync", 3, errno.EIO, "cannot make durable: Input/output error"),
        ("pwrite", 3, errno.EIO, "cannot write: Input/output error"),
        (
            "pwrite",
            3,
            errno.ENOSPC,
            r"cannot write: No space left on device, [\d,]+ bytes free; make",
        ),
        # Of the file the first, of the name in its folder the second.
        (
            "fsync",
            1,
            errno.ENOSPC,
            {True: "cannot write: No space left", False: "cannot make durable: No space left"},
        ),
    ],
)
@pytest.mark.parametrize("is_first", [True, False])
def test_a_commit_that_fails_leaves_the_one_before(
    folder, monkeypatch, call, later, number, said, is_first
):
    replay = open_at(folder)
    fill(replay, WALKER, WALKER_SCHEMA, 100)
    cursor = replay.commit()
    expected = contents(replay)
    fill(replay, WALKER, WALKER_SCHEMA, 20)
    batch = replay.sample(np.random.default_rng(0), 8, 6, UNION)
    replay.write_latents(batch.where, latents_of(batch, 4))
    with monkeypatch.context() as patch:
        after = 0 if is_first else later
        patch.setattr(f"os.{call}", failing(number, after)(getattr(os, call)))
        expected_words = said[is_first] if isinstance(said, dict) else said
        with pytest.raises(UserError, match=expected_words) as caught:
            replay.commit()
    assert "\n" not in str(caught.value)
    replay.close()
    replay = open_at(folder)
    replay.rewind(cursor)
    assert contents(replay) == expected
    replay.close()


def test_a_commit_that_failed_can_be_tried_again(folder, monkeypatch):
    replay = open_at(folder)
    fill(replay, WALKER, WALKER_SCHEMA, 100)
    with monkeypatch.context() as patch:
        break_call(patch, "fdatasync", errno.ENOSPC)
        with pytest.raises(UserError, match="No space left"):
            replay.commit()
    replay.rewind(replay.commit())
    assert seen_steps(replay) == set(range(100))
    replay.close()


def test_rows_that_cannot_be_written_to_their_file_wait_until_they_can(folder, monkeypatch):
    replay = open_at(folder)
    fill(replay, CRAFTER, CRAFTER_SCHEMA, 30)
    with monkeypatch.context() as patch:
        break_call(patch, "pwritev", errno.EIO)
        with pytest.raises(UserError, match=r"obs.image.*: cannot write: Input/output error"):
            replay.sample(np.random.default_rng(0), 4, 8, UNION)
    fill(replay, CRAFTER, CRAFTER_SCHEMA, 10)
    batch = replay.sample(np.random.default_rng(0), 50, 8, UNION)
    steps = steps_of(batch)
    assert steps.max() == 39
    np.testing.assert_array_equal(
        batch.frames[:50],
        content(CRAFTER_SCHEMA[FRAMES], steps.ravel()).reshape(batch.frames.shape),
    )
    replay.close()


def test_a_write_that_the_system_cuts_short_is_ended(folder, monkeypatch):
    pwritev = os.pwritev
    monkeypatch.setattr(os, "pwritev", lambda fd, parts, at: pwritev(fd, parts[:2], at))
    replay = open_at(folder)
    fill(replay, CRAFTER, CRAFTER_SCHEMA, 30)
    batch = replay.sample(np.random.default_rng(0), 50, 8, UNION)
    expected = content(CRAFTER_SCHEMA[FRAMES], steps_of(batch).ravel())
    np.testing.assert_array_equal(batch.frames, expected.reshape(batch.frames.shape))
    replay.close()


def test_what_fails_in_the_background_is_said_by_the_next_commit(folder, monkeypatch):
    replay = open_at(folder)
    with monkeypatch.context() as patch:
        break_call(patch, "fdatasync", errno.EIO)
        fill(replay, CRAFTER, CRAFTER_SCHEMA, 130)  # a block is full
        replay._held.streams[CRAFTER]._background._pool.shutdown()
    with pytest.raises(UserError, match="cannot make durable: Input/output error"):
        replay.commit()
    replay.rewind(replay.commit())
    assert seen_steps(replay) == set(range(130))
    replay.close()


def test_latents_are_not_touched_when_the_log_cannot_be_written(folder, monkeypatch):
    replay = open_at(folder)
    fill(replay, WALKER, WALKER_SCHEMA, 100)
    replay.commit()
    expected = contents(replay)
    batch = replay.sample(np.random.default_rng(0), 8, 6, UNION)
    with monkeypatch.context() as patch:
        break_call(patch, "pwrite", errno.ENOSPC)
        with pytest.raises(UserError, match=r"undo: cannot write: No space left"):
            replay.write_latents(batch.where, latents_of(batch, 4))
    assert contents(replay) == expected
    replay.close()


def test_a_file_that_is_cut_while_it_is_sampled_is_an_error_and_no_signal(folder):
    replay = open_at(folder)
    fill(replay, CRAFTER, CRAFTER_SCHEMA, 60)
    replay.sample(np.random.default_rng(0), 8, 40, UNION)
    os.truncate(folder / CRAFTER.name / FRAMES / "c.0.0.0.0.0", 4096)
    with pytest.raises(UserError, match=r"c.0.0.0.0.0 has 4096 bytes, expected \d+ or more"):
        replay.sample(np.random.default_rng(0), 8, 40, UNION)
    replay.close()


def test_a_page_that_cannot_be_read_is_an_error_and_no_signal(folder, monkeypatch):
    replay = open_at(folder)
    fill(replay, CRAFTER, CRAFTER_SCHEMA, 60)
    expected = replay.sample(np.random.default_rng(0), 8, 40, UNION)
    with monkeypatch.context() as patch:
        break_call(patch, "preadv", errno.EIO)
        with pytest.raises(UserError, match=r"cannot read bytes \d+ to \d+: Input/output error"):
            replay.sample(np.random.default_rng(0), 8, 40, UNION)
    again = replay.sample(np.random.default_rng(0), 8, 40, UNION)
    np.testing.assert_array_equal(again.frames, expected.frames)
    replay.close()


def test_a_zeroed_page_of_a_column_in_memory_is_found_at_the_next_start(folder):
    replay = open_at(folder)
    fill(replay, WALKER, WALKER_SCHEMA, 300)
    cursor = replay.commit()
    replay.close()
    path = folder / WALKER.name / "obs.dmc.walker.speed" / "c.0.1.0"
    path.write_bytes(bytes(path.stat().st_size))
    replay = open_at(folder)
    with pytest.raises(UserError, match=r"'obs.dmc.walker.speed', block 1 .*is damaged"):
        replay.rewind(cursor)
    replay.close()


@pytest.mark.parametrize("how", ["zeroed", "cut", "gone"])
def test_a_life_can_go_on_without_a_damaged_block(folder, how):
    replay = open_at(folder)
    fill(replay, WALKER, WALKER_SCHEMA, 300)
    fill(replay, CRAFTER, CRAFTER_SCHEMA, 20)
    cursor = replay.commit()
    replay.close()
    path = folder / WALKER.name / "obs.dmc.walker.speed" / "c.0.1.0"
    if how == "zeroed":
        path.write_bytes(bytes(path.stat().st_size))
    elif how == "cut":
        os.truncate(path, 100)
    else:
        path.unlink()
    replay = open_at(folder)
    with pytest.raises(UserError, match=r"to go on without its block: replay.damaged=leave_out"):
        replay.rewind(cursor)
    replay.rewind(cursor, leave_out=True)
    (note,) = replay.notes
    assert re.search(r"'obs.dmc.walker.speed', block 1 \(rows 128 to 256\).*left out", note)
    lost = set(range(128, 256))
    assert seen_steps(replay) == set(range(320)) - lost
    fill(replay, WALKER, WALKER_SCHEMA, 50)
    cursor = replay.commit()
    replay.release()
    replay.rewind(cursor)
    assert replay.notes == []
    assert seen_steps(replay) == set(range(370)) - lost
    assert not path.exists()
    replay.close()


def test_a_stream_goes_on_in_a_new_block_when_its_newest_is_left_out(folder):
    replay = open_at(folder)
    fill(replay, WALKER, WALKER_SCHEMA, 200)
    cursor = replay.commit()
    replay.close()
    (folder / WALKER.name / "reward" / "c.0.1").unlink()
    replay = open_at(folder)
    replay.rewind(cursor, leave_out=True)
    fill(replay, WALKER, WALKER_SCHEMA, 40)
    assert seen_steps(replay) == {*range(128), *range(200, 240)}
    cursor = replay.commit()
    replay.rewind(cursor)
    assert seen_steps(replay) == {*range(128), *range(200, 240)}
    replay.close()


def test_after_a_loss_of_power_every_checksum_is_compared(folder, monkeypatch):
    replay = open_at(folder)
    fill(replay, CRAFTER, CRAFTER_SCHEMA, 60)
    cursor = replay.commit()
    replay.close()
    with (folder / CRAFTER.name / FRAMES / "c.0.0.0.0.0").open("r+b") as file:
        file.seek(12288 * 7)
        file.write(bytes(4096))
    replay = open_at(folder)
    replay.rewind(cursor)  # pictures are not read at a start
    monkeypatch.setattr("storage.files.boot_id", lambda: "another")
    with pytest.raises(UserError, match=r"'obs.image', block 0 .*is damaged"):
        replay.rewind(cursor)
    replay.close()


def test_a_network_file_system_is_refused_with_the_way_out(folder, monkeypatch):
    monkeypatch.setattr("storage.files.filesystem_of", lambda folder: "nfs4")
    with pytest.raises(UserError, match=r"network file system \(nfs4\).*expected a local disk"):
        open_at(folder)
    assert not folder.exists()


def test_the_file_system_of_a_folder_is_told(folder):
    assert filesystem_of(Path("/proc/self")) == "proc"
    assert filesystem_of(folder / "not" / "there") == filesystem_of(folder.parent)


def test_a_read_only_folder_is_said_in_one_line(folder, monkeypatch):
    open_at(folder).close()
    monkeypatch.setattr("continual.files.os.open", failing(errno.EROFS)(os.open))
    with pytest.raises(UserError, match="cannot keep a replay: Read-only file system"):
        open_at(folder)


# Metadata


@pytest.mark.parametrize("damaged", ["zarr.json", "reward/zarr.json", "both"])
@pytest.mark.parametrize("how", ["gone", "cut"])
def test_damaged_metadata_of_a_stream_is_made_again(folder, damaged, how):
    replay = open_at(folder)
    fill(replay, WALKER, WALKER_SCHEMA, 100)
    cursor = replay.commit()
    replay.close()
    for name in ["zarr.json", "reward/zarr.json"] if damaged == "both" else [damaged]:
        path = folder / WALKER.name / name
        path.unlink() if how == "gone" else path.write_text(path.read_text()[:100])
    replay = open_at(folder)
    replay.rewind(cursor)
    as_read_by_stock_readers(folder, 100)
    group = zarr.open_group(folder / WALKER.name, mode="r", use_consolidated=False)
    assert group["reward"].shape == (1, 100)
    replay.close()


def test_a_capacity_that_cannot_be_read_is_made_again(folder):
    replay = open_at(folder)
    fill(replay, WALKER, WALKER_SCHEMA, 100)
    cursor = replay.commit()
    replay.close()
    path = folder / "zarr.json"
    whole = json.loads(path.read_bytes())
    path.write_bytes(path.read_bytes().replace(b'"capacity"', b'"cApacity"'))
    replay = open_at(folder)
    replay.rewind(cursor)
    assert json.loads(path.read_bytes()) == whole
    replay.close()


def test_a_cursor_of_another_life_is_refused(folder):
    cursors = []
    for rows in (50, 60):
        replay = open_at(folder)
        replay.rewind(None)
        fill(replay, WALKER, WALKER_SCHEMA, rows)
        cursors.append(replay.commit())
        replay.close()
    replay = open_at(folder)
    with pytest.raises(UserError, match="is of another life, expected rows 50"):
        replay.rewind(cursors[0])
    replay.close()


# Readers and numbers


def test_a_reader_never_sees_a_row_of_an_evicted_block_as_there(folder):
    replay = open_at(folder, capacity=150)
    fill(replay, WALKER, WALKER_SCHEMA, 300)
    replay.commit()
    reader = zarr.open_group(folder / WALKER.name, mode="r")
    reader["step"][:]
    fill(replay, WALKER, WALKER_SCHEMA, 300)
    replay.commit()
    replay.release()
    rewards, steps = reader["reward"][0], reader["step"][0]
    assert (steps == -1).all()
    assert len(rewards) == 300
    replay.close()


def test_the_column_that_says_a_row_is_there_goes_first(folder, monkeypatch):
    replay = open_at(folder, capacity=150)
    fill(replay, WALKER, WALKER_SCHEMA, 128)
    gone = []
    unlink = Path.unlink
    monkeypatch.setattr(Path, "unlink", lambda p, **o: (gone.append(p.parent.name), unlink(p, **o)))
    fill(replay, WALKER, WALKER_SCHEMA, 200)
    assert gone[0] == "step"
    assert len(gone) == len(set(gone)) > 5
    replay.close()


def test_counters_beyond_31_bits_are_right(folder):
    replay = open_at(folder, capacity=300)
    replay.open_stream(WALKER, WALKER_SCHEMA, 1)
    begin = 2**31 - 200
    replay._held.rows = replay._held.streams[WALKER].rows = begin
    for k in range(400):
        rows = rows_at(WALKER_SCHEMA, k)
        replay.append(WALKER, rows | {"env_step": np.array([begin + k])})
    batch = replay.sample(np.random.default_rng(0), 50, 9, UNION)
    replay.write_latents(batch.where, latents_of(batch, 3))
    cursor = replay.commit()
    fill(replay, WALKER, WALKER_SCHEMA, 10)
    replay.rewind(json.loads(json.dumps(cursor)))
    again = replay.sample(np.random.default_rng(0), 50, 9, UNION)
    np.testing.assert_array_equal(again.columns["env_step"], batch.columns["env_step"])
    assert again.columns["env_step"].max() > 2**31
    assert (again.age == 2**31 + 199 - again.columns["env_step"][:, -1]).all()
    group = zarr.open_group(folder / WALKER.name, mode="r")
    np.testing.assert_array_equal(group["step"][0, -100:], np.arange(2**31 + 100, 2**31 + 200))
    replay.close()
