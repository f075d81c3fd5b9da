"""Numbers of a forgetting matrix, against examples worked by hand and what tools have in common."""

from __future__ import annotations

import importlib
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from eval.curves import end_performance
from eval.matrix_metrics import (
    average_performance_curve,
    average_seen_curve,
    backward_transfer,
    drops,
    forgetting_after_training,
    forgetting_before_return,
    forgetting_from_best,
    forward_transfer,
    mammoth_forgetting,
)
from tests.test_metrics import NAN, R3, R_CYCLES, TRAINED3, TRAINED_CYCLES

PAGE = Path(__file__).parents[1] / "docs" / "metrics.md"
BY_TASK = (
    forgetting_after_training,
    forgetting_before_return,
    forgetting_from_best,
    backward_transfer,
    forward_transfer,
)
lives = st.integers(1, 4).flatmap(
    lambda phases: st.tuples(
        arrays(np.float64, (phases + 1, 3), elements=st.sampled_from([NAN, -0.5, 0.0, 0.3, 0.9])),
        st.lists(st.integers(0, 2), min_size=phases, max_size=phases),
        st.permutations(range(3)),
    )
)


def test_forgetting_of_each_task_is_its_own_end_minus_the_end():
    np.testing.assert_allclose(forgetting_after_training(R3, TRAINED3), [0.6, 0.4, 0.0])
    # Task 0 ends its own phases at 0.6 and 0.8, and the life at 0.7; task 1 at 0.5, 0.9 and 0.9.
    np.testing.assert_allclose(
        forgetting_after_training(R_CYCLES, TRAINED_CYCLES), [0.0, -0.2], atol=1e-12
    )
    np.testing.assert_allclose(
        forgetting_after_training(R_CYCLES, TRAINED_CYCLES, (False, True, True, True)), [0.1, -0.2]
    )


def test_repeats_are_averaged_as_in_cw20_where_each_training_has_its_own_column():
    rng = np.random.default_rng(0)
    R, trained = rng.random((21, 10)), [*range(10), *range(10)]
    columns = [R[k, task] - R[20, task] for k, task in enumerate(trained, start=1)]
    assert np.mean(forgetting_after_training(R, trained)) == pytest.approx(np.mean(columns))


def test_a_task_that_is_trained_to_the_end_in_several_phases_has_forgetting():
    control = np.array([[0.0], [0.8], [0.82], [0.81]])
    found = forgetting_after_training(control, (0, 0, 0))
    np.testing.assert_allclose(found, [(-0.01 + 0.01 + 0) / 3], atol=1e-12)


def test_what_a_task_had_lost_when_it_came_back_is_seen_before_it_is_learnt_again():
    # Task 0: 0.6 after phase 1, 0.2 before phase 3; task 1: 0.5 after phase 2, 0.1 before phase 4.
    np.testing.assert_allclose(forgetting_before_return(R_CYCLES, TRAINED_CYCLES), [0.4, 0.4])
    np.testing.assert_array_equal(forgetting_before_return(R3, TRAINED3), [NAN] * 3)
    np.testing.assert_array_equal(forgetting_before_return(R3, (1, 1, 0)), [NAN] * 3)
    np.testing.assert_array_equal(
        forgetting_before_return(R_CYCLES, TRAINED_CYCLES, (False, True, True, True)), [NAN, 0.4]
    )
    with pytest.raises(ValueError, match="3 counts and 4 phases"):
        forgetting_before_return(R_CYCLES, TRAINED_CYCLES, (True,) * 3)


def test_forgetting_from_the_best_looks_between_the_first_own_phase_and_the_last_row():
    np.testing.assert_allclose(forgetting_from_best(R3, TRAINED3), [0.7, 0.4, NAN])
    np.testing.assert_allclose(forgetting_from_best(R_CYCLES, TRAINED_CYCLES), [0.1, -0.4])


def test_backward_transfer_of_each_task_starts_at_the_end_of_its_first_phase():
    np.testing.assert_allclose(backward_transfer(R3, TRAINED3), [-0.6, -0.4, NAN])
    np.testing.assert_allclose(backward_transfer(R_CYCLES, TRAINED_CYCLES), [0.1, 0.4])


def test_forward_transfer_of_each_task_ends_just_before_its_first_phase():
    np.testing.assert_allclose(forward_transfer(R3, TRAINED3), [NAN, 0.0, 0.1])
    np.testing.assert_allclose(forward_transfer(R_CYCLES, TRAINED_CYCLES), [NAN, 0.0])


def test_a_task_that_no_phase_trained_has_no_number():
    for metric in BY_TASK:
        assert math.isnan(metric(R3, (0, 1, 1))[2])


