"""Which of two policies acts: a gate without parameters (docs/gate.md has the proofs).

Reads top to bottom like the algorithm:

    dH    = mean_k [ Hn_k(pi) - Hn_k(piA) ]         is the partner more certain?
    D     = mean_k 1/2 [ KL(pi_k || piA_k) + KL(piA_k || pi_k) ]       do they agree?
    pen   = tanh( max(D - tau, 0) / s )
    score = dH - beta_div * pen - bias
    p     = clip( sigmoid(alpha * score), p_min, p_max )
    m ~ Bernoulli(p);  the partner acts where m

The mean runs over the heads that the world acts with, within a continuous head over its dimensions.
Only heads of the acting world are handed in, so an inactive head cannot enter. Disagreement only
ever lowers p: the gate is conservative towards the first policy.

Source: our reading of Huang and Chiang (2025); where their text leaves a choice, the default and
the options are listed in docs/gate.md. Constants are ours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from agent.config import (
    ConfidenceGate,
    Divergence,
    Entropy,
    FixedGate,
    GateConfig,
    RandomGate,
    SurpriseGate,
)
from agent.distributions import STD_MAX, STD_MIN, categorical_entropy
from agent.heads import ActionDist, Categorical, Continuous, PolicyDist


@struct.dataclass
class Evidence:
    """What a gate may look at, [N] each; carries no gradient.

    Attributes:
      entropy, entropy_partner: normalised, in [0, 1].
      divergence: D, nats, at least 0.
      surprise: KL(posterior || prior) of the latest latent, nats; 0 for gates that do not look.
    """

    entropy: Float[Array, " N"]
    entropy_partner: Float[Array, " N"]
    divergence: Float[Array, " N"]
    surprise: Float[Array, " N"]


@struct.dataclass
class Verdict:
    """What the gate decided, and why; [N] each.

    Attributes:
      p: probability that the partner acts; p_raw: before clipping.
      entropy_gap: dH, in [-1, 1]; positive where the partner is more certain.
      penalty: pen, in [0, 1].
      disagrees: whether what the penalty looks at is above tau.
    """

    p: Float[Array, " N"]
    p_raw: Float[Array, " N"]
    entropy_gap: Float[Array, " N"]
    penalty: Float[Array, " N"]
    disagrees: Bool[Array, " N"]


def normalised_entropy(pi: ActionDist, entropy: Entropy, unimix: float) -> Float[Array, "N k"]:
    """Entropy of each dimension (continuous) or of the class (k = 1), scaled to [0, 1].

    Bounded normal: ln(sigma / 0.1) / ln(10). Categorical: H / ln K, or, with `min_max`, 0 at the
    least entropy that a uniform share of `unimix` leaves.
    """
    if isinstance(pi, Continuous):
        h = jnp.log(pi.std / STD_MIN) / np.log(STD_MAX / STD_MIN).astype(np.float32)
        return jnp.clip(h, 0.0, 1.0)
    # A single class leaves nothing to be uncertain about.
    classes = max(2, pi.log_probs.shape[-1])
    least = least_entropy(classes, unimix) if entropy == "min_max" else 0.0
    h = (categorical_entropy(pi.log_probs) - least) / np.float32(np.log(classes) - least)
    return jnp.clip(h, 0.0, 1.0)[..., None]


def least_entropy(classes: int, unimix: float) -> float:
    """Entropy of a class that is as sure as a uniform share of `unimix` lets it be, nats."""
    rest = unimix / classes
    if rest == 0:
        return 0.0
    top = 1 - unimix + rest
    return float(-top * np.log(top) - (classes - 1) * rest * np.log(rest))


def symmetric_kl(a: ActionDist, b: ActionDist) -> Float[Array, "N k"]:
    """1/2 [KL(a || b) + KL(b || a)], in nats, of each dimension, or of the class (k = 1).

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


def compare(
    pi: PolicyDist,
    partner: PolicyDist,
    *,
    divergence: Divergence = "mean",
    entropy: Entropy = "by_classes",
    unimix: float = 0.01,
) -> Evidence:
    """Entropies and divergence, means over heads of the mean (or sum) over their dimensions.

    Args:
      divergence: `sum` adds up a head's dimensions; with many of them the penalty saturates.
      unimix: uniform share of the categorical heads.
    """
    as_float32 = lambda x: jax.lax.stop_gradient(x.astype(jnp.float32))
    pi, partner = jax.tree.map(as_float32, (pi, partner))

    def over_heads(values: list[Float[Array, " N"]]) -> Float[Array, " N"]:
        return sum(values[1:], values[0]) / len(values)

    certainty = lambda policy: over_heads(
        [normalised_entropy(dist, entropy, unimix).mean(-1) for dist in policy.values()]
    )
    apart = [symmetric_kl(pi[k], partner[k]) for k in pi]
    summed = [d.sum(-1) if divergence == "sum" else d.mean(-1) for d in apart]
    d = over_heads(summed)
    return Evidence(certainty(pi), certainty(partner), d, jnp.zeros_like(d))


def confidence(evidence: Evidence, config: ConfidenceGate) -> Verdict:
    """Who is more certain, and do they agree?"""
    return _judge(evidence, evidence.divergence, config)


def surprise(evidence: Evidence, config: SurpriseGate) -> Verdict:
    """Who is more certain, and did the world do what the model expected?"""
    return _judge(evidence, evidence.surprise, config)


def _judge(
    evidence: Evidence, cause: Float[Array, " N"], config: ConfidenceGate | SurpriseGate
) -> Verdict:
    gap = evidence.entropy - evidence.entropy_partner
    penalty = jnp.tanh(jnp.maximum(cause - config.tau, 0.0) / config.scale)
    score = gap - config.beta_div * penalty - config.bias
    p_raw = jax.nn.sigmoid(config.alpha * score)
    p = jnp.clip(p_raw, config.p_min, config.p_max)
    return Verdict(p, p_raw, gap, penalty, cause > config.tau)


def at_rate(evidence: Evidence, config: FixedGate | RandomGate) -> Verdict:
    """One probability, whatever the policies say; the gap is recorded all the same."""
    gap = evidence.entropy - evidence.entropy_partner
    p = jnp.full_like(gap, config.p)
    return Verdict(p, p, gap, jnp.zeros_like(gap), jnp.zeros(gap.shape, bool))


GATES: dict[str, Callable[[Evidence, Any], Verdict]] = {
    "confidence": confidence,
    "surprise": surprise,
    "fixed": at_rate,
    "random": at_rate,
}


def judge(evidence: Evidence, config: GateConfig) -> Verdict:
    """The verdict of the configured gate on each of N rows."""
    return GATES[config.kind](evidence, config)


def choose(p: Float[Array, " N"], uniform: Float[Array, " N"] | None) -> Bool[Array, " N"]:
    """True where the partner acts: with probability p, or, without noise, where p > 1/2."""
    return p > 0.5 if uniform is None else uniform < p


def hold(
    drawn: Bool[Array, " N"],
    chosen: Bool[Array, " N"],
    age: Int[Array, " N"],
    is_first: Bool[Array, " N"],
    n: int,
) -> tuple[Bool[Array, " N"], Int[Array, " N"]]:
    """A choice stands for n decisions, and never beyond its episode.

    Args:
      drawn: what would be chosen now.
      chosen, age: the choice that stands, and the decisions made under it.
    Returns:
      the choice for this decision, and its age after it.
    """
    renew = is_first | (age >= n)
    return jnp.where(renew, drawn, chosen), jnp.where(renew, 1, age + 1)
