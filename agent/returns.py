"""Lambda-returns, imagined and replayed; single-stream functions, batch with `vmap`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def lambda_returns(
    reward: Float[Array, " T"],
    discount: Float[Array, " T"],
    value: Float[Array, " T"],
    lambda_: float,
) -> Float[Array, " T"]:
    """Returns along an imagined trajectory of T states, T - 1 steps long.

        R_t = r_{t+1} + c_{t+1} [(1 - l) v_{t+1} + l R_{t+1}],   R_{T-1} = v_{T-1}

    for t in [0, T - 2]; entry T - 1 is the bootstrap. Source: DreamerV3 (arXiv:2301.04104v2),
    critic learning; `discount` is the continue head's prediction, which contains the horizon.
    """

    def back(next_return: Array, x: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        r, c, v = x
        now = r + c * ((1 - lambda_) * v + lambda_ * next_return)
        return now, now

    last = value[-1]
    _, returns = jax.lax.scan(back, last, (reward[1:], discount[1:], value[1:]), reverse=True)
    return jnp.concatenate([returns, last[None]])


def replay_returns(
    reward: Float[Array, " T"],
    is_last: Bool[Array, " T"],
    is_terminal: Bool[Array, " T"],
    bootstrap: Float[Array, " T"],
    lambda_: float,
    gamma: float,
) -> Float[Array, " T"]:
    """Returns along a replayed sequence, which may run across ends of episodes.

        R_t = r_{t+1} + g (1 - term_{t+1}) [(1 - l_{t+1}) b_{t+1} + l_{t+1} R_{t+1}]
        R_{T-1} = b_{T-1}
        l_{t+1} = lambda, but 0 where step t + 1 is a last one: a truncation bootstraps from b.

    Entries at a last step join two episodes and mean nothing; whoever uses them masks them.

    Source: DreamerV3's code (replay value loss).

    Args:
      reward: r_t, which came with state t.
      bootstrap: b_t, a value of state t: the imagined return, for DreamerV3's critic.
    """
    live = gamma * (1 - is_terminal.astype(jnp.float32))
    mix = lambda_ * (1 - is_last.astype(jnp.float32))

    def back(next_return: Array, x: tuple[Array, ...]) -> tuple[Array, Array]:
        r, g, l, b = x
        now = r + g * ((1 - l) * b + l * next_return)
        return now, now

    rest = (reward[1:], live[1:], mix[1:], bootstrap[1:])
    _, returns = jax.lax.scan(back, bootstrap[-1], rest, reverse=True)
    return jnp.concatenate([returns, bootstrap[-1:]])


replay_returns_by_row = jax.vmap(replay_returns, (0, 0, 0, 0, None, None))


def has_successor(is_last: Bool[Array, "B T"]) -> Bool[Array, "B T"]:
    """Which entries of `replay_returns` mean something: no last step, and not the last column."""
    length = is_last.shape[1]
    return ~is_last & (jnp.arange(length) < length - 1)[None]
