"""A slow copy of the actor."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import PRNGKeyArray

from agent.config import AgentConfig, EmaConfig
from agent.learner import Handout, LearnerState, Metrics
from agent.model import Model
from agent.riders.rider import Rider
from agent.world_model import TrainBatch


@struct.dataclass
class EmaState:
    """Attributes:
    params: EMA of the actor's.
    """

    params: Any


def make_ema(model: Model, agent: AgentConfig, config: EmaConfig) -> Rider:
    """w <- (1 - rate) w + rate w_actor, from a copy of the actor on."""
    del model, agent

    def init(key: PRNGKeyArray, actor: Any) -> EmaState:
        del key
        return EmaState(jax.tree.map(jnp.copy, actor))

    def update(
        state: EmaState,
        learner: LearnerState,
        batch: TrainBatch,
        handout: Handout,
        key: PRNGKeyArray,
    ) -> tuple[EmaState, Metrics]:
        del batch, handout, key
        mix = lambda old, new: (1 - config.rate) * old + config.rate * new
        return EmaState(jax.tree.map(mix, state.params, learner.params["pol"])), Metrics({}, {})

    return Rider(init, jax.jit(update, donate_argnums=0))
