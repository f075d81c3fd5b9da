"""Play evaluation episodes: the same ones in every run, in lockstep, without learning."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from continual.envs.interact import Moment, Policy, begin, interact
from continual.envs.world import World
from continual.seeding import evaluation_seed

GATE_SUMS = ("p", "chosen", "entropy_gap", "divergence", "penalty")


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


class GateSums:
    """Sums of what the gate did in the open episode of each of N rows, for judging and for living.

    Attributes:
      sums: name -> [N] float64, `n` (decisions) and those of GATE_SUMS that the policy records; {}
        without a gate. It is all the state there is: hand it to the constructor to go on from it.
    """

    def __init__(self, rows: int, sums: Mapping[str, NDArray[np.float64]] | None = None) -> None:
        self.rows = rows
        self.sums = {name: np.array(value, np.float64) for name, value in (sums or {}).items()}

    def add(self, moment: Moment) -> None:
        """Count one decision of every row that took one: none is taken at a last time step."""
        recorded = [name for name in GATE_SUMS if f"gate.{name}" in moment.info]
        if not recorded:
            return
        acted = np.array([t is not None and not t.is_last for t in moment.timesteps])
        self._sum("n")[acted] += 1
        for name in recorded:
            self._sum(name)[acted] += np.asarray(moment.info[f"gate.{name}"], np.float64)[acted]

    def take(self, row: int) -> dict[str, float]:
        """Sums of the row's episode, which has ended; the row starts afresh. {} without a gate."""
        # In one order, whatever order the sums were restored in: records compare as text.
        ordered = [name for name in ("n", *GATE_SUMS) if name in self.sums]
        taken = {name: float(self.sums[name][row]) for name in ordered}
        for value in self.sums.values():
            value[row] = 0.0
        return taken

    def _sum(self, name: str) -> NDArray[np.float64]:
        return self.sums.setdefault(name, np.zeros(self.rows))


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
