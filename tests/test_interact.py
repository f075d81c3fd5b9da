"""The loop that steps worlds: what a moment holds, and that stopping changes nothing."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from continual.envs.interact import (
    Episode,
    Moment,
    NextEpisode,
    Seen,
    begin,
    interact,
    replay_actions,
)
from continual.envs.random_policy import RandomPolicy
from continual.envs.registry import interface_of, make_world
from continual.envs.world import World


def worlds(task: str, n: int) -> list[World]:
    return [make_world(task) for _ in range(n)]


def endless(n: int) -> NextEpisode:
    """Row i plays episodes i, i + n, i + 2n, …; seeds are 100 + number."""
    counters = [itertools.count(i, n) for i in range(n)]

    def next_episode(row: int) -> tuple[int, int]:
        number = next(counters[row])
        return number, 100 + number

    return next_episode


def shared(total: int) -> NextEpisode:
    """Episodes 0 … total - 1, to whichever row is free."""
    counter = itertools.count()

    def next_episode(row: int) -> tuple[int, int] | None:
        number = next(counter)
        return (number, 100 + number) if number < total else None

    return next_episode


class Counting:
    """A random policy whose state counts the decisions of each row's episode."""

    def __init__(self, task: str) -> None:
        self._random = RandomPolicy(interface_of(task), 0)

    def initial(self, n: int) -> np.ndarray:
        return np.zeros(n, int)

    def act(
        self, state: np.ndarray, seen: Seen
    ) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray]]:
        state = np.where(seen.is_first, 0, state) + 1
        _, actions, _ = self._random.act(None, seen)
        return state, actions, {"count": state}


Row = tuple[Any, ...]


def rows_of(moment: Moment) -> list[Row | None]:
    """Everything that replay would keep of a moment, by row, in comparable form."""
    return [
        None
        if timestep is None
        else (
            {k: v.tobytes() for k, v in timestep.observation.items()},
            timestep.reward,
            timestep.env_steps,
            (timestep.is_first, timestep.is_last, timestep.is_terminal),
            {head: action[i].tobytes() for head, action in moment.actions.items()},
            {name: value[i].tobytes() for name, value in moment.info.items()},
        )
        for i, timestep in enumerate(moment.timesteps)
    ]


def live(task: str, n: int, next_episode: NextEpisode, moments: int | None) -> list[Moment]:
    w, policy = worlds(task, n), Counting(task)
    stream = interact(w, policy, policy.initial(n), begin(w, next_episode), next_episode)
    return list(itertools.islice(stream, moments))


def test_rows_are_time_steps_in_order_with_the_action_done_in_them() -> None:
    moments = live("toy/reach", 1, endless(1), 43)
    firsts = [m.timesteps[0].is_first for m in moments]
    lasts = [m.timesteps[0].is_last for m in moments]
    assert [i for i, f in enumerate(firsts) if f] == [0, 21, 42]
    assert [i for i, f in enumerate(lasts) if f] == [20, 41]
    world = make_world("toy/reach")
    timestep = world.reset(100)
    for moment in moments[:20]:
        expected = timestep.observation["toy.reach.target"]
        np.testing.assert_array_equal(moment.timesteps[0].observation["toy.reach.target"], expected)
        timestep = world.step({"toy.reach": moment.actions["toy.reach"][0]})
    assert timestep.reward == moments[20].timesteps[0].reward


def test_a_last_row_has_a_zero_action_and_names_the_episode_that_ended() -> None:
    moments = live("toy/match", 2, endless(2), 21)
    assert not any(m.ended for m in moments[:20])
    last = moments[20]
    assert [row for row, _ in last.ended] == [0, 1]
    assert not last.actions["toy.match"].any()
    assert any(m.actions["toy.match"].any() for m in moments[:20])
    for row, episode in last.ended:
        assert (episode.number, episode.seed, len(episode.actions)) == (row, 100 + row, 20)
        earned = sum(m.timesteps[row].reward for m in moments)
        assert episode.episode_return == earned
        assert episode.timestep is last.timesteps[row]
    assert [e.number for e in last.episodes] == [2, 3]
    assert all(e.timestep.is_first and not e.actions for e in last.episodes)


def test_only_the_row_that_ended_gets_a_zero_action_and_a_reset() -> None:
    moments = live("toy/survive", 3, endless(3), 40)
    uneven = [m for m in moments if len(m.ended) == 1]
    assert uneven
    for before, after in itertools.pairwise(moments):
        ended = [row for row, _ in before.ended]
        for row in range(3):
            assert after.timesteps[row].is_first == (row in ended)
            if row in ended:
                assert before.timesteps[row].is_terminal
                assert before.actions["toy.survive"][row] == 0
    assert any(m.actions["toy.survive"].any() for m in uneven)


