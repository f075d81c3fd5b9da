"""AWAC: a policy that imitates replayed actions, each by its advantage (docs/equations.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from agent import distributions as dist
from agent.config import AgentConfig, AwacConfig, ImaginationConfig, Weight
from agent.distributions import masked, sg
from agent.heads import log_prob_and_entropy
from agent.learner import (
    Handout,
    LearnerState,
    Metrics,
    interface_table,
    interfaces_of,
)
from agent.model import Model, init_actor
from agent.normaliser import ByInterface, ReturnScale, init_return_scale, update_return_scale
from agent.optimiser import OptimiserState, apply_gradients, init_optimiser
from agent.owners import masks_of, presence
from agent.returns import has_successor, replay_returns_by_row
from agent.riders.rider import Rider
from agent.world_model import TrainBatch


@struct.dataclass
class AwacState:
    """Attributes:
    params, optimiser: of the policy.
    scale: percentiles of REPLAYED returns, apart from DreamerV3's.
    mean_square: EMA of (R - v)^2, per interface.
    """

    params: Any
    optimiser: OptimiserState
    scale: ReturnScale
    mean_square: MeanSquare


@struct.dataclass
class MeanSquare(ByInterface):
    """EMA of squares, per interface; an interface's first batch sets it.

    Attributes:
      value: [I].
      is_set: [I].
    """

    value: Float[Array, " I"]
    is_set: Bool[Array, " I"]


def advantage_weight(
    advantage: Float[Array, "B T"],
    counts: Bool[Array, "B T"],
    weight: Weight,
    *,
    beta: float,
    w_max: float,
) -> Float[Array, "B T"]:
    """w(A) at temperature beta, clipped at w_max, without gradient; 0 where nothing counts.

    positive   exp(max(A, 0) / beta)    never below 1: all data is imitated at least a little
    exp        exp(A / beta)            Nair et al. (arXiv:2006.09359)
    softmax    n softmax(A / beta)      over the n entries that count: mean 1 before the clip
    binary     1[A > 0]
    uniform    1                        behaviour cloning

    Args:
      advantage: A_t, in whatever unit beta is meant for.
      counts: where an action was done and its return is known.
    """
    a = advantage / beta
    match weight:
        case "positive":
            w = jnp.exp(jnp.clip(a, 0.0, 50.0))
        case "exp":
            w = jnp.exp(jnp.minimum(a, 50.0))
        case "softmax":
            share = jax.nn.softmax(jnp.where(counts, a, -jnp.inf).ravel()).reshape(a.shape)
            # Without a single entry all shares are NaN, and masked below.
            w = counts.sum() * share
        case "binary":
            w = (a > 0).astype(a.dtype)
        case "uniform":
            w = jnp.ones_like(a)
    return sg(masked(jnp.minimum(w, w_max), counts))


def normalise_within_tasks(
    weight: Float[Array, "B T"], counts: Bool[Array, "B T"], task: Int[Array, " B"], tasks: int
) -> Float[Array, "B T"]:
    """Weights with mean 1 over what counts of each task, so that no task outweighs another."""
    n = jax.ops.segment_sum(counts.sum(1), task, tasks)
    total = jax.ops.segment_sum(weight.sum(1), task, tasks)
    factor = jnp.where(total > 0, n / jnp.where(total > 0, total, 1.0), 0.0)
    return weight * factor[task][:, None]


def scaled_advantage(
    returns: Float[Array, "B T"], value: Float[Array, "B T"], unit: Float[Array, " B"]
) -> Float[Array, "B T"]:
    """A_t = (R_t - v_slow(s_t)) / S, in the unit S of each sequence's interface.

    Source: our reading of Huang and Chiang (2025), whose R/S - v would change with the zero point
    of rewards.
    """
    return (returns - value) / unit[:, None]


def replayed_advantages(
    reward: Float[Array, "B T"],
    is_last: Bool[Array, "B T"],
    is_terminal: Bool[Array, "B T"],
    value: Float[Array, "B T"],
    bootstrap: Float[Array, "B T"],
    interface: Int[Array, " B"],
    scale: ReturnScale,
    mean_square: MeanSquare,
    kind: Literal["percentile", "rms"],
    config: ImaginationConfig,
) -> tuple[Float[Array, "B T"], ReturnScale, MeanSquare]:
    """The advantages of replayed actions, and both normalisers moved by this batch.

    Bootstrapped with `value`, returns and baseline come from one network, so that their difference
    is an advantage and not the disagreement of two critics.

    Args:
      value: v_slow(s_t), the baseline.
      bootstrap: b_t, what replayed returns end with.
      interface: index of each sequence's interface.
      scale, mean_square: before this batch; the advantages are in their units after it.
    """
    returns = replay_returns_by_row(
        reward, is_last, is_terminal, bootstrap, config.lambda_, config.gamma
    )
    counts, rate = has_successor(is_last), config.return_rate
    scale = update_return_scale(scale, returns, interface, rate, counts)
    mean_square = update_mean_square(mean_square, returns - value, counts, interface, rate)
    if kind == "rms":
        unit = jnp.sqrt(mean_square.value) + 1e-8
    else:
        unit = scale.spread(config.return_floor)
    return scaled_advantage(returns, value, unit[interface]), scale, mean_square


def awac_loss(
    log_pi: Float[Array, "*n"], weight: Float[Array, "*n"], counts: Bool[Array, "*n"]
) -> Float[Array, "*n"]:
    """-w ln pi(a_t | s_t) of the action done IN state t; 0 where there was none (a last step)."""
    return masked(-sg(weight) * log_pi, counts)


def update_mean_square(
    state: MeanSquare,
    x: Float[Array, "B T"],
    counts: Bool[Array, "B T"],
    interface: Int[Array, " B"],
    rate: float,
) -> MeanSquare:
    """Move each interface's EMA by its share of the batch; without rows it stays as it is."""
    index = jnp.arange(state.value.shape[0])
    mine = (interface[None] == index[:, None])[:, :, None] & counts[None]  # [I, B, T]
    n = mine.sum((1, 2))
    square = jnp.where(mine, jnp.square(x)[None], 0.0).sum((1, 2)) / jnp.maximum(n, 1)
    share = (interface[None] == index[:, None]).mean(1)
    # The first batch sets it: from 0 it would call every early advantage enormous.
    moved = jnp.where(state.is_set, state.value + rate * share * (square - state.value), square)
    return MeanSquare(jnp.where(n > 0, moved, state.value), state.is_set | (n > 0))


