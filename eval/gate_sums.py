"""What a gate records of its decisions: the names, sums over an episode, means over many."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from continual.envs.interact import Moment


@dataclass(frozen=True)
class GateMeans:
    """Means per decision; NaN where not recorded.

    Every field but `decisions` is a statistic: a policy records it as `gate.<name>`, records hold
    its sum under that name, the report shows it.

    Attributes:
      decisions: n that the means are over.
      p: probability that the partner acts.
      chosen: share of decisions in which the partner acted.
      p_raw: the probability before it was clipped.
      entropy, entropy_partner, entropy_gap, divergence, penalty: what it was made of.
      disagrees: share of decisions in which the penalty was above zero.
    """

    decisions: int = 0
    p: float = math.nan
    chosen: float = math.nan
    p_raw: float = math.nan
    entropy: float = math.nan
    entropy_partner: float = math.nan
    entropy_gap: float = math.nan
    divergence: float = math.nan
    penalty: float = math.nan
    disagrees: float = math.nan


GATE_SUMS = tuple(f.name for f in fields(GateMeans) if f.name != "decisions")


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


def gate_means(sums: Iterable[Mapping[str, float]]) -> GateMeans:
    """Means over all decisions of the episodes, long ones counting more: sum of sums / sum of n.

    Args:
      sums: as `EpisodeRecord.gate`, one an episode; those without a gate are {}.
    """
    total: dict[str, float] = {}
    for episode in sums:
        for name, value in episode.items():
            total[name] = total.get(name, 0.0) + value
    decisions = total.get("n", 0.0)
    if not decisions:
        return GateMeans()
    means = {name: total[name] / decisions for name in GATE_SUMS if name in total}
    return GateMeans(int(decisions), **means)
