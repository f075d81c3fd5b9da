"""One agent: DreamerV3, its riders, and the policies that act with them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from flax import struct
from jaxtyping import PRNGKeyArray

from agent.acting import Acting, ActionMode, AgentPolicy
from agent.burn_in import BurnIn, make_burn_in
from agent.config import AgentConfig, GateConfig, RandomGate
from agent.device_batch import latent_schema, to_train_batch
from agent.diagnostics import Diagnose, make_diagnose
from agent.learner import LearnerState, Metrics, Update, init_learner, make_update
from agent.model import Model, make_model
from agent.networks import key_of
from agent.open_loop import OpenLoop, make_open_loop
from agent.recovery import Recover, make_recovery
from agent.riders import make_rider
from agent.riders.rider import Rider, RiderState
from agent.world_model import TrainBatch
from continual.envs.interact import Policy
from continual.envs.interface import Interface, Union
from continual.envs.random_policy import RandomPolicy
from storage.batch import Batch, Schema


@struct.dataclass
class AgentState:
    """All that an agent has learnt: one tree of arrays. Updates consume it.

    Attributes:
      learner: DreamerV3.
      riders: by name.
    """

    learner: LearnerState
    riders: dict[str, RiderState]


@dataclass(frozen=True)
class Learnt:
    """Result of one update.

    Attributes:
      latents: `latent.*` columns [B, T, …] to be written back to replay.
      metrics: still on the device; `loss/…`, and `riders/<name>/…`.
    """

    latents: Mapping[str, np.ndarray]
    metrics: Metrics


@dataclass(frozen=True)
class Agent:
    """Functions of a state; holds none itself."""

    config: AgentConfig
    union: Union
    model: Model
    _update: Update
    _diagnose: Diagnose
    _open_loop: OpenLoop
    _burn_in: BurnIn
    _recover: Recover
    riders: Mapping[str, Rider]
    _acting: dict[Interface, Acting] = field(default_factory=dict)

    def init(self, key: PRNGKeyArray) -> AgentState:
        learner_key, rider_key = jax.random.split(key)
        learner = init_learner(self.model, learner_key)
        return AgentState(learner, self.init_riders(rider_key, learner))

    def init_riders(self, key: PRNGKeyArray, learner: LearnerState) -> dict[str, RiderState]:
        """Riders as they join a learner."""
        return {
            name: rider.init(key_of(key, name), learner.params["pol"])
            for name, rider in self.riders.items()
        }

    def learn(
        self, state: AgentState, batch: Batch, key: PRNGKeyArray, burn_in: int = 0
    ) -> tuple[AgentState, Learnt]:
        """One update of DreamerV3, then one of each rider. Consumes `state` and `key`.

        Args:
          burn_in: rows at the beginning of the batch that only lead to the latent of the others.
        """
        data = self._trained_rows(state, batch, key, burn_in)
        rider_keys = {name: key_of(key, name) for name in self.riders}
        learner, handout, metrics = self._update(state.learner, data, key)
        riders, means, by_task = {}, dict(metrics.means), dict(metrics.by_task)
        # Riders learn from features: without frames there is one compilation for all batches.
        rows = dataclasses.replace(data, frames=data.frames[:0])
        for name, rider in self.riders.items():
            riders[name], own = rider.update(
                state.riders[name], learner, rows, handout, rider_keys[name]
            )
            means |= {f"riders/{name}/{k}": v for k, v in own.means.items()}
            by_task |= {f"riders/{name}/{k}": v for k, v in own.by_task.items()}
        stored = jax.tree.map(np.asarray, handout.stored)
        return AgentState(learner, riders), Learnt(stored, Metrics(means, by_task))

    def recover(
        self, state: AgentState, batch: Batch, key: PRNGKeyArray, burn_in: int = 0
    ) -> tuple[AgentState, Learnt]:
        """One update of actor and critic alone, see `agent.recovery`; `state` stays usable.

        Args:
          burn_in: as for `learn`.
        """
        data = self._trained_rows(state, batch, key, burn_in)
        learner, latents, metrics = self._recover(state.learner, data, key)
        return AgentState(learner, state.riders), Learnt(jax.tree.map(np.asarray, latents), metrics)

    def diagnose(
        self, state: AgentState, batch: Batch, key: PRNGKeyArray, burn_in: int = 0
    ) -> Metrics:
        """The learner's health, see `agent.diagnostics`; changes nothing."""
        data = self._trained_rows(state, batch, key, burn_in)
        return self._diagnose(state.learner, data, key)

    def open_loop(self, state: AgentState, batch: Batch) -> np.ndarray:
        """What the model expects of one sequence of an image world, see `agent.open_loop`.

        Returns:
          [T, 64, 64, 3] in [0, 1].
        """
        data = to_train_batch(self.union, self.config.model, batch)
        return np.asarray(self._open_loop(state.learner.params, data, jax.random.key(0)))

    def _trained_rows(
        self, state: AgentState, batch: Batch, key: PRNGKeyArray, burn_in: int
    ) -> TrainBatch:
        data = to_train_batch(self.union, self.config.model, batch)
        if burn_in:
            data = self._burn_in(state.learner.params, data, key_of(key, "burn_in"), burn_in)
        return data

    @property
    def latents(self) -> Schema:
        """Columns of the latents that go with a replay row."""
        return latent_schema(self.config.model)

    def living_policy(self, state: Callable[[], AgentState], task: str, seed: int) -> Policy:
        """The policy that lives: the first of `policies`, with sampled actions."""
        if self.config.acting == "random":
            return RandomPolicy(self.union.tasks[task], seed)
        return self.policy(state, task, self.policies()[0], "sampled", seed)

    def policies(self) -> tuple[str, ...]:
        """Names of the policies that can be judged, the one that lives first."""
        alone = tuple(f"{name}_actor" for name in self.config.riders)
        if self.config.critic == "imagined":  # without imagination the actor learns nothing
            alone = ("dreamer_actor", *alone)
        if self.config.acting == "random":
            return ("random",)
        return ("gated", *alone) if self.config.acting == "gated" else alone

    def policy(
        self,
        state: Callable[[], AgentState],
        task: str,
        name: str,
        action_mode: ActionMode,
        seed: int,
        *,
        gate: GateConfig | None = None,
    ) -> AgentPolicy:
        """A policy for one task.

        Args:
          state: () -> AgentState, asked at every decision.
          name: `gated`, `dreamer_actor` or `<rider>_actor`.
          seed: of its random draws.
          gate: of `gated`, instead of the configured one.
        """
        gate = (gate or self.config.gate) if name == "gated" else None
        if isinstance(gate, RandomGate):
            gate = gate.of(task)

        def parameters() -> tuple[Mapping[str, Any], Any, Any]:
            now: AgentState = state()
            params = now.learner.params
            if name == "gated":
                return params, params["pol"], now.riders[self.config.partner].params
            if name == "dreamer_actor":
                return params, params["pol"], None
            return params, now.riders[name.removesuffix("_actor")].params, None

        interface = self.union.tasks[task]
        if interface not in self._acting:
            self._acting[interface] = Acting(self.model, interface)
        return AgentPolicy(
            self._acting[interface],
            gate,
            action_mode,
            parameters,
            seed,
            draws_as_partner=name not in ("gated", "dreamer_actor"),
        )


def make_agent(config: AgentConfig, union: Union) -> Agent:
    """Build the agent for a union of interfaces; compiles nothing yet."""
    model = make_model(config.model, union)
    riders = {
        name: make_rider(model, config, rider) for name, rider in sorted(config.riders.items())
    }
    return Agent(
        config,
        union,
        model,
        make_update(model, config),
        make_diagnose(model, config),
        make_open_loop(model),
        make_burn_in(model),
        make_recovery(model, config),
        riders,
    )
