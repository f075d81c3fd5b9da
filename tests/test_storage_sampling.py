"""Positions of sequences: which exist, how likely each is, in which order they are handed out."""

import numpy as np
import pytest

from storage.sampling import Uniform, draw_where, frame_rung, images_first, make_runs


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
