"""How many updates a life owes, phase by phase."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from continual.config import CollectConfig
from continual.errors import UserError
from continual.pacing import rows_before_update, updates_due
from continual.replay_config import ReplayConfig
from continual.request import parse_request
from continual.scheduler import Clock

TASKS = ("dmc/walker_walk", "dmc/cartpole_swingup", "crafter/reward")
RATIOS = {"default": 512, "dmc": 1024, "dmc/walker": 256}
REPLAY = ReplayConfig(batch=16, length=64)


def lived(clock: Clock, rows: int) -> Clock:
    return replace(clock, agent_steps=clock.agent_steps + rows)


def caught_up(clock: Clock, task: str, collect: CollectConfig) -> Clock:
    return replace(clock, updates=updates_due(clock, task, collect, REPLAY))


def test_each_phase_replays_by_the_ratio_of_its_task():
    collect, clock, made = CollectConfig(start=1000, train_ratio=RATIOS), Clock(), []
    for task in TASKS:
        clock = caught_up(lived(clock, 2024), task, collect).next_phase()
        made.append(clock.updates)
    # 1024 rows after the start at a quarter of an update each, then 2024 at one, and at a half.
    assert made == [256, 256 + 2024, 256 + 2024 + 1012]


def test_no_phase_owes_an_update_before_the_start_is_over():
    collect, clock = CollectConfig(start=1000, train_ratio=1024), Clock()
    first = lived(clock, 400)
    assert updates_due(first, TASKS[0], collect, REPLAY) == 0
    second = lived(first.next_phase(), 600)
    assert updates_due(second, TASKS[1], collect, REPLAY) == 0
    assert updates_due(lived(second, 5), TASKS[1], collect, REPLAY) == 5


@given(
    ratio=st.sampled_from([0.5, 8.0, 300.0, 512.0, 5000.0]),
    worlds=st.integers(1, 4),
    start=st.integers(0, 90),
    before=st.integers(0, 100),
    rows=st.integers(1, 200),
)
def test_an_update_is_due_after_exactly_the_rows_that_were_foretold(
    ratio, worlds, start, before, rows
):
    collect = CollectConfig(start=start, train_ratio=ratio, worlds=worlds)
    clock = caught_up(lived(Clock(), before), "crafter/reward", collect).next_phase()
    clock = caught_up(lived(clock, worlds * rows), "dmc/walker_walk", collect)
    number = clock.updates  # counted from 0, the next
    ahead = rows_before_update(number, clock, "dmc/walker_walk", collect, REPLAY)
    assert ahead > 0
    assert ahead % worlds == 0
    due = lambda more: updates_due(lived(clock, more), "dmc/walker_walk", collect, REPLAY)
    assert due(ahead - worlds) <= number < due(ahead)


def ratios(*overrides: str) -> dict[str, float]:
    return parse_request(["curricula/smoke.yaml", *overrides]).config.collect.train_ratio


def test_a_number_holds_for_all_tasks_and_a_key_adds_to_the_scales():
    assert ratios("scale=full")["dmc"] == 1024
    assert ratios("scale=full", "collect.train_ratio=64") == {"default": 64}
    asked = ratios("scale=full", "collect.train_ratio.dmc/cup_catch=2")
    assert asked == {"default": 512, "dmc": 1024, "dmc/ball_in_cup_catch": 2}
    assert ratios("scale=full", "collect.train_ratio={default: 3}") == {"default": 3}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("-1", "expected at least 0"),
        ("{dcm: 3}", "did you mean 'dmc'"),
        ("{dmc: much}", "number"),
    ],
)
def test_a_ratio_that_cannot_be_is_refused_in_one_line(asked, said):
    with pytest.raises(UserError, match=said) as error:
        ratios(f"collect.train_ratio={asked}")
    assert "\n" not in str(error.value)


def test_a_table_for_some_tasks_alone_is_refused():
    with pytest.raises(ValueError, match="no 'default'"):
        CollectConfig(train_ratio={"dmc": 8})
