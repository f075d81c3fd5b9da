"""The one loop that steps worlds, for living and for judging."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from continual.envs.world import Action, TimeStep, World


@dataclass
class Episode:
    """An episode in one of N parallel worlds, so far.

    (seed, actions) is all a world needs to be brought back to where it stands.

    Attributes:
      number: counts the episodes of this stream (living) or of this evaluation (judging).
      seed: of the world; also keys the policy's random draws.
      actions: every action taken, in order.
      timestep: the newest one; its action is not yet known.
      episode_return: sum of rewards.
    """

    number: int
    seed: int
    timestep: TimeStep
    actions: list[Action] = field(default_factory=list)
    episode_return: float = 0.0


@dataclass(frozen=True)
class Seen:
    """What a policy is shown of N worlds.

    Attributes:
      observation: slot -> [N, …].
      is_first: [N] bool; the policy's state of that row starts afresh.
      draw: [N, 2] uint32, (episode seed, decision in the episode): identity of each row's random
        draws, so that neither the number of worlds nor a restart changes what a row draws.
    """

    observation: Mapping[str, np.ndarray]
    is_first: np.ndarray
    draw: np.ndarray


class Policy(Protocol):
    """Acts in N worlds at once. `state` is whatever it carries from decision to decision."""

    def initial(self, n: int) -> Any: ...

    def act(
        self, state: Any, seen: Seen
    ) -> tuple[Any, dict[str, np.ndarray], dict[str, np.ndarray]]:
        """-> (state, head -> actions [N, …], name -> what to record of each row [N, …])."""
        ...


@dataclass(frozen=True)
class Moment:
    """One decision in each of N worlds: N rows of replay, and where it left the worlds.

    Attributes:
      timesteps: [N], what was observed; None for a row that has run out of episodes.
      actions: head -> [N, …], what was done in them; zero where the time step is a last one.
      info: what the policy recorded of each row.
      state: the policy's state after acting.
      ended: (row, episode) for every row whose time step was a last one.
      episodes: [N], the open episodes after acting: their newest time step awaits its action.
    """

    timesteps: Sequence[TimeStep | None]
    actions: Mapping[str, np.ndarray]
    info: Mapping[str, np.ndarray]
    state: Any
    ended: Sequence[tuple[int, Episode]]
    episodes: Sequence[Episode | None]


NextEpisode = Callable[
    [int], tuple[int, int] | None
]  # world index -> (number, seed), None: no more


def begin(worlds: Sequence[World], next_episode: NextEpisode) -> list[Episode | None]:
    """Reset every world for its next episode."""
    return [_start(world, i, next_episode) for i, world in enumerate(worlds)]


def replay_actions(world: World, number: int, seed: int, actions: Sequence[Action]) -> Episode:
    """Bring a deterministic world back to where it stood: reset it and repeat what was done."""
    episode = Episode(number, seed, world.reset(seed))
    for action in actions:
        _advance(world, episode, action)
    return episode


def interact(
    worlds: Sequence[World],
    policy: Policy,
    state: Any,
    episodes: Sequence[Episode | None],
    next_episode: NextEpisode,
) -> Iterator[Moment]:
    """Act and step, endlessly or until no row has an episode left; yield each decision.

    Everything is settled when a moment is yielded, so the caller may stop at any of them, and go on
    later from (state, episodes) of the last one, with worlds brought back by `replay_actions`.

    Args:
      worlds: N worlds of one interface.
      policy: decides for all rows in one call, always N of them; a row without an episode is shown
        some other row's observation and its action is dropped.
      state: of the policy before the first decision.
      episodes: from `begin`, `replay_actions` or an earlier moment; not modified as a sequence, but
        the episodes in it are.
      next_episode: names the episode that follows in a row.
    """
    rows = list(episodes)
    while any(row is not None for row in rows):
        timesteps = [None if row is None else row.timestep for row in rows]
        seen = _see(rows)
        state, actions, info = policy.act(state, seen)
        actions = _zero_where_last(actions, timesteps)
        ended = [(i, row) for i, row in enumerate(rows) if row is not None and row.timestep.is_last]
        for i, _ in ended:
            rows[i] = _start(worlds[i], i, next_episode)
        for i, row in enumerate(rows):
            if row is not None and timesteps[i] is row.timestep:
                _advance(worlds[i], row, {head: a[i] for head, a in actions.items()})
        yield Moment(timesteps, actions, info, state, ended, tuple(rows))


def _start(world: World, index: int, next_episode: NextEpisode) -> Episode | None:
    following = next_episode(index)
    if following is None:
        return None
    number, seed = following
    return Episode(number, seed, world.reset(seed))


def _advance(world: World, episode: Episode, action: Action) -> None:
    episode.actions.append(action)
    episode.timestep = world.step(action)
    episode.episode_return += episode.timestep.reward


def _see(rows: Sequence[Episode | None]) -> Seen:
    stand_in = next(row for row in rows if row is not None)
    shown = [row or stand_in for row in rows]
    return Seen(
        {
            name: np.stack([row.timestep.observation[name] for row in shown])
            for name in stand_in.timestep.observation
        },
        np.array([row.timestep.is_first for row in shown]),
        np.array([(row.seed, len(row.actions)) for row in shown], np.uint32),
    )


def _zero_where_last(
    actions: Mapping[str, np.ndarray], timesteps: Sequence[TimeStep | None]
) -> dict[str, np.ndarray]:
    is_last = np.array([t is not None and t.is_last for t in timesteps])
    return {
        head: np.where(is_last.reshape(-1, *[1] * (a.ndim - 1)), np.zeros((), a.dtype), a)
        for head, a in actions.items()
    }
