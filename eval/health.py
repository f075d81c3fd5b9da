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
    "dormant, continue": "dormant/continue",
    "dormant, RSSM": "dormant/rssm",
    "dormant, decoder": "dormant/decoder",
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


PULL = "trunk_gradient_norm"  # in `TrainRecord.by_task`


@dataclass(frozen=True)
class Health:
    """The newest diagnosis inside a phase.

    Attributes:
      signs: name in SIGNS -> number; those that were not recorded are NaN.
      pull: task -> norm of its own gradient on what all tasks share; of the tasks trained on.
    """

    phase: int
    updates: int
    signs: Mapping[str, float]
    pull: Mapping[str, float]


def health(train: Sequence[TrainRecord]) -> list[Health]:
    """One a phase in which a diagnosis was made."""
    newest: dict[int, TrainRecord] = {}
    for record in train:
        if SIGNS["effective rank"] in record.diagnostics:
            newest[record.phase] = record
    return [
        Health(
            phase,
            r.updates,
            {name: r.diagnostics.get(key, math.nan) for name, key in SIGNS.items()},
            {task: found[PULL] for task, found in r.by_task.items() if PULL in found},
        )
        for phase, r in sorted(newest.items())
    ]
