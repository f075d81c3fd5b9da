"""Training actor and critic alone, in dreams of a world model that stays as it is.

What they come to is what the world model still knows. Whoever acts or dreams looks at latents, and
those hang on the encoder and the dynamics alone: `pol` and `val` are a function of them, have no
parameter in common with the model, and so can be trained, or taken from elsewhere, by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, PRNGKeyArray

from agent.config import AgentConfig
from agent.device_batch import pack_latent
from agent.learner import (
    Aside,
    LearnerState,
    Metrics,
    imagined_losses,
    loss_scales,
    moved_slow,
    rows_of,
)
from agent.model import Model
from agent.normaliser import ReturnScale
from agent.optimiser import OptimiserState, apply_gradients
from agent.owners import masks_of, owners_of, presence
from agent.world_model import TrainBatch, observe

HEADS = ("pol", "val")  # the other parameters are the world model's: enc, dec, dyn, rew, con


@struct.dataclass
class Heads:
    """What is learnt in imagination alone.

    Attributes:
      params: pol and val.
      slow: EMA of params["val"].
      optimiser: moments of `params`, counts of their owners.
      scale: percentiles of imagined returns, per interface.
    """

    params: Mapping[str, Any]
    slow: Any
    optimiser: OptimiserState
    scale: ReturnScale


Recover = Callable[
    [LearnerState, TrainBatch, PRNGKeyArray], tuple[LearnerState, dict[str, Array], Metrics]
]


def heads_of(state: LearnerState) -> Heads:
    params, optimiser = _only_heads(state.params), state.optimiser
    count = {owner: optimiser.count[owner] for owner in sorted(set(owners_of(params)))}
    moments = OptimiserState(count, _only_heads(optimiser.nu), _only_heads(optimiser.mu))
    return Heads(params, state.slow, moments, state.scale)


def with_heads(state: LearnerState, heads: Heads) -> LearnerState:
    """The state with other heads. Owners that world model and heads share count the heads' updates:
    it is a state to act and to recover with, not one to live on from.
    """
    old, new = state.optimiser, heads.optimiser
    optimiser = OptimiserState(
        {**old.count, **new.count}, {**old.nu, **new.nu}, {**old.mu, **new.mu}
    )
    return LearnerState({**state.params, **heads.params}, heads.slow, optimiser, heads.scale)


def transplant(world_model: Mapping[str, Any], heads: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters: enc, dec, dyn, rew, con of one agent, pol and val of another."""
    return {**world_model, **_only_heads(heads)}


def make_recovery(model: Model, config: AgentConfig) -> Recover:
    """The update of actor and critic alone: (state, batch, key) -> (state, latents, metrics).

    Batch, dreams, both losses, the optimiser with its moments, the slow critic and the return scale
    are those of `learner.make_update`. The loss `replay_value` is left out, so that rewards of the
    replay teach nothing: all that is learnt is known to the world model, whose leaves come back bit
    for bit. Latents are the posteriors of this model, [B, T, …] as replay stores them.

    Compiled once per (B, T, B_img).
    """
    scales = loss_scales(config)

    def loss(
        params: Mapping[str, Any],
        state: LearnerState,
        batch: TrainBatch,
        dreamt_from: tuple[Any, Mapping[str, Any], PRNGKeyArray],
    ) -> tuple[Array, tuple[Aside, dict[str, Array]]]:
        latent, masks, key = dreamt_from
        together = {**state.params, **params}
        losses, aside = imagined_losses(
            model, config, together, state.slow, state.scale, batch, latent, masks, key
        )
        means = {name: x.mean() for name, x in rows_of(losses, len(batch.task)).items()}
        total = sum((scales[name] * mean for name, mean in means.items()), jnp.zeros(()))
        shown = {f"loss/{name}": mean for name, mean in means.items()}
        return total, (aside, shown | {name: x.mean() for name, x in aside.diagnostics.items()})

    @jax.jit
    def update(
        state: LearnerState, batch: TrainBatch, key: PRNGKeyArray
    ) -> tuple[Heads, dict[str, Array], dict[str, Array]]:
        observe_key, imagine_key = jax.random.split(key)
        masks = masks_of(model.union, batch.task)
        latent = observe(model, state.params, batch, masks, observe_key).latent
        heads = heads_of(state)
        grads, (aside, means) = jax.grad(loss, has_aux=True)(
            heads.params, state, batch, (latent, masks, imagine_key)
        )
        optimiser, params = apply_gradients(
            config.optim, heads.optimiser, heads.params, grads, presence(masks, has_frames=False)
        )
        slow = moved_slow(state.slow, params["val"], config.imagination.slow_rate)
        return Heads(params, slow, optimiser, aside.scale), pack_latent(latent), means

    def recover(
        state: LearnerState, batch: TrainBatch, key: PRNGKeyArray
    ) -> tuple[LearnerState, dict[str, Array], Metrics]:
        heads, latents, means = update(state, batch, key)
        return with_heads(state, heads), latents, Metrics(means, {})

    return recover


def _only_heads(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tree[name] for name in HEADS}
