"""From replay's batch of rows to the arrays an update is compiled for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from agent.config import ModelConfig
from agent.rssm import Latent
from agent.world_model import TrainBatch
from continual.envs.interface import Head, Union
from storage.batch import Batch, Column, Schema

Rows = Mapping[str, np.ndarray]


def latent_schema(config: ModelConfig) -> Schema:
    """Columns of a stored latent.

    Half precision does for deter, which is bounded by its gates; a class index is a byte.
    """
    return {
        "latent.deter": Column((config.deter,), "float16"),
        "latent.stoch": Column((config.stoch,), "uint8"),
    }


def pack_latent(latent: Latent) -> dict[str, Array]:
    """The columns of `latent_schema`."""
    return {
        "latent.deter": latent.deter.astype(jnp.float16),
        "latent.stoch": latent.stoch.argmax(-1).astype(jnp.uint8),
    }


def unpack_latent(config: ModelConfig, columns: Rows, batch: int) -> Latent:
    """Inverse of `pack_latent`, up to half precision; [B, …] zeros where none were stored."""
    if not columns:
        shape = (batch, config.stoch, config.classes)
        zeros = np.zeros((batch, config.deter), np.float32), np.zeros(shape, np.float32)
        return Latent(*map(_for_jit, zeros))
    classes = np.arange(config.classes, dtype=np.uint8)
    stoch = (columns["latent.stoch"][..., None] == classes).astype(np.float32)
    return Latent(_for_jit(columns["latent.deter"].astype(np.float32)), _for_jit(stoch))


def action_numbers(head: Head, action: np.ndarray) -> np.ndarray:
    """A stored action as the model sees it: as it is, or one-hot."""
    if head.kind == "continuous":
        return action
    return (action[..., None] == np.arange(head.size)).astype(np.float32)


def to_train_batch(union: Union, config: ModelConfig, batch: Batch) -> TrainBatch:
    """Numpy arrays in the shapes of `TrainBatch`.

    A categorical head that a sequence's world lacks reads as class 0 here; masks make that vanish.
    """
    columns = batch.columns
    rows = columns["reward"].shape
    flag = lambda name: _for_jit(columns[name].astype(bool))
    action = lambda head, held: _for_jit(action_numbers(head, held[f"action.{head.name}"]))
    return TrainBatch(
        vectors={
            slot.name: _for_jit(columns[f"obs.{slot.name}"].reshape(*rows, slot.width))
            for slot in union.vectors
        },
        frames=_for_jit(batch.frames),
        actions={head.name: action(head, columns) for head in union.heads},
        previous={head.name: action(head, batch.previous) for head in union.heads},
        reward=_for_jit(columns["reward"]),
        is_first=flag("is_first"),
        is_last=flag("is_last"),
        is_terminal=flag("is_terminal"),
        task=_for_jit(batch.task),
        context=unpack_latent(config, batch.context, len(batch.task)),
        draw=_for_jit(batch.draw),
    )


def _for_jit(x: np.ndarray) -> Array:
    """`x` itself, under the type that it has inside `jit`, which takes numpy's arrays as well."""
    return cast(Array, x)