def make_awac(model: Model, agent: AgentConfig, config: AwacConfig) -> Rider:
    """A policy by weighted maximum likelihood of replayed actions (Nair et al., arXiv:2006.09359).

    Learns on the posterior features of the main update, with DreamerV3's slow critic as baseline.
    """
    tasks, interfaces = len(model.union.tasks), len(interfaces_of(model))
    returns = agent.imagination
    if config.lambda_ is not None:
        returns = returns.model_copy(update={"lambda_": config.lambda_})

    def init(key: PRNGKeyArray, actor: Any) -> AwacState:
        del actor
        params = init_actor(model, key)
        unset = MeanSquare(jnp.zeros(interfaces), jnp.zeros(interfaces, bool))
        return AwacState(params, init_optimiser(params), init_return_scale(interfaces), unset)

    def update(
        state: AwacState,
        learner: LearnerState,
        batch: TrainBatch,
        handout: Handout,
        key: PRNGKeyArray,
    ) -> tuple[AwacState, Metrics]:
        del key
        if config.bootstrap == "imagined":  # known for the last K states only
            batch = batch.rows(slice(-handout.imagined_return.shape[1], None))
        length = batch.reward.shape[1]
        feature = handout.latent.feature[:, -length:]
        masks = masks_of(model.union, batch.task)
        active = {
            h.name: jnp.repeat(masks[f"head:{h.name}"][:, None], length, 1)
            for h in model.union.heads
        }
        counts = has_successor(batch.is_last)
        value = dist.twohot_mean(model.critic.apply({"params": learner.slow}, feature))
        advantages, scale, mean_square = replayed_advantages(
            batch.reward,
            batch.is_last,
            batch.is_terminal,
            value,
            value if config.bootstrap == "slow" else handout.imagined_return,
            jnp.asarray(interface_table(model))[batch.task],
            state.scale,
            state.mean_square,
            config.advantage,
            returns,
        )
        weight = advantage_weight(
            advantages, counts, config.weight, beta=config.beta, w_max=config.w_max
        )
        if config.normalise == "task":
            weight = normalise_within_tasks(weight, counts, batch.task, tasks)
        n = jnp.maximum(counts.sum(), 1)
        # Before the maths: what stands where no action was, NaN included, has no gradient either.
        done = {name: masked(x, counts) for name, x in batch.actions.items()}

        def loss(params: Any) -> tuple[Array, tuple[Array, Array]]:
            policy = model.actor.apply({"params": params}, feature)
            log_pi, entropy = log_prob_and_entropy(policy, done, active)
            losses = awac_loss(log_pi, weight, counts)
            return losses.sum() / n, (losses, entropy)

        (value, (losses, entropy)), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
        optimiser, params = apply_gradients(
            agent.optim,
            state.optimiser,
            state.params,
            grads,
            presence(masks, has_frames=False),
        )
        statistics = {
            "entropy": entropy,
            "weight": weight,
            "positive_share": (advantages > 0).astype(weight.dtype),
            "advantage_magnitude": jnp.abs(advantages),
        }
        means = {name: masked(x, counts).sum() / n for name, x in statistics.items()}
        means |= {"loss": value, "weight_max": weight.max()}
        means["effective_samples"] = effective_share(weight.sum(), jnp.square(weight).sum(), n)
        statistics["loss"] = losses
        by_task = statistics_by_task(statistics, weight, counts, batch.task, tasks)
        return AwacState(params, optimiser, scale, mean_square), Metrics(means, by_task)

    return Rider(init, jax.jit(update, donate_argnums=0))


def effective_share(total: Array, squares: Array, n: Array) -> Array:
    """Kish's effective sample size over n: 1 when all weights are equal, 1/n when one has all.

    0 where all weights are 0.
    """
    return jnp.square(total) / jnp.where(squares > 0, n * squares, 1.0)


def statistics_by_task(
    statistics: Mapping[str, Float[Array, "B T"]],
    weight: Float[Array, "B T"],
    counts: Bool[Array, "B T"],
    task: Int[Array, " B"],
    tasks: int,
) -> dict[str, Float[Array, " tasks"]]:
    """Means over what counts of each task, `weight_sum` and `effective_samples` of its weights.

    NaN for a task without a sequence; 0 where nothing of its sequences counts.
    """
    total = lambda x: jax.ops.segment_sum(masked(x, counts).sum(1), task, tasks)
    n = jnp.maximum(total(jnp.ones_like(weight)), 1)
    found = {name: total(x) / n for name, x in statistics.items()}
    found["weight_sum"] = total(weight)
    found["effective_samples"] = effective_share(total(weight), total(jnp.square(weight)), n)
    present = (task[None] == jnp.arange(tasks)[:, None]).any(1)
    return {name: jnp.where(present, x, jnp.nan) for name, x in found.items()}
