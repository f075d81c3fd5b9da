"""Recurrent state-space model: a deterministic and a categorical latent (DreamerV3)."""

from __future__ import annotations

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from agent import distributions as dist
from agent.config import ModelConfig
from agent.networks import BlockLinear, Layer, Linear, Norm, Part, Sum

# head -> numbers (one-hot if categorical), 0 if inactive
Actions = Mapping[str, Float[Array, "*n A"]]


@struct.dataclass
class Latent:
    """A state of the model.

    Attributes:
      deter: [*n, D].
      stoch: [*n, S, K], one-hot (straight-through in training).
    """

    deter: Float[Array, "*n D"]
    stoch: Float[Array, "*n S K"]

    @property
    def feature(self) -> Float[Array, "*n F"]:
        """Input of every head: deter, then flat stoch."""
        return jnp.concatenate([self.deter, self.flat_stoch], -1)

    @property
    def flat_stoch(self) -> Float[Array, "*n S*K"]:
        return self.stoch.reshape(*self.stoch.shape[:-2], -1)

    def reset(self, is_first: Bool[Array, "*n"]) -> Latent:
        """Zeros, the (not learned) initial state, where an episode begins."""
        return Latent(dist.masked(self.deter, ~is_first), dist.masked(self.stoch, ~is_first))


def initial_latent(config: ModelConfig, *n: int) -> Latent:
    return Latent(jnp.zeros((*n, config.deter)), jnp.zeros((*n, config.stoch, config.classes)))


class RSSM(nn.Module):
    """Pieces of the recurrence; the scans over time live outside (`agent/world_model.py`).

    Attributes:
      action_parts: `head:<name>` -> sizes of its action kernel.
      token_parts: `deter` and the encoder's branches -> sizes of their kernels in the posterior.
    """

    config: ModelConfig
    action_parts: Mapping[str, Part]
    token_parts: Mapping[str, Part]

    def setup(self) -> None:
        c = self.config
        dtype = c.compute_dtype
        self.deter_in = Layer(c.hidden, dtype)
        self.stoch_in = Layer(c.hidden, dtype)
        self.action_in = Sum(c.hidden, self.action_parts, dtype)
        self.action_norm = Norm()
        self.dyn = [BlockLinear(c.deter, c.blocks, dtype=dtype) for _ in range(c.dyn_layers)]
        self.dyn_norm = [Norm() for _ in range(c.dyn_layers)]
        self.gates = BlockLinear(3 * c.deter, c.blocks, 3, dtype)
        self.prior = [Layer(c.hidden, dtype) for _ in range(c.prior_layers)]
        self.prior_logits = Linear(c.stoch * c.classes, dtype=dtype)
        self.obs_in = Sum(c.hidden, self.token_parts, dtype)
        self.obs_norm = Norm()
        self.posterior = [Layer(c.hidden, dtype) for _ in range(c.posterior_layers - 1)]
        self.posterior_logits = Linear(c.stoch * c.classes, dtype=dtype)

    def embed_actions(self, actions: Actions) -> Float[Array, "*n h"]:
        """What the recurrence sees of the previous action; actions beyond 1 are scaled to 1."""
        limited = {
            f"head:{name}": a / jax.lax.stop_gradient(jnp.maximum(1, jnp.abs(a)))
            for name, a in actions.items()
        }
        return jax.nn.silu(self.action_norm(self.action_in(limited)))

    def step(self, latent: Latent, action: Float[Array, "*n h"]) -> Float[Array, "*n D"]:
        """Next deterministic latent: h_t = f(h_{t-1}, z_{t-1}, a_{t-1}); `action` is embedded."""
        x = jnp.concatenate(
            [self.deter_in(latent.deter), self.stoch_in(latent.flat_stoch), action], -1
        )
        y = latent.deter
        for index, (layer, norm) in enumerate(zip(self.dyn, self.dyn_norm, strict=True)):
            (y,) = layer(y, x) if index == 0 else layer(y)
            y = jax.nn.silu(norm(y))
        reset, candidate, update = self.gates(y)  # split within each block
        candidate = jnp.tanh(jax.nn.sigmoid(reset) * candidate)
        update = jax.nn.sigmoid(update - 1)
        return update * candidate + (1 - update) * latent.deter

    def prior_of(self, deter: Float[Array, "*n D"]) -> Float[Array, "*n S K"]:
        """Log-probabilities of p(z_t | h_t)."""
        x = deter
        for layer in self.prior:
            x = layer(x)
        return self._log_probs(self.prior_logits(x))

    def embed_tokens(self, tokens: Mapping[str, Float[Array, "*n _"]]) -> Float[Array, "*n h"]:
        """The observation's share of the posterior's first layer, bias included."""
        return self.obs_in(tokens)

    def posterior_of(
        self, deter: Float[Array, "*n D"], tokens: Float[Array, "*n h"]
    ) -> Float[Array, "*n S K"]:
        """Log-probabilities of q(z_t | h_t, x_t); `tokens` are embedded.

        One linear layer on concat(deter, tokens), computed as a sum so that a scan over time only
        pays for the part that changes.
        """
        x = jax.nn.silu(self.obs_norm(tokens + self.obs_in.term("deter", deter)))
        for layer in self.posterior:
            x = layer(x)
        return self._log_probs(self.posterior_logits(x))

    def _log_probs(self, logits: Float[Array, "*n S*K"]) -> Float[Array, "*n S K"]:
        c = self.config
        logits = logits.reshape(*logits.shape[:-1], c.stoch, c.classes)
        return dist.unimix_log_probs(logits, c.unimix)


def sample(
    log_probs: Float[Array, "*n S K"], uniform: Float[Array, "*n S"]
) -> Float[Array, "*n S K"]:
    """One-hot sample with the straight-through gradient of the mixed probabilities."""
    index: Int[Array, "*n S"] = dist.categorical_sample(log_probs, uniform)
    hard = jax.nn.one_hot(index, log_probs.shape[-1])
    prob = jnp.exp(log_probs)
    return hard + (prob - jax.lax.stop_gradient(prob))
