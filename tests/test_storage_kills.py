"""A life that is killed for good, from outside, at moments nobody chose."""

from __future__ import annotations

import json
import resource
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import xarray
import zarr

from tests.storage_cases import (
    CRAFTER,
    CRAFTER_SCHEMA,
    UNION,
    WALKER,
    WALKER_SCHEMA,
    content,
    open_at,
)
from tests.storage_life import RULES, UPDATES, in_a_process, live


def live_and_die(folder, rule, rng, updates=UPDATES):
    """Let it live in another process and kill that after a while; -> whether it was finished."""
    code = "from pathlib import Path; from tests.storage_life import live\n"
    code += f"live(Path({str(folder)!r}), {rule!r}, {updates})"
    with subprocess.Popen(in_a_process(code)) as child:
        before = drawn(folder)
        while drawn(folder) == before and child.poll() is None:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.5))
        child.kill()
    assert child.returncode in (0, -9)
    return child.returncode == 0


def drawn(folder):
    """What was drawn so far."""
    path = folder / "drawn"
    return path.read_bytes() if path.exists() else b""


def check_with_stock_readers(folder):
    """Whoever opens the replay without our code sees whole and right rows; -> how many."""
    seen = 0
    for stream, schema in ((WALKER, WALKER_SCHEMA), (CRAFTER, CRAFTER_SCHEMA)):
        path = folder / "replay" / stream.name
        if not (path / "zarr.json").exists():
            continue
        group = zarr.open_group(path, mode="r")
        steps = group["step"][:]
        there = steps >= 0
        seen += int(there.sum())
        with xarray.open_zarr(path) as dataset:
            assert dataset.sizes["row"] == steps.shape[1]
            for name, column in schema.items():
                np.testing.assert_array_equal(group[name][:][there], content(column, steps[there]))
                assert (dataset[name].shape[:2]) == steps.shape
    return seen


def kill_and_resume(folder, rule, lives, seed, updates=UPDATES):
    """Compare lives that are killed and go on, again and again, with one that nobody killed."""
    undisturbed = folder / "undisturbed"
    undisturbed.mkdir()
    live(undisturbed, rule, updates)
    rng = np.random.default_rng(seed)
    for number in range(lives):
        at = folder / str(number)
        at.mkdir()
        kills = 0
        while not live_and_die(at, rule, rng, updates):
            kills += 1
            check_with_stock_readers(at)
        assert kills
        assert drawn(at) == drawn(undisturbed)


def test_a_killed_life_that_goes_on_draws_the_batches_of_one_that_was_not(tmp_path):
    kill_and_resume(tmp_path, "half_recent", lives=1, seed=0, updates=120)


@pytest.mark.slow
@pytest.mark.parametrize("rule", sorted(RULES))
def test_many_killed_lives_that_go_on_draw_the_batches_of_one_that_was_not(tmp_path, rule):
    kill_and_resume(tmp_path, rule, lives=7, seed=1)


@pytest.mark.slow
def test_after_two_hundred_kills_stock_readers_see_every_committed_row(tmp_path):
    rng = np.random.default_rng(2)
    kills, number = 0, 0
    while kills < 200:
        at = tmp_path / str(number)
        at.mkdir()
        number += 1
        while not live_and_die(at, "fifo", rng):
            kills += 1
            saved = (at / "cursor.json").exists()
            assert check_with_stock_readers(at) >= (80 if saved else 0)


@pytest.mark.slow
def test_a_million_rows_open_after_a_kill_with_few_descriptors_and_bounded_memory(tmp_path):
    rows = 1_000_000
    code = f"""
import json, os
from pathlib import Path
from tests.storage_cases import *
replay = open_at(Path({str(tmp_path)!r}) / "replay", capacity={rows})
fill(replay, WALKER, WALKER_SCHEMA, {rows})
print(json.dumps(replay.commit()), flush=True)
os.kill(os.getpid(), 9)
"""
    done = subprocess.run(in_a_process(code), stdout=subprocess.PIPE, check=False)
    assert done.returncode == -9
    before = resident_bytes()
    replay = open_at(tmp_path / "replay", capacity=rows)
    replay.rewind(json.loads(done.stdout))
    assert replay.held_rows() == {WALKER.task: rows}
    replay.sample(np.random.default_rng(0), 64, 64, UNION)
    assert len(list(Path("/proc/self/fd").iterdir())) < 600
    assert resident_bytes() - before < rows * 60 * 1.2 + 2**26
    replay.close()


def resident_bytes():
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * resource.getpagesize()
