"""Crafter's own measure, by its published formula."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eval.records import EpisodeRecord

BUDGET = 1_000_000  # environment steps of Crafter that the official score is of

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


def success_rates(episodes: Iterable[Mapping[str, int]]) -> NDArray[np.float64]:
    """Share of episodes in percent in which each achievement was unlocked once or more, [22].

    Args:
      episodes: of one life; achievement -> times it was done. NaN everywhere without any.
    """
    done = [[counts.get(name, 0) >= 1 for name in ACHIEVEMENTS] for counts in episodes]
    if not done:
        return np.full(len(ACHIEVEMENTS), math.nan)
    rates: NDArray[np.float64] = 100 * np.asarray(done, np.float64).mean(axis=0)
    return rates


def crafter_score(rates: ArrayLike) -> float:
    """exp(mean_i ln(1 + s_i)) - 1, in percent: a geometric mean that counts rare skills.

    Source: Hafner 2022 (arXiv:2109.06780), Sec. 4.1. Of one life; over several, average the scores,
    for the score of averaged rates is higher.

    Args:
      rates: [22] s_i in percent, 0 to 100.
    """
    s = np.asarray(rates, np.float64)
    return float(np.exp(np.log1p(s).mean()) - 1)


def lived_success_rates(
    records: Iterable[EpisodeRecord], budget: int = BUDGET
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
        if r.split != "train" or r.task != "crafter/reward":
            continue
        if r.phase != phase:
            phase, before = r.phase, before + here
        here = r.phase_step
        if not r.cut and before + here <= budget and "achievements" in r.extras:
            counted.append(r.extras["achievements"])
    return success_rates(counted)
