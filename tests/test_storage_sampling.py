"""Positions of sequences: which exist, how likely each is, in which order they are handed out."""

from collections import Counter

import numpy as np
import pytest

from storage.sampling import (
    CurrentShare,
    Recency,
    TaskBalanced,
    Uniform,
    draw_where,
    frame_rung,
    images_first,
    make_runs,
)


def two_streams():
    # Stream 0: one world with rows 2..9. Stream 3: two worlds with rows 5..9 and 4..9.
    return make_runs([(0, np.array([2]), 10), (3, np.array([5, 4]), 10)])


def draw(runs, batch, length, seed=0, rule=None):
    """Streams 0 and 1 are of task 0, streams 2 and 3 of task 1."""
    rng = np.random.default_rng(seed)
    return draw_where(rng, runs, [0, 0, 1, 1], batch, length, rule or Uniform())


def test_runs_list_every_world_of_every_stream():
    runs = two_streams()
    assert runs.stream.tolist() == [0, 3, 3]
    assert runs.world.tolist() == [0, 0, 1]
    assert runs.first.tolist() == [2, 5, 4]
    assert runs.stop.tolist() == [10, 10, 10]


def test_a_sequence_needs_one_row_more_than_its_length():
    # By hand: 8, 5 and 6 rows hold 8-4, 5-4, 6-4 runs of 4+1 rows.
    assert two_streams().starts(4).tolist() == [4, 1, 2]
    assert two_streams().starts(7).tolist() == [1, 0, 0]
    assert two_streams().starts(8).tolist() == [0, 0, 0]


def test_every_start_is_drawn_and_no_other():
    where = draw(two_streams(), 2000, 4, seed=0)
    drawn = set(zip(where.stream.tolist(), where.world.tolist(), where.row.tolist(), strict=True))
    # `row` is the first trained row: one after the context row.
    expected = {(0, 0, row) for row in (3, 4, 5, 6)} | {(3, 0, 6)} | {(3, 1, row) for row in (5, 6)}
    assert drawn == expected


def test_starts_are_uniform_over_streams_of_different_size():
    where = draw(two_streams(), 7000, 4, seed=7)
    cell = where.stream * 100 + where.world * 10 + where.row
    _, counts = np.unique(cell, return_counts=True)
    assert len(counts) == 7
    chi_square = ((counts - 1000) ** 2 / 1000).sum()
    assert chi_square < 22.5  # 99.9 % of chi-square with 6 degrees of freedom


def test_the_same_generator_draws_the_same_positions():
    first, second = (draw(two_streams(), 16, 2, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.row, second.row)
    np.testing.assert_array_equal(first.stream, second.stream)


@pytest.mark.parametrize("runs", [make_runs([]), two_streams()], ids=["empty", "too short"])
def test_drawing_from_too_few_rows_is_an_error(runs):
    with pytest.raises(ValueError, match="no world holds 51 rows"):
        draw(runs, 4, 50)


def test_images_come_first_and_keep_the_order_of_the_draw():
    order = images_first(np.array([False, True, False, True, True, False]))
    assert order.tolist() == [1, 3, 4, 0, 2, 5]


@pytest.mark.parametrize(
    ("batch", "rungs"),
    [(8, [0, 4, 4, 4, 4, 8, 8, 8, 8]), (5, [0, 3, 3, 3, 5, 5]), (1, [0, 1])],
)
def test_number_of_frames_is_rounded_up_to_few_sizes(batch, rungs):
    assert [frame_rung(images, batch) for images in range(batch + 1)] == rungs


# Rules


def counted(rule, batches=400, length=4):
    """(stream, world, first trained row) -> share of the draws."""
    drawn = Counter()
    for seed in range(batches):
        where = draw(two_streams(), 20, length, seed, rule)
        drawn.update(
            zip(where.stream.tolist(), where.world.tolist(), where.row.tolist(), strict=True)
        )
    return {start: count / drawn.total() for start, count in drawn.items()}


def test_by_recency_a_start_is_half_as_likely_as_one_a_half_life_newer():
    shares = counted(Recency(half_life=2))
    # From the newest: stream 3 has starts at rows 6 (world 1), 6 (world 0), 5 (world 1), and so on.
    newest_first = [(3, 1, 6), (3, 0, 6), (3, 1, 5), (0, 0, 6), (0, 0, 5), (0, 0, 4), (0, 0, 3)]
    weights = 0.5 ** (np.arange(7) / 2)
    expected = weights / weights.sum()
    assert shares.keys() == set(newest_first)
    found = np.array([shares[start] for start in newest_first])
    np.testing.assert_allclose(found, expected, atol=4 * np.sqrt(0.25 / 8000))


def test_a_long_half_life_is_nearly_uniform():
    shares = counted(Recency(half_life=10**9))
    assert max(abs(share - 1 / 7) for share in shares.values()) < 4 * np.sqrt(0.13 / 8000)


def test_tasks_are_drawn_alike_and_their_starts_uniformly():
    shares = counted(TaskBalanced())
    first = [share for (stream, _, _), share in shares.items() if stream == 0]
    second = [share for (stream, _, _), share in shares.items() if stream == 3]
    assert len(first) == 4
    assert len(second) == 3
    assert max(abs(share - 0.5 / 4) for share in first) < 4 * np.sqrt(0.11 / 8000)
    assert max(abs(share - 0.5 / 3) for share in second) < 4 * np.sqrt(0.14 / 8000)


def test_a_task_without_a_start_is_not_drawn():
    assert {stream for stream, _, _ in counted(TaskBalanced(), length=7)} == {0}


def test_the_running_stream_has_its_share():
    shares = counted(CurrentShare(share=0.2))
    current = [share for (stream, _, _), share in shares.items() if stream == 3]
    assert sum(current) == pytest.approx(0.2, abs=4 * np.sqrt(0.16 / 8000))
    assert max(current) - min(current) < 0.03


def test_the_others_are_drawn_while_the_running_stream_has_no_start_and_the_other_way_round():
    assert {stream for stream, _, _ in counted(CurrentShare(share=0.9), length=7)} == {0}
    alone = make_runs([(0, np.array([0]), 9)])
    where = draw_where(np.random.default_rng(0), alone, [0], 30, 4, CurrentShare(share=0.1))
    assert set(where.stream.tolist()) == {0}
