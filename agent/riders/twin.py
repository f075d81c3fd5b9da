"""A second imagination actor: the same losses as the first, from another start and other dreams.

Its distance from the first actor is what chance alone makes, so it is the control for a partner
that learns from something else.
"""

from __future__ import annotations

from typing import Any

import jax
from flax import struct
from jaxtyping import Array, PRNGKeyArray

from agent.config import AgentConfig, TwinConfig
from agent.imagination import actor_losses
from agent.learner import (
    Handout,
    LearnerState,
    Metrics,
    dream_of,
    interfaces_of,
    mean_by_task,
    rows_of,
)
from agent.model import Model, init_actor
from agent.normaliser import ReturnScale, init_return_scale
from agent.optimiser import OptimiserState, apply_gradients, init_optimiser
from agent.owners import masks_of, presence
from agent.riders.rider import Rider
from agent.world_model import TrainBatch


@struct.dataclass
class TwinState:
    """Attributes:
    params, optimiser: of the actor.
    scale: percentiles of the returns of its own dreams.
    """

    params: Any
    optimiser: OptimiserState
    scale: ReturnScale


def make_twin(model: Model, agent: AgentConfig, config: TwinConfig) -> Rider:
    """DreamerV3's policy loss on dreams of its own; world model and critic are shared."""
    del config
    tasks = len(model.union.tasks)

    def init(key: PRNGKeyArray, actor: Any) -> TwinState:
        del actor
        params = init_actor(model, key)
        return TwinState(
            params, init_optimiser(params), init_return_scale(len(interfaces_of(model)))
        )

    def update(
        state: TwinState,
        learner: LearnerState,
        batch: TrainBatch,
        handout: Handout,
        key: PRNGKeyArray,
    ) -> tuple[TwinState, Metrics]:
        masks = masks_of(model.union, batch.task)
        dreamt = dream_of(
            model,
            agent,
            {**learner.params, "pol": state.params},
            learner.slow,
            state.scale,
            batch,
            handout.latent,
            masks,
            key,
        )

        def loss(params: Any) -> tuple[Array, dict[str, Array]]:
            losses, looked = actor_losses(
                model,
                params,
                dreamt.dream,
                dreamt.targets,
                dreamt.active,
                dreamt.spread,
                agent.imagination,
            )
            return losses.mean(), {"loss": losses} | looked

        (_, seen), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
        optimiser, params = apply_gradients(
            agent.optim, state.optimiser, state.params, grads, presence(masks, has_frames=False)
        )
        means = {name: x.mean() for name, x in seen.items()}
        rows = rows_of({name: x.T for name, x in seen.items()}, len(batch.task))
        by_task = {name: mean_by_task(x, batch.task, tasks) for name, x in rows.items()}
        return TwinState(params, optimiser, dreamt.scale), Metrics(means, by_task)

    return Rider(init, jax.jit(update, donate_argnums=0))
