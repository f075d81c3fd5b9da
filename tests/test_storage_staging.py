"""A replay on a scratch disk: what is at home after every commit, and after the disk is gone."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

from continual.errors import UserError
from storage import Capacity, retention
from storage.inspect import main
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
    seen_steps,
    steps_of,
)


@pytest.fixture
def home(tmp_path):
    return tmp_path / "run" / "replay"


@pytest.fixture
def scratch(tmp_path):
    return tmp_path / "scratch" / "replay"


def contents(replay):
    """All that can be sampled, latents included, by the number of the row."""
    found = {}
    for seed in range(8):
        batch = replay.sample(np.random.default_rng(seed), 60, 1, UNION)
        for b, step in enumerate(steps_of(batch)[:, 0].tolist()):
            found[step] = [values[b].tolist() for values in batch.context.values()]
            found[step] += [values[b].tolist() for values in batch.columns.values()]
    return found


def learn(replay, value):
    batch = replay.sample(np.random.default_rng(value), 10, 8, UNION)
    new = {n: np.full((10, 8, *c.shape), value, c.dtype) for n, c in LATENTS.items()}
    replay.write_latents(batch.where, new)


def live(replay, number):
    """A stretch of life: rows of both tasks, evictions, latents rewritten."""
    fill(replay, WALKER, WALKER_SCHEMA, 90)
    learn(replay, 2 * number)
    fill(replay, CRAFTER, CRAFTER_SCHEMA, 40)
    learn(replay, 2 * number + 1)


RULES = [retention.Fifo(), retention.Reservoir()]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
@pytest.mark.parametrize("small", [0, 1024])
@pytest.mark.parametrize("back", [0, 1])
def test_when_the_scratch_disk_is_gone_home_has_the_last_commits(
    home, scratch, monkeypatch, rule, small, back
):
    monkeypatch.setattr("storage.mirror.SMALL", small)
    capacity = Capacity(600, keep=rule)
    replay = open_at(scratch, capacity=capacity, home=home)
    states = []
    for number in range(1, 6):
        live(replay, number)
        states.append((json.dumps(replay.commit()), contents(replay)))
        if number < 5:
            replay.release()
    learn(replay, 99)
    replay.close()
    shutil.rmtree(scratch)
    cursor, expected = states[-1 - back]
    replay = open_at(scratch, capacity=capacity, home=home)
    replay.rewind(json.loads(cursor))
    assert contents(replay) == expected
    live(replay, 7)
    cursor, expected = json.dumps(replay.commit()), contents(replay)
    replay.close()
    replay = open_at(home, capacity=capacity)  # home is a replay like any other
    replay.rewind(json.loads(cursor))
    assert contents(replay) == expected
    replay.close()


def test_home_is_read_by_stock_readers_and_verified(home, scratch, capsys):
    replay = open_at(scratch, capacity=300, home=home)
    for _ in range(4):
        fill(replay, WALKER, WALKER_SCHEMA, 150)
        replay.commit()
        replay.release()
    replay.close()
    group = zarr.open_group(home / WALKER.name, mode="r")
    steps = group["step"][0]
    there = steps >= 0
    assert there[300:].all()
    np.testing.assert_array_equal(
        group["reward"][0][there], content(WALKER_SCHEMA["reward"], steps[there])
    )
    blocks = {path.name for path in (home / WALKER.name / "step").glob("c.*")}
    assert blocks == {"c.0.2", "c.0.3", "c.0.4"}
    assert main([str(home), "--verify"]) == 0
    capsys.readouterr()


def test_a_scratch_disk_that_still_has_the_commit_is_not_copied_over(home, scratch, monkeypatch):
    replay = open_at(scratch, home=home)
    fill(replay, WALKER, WALKER_SCHEMA, 100)
    cursor = replay.commit()
    fill(replay, WALKER, WALKER_SCHEMA, 100)
    replay.close()
    monkeypatch.setattr("storage.staging.shutil.copytree", None)
    replay = open_at(scratch, home=home)
    replay.rewind(cursor)
    assert seen_steps(replay) == set(range(100))
    replay.close()


def test_the_replay_of_another_run_on_the_scratch_disk_is_replaced(home, scratch):
    other = open_at(scratch)
    fill(other, CRAFTER, CRAFTER_SCHEMA, 30)
    other.commit()
    other.close()
    replay = open_at(home)
    fill(replay, WALKER, WALKER_SCHEMA, 100)
    cursor = replay.commit()
    replay.close()
    replay = open_at(scratch, home=home)
    replay.rewind(cursor)
    assert replay.held_rows() == {WALKER.task: 100}
    assert {p.name for p in scratch.glob("phase_*")} == {WALKER.name}
    replay.close()


@pytest.mark.parametrize("after", [0, 5, 11, 17])
def test_a_commit_that_home_has_no_room_for_leaves_the_one_before(
    home, scratch, monkeypatch, after
):
    replay = open_at(scratch, capacity=300, home=home)
    live(replay, 1)
    cursor, expected = json.dumps(replay.commit()), contents(replay)
    live(replay, 2)
    calls = iter(range(after))

    def full(descriptor, values, offset, write=os.pwrite):
        at_home = str(home) in str(Path(f"/proc/self/fd/{descriptor}").readlink())
        if at_home and next(calls, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, values, offset)

    with monkeypatch.context() as patch:
        patch.setattr("storage.files.os.pwrite", full)
        with pytest.raises(UserError, match="cannot write: No space left"):
            replay.commit()
    replay.close()
    shutil.rmtree(scratch)
    replay = open_at(scratch, capacity=300, home=home)
    replay.rewind(json.loads(cursor))
    assert contents(replay) == expected
    replay.close()
