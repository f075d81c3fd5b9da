"""Heads on the feature: reward, continue, critic, and policies with a head per action space."""

from __future__ import annotations

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from agent import distributions as dist
from agent.config import ModelConfig
from agent.distributions import lined_up
from agent.networks import MLP, Linear, key_of, product, scaled_normal
from continual.envs.interface import Head

BINS = 255


class ScalarHead(nn.Module):
    """MLP to `outputs` logits: 255 for a two-hot number, 1 for a coin."""

    layers: int
    units: int
    outputs: int
    scale: float
    dtype: str = "float32"

    @nn.compact
    def __call__(self, feature: Float[Array, "*n F"]) -> Float[Array, "*n O"]:
        x = MLP(self.layers, self.units, self.dtype, name="mlp")(feature)
        return Linear(self.outputs, self.scale, self.dtype, name="out")(x)


def reward_head(c: ModelConfig) -> ScalarHead:
    return ScalarHead(c.reward_layers, c.units, BINS, 0.0, c.compute_dtype)


def continue_head(c: ModelConfig) -> ScalarHead:
    return ScalarHead(c.reward_layers, c.units, 1, 1.0, c.compute_dtype)


def critic_head(c: ModelConfig) -> ScalarHead:
    return ScalarHead(c.policy_layers, c.units, BINS, 0.0, c.compute_dtype)


@struct.dataclass
class Continuous:
    """Bounded normal of one continuous head: mean and std [*n, A]."""

    mean: Float[Array, "*n A"]
    std: Float[Array, "*n A"]


@struct.dataclass
class Categorical:
    """Categorical of one discrete head: log-probabilities [*n, K], unimix included."""

    log_probs: Float[Array, "*n K"]


ActionDist = Continuous | Categorical
PolicyDist = Mapping[str, ActionDist]  # head -> distribution


class PolicyHead(nn.Module):
    """A shared MLP and linear outputs a head; only the named heads are computed."""

    config: ModelConfig
    heads: tuple[Head, ...]

    def setup(self) -> None:
        c = self.config
        self.mlp = MLP(c.policy_layers, c.units, c.compute_dtype)

        def init(key: PRNGKeyArray) -> dict[str, dict[str, Array]]:
            return {
                name: {
                    "kernel": scaled_normal(c.units, 0.01)(key_of(key, name), (c.units, head.size)),
                    "bias": jnp.zeros(head.size),
                }
                for head in self.heads
                for name in _outputs(head)
            }

        self.out = self.param("out", init)

    def __call__(
        self, feature: Float[Array, "*n F"], only: tuple[str, ...] | None = None
    ) -> PolicyDist:
        c = self.config
        heads = [head for head in self.heads if only is None or head.name in only]
        names = [name for head in heads for name in _outputs(head)]
        # One product for all heads: many small ones take longer.
        kernel = jnp.concatenate([self.out[name]["kernel"] for name in names], 1)
        biases = [self.out[name]["bias"] for name in names]
        x = product(self.mlp(feature), kernel, c.compute_dtype)
        x = x + lined_up(jnp.concatenate(biases), x)
        widths = np.cumsum([bias.shape[0] for bias in biases])[:-1]
        raw = dict(zip(names, jnp.split(x, widths, -1), strict=True))
        out: dict[str, ActionDist] = {}
        for head in heads:
            mine = [raw[name] for name in _outputs(head)]
            if head.kind == "continuous":
                mean, std = mine
                out[head.name] = Continuous(*dist.bounded_normal(mean, std))
            else:
                (logits,) = mine
                out[head.name] = Categorical(dist.unimix_log_probs(logits, c.actor_unimix))
        return out


def _outputs(head: Head) -> list[str]:
    parts = ("mean", "std") if head.kind == "continuous" else ("logits",)
    return [f"head:{head.name}:{part}" for part in parts]


def sample_actions(
    policy: PolicyDist, normal: Mapping[str, Array], uniform: Mapping[str, Array]
) -> dict[str, Float[Array, "*n A"]]:
    """One action a head as the numbers the model sees: the sample, or a one-hot of the class.

    Args:
      normal: continuous head -> standard normal noise [*n, A].
      uniform: categorical head -> noise in [0, 1), [*n].
    """
    actions = {}
    for name, pi in policy.items():
        if isinstance(pi, Continuous):
            actions[name] = pi.mean + pi.std * normal[name]
        else:
            index = dist.categorical_sample(pi.log_probs, uniform[name])
            actions[name] = one_hot(index, pi.log_probs.shape[-1])
    return actions


def mode_actions(policy: PolicyDist) -> dict[str, Float[Array, "*n A"]]:
    """Mean, or a one-hot of the likeliest class."""
    return {
        name: pi.mean
        if isinstance(pi, Continuous)
        else one_hot(pi.log_probs.argmax(-1), pi.log_probs.shape[-1])
        for name, pi in policy.items()
    }


def one_hot(index: Array, classes: int) -> Float[Array, "*n K"]:
    """[*n] class indices as rows of 0 and 1."""
    return jax.nn.one_hot(index, classes)


def log_prob_and_entropy(
    policy: PolicyDist,
    actions: Mapping[str, Float[Array, "*n A"]],
    active: Mapping[str, Bool[Array, "*n"]],
) -> tuple[Float[Array, "*n"], Float[Array, "*n"]]:
    """Sums over the dimensions of the active heads; what an inactive head holds adds nothing."""
    log_pi, entropy = jnp.zeros(()), jnp.zeros(())
    for name, pi in policy.items():
        on = active[name]
        if isinstance(pi, Continuous):
            mean = dist.masked(pi.mean, on)
            std = jnp.where(on[..., None], pi.std, 1.0)
            action = dist.masked(actions[name], on)
            log_p = dist.normal_log_prob(action, mean, std).sum(-1)
            h = dist.normal_entropy(std).sum(-1)
        else:
            log_probs = jnp.where(on[..., None], pi.log_probs, 0.0)
            log_p = (log_probs * dist.masked(actions[name], on)).sum(-1)
            h = dist.categorical_entropy(log_probs)
        log_pi = log_pi + dist.masked(log_p, on)
        entropy = entropy + dist.masked(h, on)
    return log_pi, entropy
