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
from agent.returns import has_successor, lambda_returns, replay_returns_by_row
from agent.rssm import Actions, Latent, sample


@struct.dataclass
class Dream:
    """M imagined trajectories of H + 1 states, time first; no gradient flows through them.

    Features are what an update has most of; to turn them around would cost more than to use them.

    Attributes:
      feature: [H + 1, M, F]; entry 0 is the replayed state it starts from.
      actions: head -> [H + 1, M, A]; action t is done in state t, the last one leads nowhere.
      reward: r_t that comes with state t, [H + 1, M].
      going_on: c_t, the continue head's prediction, [H + 1, M].
      slow_value: the slow critic's prediction, [H + 1, M].
    """

    feature: Float[Array, "H+1 M F"]
    actions: Actions
    reward: Float[Array, "H+1 M"]
    going_on: Float[Array, "H+1 M"]
    slow_value: Float[Array, "H+1 M"]


def imagine(
    model: Model,
    params: Mapping[str, Any],
    slow: Any,
    start: Latent,
    active: Mapping[str, Bool[Array, " M"]],
    horizon: int,
    keys: PRNGKeyArray,
) -> Dream:
    """Roll the prior forward with sampled actions.

    One step more is taken than is looked at: to join the last state on would copy all features.
    What needs no gradient is predicted on the way, while a state's features are at hand.

    Args:
      slow: parameters of the slow critic.
      start: [M, …] latents.
      active: head -> [M]; inactive heads do nothing.
      keys: [M], one a trajectory.
    """
    params, slow, start = sg(params), sg(slow), sg(start)
    rssm = lambda method, *args: model.rssm.apply({"params": params["dyn"]}, *args, method=method)
    prior_keys, *head_keys = noise.split(keys, 1 + len(model.union.heads))
    states = horizon + 1
    prior = noise.uniform(prior_keys, (states, model.config.stoch))
    normal, uniform = {}, {}
    for head, own_keys in zip(model.union.heads, head_keys, strict=True):
        if head.kind == "continuous":
            normal[head.name] = noise.normal(own_keys, (states, head.size))
        else:
            uniform[head.name] = noise.uniform(own_keys, (states,))
    drawn = {"prior": prior, "normal": normal, "uniform": uniform}

    def step(latent: Latent, x: Mapping[str, Any]) -> tuple[Latent, Dream]:
        feature = latent.feature
        reward = dist.twohot_mean(model.reward.apply({"params": params["rew"]}, feature))
        going_on = jax.nn.sigmoid(model.continues.apply({"params": params["con"]}, feature)[..., 0])
        slow_value = dist.twohot_mean(model.critic.apply({"params": slow}, feature))
        policy = model.actor.apply({"params": params["pol"]}, feature)
        actions = sample_actions(policy, x["normal"], x["uniform"])
        actions = {name: masked(action, active[name]) for name, action in actions.items()}
        deter = rssm("step", latent, rssm("embed_actions", actions))
        stoch = sample(rssm("prior_of", deter), x["prior"])
        return Latent(deter, stoch), Dream(feature, actions, reward, going_on, slow_value)

    by_time = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), drawn)
    _, dream = jax.lax.scan(step, start, by_time)
    return sg(dream)


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
    dream: Dream, value_logits: Float[Array, "H+1 M K"], config: ImaginationConfig
) -> DreamTargets:
    """The returns that follow from a dream.

    Args:
      value_logits: the critic's on the dream's features, which its own loss needs as well.
    """
    value = dist.twohot_mean(sg(value_logits))
    over_dreams = jax.vmap(lambda_returns, (1, 1, 1, None), 1)
    returns = over_dreams(dream.reward, dream.going_on, value, config.lambda_)
    return sg(DreamTargets(returns, value, jnp.cumprod(dream.going_on, 0)))


def policy_loss(
    log_pi: Float[Array, "*n"],
    entropy: Float[Array, "*n"],
    advantage: Float[Array, "*n"],
    weight: Float[Array, "*n"],
    eta: float,
) -> Float[Array, "*n"]:
    """-w_t [ sg((R_t - v_t) / S) ln pi(a_t | s_t) + eta H(pi) ]   (REINFORCE).

    Source: DreamerV3 (arXiv:2301.04104v2), actor learning; the bonus inside the minus.

    Args:
      log_pi, entropy: in nats, summed over an action's dimensions.
      advantage: (R_t - v_t) / S.
      weight: w_t, product of continue predictions.
    """
    return -sg(weight) * (log_pi * sg(advantage) + eta * entropy)


def value_loss(
    logits: Float[Array, "*n K"],
    returns: Float[Array, "*n"],
    slow_value: Float[Array, "*n"],
    slow_regulariser: float,
) -> Float[Array, "*n"]:
    """CE(R) + CE(slow critic's prediction), in nats and unweighted.

    Source: DreamerV3 (arXiv:2301.04104v2), critic learning.

    Args:
      logits: over the two-hot bins.
      returns, slow_value: in the units of reward.
    """
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

    Computed of all states and cut afterwards: a cut of the features would be a copy.

    Args:
      actor: parameters of the policy that acted in the dreams.
      spread: S of each trajectory's interface.
    """
    policy = model.actor.apply({"params": actor}, dream.feature)
    over_time = {name: jnp.repeat(on[None], len(dream.feature), 0) for name, on in active.items()}
    log_pi, entropy = log_prob_and_entropy(policy, dream.actions, over_time)
    advantage = (targets.returns - targets.value) / spread[None]
    loss = policy_loss(log_pi, entropy, advantage, targets.weight, config.entropy)
    diagnostics = {
        "actor_entropy": entropy,
        "imagined_return": targets.returns,
        "imagined_value": targets.value,
        "advantage_magnitude": jnp.abs(advantage),
    }
    return loss[:-1], {name: x[:-1] for name, x in diagnostics.items()}


def imagined_value_loss(
    value_logits: Float[Array, "H+1 M K"],
    slow_value: Float[Array, "H+1 M"],
    targets: DreamTargets,
    slow_regulariser: float,
) -> Float[Array, "H M"]:
    """sg(w_t) [CE(R_t) + CE(slow critic's prediction)] of the H steps of each dream."""
    loss = value_loss(value_logits, targets.returns, slow_value, slow_regulariser)
    return (sg(targets.weight) * loss)[:-1]


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
    returns = replay_returns_by_row(
        reward, is_last, is_terminal, bootstrap, config.lambda_, config.gamma
    )
    logits = model.critic.apply({"params": params["val"]}, feature)
    slow_value = dist.twohot_mean(model.critic.apply({"params": slow}, feature))
    loss = value_loss(logits, sg(returns), sg(slow_value), slow_regulariser)
    return masked(loss, has_successor(is_last))
