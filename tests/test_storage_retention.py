"""What stays when a replay is full: each rule alone, by its statistics, and in a replay on disk."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from continual.errors import UserError
from storage import Capacity, StreamId
from storage.retention import (
    Candidate,
    Fifo,
    HalfRecent,
    Reservoir,
    TaskQuota,
    Unbounded,
    let_go,
    number_of,
)
from tests.storage_cases import (
    CRAFTER,
    CRAFTER_SCHEMA,
    WALKER,
    WALKER_SCHEMA,
    fill,
    open_at,
    seen_steps,
    sizes_on_disk,
)

PHASES = [("a", 5), ("b", 20), ("a", 8), ("c", 3)]  # task and blocks of each


def live(rule, capacity, seed, phases=PHASES):
    """Fill blocks of one row; -> the (phase, block) that are held, the one being filled apart."""
    held = []
    for phase, (task, blocks) in enumerate(phases):
        for index in range(blocks):
            for victim in let_go(rule, held, 1, capacity):
                held.remove(victim)
            draw = number_of(seed, f"{phase}", index)
            held.append(Candidate(phase, index, task, 1, draw))
    return held[:-1]


def shares(rule, capacity, lives=3000, **more):
    """(phase, block) -> in how many lives of different seeds it was held at the end."""
    held = Counter()
    for seed in range(lives):
        held.update((b.stream, b.index) for b in live(rule, capacity, seed, **more))
    return held


def chi_square(counts, cells, expected_share, lives):
    """Of Bernoulli counts against one share; its mean is about the number of cells."""
    expected = expected_share * lives
    spread = lives * expected_share * (1 - expected_share)
    return sum((counts[cell] - expected) ** 2 / spread for cell in cells)


ALL = [(phase, i) for phase, (_, blocks) in enumerate(PHASES) for i in range(blocks)][:-1]


def test_numbers_of_blocks_are_uniform_and_differ_by_seed_stream_and_block():
    numbers = [number_of(seed, "s", block) for seed in range(20) for block in range(200)]
    counts, _ = np.histogram(numbers, 10, (0, 1))
    assert ((counts - 400) ** 2 / 400).sum() < 27.9  # 99.9 % with 9 degrees of freedom
    assert len(set(numbers)) == 4000
    assert number_of(0, "t", 0) != number_of(0, "s", 0)


def test_fifo_keeps_the_newest_blocks():
    held = [(b.stream, b.index) for b in live(Fifo(), 12, 0)]
    assert held == ALL[-11:]


def test_a_reservoir_holds_every_block_with_the_same_probability_over_unequal_phases():
    counts = shares(Reservoir(), 12)
    assert sum(counts.values()) == 3000 * 11
    # 35 cells whose counts are nearly independent: 99.9 % of chi-square is 66.6.
    assert chi_square(counts, ALL, 11 / 35, 3000) < 66.6


def test_a_window_keeps_the_newest_half_and_a_reservoir_of_the_rest():
    counts = shares(HalfRecent(recent=0.5), 12)
    newest, aged = ALL[-6:], ALL[:-6]
    assert all(counts[cell] == 3000 for cell in newest[1:])
    kept = sum(counts[cell] for cell in aged) / 3000
    assert kept == pytest.approx(5.5, abs=0.51)
    # 29 cells: 99.9 % of chi-square is 58.3.
    assert chi_square(counts, aged, kept / len(aged), 3000) < 58.3


def test_tasks_share_the_capacity_evenly_each_by_a_reservoir():
    held = Counter(b.task for b in live(TaskQuota(), 13, 7))
    assert held == {"a": 5, "b": 5, "c": 2}  # c had three, of which one is being filled
    counts = shares(TaskQuota(), 13, phases=[("a", 12), ("b", 4), ("a", 9), ("b", 6)])
    a = [(phase, i) for phase, n in ((0, 12), (2, 9)) for i in range(n)]
    b = [(phase, i) for phase, n in ((1, 4), (3, 5)) for i in range(n)]
    assert sum(counts[cell] for cell in a) / 3000 == pytest.approx(6, abs=0.51)
    for cells, bound in ((a, 46.8), (b, 29.6)):  # 99.9 % with 21 and 9 cells, one share estimated
        share = sum(counts[cell] for cell in cells) / 3000 / len(cells)
        assert chi_square(counts, cells, share, 3000) < bound


def test_nothing_goes_where_nothing_is_bounded():
    assert len(live(Unbounded(), 3, 0)) == 35


# In a replay

RULES = [Fifo(), Reservoir(), TaskQuota(), HalfRecent(recent=0.4), Unbounded()]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "replay"


def lived(folder, capacity, rows):
    replay = open_at(folder, capacity=capacity)
    fill(replay, WALKER, WALKER_SCHEMA, rows // 2)
    fill(replay, CRAFTER, CRAFTER_SCHEMA, 300)
    fill(replay, WALKER, WALKER_SCHEMA, rows // 2)
    return replay


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_a_replay_holds_whole_blocks_within_its_capacity_and_samples_all_of_them(folder, rule):
    replay = lived(folder, Capacity(700, keep=rule, seed=3), rows=1200)
    total = sum(replay.held_rows().values())
    if isinstance(rule, Unbounded):
        assert total == replay.rows == 1500
    else:
        assert 400 <= total <= 700
    seen = seen_steps(replay, draws=400)
    assert len(seen) == total
    assert max(seen) == 1499
    replay.close()


def test_a_capacity_in_bytes_holds_the_newest_blocks_that_fit(folder):
    size = 700 * 60
    replay = open_at(folder, capacity=Capacity(size, "bytes"))
    fill(replay, WALKER, WALKER_SCHEMA, 1000)
    fill(replay, StreamId(2, WALKER.task), WALKER_SCHEMA, 300)
    # Two whole blocks of 128 and one of 44 rows of the second phase, which counts as full; of the
    # first, the tail of 104 rows and one block.
    assert replay.nbytes_held == (300 + 104 + 128) * 60
    assert seen_steps(replay, draws=200) == set(range(1300 - 532, 1300))
    replay.close()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_what_is_held_does_not_depend_on_commits_and_rewinds(folder, tmp_path, rule):
    capacity = Capacity(700, keep=rule, seed=3)
    whole = lived(tmp_path / "whole", capacity, rows=1600)
    replay = open_at(folder, capacity=capacity)
    fill(replay, WALKER, WALKER_SCHEMA, 800)
    fill(replay, CRAFTER, CRAFTER_SCHEMA, 170)
    cursor = json.loads(json.dumps(replay.commit()))
    fill(replay, CRAFTER, CRAFTER_SCHEMA, 500)
    replay.close()
    replay = open_at(folder, capacity=capacity)
    replay.rewind(cursor)
    fill(replay, CRAFTER, CRAFTER_SCHEMA, 130)
    replay.commit()
    replay.release()
    fill(replay, WALKER, WALKER_SCHEMA, 800)
    assert replay.held_rows() == whole.held_rows()
    assert seen_steps(replay, draws=120) == seen_steps(whole, draws=120)
    whole.close()
    replay.close()


def test_disk_stays_bounded_by_a_reservoir_as_well(folder):
    replay = open_at(folder, capacity=Capacity(700, keep=Reservoir()))
    for _ in range(30):
        fill(replay, WALKER, WALKER_SCHEMA, 100)
        replay.commit()
        replay.release()
        assert sizes_on_disk(folder) <= (700 + 100 + 2 * 128) * 60 * 1.02
    replay.close()


def test_a_capacity_that_holds_too_few_blocks_is_refused(folder):
    replay = open_at(folder, capacity=Capacity(30_000, "bytes"))
    with pytest.raises(UserError, match=r"30,000 bytes, expected 30,720 or more: 4 blocks"):
        replay.open_stream(WALKER, WALKER_SCHEMA, 1)
    replay.close()
