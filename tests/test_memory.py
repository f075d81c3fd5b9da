"""What a report says of the replay and of the learner's health, from records worked by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from eval.health import health
from eval.matrix import Evaluation
from eval.memory import gone_at, memories, survival, survival_curve
from eval.records import PhaseRecord, TrainRecord

OLD, NEW = "dmc/walker_walk", "crafter/reward"
BLANK = TrainRecord(1, 1, OLD, 0, 0, 0, 0, {}, {}, {}, {}, {}, {}, {}, 0.0)


def train(updates, held, phase=1, **changes):
    return replace(BLANK, updates=updates, held_rows=held, phase=phase, **changes)


LIFE = [
    train(100, {OLD: 50}),
    train(200, {OLD: 30, NEW: 20}, phase=2),
    train(300, {OLD: 0, NEW: 50}, phase=2),
    train(400, {OLD: 0, NEW: 50}, phase=2),
]


def judged(*updates):
    return [Evaluation("inside", 1, 10 * u, u, OLD, "gated", "mode", (1.0,)) for u in updates]


def test_a_task_is_gone_from_the_first_record_without_its_rows_on():
    assert gone_at(LIFE, OLD) == 300
    assert gone_at(LIFE, NEW) is None
    assert gone_at(LIFE, "toy/reach") is None
    assert gone_at([*LIFE, train(500, {OLD: 5})], OLD) is None


def test_survival_counts_updates_since_the_rows_were_gone():
    of = lambda at, z, task, taught=True: survival(judged(*at), np.array(z), LIFE, task, taught)
    at = (100, 250, 350, 450)
    found = of(at, [0.2, 0.8, 0.6, 0.2], OLD)
    np.testing.assert_array_equal(found.since, [0, 50, 150])
    np.testing.assert_array_equal(found.z, [0.8, 0.6, 0.2])
    assert found.half_life == pytest.approx(100)  # 0.4 lies half way from 0.6 to 0.2
    assert found.reason == ""
    assert of((100,), [0.5], NEW) is None
    assert of((350,), [0.5], OLD) is None  # unknown what it was
    for undefined, why in (
        (of(at, [0.2, 0.8, 0.6, 0.5], OLD), "more than half of it is still there"),
        (of(at, [0.2, -0.1, 0.6, 0.5], OLD), "no better than the random agent"),
        (of(at, [0.2, 0.8, 0.6, 0.2], OLD, taught=False), "not learned"),
    ):
        assert math.isnan(undefined.half_life)
        assert why in undefined.reason


def test_a_survival_curve_begins_with_what_the_skill_was_when_its_rows_went():
    since, z = survival_curve([100, 300, 400], [0.2, 0.8, 0.4], 300)
    np.testing.assert_array_equal(since, [0, 100])
    np.testing.assert_array_equal(z, [0.8, 0.4])
    assert not any(map(len, survival_curve([400], [0.5], 300)))


def test_memory_of_a_phase_is_its_end_and_what_was_drawn_in_it():
    end = PhaseRecord(2, 1, NEW, (0, 1), (0, 1), (100, 400), "steps", {NEW: 1.0})
    life = [
        train(200, {}, phase=2, sampled_rows={OLD: 30, NEW: 10}, sampled_age=100.0),
        train(400, {}, phase=2, sampled_rows={NEW: 40}, sampled_age=60.0, sampled_latent_age=4.0),
    ]
    (found,) = memories([end], [LIFE[0], *life])
    assert found.sampled == {OLD: 30 / 80, NEW: 50 / 80}
    assert (found.age, found.latent_age) == (80.0, 4.0)
    assert found.shares == {NEW: 1.0}


def test_health_is_the_newest_diagnosis_of_each_phase():
    life = [
        train(100, {}, diagnostics={"effective_rank": 10.0}),
        train(200, {}, diagnostics={"effective_rank": 20.0, "dormant/actor": 0.5}),
        train(300, {}, diagnostics={"actor_entropy": 1.0}),
        train(
            400,
            {},
            phase=2,
            diagnostics={"effective_rank": 30.0},
            by_task={OLD: {"trunk_gradient_norm": 3.0}, NEW: {"reward": 1.0}},
        ),
    ]
    first, second = health(life)
    assert (first.phase, first.updates, first.signs["dormant, actor"]) == (1, 200, 0.5)
    assert math.isnan(second.signs["dormant, actor"])
    assert (first.pull, second.pull) == ({}, {OLD: 3.0})
    assert health(life[2:3]) == []
