"""Crafter's own measure, by its published formula."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eval.records import EpisodeRecord

BUDGET = 1_000_000  # environment steps of Crafter that the official score is of
# For comparison: of the papers of Crafter and of DreamerV3.
PUBLISHED = "at a million steps: random 1.6 %, DreamerV3 14.5 %, human experts 50.5 %"

ACHIEVEMENTS = (
    "collect_coal",
    "collect_diamond",
    "collect_drink",
    "collect_iron",
    "collect_sapling",
    "collect_stone",
    "collect_wood",
    "defeat_skeleton",
    "defeat_zombie",
    "eat_cow",
    "eat_plant",
    "make_iron_pickaxe",
    "make_iron_sword",
    "make_stone_pickaxe",
    "make_stone_sword",
    "make_wood_pickaxe",
    "make_wood_sword",
    "place_furnace",
    "place_plant",
    "place_stone",
    "place_table",
    "wake_up",
)


_ASIDE = ("length", "reward")  # of an episode, in the files that Crafter writes


def success_rates(
    episodes: Iterable[Mapping[str, float]], budget: float | None = None
) -> NDArray[np.float64]:
    """Share of episodes in percent in which each achievement was unlocked once or more, [22].

    Args:
      episodes: of one life; achievement -> times it was done, by our names or by those of Crafter's
        own files (`achievement_collect_coal`), whose lines may be given as they are. NaN everywhere
        without any.
      budget: of environment steps, each episode's `length` added up; those that end later do not
        count. None: all count.
    Raises:
      ValueError: a name that is no achievement, which would otherwise count as never done.
    """
    done, steps = [], 0.0
    for counts in episodes:
        if budget is not None and (steps := steps + counts["length"]) > budget:
            break
        by_name = {
            name.removeprefix("achievement_"): times
            for name, times in counts.items()
            if name not in _ASIDE
        }
        if unknown := sorted(by_name.keys() - set(ACHIEVEMENTS)):
            raise ValueError(f"{unknown[0]!r}: no achievement of Crafter")
        done.append([by_name.get(name, 0) >= 1 for name in ACHIEVEMENTS])
    if not done:
        return np.full(len(ACHIEVEMENTS), math.nan)
    rates: NDArray[np.float64] = 100 * np.asarray(done, np.float64).mean(axis=0)
    return rates


def published_success_rates(
    run: Mapping[str, Sequence[float]], budget: float = BUDGET
) -> NDArray[np.float64]:
    """Success rates of a run of Crafter's published score files, [22] in percent.

    Args:
      run: name -> a value an episode: `xs`, the run's environment steps at its end, and
        `achievement_…`; what else there is, is not looked at.
      budget: episodes that ended later do not count.
    """
    names = [name for name in run if name.startswith("achievement_")]
    return success_rates(
        {name: run[name][j] for name in names}
        for j, steps in enumerate(run["xs"])
        if steps <= budget
    )


def crafter_score(rates: ArrayLike) -> NDArray[np.float64]:
    """exp(mean_i ln(1 + s_i)) - 1, in percent, [...]: a geometric mean that counts rare skills.

    Source: Hafner 2022 (arXiv:2109.06780), Sec. 4.1. Of one life each; over several, average the
    scores, for the score of averaged rates is another number.

    Args:
      rates: [..., 22] s_i in PERCENT, 0 to 100.
    Raises:
      ValueError: another last axis, or a rate outside 0 to 100.
    """
    s = np.asarray(rates, np.float64)
    if s.shape[-1:] != (len(ACHIEVEMENTS),):
        raise ValueError(f"rates {s.shape}, expected [..., {len(ACHIEVEMENTS)}]")
    if ((s < 0) | (s > 100)).any():
        raise ValueError("rates are in percent, 0 to 100")
    return np.asarray(np.expm1(np.log1p(s).mean(axis=-1)))


def lived_success_rates(
    records: Iterable[EpisodeRecord], budget: int = BUDGET, task: str = "crafter/reward"
) -> NDArray[np.float64]:
    """Success rates of the whole training episodes of a life that ended within a budget, [22].

    Official: of training episodes, and of Crafter's own environment steps, whatever was lived in
    between.

    Args:
      records: of one life, in order.
    """
    counted: list[Mapping[str, int]] = []
    phase, before, here = 0, 0, 0
    for r in records:
        if r.split != "train" or r.task != task:
            continue
        if r.phase != phase:
            phase, before = r.phase, before + here
        here = r.phase_step
        if not r.cut and before + here <= budget and "achievements" in r.extras:
            counted.append(r.extras["achievements"])
    return success_rates(counted)


def judged_success_rates(
    records: Iterable[EpisodeRecord], policy: str, mode: str, task: str = "crafter/reward"
) -> NDArray[np.float64]:
    """Success rates of the newest evaluation of a policy at a phase's end, [22]."""
    newest: dict[int, list[Mapping[str, int]]] = {}
    for r in records:
        if r.variant or r.cut:
            continue
        if (r.when, r.task, r.policy, r.action_mode) == ("end", task, policy, mode):
            newest.setdefault(r.phase, []).append(r.extras.get("achievements", {}))
    return success_rates(newest[max(newest)] if newest else [])


@dataclass(frozen=True)
class CrafterRates:
    """What a life came to in a task of Crafter; NaN where there were no episodes.

    Attributes:
      lived: [22] success rates in percent, which the official score is of.
      judged: [22] those of the newest evaluation at a phase's end, which has fewer episodes and
        learns nothing between them.
    """

    task: str
    lived: NDArray[np.float64]
    judged: NDArray[np.float64]

    @property
    def score(self) -> float:
        """In percent, official where the budget was lived."""
        return float(crafter_score(self.lived))

    @property
    def judged_score(self) -> float:
        return float(crafter_score(self.judged))


def crafter_rates(
    records: Sequence[EpisodeRecord], tasks: Iterable[str], policy: str, mode: str
) -> tuple[CrafterRates, ...]:
    """Of every task of Crafter among `tasks`; the score is the same with and without reward."""
    return tuple(
        CrafterRates(
            task,
            lived_success_rates(records, task=task),
            judged_success_rates(records, policy, mode, task),
        )
        for task in tasks
        if task.startswith("crafter/")
    )
