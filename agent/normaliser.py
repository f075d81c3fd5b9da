"""Running scale of returns, per interface: a world of large returns must not flatten another."""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int


class ByInterface:
    """A part of a state that holds a number an interface, [I] in every leaf, in their order."""


@struct.dataclass
class ReturnScale(ByInterface):
    """EMA of the 5th and 95th percentile of returns, per interface; both start at 0.

    Attributes:
      low, high: [I].
    """

    low: Float[Array, " I"]
    high: Float[Array, " I"]

    def spread(self, floor: float) -> Float[Array, " I"]:
        """S = max(floor, P95 - P5)."""
        return jnp.maximum(floor, self.high - self.low)


def init_return_scale(interfaces: int) -> ReturnScale:
    return ReturnScale(jnp.zeros(interfaces), jnp.zeros(interfaces))


def masked_percentile(x: Float[Array, " n"], mask: Bool[Array, " n"], q: float) -> Float[Array, ""]:
    """The q-quantile (linear between ranks) of the entries where `mask`; NaN if there are none."""
    count = mask.sum()
    ordered = jnp.sort(jnp.where(mask, x, jnp.inf))
    rank = q * jnp.maximum(count - 1, 0)
    below = jnp.floor(rank).astype(jnp.int32)
    above = jnp.minimum(below + 1, jnp.maximum(count - 1, 0))
    weight = rank - below
    return (1 - weight) * ordered[below] + weight * ordered[above]


def update_return_scale(
    state: ReturnScale,
    returns: Float[Array, "B n"],
    interface: Int[Array, " B"],
    rate: float,
    valid: Bool[Array, "B n"] | None = None,
) -> ReturnScale:
    """Move each interface's percentiles towards those of its own rows.

    The rate is scaled by the interface's share of the batch, and an interface without rows stays as
    it is; with one interface this is DreamerV3's normaliser (no bias correction).

    Args:
      returns: [B, n], some returns of each sequence.
      interface: [B] index.
      valid: which of them count; all by default.
    """
    valid = jnp.ones(returns.shape, bool) if valid is None else valid
    low: list[Array] = []
    high: list[Array] = []
    for index in range(state.low.shape[0]):
        mine = interface == index
        mask = (mine[:, None] & valid).ravel()
        step = jnp.where(mask.any(), rate * mine.mean(), 0.0)
        for old, q, into in (
            (state.low[index], 0.05, low),
            (state.high[index], 0.95, high),
        ):
            target = jnp.where(mask.any(), masked_percentile(returns.ravel(), mask, q), old)
            into.append(old + step * (target - old))
    return ReturnScale(jnp.stack(low), jnp.stack(high))
