"""Distributions of the model's outputs, as functions of plain arrays.

Samples are functions of given noise, not of a key: the noise of a whole batch is drawn in one call
(`agent/noise.py`), which is what makes a row's draw independent of the rows beside it.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

sg = jax.lax.stop_gradient


def full_precision() -> str | None:
    """For products whose float32 an accelerator must not shorten: bins would become one.

    CPUs never shorten it, and asking them not to makes an update half as slow again.
    """
    return None if jax.default_backend() == "cpu" else "highest"


def lined_up(vector: Float[Array, " C"], x: Float[Array, "*n C"]) -> Float[Array, "*1 C"]:
    """`vector` with as many axes as `x`: broadcasting is spelt out everywhere, never implied."""
    return vector.reshape((1,) * (x.ndim - 1) + vector.shape)


def symlog(x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """sign(x) ln(1 + |x|)   (DreamerV3, robust predictions)."""
    return jnp.sign(x) * jnp.log1p(jnp.abs(x))


# --- Two-hot: a real number as a distribution over 255 bins (DreamerV3, robust predictions) -------


def twohot_bins(n: int = 255) -> Float[np.ndarray, " n"]:
    """symexp of n even steps in [-20, 20]; one half mirrored, so that the middle is exactly 0."""
    half = -np.expm1(np.linspace(20, 0, n // 2 + 1, dtype=np.float32))
    return np.concatenate([half, -half[:-1][::-1]])


def twohot(target: Float[Array, "*n"], n: int = 255) -> Float[Array, "*n K"]:
    """`target` spread over its two neighbouring bins, linearly in raw space; [*n, K] weights.

    The target is not symlogged; beyond the ends it counts as the end. A bin's weight is a hat
    around it, 1 there and 0 from the next bins on: a search for the neighbours, and the scatter
    that is its gradient, take a CPU longer.
    """
    bins = twohot_bins(n)
    slope = np.concatenate([[0.0], 1 / np.diff(bins.astype(np.float64)), [0.0]]).astype(np.float32)
    target = jnp.clip(target, bins[0], bins[-1])[..., None]
    offset = target - lined_up(jnp.asarray(bins), target)
    rising, falling = (lined_up(jnp.asarray(x), target) for x in (slope[:-1], slope[1:]))
    return jnp.maximum(0.0, 1 + jnp.minimum(offset * rising, -offset * falling))


def twohot_loss(logits: Float[Array, "*n K"], target: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Cross-entropy against the two-hot of `target`; no gradient flows into the target."""
    return cross_entropy(logits, twohot(target, logits.shape[-1]), 1.0)


def cross_entropy(
    logits: Float[Array, "*n K"], weights: Float[Array, "*n K"], total: float
) -> Float[Array, "*n"]:
    """-sum_k w_k ln p_k, in nats, of weights that sum to `total`; no gradient flows into them."""
    return total * jax.nn.logsumexp(logits, -1) - (sg(weights) * logits).sum(-1)


def twohot_mean(logits: Float[Array, "*n K"]) -> Float[Array, "*n"]:
    """Probability-weighted mean of the raw bins (DreamerV3, robust predictions; sum: its code).

    Summed in mirrored pairs: a plain sum over bins up to 4.85e8 is not 0 for uniform logits.
    """
    bins = jnp.asarray(twohot_bins(logits.shape[-1]))
    mass = jnp.exp(logits - sg(logits.max(-1, keepdims=True)))
    half = logits.shape[-1] // 2
    below, above = mass[..., :half], mass[..., : -half - 1 : -1]
    # The bins are mirrored, and the middle one is 0: each pair is one bin times a difference.
    total = jnp.matmul(below - above, bins[:half], precision=full_precision())
    return total / mass.sum(-1)


# --- Categorical with a uniform share -------------------------------------------------------------


