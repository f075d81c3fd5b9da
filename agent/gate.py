"""Which of two policies acts: a gate without parameters (docs/equations.md, gate).

Reads top to bottom like the algorithm:

    dH    = mean_k [ Hn_k(pi) - Hn_k(piA) ]         is the partner more certain?
    D     = mean_k 1/2 [ KL(pi_k || piA_k) + KL(piA_k || pi_k) ]       do they agree?
    pen   = tanh( max(D - tau, 0) / s )
    score = dH - beta_div * pen - bias
    p     = clip( sigmoid(alpha * score), p_min, p_max )
    m ~ Bernoulli(p);  the partner acts where m

The mean runs over what the world acts with: every dimension of its continuous head counts as one,
and so does its categorical head. Only heads of the acting world are handed in, so an inactive head
cannot enter. Disagreement only ever lowers p: the gate is conservative towards the first policy.

Source: our reading of Huang and Chiang (2025); where their text leaves a choice, the default and
the options are listed in docs/equations.md. Constants are ours.
"""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float

from agent.config import ConfidenceGate, FixedGate
from agent.distributions import STD_MAX, STD_MIN, categorical_entropy
from agent.heads import ActionDist, Categorical, Continuous, PolicyDist


@struct.dataclass
class Verdict:
    """What the gate found, [N] each.

    Attributes:
      p: probability that the partner acts.
      entropy_gap: dH, in [-1, 1]; positive where the partner is more certain.
      divergence: D, nats per head, at least 0.
      penalty: pen, in [0, 1).
    """

    p: Float[Array, " N"]
    entropy_gap: Float[Array, " N"]
    divergence: Float[Array, " N"]
    penalty: Float[Array, " N"]


def normalised_entropy(pi: ActionDist) -> Float[Array, "N k"]:
    """Entropy of each dimension (continuous) or of the class (k = 1), scaled to [0, 1].

    Bounded normal: ln(sigma / 0.1) / ln(10). Categorical: H / ln K.
    """
    if isinstance(pi, Continuous):
        h = jnp.log(pi.std / STD_MIN) / np.log(STD_MAX / STD_MIN).astype(np.float32)
    else:
        classes = pi.log_probs.shape[-1]
        h = (categorical_entropy(pi.log_probs) / np.float32(np.log(classes)))[..., None]
    return jnp.clip(h, 0.0, 1.0)


def symmetric_kl(a: ActionDist, b: ActionDist) -> Float[Array, "N k"]:
    """1/2 [KL(a || b) + KL(b || a)] of each dimension, or of the class (k = 1).

    Both forms are sums of products of like sign: never negative and exactly 0 for equal inputs,
    which the difference of two one-sided divergences is not in floating point.
    """
    if isinstance(a, Continuous):
        assert isinstance(b, Continuous), "both are policies of one head"
        ratio = a.std / b.std - b.std / a.std
        gap = jnp.square(a.mean - b.mean) * (1 / jnp.square(a.std) + 1 / jnp.square(b.std))
        return 0.25 * (jnp.square(ratio) + gap)
    assert isinstance(b, Categorical), "both are policies of one head"
    gap = (jnp.exp(a.log_probs) - jnp.exp(b.log_probs)) * (a.log_probs - b.log_probs)
    return 0.5 * gap.sum(-1)[..., None]


def compare(pi: PolicyDist, partner: PolicyDist) -> tuple[Float[Array, " N"], Float[Array, " N"]]:
    """(dH, D): entropy gap and divergence, means over all dimensions of all heads."""
    pi, partner = jax.lax.stop_gradient((pi, partner))
    gaps = [normalised_entropy(pi[k]) - normalised_entropy(partner[k]) for k in pi]
    divergences = [symmetric_kl(pi[k], partner[k]) for k in pi]
    return jnp.concatenate(gaps, -1).mean(-1), jnp.concatenate(divergences, -1).mean(-1)


def confidence(
    entropy_gap: Float[Array, " N"],
    divergence: Float[Array, " N"],
    config: ConfidenceGate,
) -> Verdict:
    """p from (dH, D)."""
    penalty = jnp.tanh(jnp.maximum(divergence - config.tau, 0.0) / config.scale)
    score = entropy_gap - config.beta_div * penalty - config.bias
    p = jnp.clip(jax.nn.sigmoid(config.alpha * score), config.p_min, config.p_max)
    return Verdict(p, entropy_gap, divergence, penalty)


def judge(pi: PolicyDist, partner: PolicyDist, config: ConfidenceGate | FixedGate) -> Verdict:
    """The verdict of the configured gate on each of N rows."""
    entropy_gap, divergence = compare(pi, partner)
    if isinstance(config, ConfidenceGate):
        return confidence(entropy_gap, divergence, config)
    # What a confident gate would have seen is recorded all the same.
    seen = confidence(entropy_gap, divergence, ConfidenceGate())
    return replace(seen, p=jnp.full_like(entropy_gap, config.p))


def choose(p: Float[Array, " N"], uniform: Float[Array, " N"] | None) -> Bool[Array, " N"]:
    """True where the partner acts: with probability p, or, without noise, where p > 1/2."""
    return p > 0.5 if uniform is None else uniform < p