def test_the_policys_state_and_record_start_afresh_with_each_episode() -> None:
    for moment in live("toy/match", 1, endless(1), 30):
        if moment.timesteps[0].is_first:
            assert moment.info["count"][0] == 1
        np.testing.assert_array_equal(moment.state, moment.info["count"])
    assert moment.info["count"][0] == 9


@pytest.mark.parametrize("task", ["toy/survive", "dmc/cartpole_balance"])
def test_a_row_is_the_same_alone_and_beside_others(task: str) -> None:
    together = live(task, 3, endless(3), 30)
    for row in range(3):
        only = itertools.count(row, 3)

        def next_episode(_: int, only: itertools.count[int] = only) -> tuple[int, int]:
            number = next(only)
            return number, 100 + number

        alone = live(task, 1, next_episode, 30)
        assert [rows_of(m)[0] for m in alone] == [rows_of(m)[row] for m in together]


@pytest.mark.parametrize("task", ["toy/survive", "toy/reach", "dmc/ball_in_cup_catch"])
@pytest.mark.parametrize("stop", [1, 7, 20, 21])
def test_going_on_after_a_stop_gives_the_rows_of_an_uninterrupted_life(
    task: str, stop: int
) -> None:
    whole = live(task, 2, endless(2), 45)
    next_episode = endless(2)
    before = live(task, 2, next_episode, stop)
    fresh, policy = worlds(task, 2), Counting(task)
    episodes = [
        replay_actions(world, e.number, e.seed, e.actions)
        for world, e in zip(fresh, before[-1].episodes, strict=True)
    ]
    for restored, lost in zip(episodes, before[-1].episodes, strict=True):
        assert restored.episode_return == lost.episode_return
    stream = interact(fresh, policy, before[-1].state, episodes, next_episode)
    after = list(itertools.islice(stream, 45 - stop))
    assert [rows_of(m) for m in before + after] == [rows_of(m) for m in whole]


def test_every_episode_is_played_once_and_then_the_loop_ends() -> None:
    moments = live("toy/survive", 3, shared(8), None)
    ended = [episode for m in moments for _, episode in m.ended]
    assert sorted(e.number for e in ended) == list(range(8))
    assert all(e.seed == 100 + e.number for e in ended)
    assert moments[-1].episodes == (None, None, None)


def test_a_row_without_an_episode_is_empty_but_the_policy_still_decides_for_all() -> None:
    sizes = []

    class Watching(Counting):
        def act(self, state: np.ndarray, seen: Seen) -> Any:
            sizes.append((len(seen.is_first), len(seen.draw), *map(len, seen.observation.values())))
            return super().act(state, seen)

    policy, w, next_episode = Watching("toy/survive"), worlds("toy/survive", 3), shared(4)
    moments = list(interact(w, policy, policy.initial(3), begin(w, next_episode), next_episode))
    assert set(sizes) == {(3, 3, 3)}
    assert any(None in m.timesteps for m in moments)
    for before, after in itertools.pairwise(moments):
        for row in range(3):
            assert (after.timesteps[row] is None) == (before.episodes[row] is None)


def test_more_worlds_than_episodes_leaves_rows_empty_from_the_start() -> None:
    w = worlds("toy/match", 3)
    episodes = begin(w, shared(2))
    assert [e if e is None else e.number for e in episodes] == [0, 1, None]


def test_no_episodes_no_moments() -> None:
    assert live("toy/match", 2, shared(0), None) == []


def test_the_list_of_episodes_that_was_given_is_not_modified() -> None:
    w, policy, next_episode = worlds("toy/survive", 2), Counting("toy/survive"), endless(2)
    episodes = begin(w, next_episode)
    given: Sequence[Episode | None] = list(episodes)
    stream = interact(w, policy, policy.initial(2), episodes, next_episode)
    assert any(m.ended for m in itertools.islice(stream, 40))
    assert episodes == given


def test_draws_name_the_episode_seed_and_the_decision() -> None:
    draws: list[np.ndarray] = []

    class Watching(Counting):
        def act(self, state: np.ndarray, seen: Seen) -> Any:
            draws.append(seen.draw)
            return super().act(state, seen)

    policy, w, next_episode = Watching("toy/match"), worlds("toy/match", 1), endless(1)
    stream = interact(w, policy, policy.initial(1), begin(w, next_episode), next_episode)
    list(itertools.islice(stream, 23))
    expected = [(100, i) for i in range(21)] + [(101, 0), (101, 1)]
    assert [tuple(d[0]) for d in draws] == expected
