"""Dotted keys, by which people name a leaf of nested settings: `agent.optim.lr`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def leaves(tree: Any, *, in_lists: bool = False) -> dict[str, Any]:
    """Dotted key -> value, in the order of the tree; an empty mapping is a leaf.

    Args:
      in_lists: take lists apart as well, `phases[0].task`.
    """
    return dict(_leaves(tree, "", in_lists))


def _leaves(tree: Any, key: str, in_lists: bool) -> Iterator[tuple[str, Any]]:
    if isinstance(tree, Mapping) and tree:
        for name, value in tree.items():
            yield from _leaves(value, f"{key}.{name}" if key else str(name), in_lists)
    elif in_lists and isinstance(tree, list | tuple) and tree:
        for index, value in enumerate(tree):
            yield from _leaves(value, f"{key}[{index}]", in_lists)
    else:
        yield key, tree
