"""The schedule of a life: any curriculum, any interruptions, the same pieces in the same order."""

from __future__ import annotations

import zlib
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from continual.config import EvaluateConfig
from continual.scheduler import (
    Agenda,
    Checkpoint,
    Clock,
    Collect,
    Done,
    EndPhase,
    Evaluate,
    end_of,
    inside_points,
    next_action,
)
from curricula.loader import NamedCurriculum, PlannedPhase

TASKS = ("toy/reach", "toy/match", "toy/delay")


@st.composite
def agendas(draw):
    phases = draw(
        st.lists(
            st.tuples(st.sampled_from(TASKS), st.integers(1, 90), st.none() | st.floats(0.5, 1.1)),
            min_size=1,
            max_size=4,
        )
    )
    plan = tuple(PlannedPhase(i, 1, *phase) for i, phase in enumerate(phases, start=1))
    curriculum = NamedCurriculum("drawn", "", None, plan)
    every = draw(st.sampled_from([0.05, 0.3, 0.5, 1.0]))
    evaluate = EvaluateConfig(
        inside_every=every, inside_heads=draw(st.booleans()), sampled=draw(st.booleans())
    )
    return Agenda(curriculum, ("gated", "dreamer_actor"), evaluate, draw(st.integers(1, 40)))


def return_of(piece: Evaluate) -> float:
    """In [0, 1), a function of the piece."""
    return zlib.crc32(repr(piece).encode()) / 2**32


def live(agenda: Agenda, stride: int, kills: list[int] = ()):
    """Follow the schedule; at the actions in `kills` fall back to the newest checkpoint."""
    clock, judged, saved = Clock(), {}, None
    disk = (clock, {}, None)
    pieces, number = [], 0
    while True:
        action = next_action(agenda, clock, judged, saved)
        if number in kills:
            kills = [k for k in kills if k != number]
            clock, kept, saved = disk
            judged, pieces = dict(kept), pieces[: len(kept)]
            continue
        number += 1
        match action:
            case Collect(until):
                assert clock.env_steps < until
                while clock.env_steps < until:
                    clock = replace(clock, env_steps=clock.env_steps + stride)
            case Evaluate():
                judged[action] = return_of(action)
                pieces.append((action, clock))
            case EndPhase():
                clock = clock.next_phase()
            case Checkpoint():
                saved = clock
                disk = (clock, dict(judged), clock)
            case Done():
                return pieces, clock
        assert number < 5000


@given(agendas(), st.integers(1, 7))
def test_every_life_ends_and_judges_every_task_before_training_and_at_every_phase_end(
    agenda, stride
):
    pieces, clock = live(agenda, stride)
    assert clock.phase == len(agenda.curriculum.plan) + 1
    at = lambda when: [(p.eval_id, p.task, p.policy) for p, _ in pieces if p.when == when]
    tasks, policies = agenda.curriculum.tasks, agenda.policies
    assert set(at("before")) == {("0@0", t, p) for t in tasks for p in (*policies, "random")}
    judged = {piece: return_of(piece) for piece, _ in pieces}
    ends = {f"{p.number}@{end_of(agenda, p, judged)}" for p in agenda.curriculum.plan}
    assert {(i, t, p) for i, t, p in at("end")} == {
        (i, t, p) for i in ends for t in tasks for p in policies
    }
    for eval_id in {i for i, _, _ in at("inside")}:
        judged = {(t, p) for i, t, p in at("inside") if i == eval_id}
        inside = policies if agenda.evaluate.inside_heads else policies[:1]
        assert judged == {(t, p) for t in tasks for p in inside}


@given(agendas(), st.integers(1, 7))
def test_nothing_is_judged_twice(agenda, stride):
    pieces = [piece for piece, _ in live(agenda, stride)[0]]
    assert len(pieces) == len(set(pieces))


@given(agendas(), st.integers(1, 7), st.lists(st.integers(0, 120), max_size=5))
def test_a_life_that_was_killed_is_judged_at_the_same_places(agenda, stride, kills):
    assert live(agenda, stride, kills) == live(agenda, stride)


@given(agendas())
def test_no_stretch_between_checkpoints_is_longer_than_asked(agenda):
    clock, judged, saved = Clock(), {}, None
    while not isinstance(action := next_action(agenda, clock, judged, saved), Done):
        match action:
            case Collect(until):
                assert saved is not None
                assert until - saved.env_steps <= agenda.checkpoint_every
                clock = replace(clock, env_steps=until)
            case Evaluate():
                judged[action] = return_of(action)
            case EndPhase():
                clock = clock.next_phase()
            case Checkpoint():
                saved = clock


@given(agendas(), st.integers(1, 7))
def test_what_was_lived_is_on_disk_before_a_phase_end_is_judged(agenda, stride):
    clock, judged, saved = Clock(), {}, None
    while not isinstance(action := next_action(agenda, clock, judged, saved), Done):
        match action:
            case Collect(until):
                while clock.env_steps < until:
                    clock = replace(clock, env_steps=clock.env_steps + stride)
            case Evaluate():
                assert action.when != "end" or saved == clock
                judged[action] = return_of(action)
            case EndPhase():
                clock = clock.next_phase()
            case Checkpoint():
                assert saved != clock
                saved = clock


def test_inside_points_are_even_and_leave_the_ends_out():
    phase = PlannedPhase(1, 1, "toy/reach", 100)
    assert inside_points(EvaluateConfig(inside_every=0.25), phase) == [25, 50, 75]
    assert inside_points(EvaluateConfig(inside_every=1.0), phase) == []
    assert len(inside_points(EvaluateConfig(inside_every=0.05), phase)) == 19


def test_a_phase_ends_at_the_first_evaluation_inside_it_that_comes_to_its_return():
    plan = (PlannedPhase(1, 1, "toy/reach", 100, until_return=0.5), PlannedPhase(2, 1, *PLAIN))
    curriculum = NamedCurriculum("drawn", "", None, plan)
    agenda = Agenda(curriculum, ("gated",), EvaluateConfig(inside_every=0.25), 1000)

    def after(returns: dict[int, float], task: str = "toy/reach") -> int:
        judged = {
            Evaluate(f"1@{point}", "inside", task, "gated", "mode"): value
            for point, value in returns.items()
        }
        return end_of(agenda, plan[0], judged)

    assert after({}) == 100
    assert after({25: 0.4, 50: 0.5, 75: 0.9}) == 50
    assert after({25: 0.4, 75: 0.6}) == 75
    assert after({25: 0.9}, task="toy/match") == 100
    assert end_of(agenda, plan[1], {}) == 60


PLAIN = ("toy/match", 60)
