"""All that survives a restart, and nothing else does."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from agent.agent import AgentState
from agent.learner import Metrics
from continual.envs.interact import Episode, Moment
from continual.scheduler import Clock
from eval.gate_sums import GATE_SUMS, GateSums
from eval.records import TrainRecord
from storage.batch import Batch


@dataclass
class Stage:
    """Where the life stands in the worlds of its phase.

    Attributes:
      policy_state: of the living policy, after its last decision.
      episodes: [N], open; their newest time step awaits its action.
      begun: episodes begun in this phase, which numbers the next one.
      gate: sums over the open episodes.
    """

    policy_state: Any
    episodes: Sequence[Episode | None]
    begun: int
    gate: GateSums


@dataclass
class Meter:
    """Sums towards the next train record.

    Attributes:
      updates: counted since the last record.
      sums: metric -> sum over these updates.
      diagnosed: metric -> number, of the newest diagnosis, if there was one; of what was there.
      by_task: task -> metric -> (sum, updates) over those that had rows of the task.
      gate: task -> `n` and sums over the decisions taken.
      sampled: task -> rows trained on.
      age, latent_age: sums over the sequences trained on, which `sequences` counts.
    """

    updates: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    diagnosed: dict[str, float] = field(default_factory=dict)
    by_task: dict[str, dict[str, tuple[float, int]]] = field(default_factory=dict)
    gate: dict[str, dict[str, float]] = field(default_factory=dict)
    sampled: Counter[str] = field(default_factory=Counter)
    age: float = 0.0
    latent_age: float = 0.0
    sequences: int = 0

    def count_update(
        self, metrics: Metrics, batch: Batch, tasks: Sequence[str], length: int
    ) -> None:
        self.updates += 1
        for name, value in metrics.means.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value)
        self._count_by_task(metrics, tasks)
        for index, count in zip(*np.unique(batch.task, return_counts=True), strict=True):
            self.sampled[tasks[index]] += int(count) * length
        self.age += float(batch.age.sum())
        self.latent_age += float(batch.latent_age.sum())
        self.sequences += len(batch.age)

    def take_diagnosis(self, metrics: Metrics, tasks: Sequence[str]) -> None:
        means = {name: float(value) for name, value in metrics.means.items()}
        self.diagnosed = {name: value for name, value in means.items() if not math.isnan(value)}
        self._count_by_task(metrics, tasks)

    def _count_by_task(self, metrics: Metrics, tasks: Sequence[str]) -> None:
        for name, values in metrics.by_task.items():
            for task, value in zip(tasks, np.asarray(values, np.float64).tolist(), strict=True):
                if not math.isnan(value):
                    held = self.by_task.setdefault(task, {})
                    total, n = held.get(name, (0.0, 0))
                    held[name] = (total + value, n + 1)

    def count_decisions(self, moment: Moment, task: str) -> None:
        acted = [i for i, t in enumerate(moment.timesteps) if t is not None and not t.is_last]
        if "gate.p" not in moment.info or not acted:
            return
        sums = self.gate.setdefault(task, dict.fromkeys(("n", *GATE_SUMS), 0.0))
        sums["n"] += len(acted)
        for name in GATE_SUMS:
            sums[name] += float(np.asarray(moment.info[f"gate.{name}"], np.float64)[acted].sum())

    def record(self, clock: Clock, cycle: int, task: str, held: Mapping[str, int]) -> TrainRecord:
        """The record of what was counted; the caller goes on with a new meter."""
        means = {name: total / max(1, self.updates) for name, total in self.sums.items()}
        riders: dict[str, dict[str, float]] = {}
        for name, value in means.items():
            if name.startswith("riders/"):
                _, rider, statistic = name.split("/", 2)
                riders.setdefault(rider, {})[statistic] = value
        return TrainRecord(
            phase=clock.phase,
            cycle=cycle,
            task=task,
            phase_step=clock.phase_step,
            env_steps=clock.env_steps,
            agent_steps=clock.agent_steps,
            updates=clock.updates,
            losses={k[5:]: v for k, v in means.items() if k.startswith("loss/")},
            diagnostics={k: v for k, v in means.items() if "/" not in k} | self.diagnosed,
            gate={
                task: {k: v if k == "n" else v / max(1.0, sums["n"]) for k, v in sums.items()}
                for task, sums in self.gate.items()
            },
            riders=riders,
            by_task={
                task: {name: total / n for name, (total, n) in held.items()}
                for task, held in self.by_task.items()
            },
            sampled_rows=dict(self.sampled),
            held_rows=dict(held),
            sampled_age=self.age / max(1, self.sequences),
            sampled_latent_age=self.latent_age / max(1, self.sequences),
        )


@dataclass
class Life:
    """One agent's life so far.

    Attributes:
      clock: where it stands.
      agent: what it has learnt; replaced, never modified.
      stage: the running phase; None between two phases.
      meter: sums towards the next train record.
    """

    clock: Clock
    agent: AgentState
    stage: Stage | None = None
    meter: Meter = field(default_factory=Meter)
