"""One update of DreamerV3: every loss, one backward pass, one optimiser step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from agent import distributions as dist
from agent import noise
from agent.config import AgentConfig
from agent.device_batch import pack_latent
from agent.distributions import sg
from agent.imagination import (
    Dream,
    DreamTargets,
    actor_losses,
    dream_targets,
    imagine,
    imagined_value_loss,
    replay_value_loss,
)
from agent.model import Model, init_params
from agent.normaliser import ReturnScale, init_return_scale, update_return_scale
from agent.optimiser import OptimiserState, apply_gradients, init_optimiser
from agent.owners import masks_of, presence
from agent.rssm import Latent
from agent.world_model import TrainBatch, latent_diagnostics, model_losses, observe
from continual.envs.interface import Interface


@struct.dataclass
class LearnerState:
    """All that DreamerV3 learns. Consumed (donated) by every update.

    Attributes:
      params: enc, dec, dyn, rew, con, val, pol.
      slow: EMA of params["val"].
      optimiser: moments per leaf, counts per owner.
      scale: percentiles of imagined returns, per interface.
    """

    params: Mapping[str, Any]
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


@struct.dataclass
class Metrics:
    """Attributes:
    means: name -> number.
    by_task: name -> [tasks], NaN where the batch had nothing of the task.
    """

    means: dict[str, Float[Array, ""]]
    by_task: dict[str, Float[Array, " tasks"]]


Update = Callable[[LearnerState, TrainBatch, PRNGKeyArray], tuple[LearnerState, Handout, Metrics]]


def interfaces_of(model: Model) -> list[Interface]:
    """The distinct interfaces, I of them: tasks that show and accept the same share one."""
    return list(dict.fromkeys(model.union.tasks.values()))


def interface_table(model: Model) -> np.ndarray:
    """task -> index of its interface."""
    distinct = interfaces_of(model)
    return np.array([distinct.index(i) for i in model.union.tasks.values()])


def init_learner(model: Model, key: PRNGKeyArray) -> LearnerState:
    params = init_params(model, key)
    return LearnerState(
        params=params,
        slow=jax.tree.map(jnp.copy, params["val"]),
        optimiser=init_optimiser(params),
        scale=init_return_scale(len(interfaces_of(model))),
    )


@struct.dataclass
class Aside:
    """What comes of computing the losses besides them; none of it carries a gradient.

    Attributes:
      latent: posterior samples, [B, T, …].
      imagined_return: [B, K], of the last K states of each sequence; K = 0 without imagination.
      scale: moved by this batch's returns.
      diagnostics: name -> [B, T] of replayed states, [M, H] of dreams.
    """

    latent: Latent
    imagined_return: Float[Array, "B K"]
    scale: ReturnScale
    diagnostics: dict[str, Float[Array, "_ _"]]


def compute_losses(
    model: Model,
    config: AgentConfig,
    params: Mapping[str, Any],
    state: LearnerState,
    batch: TrainBatch,
    key: PRNGKeyArray,
) -> tuple[dict[str, Array], Aside]:
    """Every loss of DreamerV3, before any mean.

    Args:
      params: those to learn; of `state` only the slow critic and the return scale are read.
      key: consumed.
    Returns:
      name -> [B, T] (world model), [M, H] with M = B K (`policy`, `value`: dreams from the last K
      states of each sequence, sequence by sequence) or [B, K] (`replay_value`).
    """
    observe_key, imagine_key = jax.random.split(key)
    masks = masks_of(model.union, batch.task)
    seen = observe(model, params, batch, masks, observe_key)
    losses = model_losses(model, params, batch, seen, masks, config.loss, config.imagination)
    if config.critic == "imagined":
        imagined, aside = imagined_losses(
            model, config, params, state.slow, state.scale, batch, seen.latent, masks, imagine_key
        )
        losses |= imagined
    else:
        aside = Aside(seen.latent, jnp.zeros((len(batch.task), 0)), state.scale, {})
    losses["replay_value"] = _replay_loss(
        model, config, params, state.slow, batch, seen.latent.feature, aside.imagined_return
    )
    diagnostics = aside.diagnostics | latent_diagnostics(seen)
    return losses, sg(replace(aside, diagnostics=diagnostics))


def imagined_losses(
    model: Model,
    config: AgentConfig,
    params: Mapping[str, Any],
    slow: Any,
    scale: ReturnScale,
    batch: TrainBatch,
    latent: Latent,
    masks: Mapping[str, Bool[Array, " B"]],
    key: PRNGKeyArray,
) -> tuple[dict[str, Float[Array, "M H"]], Aside]:
    """The losses of actor and critic on dreams from the last K states of each sequence.

    Args:
      slow: parameters of the slow critic.
      scale: of returns, before this batch.
      latent: [B, T, …].
      key: consumed.
    Returns:
      `policy` and `value`; nothing but `params["pol"]` and `params["val"]` has a gradient.
    """
    dreamt = dream_of(model, config, params, slow, scale, batch, latent, masks, key)
    dream, targets = dreamt.dream, dreamt.targets
    policy, looked = actor_losses(
        model,
        params["pol"],
        dream,
        targets,
        dreamt.active,
        dreamt.spread,
        config.imagination,
    )
    value = imagined_value_loss(
        dreamt.value_logits, dream.slow_value, targets, config.loss.slow_regulariser
    )
    losses = {"policy": policy.T, "value": value.T}
    diagnostics = {name: x.T for name, x in looked.items()}
    imagined_return = targets.returns[0].reshape(len(batch.task), -1)
    return losses, Aside(latent, imagined_return, dreamt.scale, diagnostics)


@struct.dataclass
class Dreamt:
    """Dreams from the last K states of each sequence, and what their losses need.

    Attributes:
      value_logits: the critic's on the dream's features; the one thing here with a gradient.
      active: head -> [M].
      spread: S of each dream's interface, [M].
      scale: moved by these dreams' returns.
    """

    dream: Dream
    targets: DreamTargets
    value_logits: Float[Array, "H+1 M K"]
    active: dict[str, Bool[Array, " M"]]
    spread: Float[Array, " M"]
    scale: ReturnScale


def dream_of(
    model: Model,
    config: AgentConfig,
    params: Mapping[str, Any],
    slow: Any,
    scale: ReturnScale,
    batch: TrainBatch,
    latent: Latent,
    masks: Mapping[str, Bool[Array, " B"]],
    key: PRNGKeyArray,
) -> Dreamt:
    """Imagine with the actor in `params`.

    Args:
      slow: parameters of the slow critic.
      scale: of this actor's returns, before this batch.
      latent: [B, T, …].
    """
    size, length = batch.reward.shape
    imagination = config.imagination
    last, horizon = min(imagination.last or length, length), imagination.horizon
    each = lambda x: jnp.repeat(x, last, 0)  # [B, …] -> [M, …]
    start = jax.tree.map(lambda x: x[:, -last:].reshape(size * last, *x.shape[2:]), latent)
    active = {h.name: each(masks[f"head:{h.name}"]) for h in model.union.heads}
    keys = noise.split(noise.row_keys(key, batch.draw), last).T.reshape(-1)
    dream = imagine(model, params, slow, start, active, horizon, keys)
    value_logits = model.critic.apply({"params": params["val"]}, dream.feature)
    targets = dream_targets(dream, value_logits, imagination)
    interface = jnp.asarray(interface_table(model))[batch.task]
    returns = targets.returns[:horizon].T.reshape(size, -1)
    scale = update_return_scale(scale, returns, interface, imagination.return_rate)
    spread = each(scale.spread(imagination.return_floor)[interface])
    return Dreamt(dream, targets, value_logits, active, spread, scale)


def _replay_loss(
    model: Model,
    config: AgentConfig,
    params: Mapping[str, Any],
    slow: Any,
    batch: TrainBatch,
    feature: Float[Array, "B T F"],
    imagined_return: Float[Array, "B K"],
) -> Float[Array, "B K"]:
    """Loss `replay_value` on the last K states, or on all of them without imagination."""
    bootstrap = imagined_return
    if config.critic == "replay":
        bootstrap = dist.twohot_mean(model.critic.apply({"params": slow}, sg(feature)))
    last = bootstrap.shape[1]
    return replay_value_loss(
        model,
        params,
        slow,
        feature[:, -last:],
        batch.reward[:, -last:],
        batch.is_last[:, -last:],
        batch.is_terminal[:, -last:],
        bootstrap,
        config.imagination,
        config.loss.slow_regulariser,
    )


def loss_scales(config: AgentConfig) -> dict[str, float]:
    """Weight of every loss that this agent has."""
    weights = config.loss
    scales = {
        "reconstruction": weights.reconstruction,
        "reward": weights.reward,
        "continue": weights.continue_,
        "dynamics": weights.dynamics,
        "representation": weights.representation,
        "replay_value": weights.replay_value,
    }
    if config.critic == "imagined":
        scales |= {"policy": weights.policy, "value": weights.value}
    return scales


def rows_of(losses: Mapping[str, Array], size: int) -> dict[str, Float[Array, " B"]]:
    """Each loss's mean over what belongs to each of the B sequences; their mean is the loss.

    The reference averages the replay value loss over its K columns but the last.
    """
    return {
        name: (x[:, :-1] if name == "replay_value" else x).reshape(size, -1).mean(1)
        for name, x in losses.items()
    }


def mean_by_task(
    rows: Float[Array, " B"], task: Int[Array, " B"], tasks: int
) -> Float[Array, " tasks"]:
    """Mean over the sequences of each task; NaN for a task without any."""
    mine = task[None] == jnp.arange(tasks)[:, None]  # [tasks, B]
    count = mine.sum(1)
    total = jnp.where(mine, rows[None], 0.0).sum(1)
    return jnp.where(count > 0, total / jnp.maximum(count, 1), jnp.nan)


def make_update(model: Model, config: AgentConfig) -> Update:
    """The jitted update. It is compiled once per (B, T, B_img)."""
    scales, tasks = loss_scales(config), len(model.union.tasks)

    def loss(
        params: Mapping[str, Any], state: LearnerState, batch: TrainBatch, key: PRNGKeyArray
    ) -> tuple[Array, tuple[Aside, Metrics]]:
        losses, aside = compute_losses(model, config, params, state, batch, key)
        assert losses.keys() == scales.keys(), (losses.keys(), scales.keys())
        size = len(batch.task)
        rows = rows_of(losses, size)
        means = {name: x.mean() for name, x in rows.items()}
        total = sum((scales[name] * mean for name, mean in means.items()), jnp.zeros(()))
        shown = {f"loss/{name}": mean for name, mean in means.items()}
        shown |= {name: x.mean() for name, x in aside.diagnostics.items()}
        rows = {f"loss/{name}": x for name, x in rows.items()} | rows_of(aside.diagnostics, size)
        by_task = {name: mean_by_task(x, batch.task, tasks) for name, x in rows.items()}
        return total, (aside, Metrics(shown, by_task))

    def update(
        state: LearnerState, batch: TrainBatch, key: PRNGKeyArray
    ) -> tuple[LearnerState, Handout, Metrics]:
        grads, (aside, metrics) = jax.grad(loss, has_aux=True)(state.params, state, batch, key)
        masks = masks_of(model.union, batch.task)
        optimiser, params = apply_gradients(
            config.optim,
            state.optimiser,
            state.params,
            grads,
            presence(masks, has_frames=bool(batch.frames.shape[0])),
        )
        slow = moved_slow(state.slow, params["val"], config.imagination.slow_rate)
        means = {**metrics.means, "gradient_norm": _global_norm(grads)}
        handout = Handout(aside.latent, pack_latent(aside.latent), aside.imagined_return)
        metrics = Metrics(means, metrics.by_task)
        return LearnerState(params, slow, optimiser, aside.scale), handout, metrics

    return jax.jit(update, donate_argnums=0)


def moved_slow(slow: Any, critic: Any, rate: float) -> Any:
    """The slow critic's parameters, moved towards the critic's: their EMA."""
    return jax.tree.map(lambda s, w: (1 - rate) * s + rate * w, slow, critic)


def _global_norm(tree: Any) -> Float[Array, ""]:
    return jnp.sqrt(sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(tree)))


def update_key(seed: int, updates: int) -> PRNGKeyArray:
    """The key of update number `updates` of a life."""
    return jax.random.fold_in(jax.random.key(seed), updates)
