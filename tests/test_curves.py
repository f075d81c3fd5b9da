"""Curves between the ends of phases, against examples worked by hand and the tools' own rules."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.crafter_score import (
    ACHIEVEMENTS,
    crafter_rates,
    crafter_score,
    lived_success_rates,
    success_rates,
)
from eval.curve_metrics import (
    CURVE_METRICS,
    average_performance_of_life,
    gap,
    isolated,
    plasticity,
    recovery,
    single_task_transfer,
    transfer_against_reference,
    zero_shot,
)
from eval.curves import (
    auc_ratio,
    half_life,
    isolated_forgetting,
    mean_inside,
    stability_gap,
    steps_to_recover,
    time_mean,
    zero_shot_transfer,
)
from eval.judged import (
    NO_REFERENCE,
    NOT_LEARNED,
    NOT_REPEATED,
    NOTHING_EARLY,
    NOTHING_INSIDE,
    NOTHING_LATE,
    PERFECT_REFERENCE,
    Alone,
    Judged,
)
from tests.test_metrics import record

NAN = math.nan

# Two phases, twice, of 100 steps each; evaluations at 0, 50, 90 and at every boundary.
SPANS = [(0, 100), (100, 200), (200, 300), (300, 400)]
TIMES = [0, 50, 90, 100, 150, 190, 200, 250, 290, 300, 350, 390, 400]
FIRST = [0.0, 0.4, 0.6, 0.8, 0.2, 0.1, 0.3, 0.5, 0.9, 1.0, 0.4, 0.6, 0.5]  # trained in 1 and 3
SECOND = [0.1, 0.1, 0.2, 0.2, 0.5, 0.7, 0.7, 0.4, 0.3, 0.3, 0.8, 0.9, 0.9]  # in 2 and 4


def judged(**changes):
    ends = [TIMES.index(t) for t in (0, 100, 200, 300, 400)]
    fields = {
        "z": np.array([FIRST, SECOND])[:, ends].T,
        "trained": (0, 1, 0, 1),
        "learned": (True,) * 4,
        "curves": [(np.array(TIMES), np.array(c)) for c in (FIRST, SECOND)],
        "spans": SPANS,
    }
    return Judged(**fields | changes)


def test_the_area_under_a_curve_is_the_plain_mean_inside_the_phase():
    # 50, 90 and the end of the phase; its beginning belongs to the phase before.
    assert mean_inside(TIMES, FIRST, 0, 100) == pytest.approx((0.4 + 0.6 + 0.8) / 3)
    assert math.isnan(mean_inside(TIMES, FIRST, 400, 500))


def test_isolated_forgetting_takes_no_evaluation_on_a_boundary():
    # before phase 2: 0.6 at 90; inside: 0.1 at 190. Before 3: 0.1; inside: 0.9. Before 4: 0.9; 0.6.
    np.testing.assert_allclose(
        isolated_forgetting(TIMES, FIRST, SPANS, 1), [NAN, 0.5, -0.8, 0.3], atol=1e-12
    )
    # Of the second task, phase 3 counts (0.7 -> 0.3) and its own second one (0.3 -> 0.9).
    np.testing.assert_allclose(
        isolated_forgetting(TIMES, SECOND, SPANS, 2, scale=0.9),
        [NAN, NAN, 0.4 / 0.9, -0.6 / 0.9],
        atol=1e-12,
    )


def test_zero_shot_transfer_of_the_first_phase_is_measured_from_the_first_evaluation():
    np.testing.assert_allclose(
        zero_shot_transfer(TIMES, SECOND, SPANS, 2, scale=2), [0.05, NAN, NAN, NAN], atol=1e-12
    )
    # Of a task trained in phase 3 only: phase 2 from the last one strictly inside (0, 100).
    np.testing.assert_allclose(
        zero_shot_transfer(TIMES, SECOND, SPANS, 3), [0.1, 0.5, NAN, NAN], atol=1e-12
    )
    # An evaluation at time 0 is no "before" of a later phase, as in CORA's code.
    lonely = zero_shot_transfer([0, 100, 150], [0.5, 0.6, 0.7], SPANS[:3], 3)
    assert math.isnan(lonely[1])


def test_the_stability_gap_is_the_deepest_fall_whether_or_not_it_recovers():
    assert stability_gap(TIMES, FIRST, 100, 200) == pytest.approx(0.8 - 0.1)
    assert stability_gap(TIMES, FIRST, 100, 200, share=0.5) == pytest.approx(0.8 - 0.2)
    assert math.isnan(stability_gap(TIMES, FIRST, 100, 200, share=0.1))


def test_recovery_is_the_time_until_the_old_level():
    assert steps_to_recover(TIMES, FIRST, 200, 300, 0.8) == 90
    assert math.isnan(steps_to_recover(TIMES, FIRST, 200, 300, 1.1))


def test_a_ratio_of_areas_needs_something_that_was_learnt_first():
    first, again = (0.4 + 0.6 + 0.8) / 3, (0.5 + 0.9 + 1.0) / 3
    assert auc_ratio(TIMES, FIRST, SPANS[2], SPANS[0]) == pytest.approx(again / first)
    assert math.isnan(auc_ratio(TIMES, np.zeros(13), SPANS[2], SPANS[0]))


def test_a_half_life_lies_between_the_evaluations_around_it():
    assert half_life([0, 10, 20], [0.8, 0.6, 0.2]) == pytest.approx(15)
    assert math.isnan(half_life([0, 10, 20], [0.8, 0.6, 0.5]))
    assert math.isnan(half_life([0, 10], [0.0, -0.1]))


def test_metrics_of_a_life_with_repeats_are_those_worked_by_hand():
    life = judged()
    # What a task's own repeats gave, -0.8 and -0.6, is not what others took.
    assert isolated(life).value == pytest.approx(((0.5 + 0.3) / 2 + 0.4) / 2)
    assert zero_shot(life).value == pytest.approx(0.1)
    # 0.8 again after 90 of 100 steps; 0.7 again after 50.
    assert recovery(life).value == pytest.approx((0.9 + 0.5) / 2)
    first = (2.4 / 3) / (1.8 / 3)
    second = (2.6 / 3) / (1.9 / 3)
    assert plasticity(life).value == pytest.approx((first + second) / 2)


def judged_early(first, second, **changes):
    """With evaluations 10 steps into each phase."""
    times, curves = np.array([*TIMES, 10, 110, 210, 310]), []
    order = np.argsort(times)
    for curve, early in ((FIRST, first), (SECOND, second)):
        curves.append((times[order], np.array([*curve, *early])[order]))
    return judged(curves=curves, **changes)


def test_the_stability_gap_of_a_life_is_that_just_after_its_switches():
    life = judged_early([0.0, 0.3, 0.1, 0.7], [0.1, 0.1, 0.1, 0.3])
    # Task 0: phases 2 (0.8 - 0.3) and 4 (1.0 - 0.7); task 1: phase 3 (0.7 - 0.1).
    assert gap(life).value == pytest.approx(((0.5 + 0.3) / 2 + 0.6) / 2)
    # What was first taught in phase 3 can only fall in phase 4.
    late = judged_early([0.0, 0.3, 0.1, 0.7], [0.1] * 4, learned=(False, False, True, False))
    assert gap(late).value == pytest.approx(0.3)
    assert gap(late).left_out == {1: NOT_LEARNED}
    assert set(gap(judged()).left_out.values()) == {NOTHING_EARLY}


def test_what_never_recovers_counts_as_the_whole_phase_and_what_lost_nothing_as_none_of_it():
    # Task 0 comes back at 0.3 and must reach 0.8, which it does at 90 of 100; task 1 gets to 0.6.
    poor = [*SECOND[:10], 0.5, 0.6, 0.6]
    life = judged(curves=[(np.array(TIMES), np.array(c)) for c in (FIRST, poor)])
    assert recovery(life).value == pytest.approx((0.9 + 1) / 2)
    kept = judged(z=np.array([[0.0, 0.1], [0.8, 0.2], [0.8, 0.7], [1.0, 0.3], [0.5, 0.9]]))
    assert recovery(kept).value == pytest.approx((0 + 0.5) / 2)


def test_performance_over_the_life_is_the_mean_over_time_wherever_evaluations_lie():
    life = judged()
    own = [np.trapezoid(curve, TIMES) / 400 for curve in (FIRST, SECOND)]
    assert average_performance_of_life(life).value == pytest.approx(np.mean(own))
    # One evaluation more, on the line between two others, changes nothing.
    between = [np.insert(c, 1, (c[0] + c[1]) / 2) for c in map(np.array, (FIRST, SECOND))]
    dense = [(np.insert(np.array(TIMES), 1, 25), curve) for curve in between]
    assert average_performance_of_life(judged(curves=dense)).value == pytest.approx(np.mean(own))
    assert time_mean([0, 100, 200], [0.0, 1.0, 0.0], 50, 150) == pytest.approx(0.75)
    assert math.isnan(time_mean([10, 200], [0.0, 1.0], 0, 200))
    assert math.isnan(time_mean([0, 100], [0.0, 1.0], 0, 200))


def test_what_was_not_learned_is_no_measure_of_what_comes_back():
    life = judged(learned=(False, True, True, True))
    second = (2.6 / 3) / (1.9 / 3)
    assert plasticity(life).value == pytest.approx(second)
    assert recovery(life).value == pytest.approx(0.5)
    assert plasticity(life).left_out == recovery(life).left_out == {0: NOT_LEARNED}


def test_isolated_metrics_need_an_evaluation_near_the_end_of_each_phase():
    kept = [i for i, t in enumerate(TIMES) if t % 100 != 90]
    thin = [(np.array(TIMES)[kept], np.array(c)[kept]) for c in (FIRST, SECOND)]
    for metric in (isolated(judged(curves=thin)), zero_shot(judged(curves=thin))):
        assert math.isnan(metric.value)
        assert NOTHING_LATE in metric.left_out.values()


def test_an_area_that_cannot_be_compared_says_why():
    bare = judged(curves=[(np.array([0.0]), np.array([0.0]))] * 2, references={0: Alone(0.5, 1.0)})
    assert single_task_transfer(bare).left_out == {0: NOTHING_INSIDE, 1: NO_REFERENCE}
    perfect = judged(references={0: Alone(sum([0.1] * 10), 1.0)})  # a rounding below 1
    assert single_task_transfer(perfect).left_out == {0: PERFECT_REFERENCE, 1: NO_REFERENCE}
    unseen = judged(references={0: Alone(NAN, NAN)})
    assert single_task_transfer(unseen).left_out == {0: NOTHING_INSIDE, 1: NO_REFERENCE}
    no_range = judged(references={0: Alone(NAN, NAN)}, not_normalised={0: "no range"})
    reasons = single_task_transfer(no_range).left_out
    assert reasons == {0: "cannot be normalised: no range", 1: NO_REFERENCE}


def test_a_curve_that_goes_back_in_time_is_refused():
    with pytest.raises(ValueError, match="time 100 after 200, expected them to rise"):
        time_mean([0, 200, 100], [0.0, 1.0, 0.5], 0, 100)


def test_transfer_against_a_reference_prints_its_denominators():
    life = judged(references={0: Alone(0.5, 1.0), 1: Alone(0.2, 1.0)})
    own = [(0.4 + 0.6 + 0.8) / 3, (0.5 + 0.7 + 0.7) / 3]
    expected = ((own[0] - 0.5) / 0.5 + (own[1] - 0.2) / 0.8) / 2
    found = single_task_transfer(life)
    assert found.value == pytest.approx(expected)
    assert "denominators 0.500, 0.800" in found.formula
    several = transfer_against_reference([0.5, 0.6, 0.5], [0.4, 0.2, 1.0])
    np.testing.assert_allclose(several, [1 / 6, 0.5, NAN])
    assert single_task_transfer(judged()).left_out == {0: NO_REFERENCE, 1: NO_REFERENCE}


def test_what_a_life_without_repeats_cannot_say_has_a_reason():
    once = judged(trained=(0, 1), learned=(True, True), spans=SPANS[:2], z=judged().z[:3])
    for metric in (recovery(once), plasticity(once)):
        assert math.isnan(metric.value)
        assert set(metric.left_out.values()) == {NOT_REPEATED}


@given(st.floats(-1, 1))
def test_a_constant_agent_forgets_nothing_gains_nothing_and_never_falls(level):
    times = np.sort([*TIMES, 110, 210, 310])
    flat = [(times, np.full(len(times), level))] * 2
    life = judged(curves=flat, z=np.full((5, 2), level))
    for metric in (isolated, zero_shot, gap):
        assert metric(life).value == 0


@pytest.mark.parametrize("metric", CURVE_METRICS, ids=lambda m: m.__name__)
def test_neither_the_order_of_tasks_nor_an_unseen_one_changes_a_metric(metric):
    life = judged(references={0: Alone(0.5, 1.0), 1: Alone(0.2, 1.0)})
    turned = judged(
        z=life.z[:, ::-1],
        trained=(1, 0, 1, 0),
        curves=life.curves[::-1],
        references={1: Alone(0.5, 1.0), 0: Alone(0.2, 1.0)},
    )
    assert metric(turned).value == pytest.approx(metric(life).value, nan_ok=True)
    unseen = judged(
        z=np.column_stack([life.z, np.full(5, NAN)]),
        curves=[*life.curves, (np.array([]), np.array([]))],
        references=life.references,
    )
    assert metric(unseen).value == pytest.approx(metric(life).value, nan_ok=True)


def test_the_crafter_score_is_a_geometric_mean_that_counts_rare_skills():
    assert crafter_score(np.zeros(22)) == 0
    assert crafter_score(np.full(22, 100.0)) == pytest.approx(100)
    # exp((ln 101 + 21 ln 1) / 22) - 1
    assert crafter_score([100.0, *[0.0] * 21]) == pytest.approx(101 ** (1 / 22) - 1)
    two = [{"wake_up": 3, "collect_wood": 0}, {"wake_up": 1, "collect_wood": 2}]
    rates = dict(zip(ACHIEVEMENTS, success_rates(two), strict=True))
    assert (rates["wake_up"], rates["collect_wood"], rates["eat_cow"]) == (100, 50, 0)
    assert np.isnan(success_rates([])).all()
    # As Crafter's own files name them.
    theirs = [{f"achievement_{name}": n for name, n in counts.items()} for counts in two]
    np.testing.assert_array_equal(success_rates(theirs), success_rates(two))
    with pytest.raises(ValueError, match="'collect_wod': no achievement of Crafter"):
        success_rates([{"collect_wod": 1}])


def test_a_budget_counts_the_lengths_of_the_episodes_in_crafters_own_file():
    lines = [
        {"length": 400, "reward": 1.1, "achievement_wake_up": 1},
        {"length": 500, "reward": 0.1, "achievement_wake_up": 0},
        {"length": 200, "reward": 1.1, "achievement_wake_up": 1},
    ]
    for budget, expected in ((None, 200 / 3), (1100, 200 / 3), (1099, 50), (400, 100)):
        rates = dict(zip(ACHIEVEMENTS, success_rates(lines, budget), strict=True))
        assert rates["wake_up"] == pytest.approx(expected)


def test_the_crafter_score_is_of_each_life_and_of_rates_in_percent():
    lives = np.array([[100.0] * 11 + [0.0] * 11, [0.0] * 22])
    # exp(11 ln 101 / 22) - 1 = sqrt(101) - 1; the score of mean rates would be sqrt(51) - 1.
    np.testing.assert_allclose(crafter_score(lives), [np.sqrt(101) - 1, 0])
    with pytest.raises(ValueError, match=r"rates \(21,\), expected \[..., 22\]"):
        crafter_score(np.zeros(21))
    with pytest.raises(ValueError, match="in percent, 0 to 100"):
        crafter_score(np.full(22, 101.0))


def crafter_episode(phase, step, cut=False, **achievements):
    return record(
        split="train", task="crafter/reward", phase=phase, phase_step=step, cut=cut,
        extras={"achievements": achievements},
    )  # fmt: skip


def test_the_budget_of_the_crafter_score_counts_crafters_own_steps_alone():
    life = [
        crafter_episode(1, 400, wake_up=1),
        crafter_episode(1, 500, cut=True),
        record(split="train", task="dmc/walker_walk", phase=2, phase_step=9000),
        crafter_episode(3, 300, collect_wood=1),
        crafter_episode(3, 600, eat_cow=1),
    ]
    rates = dict(zip(ACHIEVEMENTS, lived_success_rates(life, budget=900), strict=True))
    assert (rates["wake_up"], rates["collect_wood"], rates["eat_cow"]) == (50, 50, 0)
    everything = dict(zip(ACHIEVEMENTS, lived_success_rates(life), strict=True))
    assert everything["eat_cow"] == pytest.approx(100 / 3)


def test_crafters_rates_are_of_lived_and_of_judged_episodes_in_each_of_its_tasks():
    at = {"split": "eval", "task": "crafter/reward", "policy": "gated", "action_mode": "mode"}
    life = [
        crafter_episode(1, 400, wake_up=1),
        record(when="end", phase=1, extras={"achievements": {"eat_cow": 1}}, **at),
        record(when="end", phase=2, extras={"achievements": {"place_table": 2}}, **at),
        record(when="end", phase=2, extras={"achievements": {"place_table": 0}}, **at),
        record(when="end", phase=2, variant="night", extras={"achievements": {}}, **at),
        record(when="end", phase=2, cut=True, extras={"achievements": {}}, **at),
    ]
    rewarded, free = crafter_rates(
        life, ["dmc/walker_walk", "crafter/reward", "crafter/noreward"], "gated", "mode"
    )
    assert rewarded.score == pytest.approx(101 ** (1 / 22) - 1)
    assert rewarded.judged[ACHIEVEMENTS.index("place_table")] == 50
    assert rewarded.judged_score == pytest.approx(51 ** (1 / 22) - 1)
    assert math.isnan(free.score)
