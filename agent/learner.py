"""One update of DreamerV3: every loss, one backward pass, one optimiser step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, PRNGKeyArray

from agent import noise
from agent.config import AgentConfig
from agent.distributions import sg
from agent.imagination import (
    actor_critic_losses,
    dream_targets,
    imagine,
    replay_value_loss,
)
from agent.model import Model, init_params
from agent.normaliser import ReturnScale, init_return_scale, update_return_scale
from agent.optimiser import OptimiserState, apply_gradients, init_optimiser
from agent.owners import masks_of, presence
from agent.rssm import Latent, pack_latent
from agent.world_model import TrainBatch, model_losses, observe


@struct.dataclass
class LearnerState:
    """All that DreamerV3 learns. Consumed (donated) by every update.

    Attributes:
      params: enc, dec, dyn, rew, con, val, pol.
      slow: EMA of params["val"].
      optimiser: moments per leaf, counts per owner.
      scale: percentiles of imagined returns, per interface.
    """

    params: dict[str, Any]
    slow: Any
    optimiser: OptimiserState
    scale: ReturnScale


@struct.dataclass
class Handout:
    """What an update hands out: new latents for the replay, and what riders learn from.

    Attributes:
      latent: posterior samples, [B, T, …], without gradient.
      stored: the same as replay stores them, `latent.*` columns [B, T, …].
      imagined_return: [B, K], of the last K states of each sequence.
    """

    latent: Latent
    stored: dict[str, Array]
    imagined_return: Float[Array, "B K"]


Metrics = dict[str, Float[Array, ""]]
Update = Callable[[LearnerState, TrainBatch, PRNGKeyArray], tuple[LearnerState, Handout, Metrics]]


def interface_table(model: Model) -> np.ndarray:
    """task -> index of its interface: tasks that show and accept the same share one."""
    distinct = list(dict.fromkeys(model.union.tasks.values()))
    return np.array([distinct.index(i) for i in model.union.tasks.values()])


def init_learner(model: Model, key: PRNGKeyArray) -> LearnerState:
    params = init_params(model, key)
    return LearnerState(
        params=params,
        slow=jax.tree.map(jnp.copy, params["val"]),
        optimiser=init_optimiser(params),
        scale=init_return_scale(int(interface_table(model).max()) + 1),
    )


def make_update(model: Model, config: AgentConfig) -> Update:
    """The jitted update. It is compiled once per (B, T, B_img)."""
    imagination, weights = config.imagination, config.loss
    interfaces = interface_table(model)
    scales = {
        "reconstruction": weights.reconstruction,
        "reward": weights.reward,
        "continue": weights.continue_,
        "dynamics": weights.dynamics,
        "representation": weights.representation,
        "policy": weights.policy,
        "value": weights.value,
        "replay_value": weights.replay_value,
    }

    def loss(
        params: dict[str, Any],
        state: LearnerState,
        batch: TrainBatch,
        key: PRNGKeyArray,
    ) -> tuple[Array, tuple[ReturnScale, Handout, Metrics]]:
        size, length = batch.reward.shape
        last = imagination.last or length
        observe_key, imagine_key = jax.random.split(key)
        masks = masks_of(model.union, batch.task)

        # World model
        seen = observe(model, params, batch, masks, observe_key)
        losses = model_losses(model, params, batch, seen, masks, weights, imagination)

        # Imagination, from the last K states of each sequence: M = B * K dreams
        each = lambda x: jnp.repeat(x, last, 0)  # [B, …] -> [M, …]
        start = jax.tree.map(lambda x: x[:, -last:].reshape(size * last, *x.shape[2:]), seen.latent)
        active = {h.name: each(masks[f"head:{h.name}"]) for h in model.union.heads}
        row_keys = noise.row_keys(imagine_key, batch.draw)
        keys = noise.split(row_keys, last).T.reshape(-1)
        dream = imagine(model, params, start, active, imagination.horizon, keys)
        targets = dream_targets(model, params, dream, imagination)
        interface = jnp.asarray(interfaces)[batch.task]
        horizon = imagination.horizon
        scale = update_return_scale(
            state.scale,
            targets.returns[:, :horizon].reshape(size, -1),
            interface,
            imagination.return_rate,
        )
        spread = each(scale.spread(imagination.return_floor)[interface])
        dreamed, diagnostics = actor_critic_losses(
            model,
            params,
            state.slow,
            dream,
            targets,
            active,
            spread,
            imagination,
            weights.slow_regulariser,
        )

        # Replay
        imagined_return = targets.returns[:, 0].reshape(size, last)
        losses["replay_value"] = replay_value_loss(
            model,
            params,
            state.slow,
            seen.latent.feature[:, -last:],
            batch.reward[:, -last:],
            batch.is_last[:, -last:],
            batch.is_terminal[:, -last:],
            imagined_return,
            imagination,
            weights.slow_regulariser,
        )

        means = {}
        for name, value in (losses | dreamed).items():
            expected = (size * last, horizon) if name in dreamed else (size, length)
            expected = (size, last) if name == "replay_value" else expected
            assert value.shape == expected, (name, value.shape, expected)
            # The reference averages the replay value loss over its K columns but the last.
            means[name] = value[:, :-1].mean() if name == "replay_value" else value.mean()
        assert means.keys() == scales.keys(), (means.keys(), scales.keys())
        total = sum((scales[name] * value for name, value in means.items()), jnp.zeros(()))
        metrics = {f"loss/{name}": value for name, value in means.items()}
        metrics |= {name: value.mean() for name, value in diagnostics.items()}
        latent = sg(seen.latent)
        handout = Handout(latent, pack_latent(latent), imagined_return)
        return total, (scale, handout, metrics)

    def update(
        state: LearnerState, batch: TrainBatch, key: PRNGKeyArray
    ) -> tuple[LearnerState, Handout, Metrics]:
        grads, (scale, handout, metrics) = jax.grad(loss, has_aux=True)(
            state.params, state, batch, key
        )
        masks = masks_of(model.union, batch.task)
        optimiser, params = apply_gradients(
            config.optim,
            state.optimiser,
            state.params,
            grads,
            presence(masks, has_frames=bool(batch.frames.shape[0])),
        )
        rate = imagination.slow_rate
        slow = jax.tree.map(lambda s, w: (1 - rate) * s + rate * w, state.slow, params["val"])
        metrics["gradient_norm"] = _global_norm(grads)
        return LearnerState(params, slow, optimiser, scale), handout, metrics

    return jax.jit(update, donate_argnums=0)


def _global_norm(tree: Any) -> Float[Array, ""]:
    return jnp.sqrt(sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(tree)))


def update_key(seed: int, updates: int) -> PRNGKeyArray:
    """The key of update number `updates` of a life."""
    return jax.random.fold_in(jax.random.key(seed), updates)
