"""Who owns a parameter: a slot, a head, a branch of the encoder, or everyone.

The optimiser keeps its state per owner, and an owner that is absent from a batch is left alone, so
that a head that returns after a phase of absence goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from agent.codecs import IMAGE_BRANCH, VECTOR_BRANCH
from continual.envs.interface import Union

SHARED = "shared"
Presence = Mapping[str, Bool[Array, ""] | bool]  # owner -> is it in this batch?


def path_names(path: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(str(getattr(part, "key", getattr(part, "name", part))) for part in path)


def owner_of(path: tuple[Any, ...]) -> str:
    """The last component of a parameter's path that names an owner, else `shared`.

    `enc/branch:vector/project/kernel/slot:dmc.walker.height` belongs to the slot, its neighbour
    `enc/branch:vector/norm/scale` to the branch.
    """
    for name in reversed(path_names(path)):
        if name.startswith("head:"):
            return ":".join(name.split(":")[:2])  # head:dmc.walker:mean -> head:dmc.walker
        if name.startswith(("slot:", "branch:")):
            return name
    return SHARED


def owners_of(params: Any) -> list[str]:
    """Owner of every leaf, in the order of `jax.tree.leaves`."""
    return [owner_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]


def tensors_of(params: Any) -> list[str]:
    """The tensor that each leaf is a part of, in the order of `jax.tree.leaves`.

    What DreamerV3 holds in one kernel, on a concatenation of inputs, lies here in a leaf an input.
    """
    paths = [path_names(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    return ["/".join(p[: p.index("kernel") + 1] if "kernel" in p else p) for p in paths]


def presence_table(union: Union) -> dict[str, np.ndarray]:
    """owner -> [tasks] bool: which tasks show the slot, accept the head, feed the branch."""
    interfaces = union.tasks.values()
    table = {SHARED: np.ones(len(union.tasks), bool)}
    for slot in union.slots:
        table[f"slot:{slot.name}"] = np.array([slot in i.slots for i in interfaces])
    for head in union.heads:
        table[f"head:{head.name}"] = np.array([head in i.heads for i in interfaces])
    if union.vectors:
        table[VECTOR_BRANCH] = np.array([bool(i.vectors) for i in interfaces])
    return table


def masks_of(union: Union, task: Int[Array, " B"]) -> dict[str, Bool[Array, " B"]]:
    """owner -> [B]: whether each sequence, of the given task, has it."""
    return {owner: jnp.asarray(row)[task] for owner, row in presence_table(union).items()}


def presence(masks: Mapping[str, Bool[Array, " B"]], has_frames: bool) -> Presence:
    """owner -> whether any sequence of the batch has it.

    Images are structure: a batch without frames says so by its shape, and all that the optimiser
    would do for the image code is left out of the compiled update.
    """
    found: dict[str, Bool[Array, ""] | bool] = {owner: mask.any() for owner, mask in masks.items()}
    if IMAGE_BRANCH in found and not has_frames:
        found[IMAGE_BRANCH] = False
    found[SHARED] = True
    return found
