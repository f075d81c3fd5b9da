"""Actor and critic, learnt in imagination and (the critic) on replay (DreamerV3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from agent import distributions as dist
from agent import noise
from agent.config import ImaginationConfig
from agent.distributions import masked, sg
from agent.heads import log_prob_and_entropy, sample_actions
from agent.model import Model
from agent.returns import has_successor, lambda_returns, replay_returns
from agent.rssm import Actions, Latent, sample


@struct.dataclass
class Dream:
    """M imagined trajectories of H + 1 states, time first; no gradient flows through them.

    Features are what an update has most of; to turn them around would cost more than to use them.

    Attributes:
      feature: [H + 1, M, F]; entry 0 is the replayed state it starts from.
      actions: head -> [H, M, A]; action t is done in state t.
    """

    feature: Float[Array, "H+1 M F"]
    actions: Actions


def imagine(
    model: Model,
    params: Mapping[str, Any],
    start: Latent,
    active: Mapping[str, Bool[Array, " M"]],
    horizon: int,
    keys: PRNGKeyArray,
) -> Dream:
    """Roll the prior forward with sampled actions.

    Args:
      start: [M, …] latents.
      active: head -> [M]; inactive heads do nothing.
      keys: [M], one a trajectory.
    """
    params, start = sg(params), sg(start)
    rssm = lambda method, *args: model.rssm.apply({"params": params["dyn"]}, *args, method=method)
    prior_keys, *head_keys = noise.split(keys, 1 + len(model.union.heads))
    prior = noise.uniform(prior_keys, (horizon, model.config.stoch))
    normal, uniform = {}, {}
    for head, own_keys in zip(model.union.heads, head_keys, strict=True):
        if head.kind == "continuous":
            normal[head.name] = noise.normal(own_keys, (horizon, head.size))
        else:
            uniform[head.name] = noise.uniform(own_keys, (horizon,))
    drawn = {"prior": prior, "normal": normal, "uniform": uniform}

    def step(latent: Latent, x: Mapping[str, Any]) -> tuple[Latent, tuple[Array, Actions]]:
        feature = latent.feature
        policy = model.actor.apply({"params": params["pol"]}, feature)
        actions = sample_actions(policy, x["normal"], x["uniform"])
        actions = {name: masked(action, active[name]) for name, action in actions.items()}
        deter = rssm("step", latent, rssm("embed_actions", actions))
        stoch = sample(rssm("prior_of", deter), x["prior"])
        return Latent(deter, stoch), (feature, actions)

    by_time = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), drawn)
    last, (features, actions) = jax.lax.scan(step, start, by_time)
    return sg(Dream(jnp.concatenate([features, last.feature[None]]), actions))


@struct.dataclass
class DreamTargets:
    """What the losses compare with; all [H + 1, M] and without gradient.

    Attributes:
      returns: R_t, lambda-returns.
      value: v_t, the critic's prediction.
      weight: product of the continue predictions c_0 … c_t; entry 0 is c_0, not 1.
    """

    returns: Float[Array, "H+1 M"]
    value: Float[Array, "H+1 M"]
    weight: Float[Array, "H+1 M"]


def dream_targets(
    model: Model,
    params: Mapping[str, Any],
    dream: Dream,
    value_logits: Float[Array, "H+1 M K"],
    config: ImaginationConfig,
) -> DreamTargets:
    """Rewards, continues and values of the dream, and the returns that follow from them.

    Args:
      value_logits: the critic's on the dream's features, which its own loss needs as well.
    """
    params = sg(params)
    reward = dist.twohot_mean(model.reward.apply({"params": params["rew"]}, dream.feature))
    going_on = jax.nn.sigmoid(
        model.continues.apply({"params": params["con"]}, dream.feature)[..., 0]
    )
    value = dist.twohot_mean(sg(value_logits))
    over_dreams = jax.vmap(lambda_returns, (1, 1, 1, None), 1)
    returns = over_dreams(reward, going_on, value, config.lambda_)
    return sg(DreamTargets(returns, value, jnp.cumprod(going_on, 0)))


def policy_loss(
    log_pi: Float[Array, "*n"],
    entropy: Float[Array, "*n"],
    advantage: Float[Array, "*n"],
    weight: Float[Array, "*n"],
    eta: float,
) -> Float[Array, "*n"]:
    """-w_t [ sg((R_t - v_t) / S) ln pi(a_t | s_t) + eta H(pi) ]   (REINFORCE)."""
    return -sg(weight) * (log_pi * sg(advantage) + eta * entropy)


def value_loss(
    logits: Float[Array, "*n K"],
    returns: Float[Array, "*n"],
    slow_value: Float[Array, "*n"],
    slow_regulariser: float,
) -> Float[Array, "*n"]:
    """CE(R) + CE(slow critic's prediction), unweighted (critic learning)."""
    bins = logits.shape[-1]
    # One cross-entropy against both two-hots at once: half the passes over all bins.
    weights = dist.twohot(returns, bins) + slow_regulariser * dist.twohot(slow_value, bins)
    return dist.cross_entropy(logits, weights, 1 + slow_regulariser)


def actor_losses(
    model: Model,
    actor: Any,
    dream: Dream,
    targets: DreamTargets,
    active: Mapping[str, Bool[Array, " M"]],
    spread: Float[Array, " M"],
    config: ImaginationConfig,
) -> tuple[Float[Array, "H M"], dict[str, Float[Array, "H M"]]]:
    """The policy loss of the H steps of each dream, and diagnostics of the same shape.

    Args:
      actor: parameters of the policy that acted in the dreams.
      spread: S of each trajectory's interface.
    """
    horizon = config.horizon
    policy = model.actor.apply({"params": actor}, dream.feature[:horizon])
    over_time = {name: jnp.repeat(on[None], horizon, 0) for name, on in active.items()}
    log_pi, entropy = log_prob_and_entropy(policy, dream.actions, over_time)
    returns, value, weight = (x[:horizon] for x in (targets.returns, targets.value, targets.weight))
    advantage = (returns - value) / spread[None]
    diagnostics = {
        "actor_entropy": entropy,
        "imagined_return": returns,
        "imagined_value": value,
        "advantage_magnitude": jnp.abs(advantage),
    }
    return policy_loss(log_pi, entropy, advantage, weight, config.entropy), diagnostics


def imagined_value_loss(
    model: Model,
    value_logits: Float[Array, "H+1 M K"],
    slow: Any,
    dream: Dream,
    targets: DreamTargets,
    slow_regulariser: float,
) -> Float[Array, "H M"]:
    """sg(w_t) [CE(R_t) + CE(slow critic's prediction)] of the H steps of each dream."""
    slow_value = dist.twohot_mean(model.critic.apply({"params": slow}, dream.feature[:-1]))
    loss = value_loss(value_logits[:-1], targets.returns[:-1], slow_value, slow_regulariser)
    return sg(targets.weight[:-1]) * loss


def replay_value_loss(
    model: Model,
    params: Mapping[str, Any],
    slow: Any,
    feature: Float[Array, "B K F"],
    reward: Float[Array, "B K"],
    is_last: Bool[Array, "B K"],
    is_terminal: Bool[Array, "B K"],
    bootstrap: Float[Array, "B K"],
    config: ImaginationConfig,
    slow_regulariser: float,
) -> Float[Array, "B K"]:
    """Critic loss on the states that dreams started from; its gradient reaches the world model.

    `bootstrap` is the imagined return of each state, not its value. The last column is 0: it has no
    successor. Steps that are last ones do not count.
    """
    returns = jax.vmap(replay_returns, (0, 0, 0, 0, None, None))(
        reward, is_last, is_terminal, bootstrap, config.lambda_, config.gamma
    )
    logits = model.critic.apply({"params": params["val"]}, feature)
    slow_value = dist.twohot_mean(model.critic.apply({"params": slow}, feature))
    loss = value_loss(logits, sg(returns), sg(slow_value), slow_regulariser)
    return masked(loss, has_successor(is_last))
