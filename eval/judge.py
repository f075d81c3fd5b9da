"""Play evaluation episodes: the same ones in every run, in lockstep, without learning."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from continual.envs.interact import Policy, begin, interact
from continual.envs.world import World
from continual.seeding import evaluation_seed
from eval.gate_sums import GateSums


@dataclass(frozen=True)
class JudgedEpisode:
    """One evaluation episode: the fields of `EpisodeRecord` that do not hang on the clock.

    Attributes:
      episode: counts from 0; fixes the seed.
      world: row that played it, an accident of lockstep on which nothing else may depend.
      return_: undiscounted sum of rewards.
      length: decisions.
      terminated: over because nothing can follow, rather than truncated.
      extras: the world's facts at the last time step.
      gate: as `EpisodeRecord.gate`; {} where the policy has no gate.
    """

    episode: int
    seed: int
    world: int
    return_: float
    length: int
    terminated: bool
    extras: Mapping[str, Any]
    gate: Mapping[str, float]


def judge(worlds: Sequence[World], policy: Policy, *, episodes: int) -> list[JudgedEpisode]:
    """Play evaluation episodes 0 … episodes-1 and say how each went, in that order.

    Every call of the policy decides for len(worlds) rows, also when fewer episodes are left: the
    products of a batch differ in their last bits from those of a smaller one, so a policy is judged
    at one size only. A row that is done takes the next episode that nobody has begun.

    Args:
      worlds: of one task; reset here, closed by the caller.
      policy: its state starts afresh.
      episodes: at least 1.
    """
    if not worlds or episodes < 1:
        raise ValueError(f"{len(worlds)} worlds and {episodes} episodes; at least one of each")
    numbers = itertools.count()

    def next_episode(_: int) -> tuple[int, int] | None:
        number = next(numbers)
        return (number, evaluation_seed(number)) if number < episodes else None

    gate = GateSums(len(worlds))
    judged: dict[int, JudgedEpisode] = {}
    opened = begin(worlds, next_episode)
    for moment in interact(worlds, policy, policy.initial(len(worlds)), opened, next_episode):
        gate.add(moment)
        for row, episode in moment.ended:
            judged[episode.number] = JudgedEpisode(
                episode=episode.number,
                seed=episode.seed,
                world=row,
                return_=float(episode.episode_return),
                length=len(episode.actions),
                terminated=episode.timestep.is_terminal,
                extras=dict(episode.timestep.extras),
                gate=gate.take(row),
            )
    return [judged[number] for number in range(episodes)]
