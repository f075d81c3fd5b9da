"""Second actors that learn from replay on stopped features and touch nothing that is shared.

A rider has its own parameters, optimiser and jitted update, fed with what the main update hands
out. So a life with riders that never act is DreamerV3's, bit for bit. To add one: a config in
`agent/config.py`, an entry in `RIDERS` here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from agent import distributions as dist
from agent.config import AgentConfig, AwacConfig, EmaConfig, RiderConfig
from agent.distributions import masked, sg
from agent.heads import log_prob_and_entropy
from agent.learner import Handout, LearnerState, Metrics, interface_table
from agent.model import Model
from agent.normaliser import ReturnScale, init_return_scale, update_return_scale
from agent.optimiser import OptimiserState, apply_gradients, init_optimiser
from agent.owners import masks_of, presence
from agent.returns import has_successor, replay_returns
from agent.rssm import initial_latent
from agent.world_model import TrainBatch


@struct.dataclass
class RiderState:
    """Attributes:
    params: of a policy shaped like the actor.
    optimiser: its own; None for a rider without gradients.
    scale: percentiles of REPLAYED returns, apart from DreamerV3's.
    deviation: [I], EMA of the mean squared advantage, per interface.
    """

    params: Any
    optimiser: OptimiserState | None
    scale: ReturnScale | None
    deviation: Float[Array, " I"] | None


RiderUpdate = Callable[[RiderState, LearnerState, TrainBatch, Handout], tuple[RiderState, Metrics]]


def init_rider(model: Model, config: RiderConfig, actor: Any, key: PRNGKeyArray) -> RiderState:
    """An `ema` rider starts as a copy of the actor, any other afresh."""
    if isinstance(config, EmaConfig):
        return RiderState(jax.tree.map(jnp.copy, actor), None, None, None)
    feature = initial_latent(model.config, 1).feature
    params = jax.jit(lambda key: model.actor.init(key, feature)["params"])(key)
    interfaces = int(interface_table(model).max()) + 1
    return RiderState(
        params,
        init_optimiser(params),
        init_return_scale(interfaces),
        jnp.zeros(interfaces),
    )


def make_rider_update(model: Model, agent: AgentConfig, config: RiderConfig) -> RiderUpdate:
    return RIDERS[config.kind](model, agent, config)


# --- AWAC: advantage-weighted regression on replayed actions --------------------------------------


def advantage_weight(advantage: Float[Array, "*n"], config: AwacConfig) -> Float[Array, "*n"]:
    """w(A), clipped at w_max, without gradient.

    positive: exp(max(A, 0) / beta) never falls below 1, so all data is imitated at least a little;
    exp: exp(A / beta), Nair et al. (arXiv:2006.09359); uniform: 1, behaviour cloning.
    """
    if config.weight == "uniform":
        return jnp.ones_like(advantage)
    score = jnp.maximum(advantage, 0) if config.weight == "positive" else advantage
    return sg(jnp.minimum(jnp.exp(jnp.minimum(score / config.beta, 50.0)), config.w_max))


def awac_loss(
    log_pi: Float[Array, "*n"], weight: Float[Array, "*n"], counts: Bool[Array, "*n"]
) -> Float[Array, "*n"]:
    """-w ln pi(a_t | s_t) of the action done IN state t; 0 where there was none (a last step)."""
    return masked(-sg(weight) * log_pi, counts)


def make_awac(model: Model, agent: AgentConfig, config: AwacConfig) -> RiderUpdate:
    imagination = agent.imagination
    interfaces = interface_table(model)

    def advantages(
        state: RiderState,
        learner: LearnerState,
        batch: TrainBatch,
        feature: Array,
        counts: Array,
    ) -> tuple[Array, ReturnScale, Array]:
        """A_t = (R_t - v_slow(s_t)) / S and the moved normalisers.

        Returns and baseline come from one network, the slow critic, so that their difference is an
        advantage and not the disagreement of two critics.
        """
        assert state.scale is not None
        assert state.deviation is not None
        value = dist.twohot_mean(model.critic.apply({"params": learner.slow}, feature))
        returns = jax.vmap(replay_returns, (0, 0, 0, 0, None, None))(
            batch.reward,
            batch.is_last,
            batch.is_terminal,
            value,
            imagination.lambda_,
            imagination.gamma,
        )
        interface = jnp.asarray(interfaces)[batch.task]
        rate = imagination.return_rate
        scale = update_return_scale(state.scale, returns, interface, rate, counts)
        gap = returns - value
        deviations = []
        for index in range(state.deviation.shape[0]):
            mine = counts & (interface == index)[:, None]
            square = masked(jnp.square(gap), mine).sum() / jnp.maximum(mine.sum(), 1)
            old = state.deviation[index]
            # The first batch sets the EMA: from 0 it would call every early advantage enormous.
            moved = jnp.where(
                old == 0,
                square,
                old + rate * (interface == index).mean() * (square - old),
            )
            deviations.append(jnp.where(mine.any(), moved, old))
        deviation = jnp.stack(deviations)
        if config.advantage == "rms":
            unit = jnp.sqrt(deviation)[interface] + 1e-8
        else:
            unit = scale.spread(imagination.return_floor)[interface]
        return gap / unit[:, None], scale, deviation

    def update(
        state: RiderState, learner: LearnerState, batch: TrainBatch, handout: Handout
    ) -> tuple[RiderState, Metrics]:
        assert state.optimiser is not None
        feature = handout.latent.feature
        length = batch.reward.shape[1]
        masks = masks_of(model.union, batch.task)
        active = {
            h.name: jnp.repeat(masks[f"head:{h.name}"][:, None], length, 1)
            for h in model.union.heads
        }
        counts = has_successor(batch.is_last)
        advantage, scale, deviation = advantages(state, learner, batch, feature, counts)
        weight = masked(advantage_weight(advantage, config), counts)

        def loss(params: Any) -> tuple[Array, Array]:
            policy = model.actor.apply({"params": params}, feature)
            log_pi, entropy = log_prob_and_entropy(policy, batch.actions, active)
            mean = awac_loss(log_pi, weight, counts).sum() / jnp.maximum(counts.sum(), 1)
            return mean, masked(entropy, counts).sum() / jnp.maximum(counts.sum(), 1)

        (value, entropy), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
        optimiser, params = apply_gradients(
            agent.optim,
            state.optimiser,
            state.params,
            grads,
            presence(masks, has_frames=False),
        )
        n = jnp.maximum(counts.sum(), 1)
        metrics = {
            "loss": value,
            "entropy": entropy,
            "weight": weight.sum() / n,
            "weight_max": weight.max(),
            # Kish: 1 when all weights are equal, 1/n when one row carries all.
            "effective_samples": jnp.square(weight.sum()) / (n * jnp.square(weight).sum() + 1e-8),
            "positive_share": (masked(advantage, counts) > 0).sum() / n,
            "advantage_magnitude": masked(jnp.abs(advantage), counts).sum() / n,
        }
        return RiderState(params, optimiser, scale, deviation), metrics

    return jax.jit(update, donate_argnums=0)


# --- EMA: a slow copy of the actor ----------------------------------------------------------------


def make_ema(model: Model, agent: AgentConfig, config: EmaConfig) -> RiderUpdate:
    def update(
        state: RiderState, learner: LearnerState, batch: TrainBatch, handout: Handout
    ) -> tuple[RiderState, Metrics]:
        del batch, handout
        mix = lambda old, new: (1 - config.rate) * old + config.rate * new
        return replace(state, params=jax.tree.map(mix, state.params, learner.params["pol"])), {}

    return jax.jit(update, donate_argnums=0)


RIDERS: dict[str, Callable[[Model, AgentConfig, Any], RiderUpdate]] = {
    "awac": make_awac,
    "ema": make_ema,
}
