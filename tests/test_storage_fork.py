"""A replay made from a commit of another: what both hold, and that neither feels the other."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import zarr

from continual.errors import UserError
from storage import FRAMES, Capacity, fork_replay, retention
from storage.inspect import main
from tests.storage_cases import (
    CRAFTER,
    CRAFTER_SCHEMA,
    WALKER,
    WALKER_SCHEMA,
    fill,
    open_at,
    sizes_on_disk,
)
from tests.test_storage_staging import contents, learn, live

RULES = [retention.Fifo(), retention.Reservoir()]


@pytest.fixture(params=RULES, ids=lambda rule: type(rule).__name__)
def capacity(request):
    return Capacity(600, keep=request.param)


def lived(folder, capacity, stretches=4):
    """A replay after some stretches of life; -> (it, cursor as JSON, what it holds)."""
    replay = open_at(folder, capacity=capacity)
    for number in range(1, stretches):
        live(replay, number)
        replay.commit()
        replay.release()
    live(replay, stretches)
    return replay, json.dumps(replay.commit()), contents(replay)


def reopened(folder, capacity, cursor):
    replay = open_at(folder, capacity=capacity)
    replay.rewind(json.loads(cursor))
    return replay


def bytes_of(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("small", [0, 1024])
def test_a_fork_holds_what_the_commit_held_and_goes_on_alike(
    tmp_path, monkeypatch, capacity, small
):
    monkeypatch.setattr("storage.mirror.SMALL", small)
    replay, cursor, expected = lived(tmp_path / "old", capacity)
    replay.fork(json.loads(cursor), tmp_path / "new")
    live(replay, 9)
    forked = reopened(tmp_path / "new", capacity, cursor)
    assert contents(forked) == expected
    live(forked, 9)
    assert contents(forked) == contents(replay)
    replay.close()
    forked.close()


def test_a_fork_of_an_older_commit_puts_back_what_was_rewritten_since(tmp_path, capacity):
    replay, cursor, expected = lived(tmp_path / "old", capacity)
    learn(replay, 77)
    replay.close()
    fork_replay(tmp_path / "old", json.loads(cursor), tmp_path / "new")
    forked = reopened(tmp_path / "new", capacity, cursor)
    assert contents(forked) == expected
    forked.close()


def test_what_a_fork_does_changes_nothing_where_it_came_from(tmp_path, capacity):
    replay, cursor, _ = lived(tmp_path / "old", capacity)
    replay.close()
    before = bytes_of(tmp_path / "old")
    fork_replay(tmp_path / "old", json.loads(cursor), tmp_path / "new")
    forked = reopened(tmp_path / "new", capacity, cursor)
    for number in range(10, 14):
        live(forked, number)
        forked.commit()
        forked.release()
    forked.close()
    assert bytes_of(tmp_path / "old") == before


def test_a_fork_feels_nothing_of_a_past_that_goes_back_before_it(tmp_path, monkeypatch):
    # Blocks that were full when they were shared are open again at the commit before, and lived
    # in a second time.
    monkeypatch.setattr("storage.mirror.SMALL", 0)
    replay = open_at(tmp_path / "old")
    fill(replay, WALKER, WALKER_SCHEMA, 100)
    first = replay.commit()
    fill(replay, WALKER, WALKER_SCHEMA, 100)
    second = json.dumps(replay.commit())
    expected = contents(replay)
    replay.fork(json.loads(second), tmp_path / "new")
    replay.rewind(first)
    fill(replay, CRAFTER, CRAFTER_SCHEMA, 3, worlds=1)
    fill(replay, WALKER, WALKER_SCHEMA, 90)
    replay.commit()
    replay.close()
    forked = reopened(tmp_path / "new", 1000, second)
    assert contents(forked) == expected
    forked.close()


def test_full_blocks_of_what_never_changes_take_no_room_twice(tmp_path):
    replay = open_at(tmp_path / "old")
    fill(replay, CRAFTER, CRAFTER_SCHEMA, 300)
    replay.fork(replay.commit(), tmp_path / "new")
    frames = [p.stat() for p in sorted((tmp_path / "new" / CRAFTER.name / FRAMES).glob("c.*"))]
    assert [file.st_nlink for file in frames] == [2, 2, 1]
    latents = (tmp_path / "new" / CRAFTER.name).glob("latent.*/c.*")
    assert {p.stat().st_nlink for p in latents} == {1}
    replay.close()


def test_where_a_disk_has_no_links_everything_is_copied(tmp_path, monkeypatch, capacity):
    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    replay, cursor, expected = lived(tmp_path / "old", capacity)
    replay.fork(json.loads(cursor), tmp_path / "new")
    replay.close()
    assert sizes_on_disk(tmp_path / "new") > 0
    forked = reopened(tmp_path / "new", capacity, cursor)
    assert contents(forked) == expected
    forked.close()


def test_a_fork_is_read_by_stock_readers_and_verified(tmp_path, capsys):
    replay = open_at(tmp_path / "old", capacity=300)
    fill(replay, WALKER, WALKER_SCHEMA, 450)
    replay.fork(replay.commit(), tmp_path / "new")
    replay.close()
    old, new = (zarr.open_group(tmp_path / n / WALKER.name, mode="r") for n in ("old", "new"))
    for name, array in old.arrays():
        np.testing.assert_array_equal(new[name][:], array[:])
    assert main([str(tmp_path / "new"), "--verify"]) == 0
    assert "damaged" not in capsys.readouterr().out


def test_a_commit_that_is_gone_cannot_be_forked(tmp_path):
    replay = open_at(tmp_path / "old")
    fill(replay, WALKER, WALKER_SCHEMA, 40)
    cursors = [replay.commit() for _ in range(3)]
    replay.close()
    with pytest.raises(UserError, match="is missing; commits that can be gone back to"):
        fork_replay(tmp_path / "old", cursors[0], tmp_path / "new")
