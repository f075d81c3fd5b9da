"""Learning the world model from replayed sequences (DreamerV3, world model learning)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from agent import distributions as dist
from agent import noise
from agent.codecs import IMAGE_BRANCH, VECTOR_BRANCH
from agent.config import ImaginationConfig, LossConfig
from agent.distributions import masked, sg
from agent.model import Model
from agent.rssm import Latent, sample
from continual.envs.interface import IMAGE


@struct.dataclass
class TrainBatch:
    """`storage.Batch` on the device. T rows of B sequences; absent slots and heads hold zeros.

    Attributes:
      vectors: slot -> [B, T, width].
      frames: [B_img, T, 64, 64, 3] of the first sequences, or B_img = 0.
      actions: head -> [B, T, A] as numbers (one-hot if categorical); action t is done in state t.
      previous: head -> [B, A], the action before the first row.
      reward, is_first, is_last, is_terminal: [B, T].
      task: [B] index.
      context: latent before the first row, [B, …].
      draw: [B] identity of each sequence's noise.
    """

    vectors: Mapping[str, Float[Array, "B T _"]]
    frames: Array
    actions: Mapping[str, Float[Array, "B T A"]]
    previous: Mapping[str, Float[Array, "B A"]]
    reward: Float[Array, "B T"]
    is_first: Bool[Array, "B T"]
    is_last: Bool[Array, "B T"]
    is_terminal: Bool[Array, "B T"]
    task: Int[Array, " B"]
    context: Latent
    draw: Int[Array, " B"]

    def rows(self, chosen: slice) -> TrainBatch:
        """The same sequences with some of their rows only; `previous` and `context` stay."""
        names = "vectors", "frames", "actions", "reward", "is_first", "is_last", "is_terminal"
        by_row = {name: getattr(self, name) for name in names}
        return replace(self, **jax.tree.map(lambda x: x[:, chosen], by_row))


@struct.dataclass
class Observed:
    """What the model makes of a batch.

    Attributes:
      latent: posterior samples, [B, T, …].
      posterior, prior: log-probabilities, [B, T, S, K].
    """

    latent: Latent
    posterior: Float[Array, "B T S K"]
    prior: Float[Array, "B T S K"]


def encode(
    model: Model,
    params: Mapping,
    batch: TrainBatch,
    masks: Mapping[str, Bool[Array, " B"]],
) -> dict[str, Array]:
    """Tokens by branch, [B, T, _]; exactly 0 where a sequence's world does not feed the branch."""
    size = batch.reward.shape[0]
    tokens: dict[str, Array] = {}
    if model.union.vectors:
        # `where` before the maths: what an absent slot holds, NaN included, changes nothing.
        vectors = {name: masked(x, masks[f"slot:{name}"]) for name, x in batch.vectors.items()}
        tokens |= model.encoder.apply({"params": params["enc"]}, vectors=vectors)
        tokens[VECTOR_BRANCH] = masked(tokens[VECTOR_BRANCH], masks[VECTOR_BRANCH])
    if batch.frames.shape[0]:
        pictures = model.encoder.apply({"params": params["enc"]}, frames=batch.frames)[IMAGE_BRANCH]
        surplus = ((0, size - pictures.shape[0]), (0, 0), (0, 0))
        tokens[IMAGE_BRANCH] = masked(jnp.pad(pictures, surplus), masks[IMAGE_BRANCH])
    return tokens


