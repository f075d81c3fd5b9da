"""The learner's own signs of health, phase by phase, as its diagnoses recorded them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eval.records import TrainRecord

SHARED = "shared"  # owner of what all tasks use

# Sign -> name in `TrainRecord.diagnostics`.
SIGNS: Mapping[str, str] = {
    "dormant, actor": "dormant/actor",
    "dormant, critic": "dormant/critic",
    "dormant, reward": "dormant/reward",
    "effective rank": "effective_rank",
    "srank": "srank",
    "weights": f"norm/weight/{SHARED}",
    "gradient": f"norm/gradient/{SHARED}",
    "update": f"norm/update/{SHARED}",
    "actor entropy": "actor_entropy",
    "posterior entropy": "posterior_entropy",
    "prior entropy": "prior_entropy",
    "KL of the two": "kl",
}


@dataclass(frozen=True)
class Health:
    """The newest diagnosis inside a phase.

    Attributes:
      signs: name in SIGNS -> number; those that were not recorded are NaN.
    """

    phase: int
    updates: int
    signs: Mapping[str, float]


def health(train: Sequence[TrainRecord]) -> list[Health]:
    """One a phase in which a diagnosis was made."""
    newest: dict[int, TrainRecord] = {}
    for record in train:
        if SIGNS["effective rank"] in record.diagnostics:
            newest[record.phase] = record
    return [
        Health(phase, r.updates, {n: r.diagnostics.get(key, math.nan) for n, key in SIGNS.items()})
        for phase, r in sorted(newest.items())
    ]
