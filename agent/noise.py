"""Noise drawn row by row: what a row draws hangs on its identity, never on the rows beside it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt32


def row_keys(key: PRNGKeyArray, rows: Int[Array, " B"] | UInt32[Array, " B"]) -> PRNGKeyArray:
    """One key a row, [B]."""
    return jax.vmap(lambda row: jax.random.fold_in(key, row))(rows)


def uniform(keys: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "B ..."]:
    """[B, *shape] numbers in [0, 1)."""
    return jax.vmap(lambda key: jax.random.uniform(key, shape))(keys)


def normal(keys: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "B ..."]:
    """[B, *shape] standard normal numbers."""
    return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)


def split(keys: PRNGKeyArray, number: int) -> PRNGKeyArray:
    """`number` independent streams a row, [number, B]."""
    return jax.vmap(lambda index: jax.vmap(lambda key: jax.random.fold_in(key, index))(keys))(
        jnp.arange(number)
    )
