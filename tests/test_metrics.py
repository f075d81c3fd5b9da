"""Matrix and metrics against examples worked by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.gate_behaviour import gate_when_judged, gate_while_living
from eval.gate_sums import gate_means
from eval.judged import (
    LAST_ALONE,
    NEVER_BACK,
    NO_REFERENCE,
    NOT_JUDGED,
    NOT_LEARNED,
    NOT_NORMALISED,
    NOT_TRAINED,
    WEAK_REFERENCE,
    Alone,
    Judged,
)
from eval.matrix import (
    Cell,
    cell,
    cells,
    clears_random,
    evaluation_curve,
    evaluations,
    forgetting_matrix,
    normalise,
    random_cells,
    rolling_mean,
    training_curve,
)
from eval.matrix_metrics import average_performance_curve, average_seen_curve, drops
from eval.metrics import (
    METRICS,
    average_performance,
    average_performance_of_experts,
    average_performance_seen,
    backward_transfer,
    forgetting,
    forgetting_before_return,
    forgetting_from_best,
)
from eval.records import EpisodeRecord

NAN = math.nan

# Three tasks, one phase each. Worked on paper:
#   end: (0.2 + 0.5 + 0.7) / 3;  own - end: 0.6, 0.4, 0;  best before the end - end: 0.7, 0.4
R3 = np.array(
    [
        [0.0, 0.1, 0.0],
        [0.8, 0.1, 0.0],
        [0.9, 0.9, 0.1],
        [0.2, 0.5, 0.7],
    ]
)
TRAINED3, LEARNED3 = (0, 1, 2), (True, True, True)

# Two tasks in turn, twice. Task 0: own ends 0.6 (phase 1) and 0.8 (phase 3), 0.7 at the end.
R_CYCLES = np.array([[0.0, 0.0], [0.6, 0.0], [0.2, 0.5], [0.8, 0.1], [0.7, 0.9]])
TRAINED_CYCLES = (0, 1, 0, 1)


def judged(
    z: np.ndarray,
    trained: Sequence[int],
    learned: Sequence[bool | None] = (None,) * 9,
    not_normalised: Mapping[int, str] | None = None,
) -> Judged:
    """Of a life that is over, or of its first phases: as many as z has rows for."""
    last = len(z) - 1
    return Judged(z, trained[:last], learned[:last], not_normalised=not_normalised or {})


def record(**changes: object) -> EpisodeRecord:
    fields: dict[str, object] = {
        "split": "eval",
        "eval_id": "1@100",
        "when": "end",
        "task": "a",
        "variant": "",
        "policy": "gated",
        "action_mode": "mode",
        "phase": 1,
        "cycle": 1,
        "phase_step": 100,
        "env_steps": 100,
        "agent_steps": 100,
        "updates": 10,
        "world": 0,
        "episode": 0,
        "seed": 0,
        "return_": 1.0,
        "length": 10,
        "terminated": False,
    }
    return EpisodeRecord(**{**fields, **changes})  # type: ignore[arg-type]


def test_average_performance_is_the_mean_of_the_last_row():
    assert average_performance(judged(R3, TRAINED3)).value == pytest.approx(1.4 / 3)
    np.testing.assert_allclose(average_performance_curve(R3), [0.1 / 3, 0.3, 1.9 / 3, 1.4 / 3])


def test_average_over_seen_tasks_ignores_those_to_come():
    np.testing.assert_allclose(average_seen_curve(R3, TRAINED3), [NAN, 0.8, 0.9, 1.4 / 3])
    assert average_performance_seen(judged(R3[:2], TRAINED3)).value == pytest.approx(0.8)


def test_a_task_without_a_number_is_left_out_of_the_average_and_says_which_way():
    z = R3.copy()
    z[:, 1] = NAN
    metric = average_performance(judged(z, TRAINED3))
    assert metric.value == pytest.approx(0.45)
    assert metric.left_out == {1: NOT_JUDGED}
    metric = average_performance(judged(z, TRAINED3, not_normalised={1: "no range"}))
    assert metric.left_out == {1: f"{NOT_NORMALISED}: no range"}


def test_what_a_task_came_to_is_set_beside_what_it_comes_to_alone():
    # 0.2 of 0.8, 0.7 of 0.5; the second one's reference learnt nothing.
    life = Judged(
        R3,
        TRAINED3,
        LEARNED3,
        references={0: Alone(NAN, 0.8), 1: Alone(NAN, NAN), 2: Alone(NAN, 0.5)},
    )
    metric = average_performance_of_experts(life)
    assert metric.value == pytest.approx((0.25 + 1.4) / 2)
    assert metric.left_out == {1: WEAK_REFERENCE}
    without = average_performance_of_experts(judged(R3, TRAINED3))
    assert "no single-task reference" in without.reason


def test_a_reference_of_a_task_that_cannot_be_normalised_is_not_called_missing_or_weak():
    life = judged(np.array([[0.0, NAN], [0.6, NAN]]), (0,), not_normalised={1: "no range"})
    life = replace(life, references={1: Alone(NAN, NAN)})
    found = average_performance_of_experts(life)
    assert found.left_out == {0: NO_REFERENCE, 1: "cannot be normalised: no range"}


def test_forgetting_is_own_phase_end_minus_end_over_all_tasks():
    assert forgetting(judged(R3, TRAINED3, LEARNED3)).value == pytest.approx((0.6 + 0.4 + 0.0) / 3)


def test_forgetting_from_the_best_excludes_the_last_row_and_the_last_task():
    metric = forgetting_from_best(judged(R3, TRAINED3, LEARNED3))
    assert metric.value == pytest.approx((0.7 + 0.4) / 2)
    assert metric.left_out == {2: "trained last"}
    improved = np.array([[0.0, 0.0], [0.5, 0.0], [0.7, 0.6]])
    assert forgetting_from_best(judged(improved, (0, 1), (True, True))).value == pytest.approx(-0.2)


def test_forgetting_from_the_best_counts_from_the_first_training_on():
    lucky_before = np.array([[0.9, 0.0, 0.0], [0.3, 0.9, 0.0], [0.2, 0.5, 0.0], [0.2, 0.4, 0.5]])
    # Task 1 stood at 0.9 after phase 1 but is first trained in phase 2, where it ends at 0.5.
    metric = forgetting_from_best(judged(lucky_before, TRAINED3, LEARNED3))
    assert metric.value == pytest.approx(((0.3 - 0.2) + (0.5 - 0.4)) / 2)


def test_backward_transfer_is_the_negative_of_forgetting_when_each_task_has_one_phase():
    assert backward_transfer(judged(R3, TRAINED3)).value == pytest.approx(-(0.6 + 0.4) / 2)


def test_with_cycles_every_training_has_an_end_and_backward_transfer_starts_at_the_first():
    learned = (True,) * 4
    # Task 0: 0.6 and 0.8 -> 0.7; task 1: 0.5 and 0.9 -> 0.9.
    assert forgetting(judged(R_CYCLES, TRAINED_CYCLES, learned)).value == pytest.approx(
        ((-0.1 + 0.1) / 2 + (-0.4 + 0.0) / 2) / 2
    )
    # First ends: 0.6 -> 0.7 and 0.5 -> 0.9.
    assert backward_transfer(judged(R_CYCLES, TRAINED_CYCLES)).value == pytest.approx(
        (0.1 + 0.4) / 2
    )
    # Bests before the end: 0.8 and 0.5.
    best = forgetting_from_best(judged(R_CYCLES, TRAINED_CYCLES, learned)).value
    assert best == pytest.approx((0.1 - 0.4) / 2)


def test_drops_give_every_training_phase_its_own_row():
    expected = [
        [NAN, 0.0, 0.4, -0.2, -0.1],
        [NAN, NAN, 0.0, 0.4, -0.4],
        [NAN, NAN, NAN, 0.0, 0.1],
        [NAN, NAN, NAN, NAN, 0.0],
    ]
    np.testing.assert_allclose(drops(R_CYCLES, TRAINED_CYCLES), expected, atol=1e-12)


def test_a_task_that_was_not_learned_has_no_forgetting():
    metric = forgetting(judged(R3, TRAINED3, (True, False, True)))
    assert metric.value == pytest.approx((0.6 + 0.0) / 2)
    assert "not learned" in metric.left_out[1]
    assert forgetting_from_best(judged(R3, TRAINED3, (True, False, True))).value == pytest.approx(
        0.7
    )


def test_a_task_of_which_learning_cannot_be_told_still_counts():
    assert forgetting(judged(R3, TRAINED3, (None,) * 3)).value == pytest.approx(1.0 / 3)


def test_what_is_undefined_is_nan_and_says_why():
    after_one_phase = forgetting_from_best(judged(R3[:2], TRAINED3, LEARNED3))
    assert math.isnan(after_one_phase.value)
    assert "trained last" in after_one_phase.reason
    last_alone = forgetting(judged(R3[:2], TRAINED3, LEARNED3))
    assert math.isnan(last_alone.value)
    assert "0 by construction" in last_alone.reason
    nothing_learned = forgetting(judged(R3, TRAINED3, (False,) * 3))
    assert math.isnan(nothing_learned.value)
    assert "not learned" in nothing_learned.reason


def test_forgetting_is_not_0_because_all_but_the_newest_task_lack_a_number():
    z = np.array([[0.0, 0.0], [NAN, 0.0], [NAN, 0.8]])
    metric = forgetting(judged(z, (0, 1), (True, True)))
    assert math.isnan(metric.value)
    assert metric.left_out == {0: NOT_JUDGED, 1: LAST_ALONE}
    metric = forgetting(judged(R3, TRAINED3, (False, False, False)))
    assert set(metric.left_out.values()) == {NOT_LEARNED}


@st.composite
def lives(draw: st.DrawFn) -> Judged:
    """Any life of up to 4 phases and 3 tasks, with holes in what was judged."""
    number = st.sampled_from([NAN, NAN, 0.1, 0.4, 0.9])
    z = np.array(draw(st.lists(st.tuples(number, number, number), min_size=2, max_size=5)))
    last, tasks = len(z) - 1, 3
    narrow = draw(st.sets(st.integers(0, tasks - 1)))
    z[:, sorted(narrow)] = NAN
    trained = draw(st.lists(st.integers(0, tasks - 1), min_size=last, max_size=last))
    learned = draw(st.lists(st.sampled_from([True, False, None]), min_size=last, max_size=last))
    return Judged(z, trained, learned, not_normalised=dict.fromkeys(narrow, "why"))


@given(lives())
def test_a_metric_is_a_number_of_the_tasks_it_counts_or_nan_with_a_reason(life: Judged):
    for metric in (function(life) for function in METRICS):
        counted = [task for task in life.tasks if task not in metric.left_out]
        assert math.isnan(metric.value) == (not counted) == bool(metric.reason), metric
        assert not np.isnan(life.z[-1, counted]).any(), metric
        for task, why in metric.left_out.items():
            assert why
            assert (why == f"{NOT_NORMALISED}: why") <= (task in life.not_normalised), metric
            assert (why == NOT_JUDGED) <= (task not in life.not_normalised), metric
            assert (why == NOT_TRAINED) <= (task not in life.trained), metric


@given(lives())
def test_forgetting_counts_every_phase_that_taught_with_both_ends_but_never_the_newest_alone(
    life: Judged,
):
    lost: dict[int, list[float]] = {}
    earlier = False
    for phase, task in enumerate(life.trained, start=1):
        fallen = life.z[phase, task] - life.z[-1, task]
        if life.learned[phase - 1] is not False and not math.isnan(fallen):
            lost.setdefault(task, []).append(fallen)
            earlier = earlier or phase < life.last
    counted = lost if earlier else {}
    metric = forgetting(life)
    assert set(life.tasks) - set(metric.left_out) == set(counted)
    if counted:
        assert metric.value == pytest.approx(np.mean([np.mean(own) for own in counted.values()]))
    if LAST_ALONE in metric.left_out.values():
        assert metric.left_out[life.trained[-1]] == LAST_ALONE
        assert not earlier


def test_a_stationary_control_reads_as_forgetting_of_about_0():
    z = np.array([[0.0], [0.80], [0.81], [0.80]])
    metric = forgetting(judged(z, (0, 0, 0), (True,) * 3))
    assert metric.value == pytest.approx((0.0 + 0.01 + 0.0) / 3)
    back = forgetting_before_return(judged(z, (0, 0, 0), (True,) * 3))
    assert math.isnan(back.value)
    assert back.left_out == {0: NEVER_BACK}


def test_what_was_lost_before_a_task_came_back_stays_seen_when_it_is_learnt_again():
    z = np.array([[0.0, 0.0], [0.8, 0.0], [0.1, 0.7], [0.8, 0.65]])
    life = judged(z, (0, 1, 0), (True,) * 3)
    assert forgetting(life).value == pytest.approx((0 + 0.05) / 2)
    metric = forgetting_before_return(life)
    assert metric.value == pytest.approx(0.7)
    assert metric.left_out == {1: NEVER_BACK}
    unlearned = forgetting_before_return(judged(z, (0, 1, 0), (False, True, True)))
    assert math.isnan(unlearned.value)


def test_normalising_puts_random_at_zero_and_the_highest_return_at_one():
    R = np.array([[40.0, 2.0], [1000.0, 12.0], [520.0, 22.0]])
    z = normalise(R, np.array([40.0, 2.0]), np.array([1000.0, 22.0]))
    np.testing.assert_allclose(z, [[0, 0], [1, 0.5], [0.5, 1]])


def test_a_task_whose_range_has_no_width_is_nan_and_one_upside_down_is_what_the_formula_says():
    z = normalise([[3.0, 1.0, 3.0]], [5.0, 0.0, 5.0], [5.0 + 1e-7, 2.0, 2.0])
    np.testing.assert_allclose(z, [[NAN, 0.5, 2 / 3]])


def test_learning_must_clear_the_random_agent_beyond_chance():
    random = Cell(10.0, 3.0, 9)  # standard error 1
    # With an own standard error of 0 the threshold is 12.
    assert clears_random(Cell(12.1, 0.0, 9), random) is True
    assert clears_random(Cell(11.9, 0.0, 9), random) is False
    assert clears_random(Cell(), random) is None
    assert clears_random(Cell(12.0, NAN, 1), Cell(11.0, NAN, 1)) is True


def test_a_cell_holds_mean_sample_spread_and_count():
    assert cell([1.0, 2.0, 3.0]) == Cell(2.0, 1.0, 3)
    assert math.isnan(cell([1.0]).sd)
    assert cell([]).n == 0


def test_matrix_takes_phase_ends_of_one_policy_and_mode_and_leaves_the_rest_blank():
    records = [
        record(when="before", phase=0, eval_id="0@0", return_=0.5),
        record(return_=3.0),
        record(return_=5.0, episode=1),
        record(task="b", phase=2, eval_id="2@100", return_=7.0),
        record(when="inside", eval_id="1@50", phase_step=50, return_=100.0),
        record(policy="dreamer_actor", return_=100.0),
        record(action_mode="sampled", return_=100.0),
        record(variant="heavy", return_=100.0),
        record(cut=True, return_=100.0),
        record(split="train", eval_id="", when="", action_mode="sampled", return_=100.0),
    ]
    rows = cells(evaluations(records), ["a", "b"], 2, "gated", "mode")
    expected = [[0.5, NAN], [4.0, NAN], [NAN, 7.0]]
    np.testing.assert_array_equal(forgetting_matrix(rows), expected)
    assert rows[1][0].n == 2


def test_random_level_comes_from_the_random_policy_before_training():
    records = [
        record(policy="random", action_mode="sampled", when="before", phase=0, return_=r)
        for r in (1.0, 3.0)
    ]
    level, missing = random_cells(evaluations([*records, record()]), ["a", "b"])
    assert (level.mean, level.n) == (2.0, 2)
    assert missing.n == 0


def test_curves_hold_every_evaluation_by_time_and_whole_training_episodes():
    records = [
        record(when="inside", eval_id="1@50", env_steps=50, return_=1.0),
        record(env_steps=100, return_=2.0),
        record(split="train", when="", eval_id="", env_steps=30, return_=9.0),
        record(split="train", when="", eval_id="", env_steps=40, return_=0.1, cut=True),
    ]
    curve = evaluation_curve(evaluations(records), "a", "gated", "mode")
    assert [(t, c.mean) for t, c in curve] == [(50, 1.0), (100, 2.0)]
    assert [e.return_ for e in training_curve(records, "a")] == [9.0]


def test_an_agent_judged_twice_at_one_time_counts_once_by_the_phases_end():
    at = {"env_steps": 100, "task": "a", "policy": "gated", "action_mode": "mode"}
    records = [
        record(when="end", eval_id="1@100", return_=2.0, **at),
        record(when="inside", eval_id="1@100", return_=5.0, **at),
    ]
    for order in (records, records[::-1]):
        ((_, found),) = evaluation_curve(evaluations(order), "a", "gated", "mode")
        assert found.mean == 2.0


def test_rolling_mean_uses_what_there_is_at_the_start():
    np.testing.assert_allclose(rolling_mean(np.array([1.0, 3.0, 5.0, 7.0]), 2), [1, 2, 4, 6])
    gap = rolling_mean(np.array([1.0, NAN, 5.0, 7.0]), 2)
    np.testing.assert_allclose(gap, [1, NAN, NAN, 6])


def test_gate_means_weigh_every_decision_alike():
    long = record(gate={"n": 90, "p": 9.0, "chosen": 0, "entropy_gap": 45.0})
    short = record(gate={"n": 10, "p": 10.0, "chosen": 10, "entropy_gap": -5.0})
    g = gate_means(r.gate for r in (long, short, record()))
    assert (g.decisions, g.p, g.chosen, g.entropy_gap) == (100, 0.19, 0.1, 0.4)
    assert math.isnan(g.divergence)
    assert gate_means([]).decisions == 0


def test_gate_is_told_apart_by_phase_task_and_way_of_acting():
    lived = {"split": "train", "when": "", "eval_id": "", "action_mode": "sampled"}
    half, all_ = {"n": 10, "p": 5.0, "chosen": 5}, {"n": 10, "p": 9.0, "chosen": 10}
    records = [
        record(**lived, gate=half, cut=True),
        record(**lived, phase=2, task="b", gate=all_),
        record(gate=all_),
        record(task="b", action_mode="sampled", gate=half),
        record(when="inside", gate=half),
    ]
    assert [g.chosen for g in gate_while_living(records, 2)] == [0.5, 1.0]
    judged = gate_when_judged(records, ["a", "b"], 2, "mode")
    assert judged[1][0].chosen == 1.0
    assert [g.decisions for row in judged for g in row] == [0, 0, 10, 0, 0, 0]