def observe(
    model: Model,
    params: Mapping,
    batch: TrainBatch,
    masks: Mapping[str, Bool[Array, " B"]],
    key: PRNGKeyArray,
) -> Observed:
    """Run the posterior along every sequence, from its context latent.

    Where an episode begins, latent and previous action are zero, so nothing after it depends on
    anything before it.
    """
    rssm = lambda method, *args: model.rssm.apply({"params": params["dyn"]}, *args, method=method)
    length = batch.reward.shape[1]
    uniform = noise.uniform(noise.row_keys(key, batch.draw), (length, model.config.stoch))
    actions = {}
    for name, action in batch.actions.items():
        previous = jnp.concatenate([batch.previous[name][:, None], action[:, :-1]], 1)
        actions[name] = masked(masked(previous, ~batch.is_first), masks[f"head:{name}"])
    embedded_actions = rssm("embed_actions", actions)  # [B, T, h]
    tokens = rssm("embed_tokens", encode(model, params, batch, masks))  # [B, T, h]

    def step(latent: Latent, x: tuple[Array, ...]) -> tuple[Latent, tuple[Array, ...]]:
        token, action, is_first, u = x
        deter = rssm("step", latent.reset(is_first), action)
        posterior = rssm("posterior_of", deter, token)
        stoch = sample(posterior, u)
        return Latent(deter, stoch), (deter, stoch, posterior)

    by_time = jax.tree.map(
        lambda x: jnp.swapaxes(x, 0, 1),
        (tokens, embedded_actions, batch.is_first, uniform),
    )
    _, outputs = jax.lax.scan(step, batch.context, by_time)
    deter, stoch, posterior = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), outputs)
    return Observed(Latent(deter, stoch), posterior, rssm("prior_of", deter))


def kl_losses(
    posterior: Float[Array, "*n S K"], prior: Float[Array, "*n S K"], free_nats: float
) -> tuple[Float[Array, "*n"], Float[Array, "*n"]]:
    """Dynamics and representation loss (DreamerV3, world model learning).

    L_dyn = max(1, KL[sg(q) || p]),  L_rep = max(1, KL[q || sg(p)]); summed over the S latents, the
    free nats cut per step, before any mean.
    """
    dyn = dist.categorical_kl(sg(posterior), prior).sum(-1)
    rep = dist.categorical_kl(posterior, sg(prior)).sum(-1)
    return jnp.maximum(free_nats, dyn), jnp.maximum(free_nats, rep)


def latent_diagnostics(seen: Observed) -> dict[str, Float[Array, "B T"]]:
    """Entropies of posterior and prior, and their divergence before any free nats, in nats.

    A loss `dynamics` of 1 does not tell a model that has nothing left to learn from one whose
    latents have stopped to say anything; these do.
    """
    q, p = seen.posterior, seen.prior
    return {
        "posterior_entropy": dist.categorical_entropy(q).sum(-1),
        "prior_entropy": dist.categorical_entropy(p).sum(-1),
        "kl": dist.categorical_kl(q, p).sum(-1),
    }


def model_losses(
    model: Model,
    params: Mapping,
    batch: TrainBatch,
    seen: Observed,
    masks: Mapping[str, Bool[Array, " B"]],
    config: LossConfig,
    imagination: ImaginationConfig,
) -> dict[str, Float[Array, "B T"]]:
    """Reconstruction, reward, continue, dynamics and representation losses."""
    size, length = batch.reward.shape
    losses = {}
    losses["dynamics"], losses["representation"] = kl_losses(
        seen.posterior, seen.prior, config.free_nats
    )
    feature = seen.latent.feature
    reward_logits = model.reward.apply({"params": params["rew"]}, feature)
    losses["reward"] = dist.twohot_loss(reward_logits, batch.reward)
    # The continue head learns the discount as well, as a soft label.
    going_on = imagination.gamma * (1 - batch.is_terminal.astype(jnp.float32))
    continue_logit = model.continues.apply({"params": params["con"]}, feature)[..., 0]
    losses["continue"] = dist.bernoulli_loss(continue_logit, going_on)

    reconstruction = jnp.zeros((size, length))
    if model.union.vectors:
        decoded = model.decoder.apply({"params": params["dec"]}, seen.latent, VECTOR_BRANCH)
        for name, prediction in decoded.items():
            on = masks[f"slot:{name}"]
            target = dist.symlog(masked(batch.vectors[name], on))
            error = jnp.square(masked(prediction, on) - target).sum(-1)
            reconstruction = reconstruction + masked(error, on)
    if count := batch.frames.shape[0]:
        latent = jax.tree.map(lambda x: x[:count], seen.latent)
        picture = model.decoder.apply({"params": params["dec"]}, latent, IMAGE_BRANCH)[IMAGE]
        error = jnp.square(picture - batch.frames.astype(jnp.float32) / 255).sum((-3, -2, -1))
        error = masked(error, masks[IMAGE_BRANCH][:count])
        reconstruction = reconstruction + jnp.pad(error, ((0, size - count), (0, 0)))
    losses["reconstruction"] = reconstruction
    return losses
