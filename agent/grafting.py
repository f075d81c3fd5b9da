"""An agent that goes on from what another had learnt, in more worlds, or with other riders.

What both have keeps its values bit for bit, moments and counts included. What is new is born as in
a new agent: a slot or head whose owner has never had an update, an interface whose returns were
never seen, a rider.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from agent.agent import Agent, AgentState
from agent.learner import init_learner, interfaces_of
from agent.model import Model
from agent.normaliser import ByInterface
from agent.owners import path_names

Tree = TypeVar("Tree")


def graft(agent: Agent, key: PRNGKeyArray, old: Model, learnt: Mapping[str, Any]) -> AgentState:
    """The state of an agent, as far as another has learnt it.

    Args:
      key: as for `agent.init`.
      old: model of the other agent.
      learnt: `/`-joined path of a leaf of the other's AgentState -> array.
    Raises:
      ValueError: a leaf that both have has another shape.
    """
    place = [_index(interface, interfaces_of(old)) for interface in interfaces_of(agent.model)]
    learner_key, rider_key = jax.random.split(key)
    learner = _taken("learner", init_learner(agent.model, learner_key), learnt, place)
    born = agent.init_riders(rider_key, learner)
    riders = {n: _taken(f"riders/{n}", rider, learnt, place) for n, rider in born.items()}
    return AgentState(learner, riders)


def _taken(name: str, born: Tree, learnt: Mapping[str, Any], place: list[int | None]) -> Tree:
    """`born` with the leaves that were learnt, where there are such."""

    def by_path(path: tuple[Any, ...], leaf: Any) -> Any:
        full = "/".join((name, *path_names(path)))
        if full not in learnt:
            return leaf
        found = learnt[full]
        if found.shape != leaf.shape or found.dtype != leaf.dtype:
            raise ValueError(
                f"{full!r} is {found.dtype}{list(found.shape)} there, "
                f"and {leaf.dtype}{list(leaf.shape)} here"
            )
        return jnp.array(found)

    def by_kind(path: tuple[Any, ...], part: Any) -> Any:
        if not isinstance(part, ByInterface):
            return by_path(path, part)
        return jax.tree_util.tree_map_with_path(
            lambda below, leaf: _by_interface(
                learnt.get("/".join((name, *path_names(path), *path_names(below)))), leaf, place
            ),
            part,
        )

    tree: Tree = jax.tree_util.tree_map_with_path(
        by_kind, born, is_leaf=lambda part: isinstance(part, ByInterface)
    )
    return tree


def _by_interface(found: np.ndarray | None, born: Any, place: list[int | None]) -> Any:
    """[I] each interface's number, where it was known before."""
    if found is None:
        return born
    values = [born[i] if at is None else found[at] for i, at in enumerate(place)]
    return jnp.array(values, born.dtype)


def _index(item: Any, items: list[Any]) -> int | None:
    return items.index(item) if item in items else None
