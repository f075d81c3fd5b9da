"""The policy that knows nothing: a baseline for judging, and a filler of empty replays."""

from __future__ import annotations

import numpy as np

from continual import seeding
from continual.envs.interact import Seen
from continual.envs.interface import Head, Interface


class RandomPolicy:
    """Continuous actions uniform in [-1, 1), classes uniform; it has no state and records nothing.

    A row's action is a function of (seed, head, identity of the draw) alone: neither the number of
    worlds nor the other heads of the interface change it.
    """

    def __init__(self, interface: Interface, seed: int) -> None:
        self._heads = interface.heads
        self._seed = seed

    def initial(self, n: int) -> None:
        del n

    def act(
        self, state: None, seen: Seen
    ) -> tuple[None, dict[str, np.ndarray], dict[str, np.ndarray]]:
        actions = {
            head.name: np.stack([self._draw(head, *map(int, draw)) for draw in seen.draw])
            for head in self._heads
        }
        return state, actions, {}

    def _draw(self, head: Head, episode_seed: int, decision: int) -> np.ndarray:
        rng = seeding.generator(self._seed, f"random/{head.name}", episode_seed, decision)
        if head.kind == "continuous":
            return rng.uniform(-1, 1, head.shape).astype(head.dtype)
        return np.asarray(rng.integers(head.size), head.dtype)
