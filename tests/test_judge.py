"""Judging plays the same episodes whatever the lockstep, and counts what the gate did in them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from continual.envs.interact import Seen, begin, interact
from continual.envs.interface import Head, Interface, Slot
from continual.envs.world import Action, TimeStep, restart, termination, transition, truncation
from continual.seeding import EVALUATION_SEEDS, evaluation_seed
from eval.gate_sums import GateSums
from eval.judge import judge

INTERFACE = Interface((Slot("toy.place", ()),), (Head("toy", "categorical", 3),))


class Walk:
    """Adds up actions; its seed sets how long an episode lasts and whether it ends in death."""

    interface = INTERFACE
    deterministic = True

    def __init__(self) -> None:
        self.steps_played = 0

    def reset(self, seed: int) -> TimeStep:
        self.seed, self.time, self.place = seed, 0, 10.0 * seed
        return restart(self._observe())

    def step(self, action: Action) -> TimeStep:
        assert self.time < self.duration, "stepped after the last step"
        self.steps_played += 1
        self.time += 1
        self.place += float(action["toy"])
        reward = float(action["toy"])
        if self.time < self.duration:
            return transition(self._observe(), reward)
        over = termination if self.seed % 2 else truncation
        return over(self._observe(), reward, place=self.place)

    @property
    def duration(self) -> int:
        return 2 + self.seed % 3

    def _observe(self) -> dict[str, np.ndarray]:
        return {"toy.place": np.float32(self.place)}

    def close(self) -> None: ...


class Counting:
    """Acts by how many decisions its state has counted in the episode; records a made-up gate."""

    def __init__(self, gate: bool = True) -> None:
        self.gate = gate
        self.rows: list[int] = []

    def initial(self, n: int) -> Any:
        return np.zeros(n, np.int32)

    def act(self, state: Any, seen: Seen) -> Any:
        self.rows.append(len(seen.is_first))
        state = np.where(seen.is_first, 0, state)
        action = (state % 3).astype(np.int32)
        info = {"gate.p": (state + 1) / 10, "gate.chosen": state > 0} if self.gate else {}
        return state + 1, {"toy": action}, info


def outcome(worlds: int, episodes: int, gate: bool = True) -> list[Any]:
    return judge([Walk() for _ in range(worlds)], Counting(gate), episodes=episodes)


def test_episodes_come_back_in_order_with_the_fixed_evaluation_seeds():
    judged = outcome(worlds=3, episodes=7)
    assert [e.episode for e in judged] == list(range(7))
    assert [e.seed for e in judged] == [evaluation_seed(i) for i in range(7)]
    assert all(e.seed in EVALUATION_SEEDS for e in judged)


def test_return_length_ending_and_extras_are_those_of_the_world():
    # Episode i lasts 2 + i % 3 decisions with actions 0, 1, 2, …; odd ones end in death.
    judged = outcome(worlds=2, episodes=4)
    assert [e.length for e in judged] == [2, 3, 4, 2]
    assert [e.return_ for e in judged] == [1.0, 3.0, 3.0, 1.0]
    assert [e.terminated for e in judged] == [False, True, False, True]
    assert [e.extras for e in judged] == [
        {"place": 10.0 * i + r} for i, r in enumerate((1, 3, 3, 1))
    ]


@pytest.mark.parametrize("worlds", [1, 2, 5, 9])
def test_the_number_of_worlds_changes_nothing_but_who_played(worlds: int):
    def without_row(judged: list[Any]) -> list[Any]:
        return [{k: v for k, v in vars(e).items() if k != "world"} for e in judged]

    assert without_row(outcome(worlds, 6)) == without_row(outcome(3, 6))


def test_every_call_decides_for_all_rows_even_when_few_episodes_are_left():
    policy = Counting()
    judge([Walk() for _ in range(4)], policy, episodes=5)
    assert set(policy.rows) == {4}


def test_a_freed_row_takes_the_next_episode_at_once():
    worlds = [Walk() for _ in range(2)]
    judged = judge(worlds, Counting(), episodes=3)
    assert [e.world for e in judged] == [0, 1, 0]
    assert sum(w.steps_played for w in worlds) == sum(e.length for e in judged)


def test_gate_sums_leave_out_the_last_time_step_where_nothing_is_decided():
    # p is 0.1, 0.2, … per decision; the partner acts in all but the first.
    judged = outcome(worlds=2, episodes=3)
    assert [e.gate["n"] for e in judged] == [2, 3, 4]
    np.testing.assert_allclose([e.gate["p"] for e in judged], [0.3, 0.6, 1.0])
    assert [e.gate["chosen"] for e in judged] == [1, 2, 3]
    assert set(judged[0].gate) == {"n", "p", "chosen"}


def test_a_policy_without_a_gate_leaves_no_sums():
    assert all(e.gate == {} for e in outcome(worlds=2, episodes=3, gate=False))


def test_gate_sums_go_on_from_a_saved_state_as_if_never_stopped():
    def play(stop_at: int | None) -> list[dict[str, float]]:
        numbers = iter(range(6))
        worlds = [Walk(), Walk()]

        def following(_: int) -> tuple[int, int] | None:
            number = next(numbers, None)
            return None if number is None else (number, number)

        sums, taken = GateSums(2), []
        opened = begin(worlds, following)
        for i, moment in enumerate(
            interact(worlds, Counting(), np.zeros(2, np.int32), opened, following)
        ):
            sums.add(moment)
            taken += [sums.take(row) for row, _ in moment.ended]
            if i == stop_at:
                saved = {name: value.tolist() for name, value in sums.sums.items()}
                sums = GateSums(2, saved)
        return taken

    assert play(stop_at=1) == play(stop_at=None)
    assert len(play(None)) == 6


def test_judging_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        outcome(worlds=1, episodes=0)