def test_before_the_first_phase_is_over_nothing_is_defined():
    for metric in BY_TASK:
        np.testing.assert_array_equal(metric(R3[:1], []), [NAN] * 3)
    assert np.isnan(average_seen_curve(R3[:1], [])).all()
    assert drops(R3[:1], []).shape == (0, 1)


@pytest.mark.parametrize("metric", [*BY_TASK, average_seen_curve, drops])
def test_a_matrix_without_a_row_before_training_is_refused(metric):
    with pytest.raises(ValueError, match=r"R \(3, 3\) and 3 phases, expected \[4, N\]"):
        metric(R3[1:], TRAINED3)
    with pytest.raises(ValueError, match="expected tasks 0 to 2"):
        metric(R3, [0, 1, 3])
    np.testing.assert_array_equal(metric(R3.tolist(), TRAINED3), metric(R3, TRAINED3))


def test_mammoths_forgetting_counts_the_last_row_and_the_zeros_of_unseen_tasks():
    np.testing.assert_allclose(mammoth_forgetting([[0.8], [0.5, 0.7], [0.6, 0.4, 0.9]]), [0.2, 0.3])
    # Task 0 is at its best in the end; the 0 of task 1 before it was seen is above its best, -1.
    np.testing.assert_allclose(mammoth_forgetting([[-3], [-5, -1], [-2, -4, -1]]), [0, 4])
    full = [[0.5, 0.9], [0.3, 0.7]]
    np.testing.assert_allclose(mammoth_forgetting(full), [0.2])
    # Tasks that nobody has seen are none of the first K - 1.
    np.testing.assert_allclose(mammoth_forgetting([[0.5, 0.1, 0.2], [0.3, 0.6, 0.2]]), [0.2])


@given(lives)
def test_permuting_tasks_permutes_every_number(life):
    R, trained, order = life
    place = {task: i for i, task in enumerate(order)}
    permuted, renamed = R[:, order], [place[task] for task in trained]
    for metric in BY_TASK:
        np.testing.assert_array_equal(metric(permuted, renamed), metric(R, trained)[list(order)])
    np.testing.assert_allclose(average_performance_curve(permuted), average_performance_curve(R))
    np.testing.assert_array_equal(drops(permuted, renamed), drops(R, trained))


@given(lives)
def test_an_agent_that_stays_the_same_forgets_nothing_and_gains_nothing(life):
    R, trained, _ = life
    constant = np.repeat(R[:1], len(R), 0)
    for metric in (*BY_TASK, drops):
        found = metric(constant, trained)
        assert (found[~np.isnan(found)] == 0).all()


@given(lives, st.sampled_from([NAN, 0.0, 7.0]))
def test_a_task_more_in_the_matrix_changes_no_number_of_the_others(life, unseen):
    R, trained, _ = life
    wider = np.hstack([R, np.full((len(R), 1), unseen)])
    for metric in BY_TASK:
        np.testing.assert_array_equal(metric(wider, trained)[:3], metric(R, trained))
    np.testing.assert_array_equal(
        average_seen_curve(wider, trained), average_seen_curve(R, trained)
    )


@given(arrays(np.float64, (5, 4), elements=st.floats(0, 1)))
def test_with_a_phase_a_task_the_tools_agree_where_they_mean_the_same(R):
    trained = range(4)
    lost = forgetting_after_training(R, trained)
    np.testing.assert_array_equal(backward_transfer(R, trained)[:3], -lost[:3])
    # Mammoth's loops: square results, numbers in row i are those after task i.
    square = R[1:]
    by_loop = [max(square[k][i] for k in range(i, 3)) - square[3][i] for i in range(3)]
    np.testing.assert_array_equal(forgetting_from_best(R, trained)[:3], by_loop)
    gained = [square[i - 1][i] - R[0][i] for i in range(1, 4)]
    np.testing.assert_array_equal(forward_transfer(R, trained)[1:], gained)


def test_the_end_of_a_phase_can_be_a_mean_of_several_evaluations():
    times, values = [0, 10, 20, 30, 40, 50, 60], [9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert end_performance(times, values, 0, 60) == 4
    assert end_performance(times, values, 0, 60, last=2) == 5.5
    assert end_performance(times, values, 10, 30) == 2.5
    assert math.isnan(end_performance(times, values, 60, 70))


def test_the_examples_of_the_page_of_definitions_hold():
    examples = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(examples) == 2
    for code in examples:
        exec(compile(code, str(PAGE), "exec"), {})


def test_the_page_of_definitions_names_functions_that_are_there():
    named = re.findall(r"`(eval\.\w+)\.(\w+)`", PAGE.read_text(encoding="utf-8"))
    assert len(named) > 20
    for module, function in named:
        assert callable(getattr(importlib.import_module(module), function)), function