def unimix_log_probs(logits: Float[Array, "*n K"], unimix: float) -> Float[Array, "*n K"]:
    """ln((1 - u) softmax(logits) + u/K): at least ln(u/K), so finite for any logits when u > 0.

    Source: DreamerV3 (arXiv:2301.04104v2), world model and actor learning; u = 0.01.
    """
    if unimix == 0:
        return jax.nn.log_softmax(logits)
    first = jnp.moveaxis(logits, -1, 0)  # a CPU is slow at sums over a short last axis
    mixed = (1 - unimix) * jax.nn.softmax(first, 0) + unimix / logits.shape[-1]
    return jnp.moveaxis(jnp.log(mixed), 0, -1)


def categorical_sample(
    log_probs: Float[Array, "*n K"], uniform: Float[Array, "*n"]
) -> Int[Array, "*n"]:
    """Class index by inversion of the distribution function, from one uniform number in [0, 1).

    One number a draw instead of the K of the Gumbel trick: on a CPU drawing noise is dear.
    """
    classes = log_probs.shape[-1]
    # A product with a triangle of ones: XLA's running sums are slow on a CPU.
    triangle = jnp.triu(jnp.ones((classes, classes)))
    cumulative = jnp.matmul(jnp.exp(log_probs), triangle, precision=full_precision())
    # Scaling by the last entry keeps rounding from ever passing the last class.
    passed = cumulative <= uniform[..., None] * cumulative[..., -1:]
    return passed.sum(-1).clip(max=classes - 1)


def categorical_entropy(log_probs: Float[Array, "*n K"]) -> Float[Array, "*n"]:
    """-sum_k p_k ln p_k, in nats."""
    return -(jnp.exp(log_probs) * log_probs).sum(-1)


def categorical_kl(p: Float[Array, "*n K"], q: Float[Array, "*n K"]) -> Float[Array, "*n"]:
    """KL(p || q), in nats, of two categoricals given as log-probabilities."""
    return (jnp.exp(p) * (p - q)).sum(-1)


# --- Normal with bounded mean and deviation -------------------------------------------------------

STD_MIN, STD_MAX = 0.1, 1.0


def bounded_normal(
    mean: Float[Array, "*n A"], std: Float[Array, "*n A"]
) -> tuple[Float[Array, "*n A"], Float[Array, "*n A"]]:
    """Raw network outputs -> (mean in (-1, 1), std in (0.1, 1)); 0.89 at an output of 0.

    A plain, unsquashed normal: samples may leave [-1, 1]; the world clips, log-probability and
    entropy refer to the unclipped sample. Source: DreamerV3's code (heads, bounded_normal).
    """
    return jnp.tanh(mean), (STD_MAX - STD_MIN) * jax.nn.sigmoid(std + 2.0) + STD_MIN


def normal_log_prob(
    x: Float[Array, "*n"], mean: Float[Array, "*n"], std: Float[Array, "*n"]
) -> Float[Array, "*n"]:
    """Log-density of each dimension, in nats."""
    return (
        -0.5 * jnp.square((x - mean) / std)
        - jnp.log(std)
        - 0.5 * np.log(2 * np.pi).astype(np.float32)
    )


def normal_entropy(std: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """ln(std) + ln(2 pi e) / 2 of each dimension, in nats; negative below a std of 0.24."""
    return jnp.log(std) + 0.5 * np.log(2 * np.pi * np.e).astype(np.float32)


def bernoulli_loss(logit: Float[Array, "*n"], target: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Cross-entropy, in nats, of a coin against a target in [0, 1] (a soft label).

    Source: DreamerV3's code (continue head), whose label is the discount and not 1.
    """
    return -(target * jax.nn.log_sigmoid(logit) + (1 - target) * jax.nn.log_sigmoid(-logit))


def masked(x: Float[Array, "*n"], mask: Bool[Array, "*m"]) -> Float[Array, "*n"]:
    """`x` where `mask` (broadcast from the left), else exactly 0 in value and gradient."""
    mask = mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim))
    return jnp.where(mask, x, jnp.zeros((), x.dtype))
