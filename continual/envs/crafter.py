"""Crafter, made a pure function of its seed and actions, and drawn faster; not a pixel differs.

Crafter 1.8.3 keeps the objects of each chunk in a set, iterates it in the order of addresses, and
draws random numbers as it goes: equal seeds and actions give different worlds, even in two fresh
processes. Its other sets (`World.nearby`, unlocked achievements) are only asked for membership, the
texture files are keyed by name, and `hash` of its seed is of integers, so the order matters in no
other place.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from typing import Any

import numpy as np

from continual.envs.interface import IMAGE, Head, Interface, Slot
from continual.envs.world import Action, TimeStep, restart, termination, transition, truncation

TASKS = ("reward", "noreward")

INTERFACE = Interface((Slot(IMAGE, (64, 64, 3), "uint8"),), (Head("crafter", "categorical", 17),))
OUTSIDE_GREY = 127  # what upstream shows beyond the edge of the world


def domain(name: str) -> str:
    return name


def make(name: str) -> CrafterWorld:
    return CrafterWorld(rewarded=name == "reward")


def interface(name: str) -> Interface:
    del name
    return INTERFACE


def return_range(name: str) -> tuple[float, float] | None:
    """22 achievements are worth 1 each, once an episode; `noreward` has nothing to scale."""
    return (0.0, 22.0) if name == "reward" else None


class CrafterWorld:
    """Crafter as published: 64 x 64 frames, at most 10000 steps.

    +1 at the first time of each achievement in the episode, +-0.1 for each point of health. Death
    terminates, the time limit truncates; the last step's extras count the `achievements`.
    """

    deterministic = True
    interface = INTERFACE

    def __init__(self, *, rewarded: bool) -> None:
        crafter = _import_crafter()
        self._env = env = crafter.Env(reward=rewarded, seed=0)
        assert len(env.action_names) == INTERFACE.heads[0].size
        _keep_objects_in_order(env._world)
        env._local_view = _LocalView(env._local_view, crafter.engine)
        env._sem_view = lambda: None  # a map of the world that nobody reads

    def reset(self, seed: int) -> TimeStep:
        # Upstream draws a world from (seed of the instance, number of the episode).
        self._env._seed, self._env._episode = seed, 0
        self._over = False
        self._frame = self._env.reset()
        return restart({IMAGE: self._frame})

    def step(self, action: Action) -> TimeStep:
        assert not self._over, "step after the last one"
        self._frame, reward, self._over, info = self._env.step(int(action["crafter"]))
        frame = self._frame
        if not self._over:
            return transition({IMAGE: frame}, float(reward))
        end = termination if info["discount"] == 0 else truncation
        return end({IMAGE: frame}, float(reward), achievements=info["achievements"])

    def draw(self) -> np.ndarray | None:
        # What was seen: to draw it again would take noise from the world's own generator.
        return np.asarray(self._frame)

    def close(self) -> None:
        pass


class _Bag(dict[Any, None]):
    """A set that remembers the order in which things were added."""

    def add(self, item: Any) -> None:
        self[item] = None

    def remove(self, item: Any) -> None:
        del self[item]


def _keep_objects_in_order(world: Any) -> None:
    """From its next reset on, the world iterates the objects of a chunk in the order they came."""
    reset = world.reset

    def ordered_reset(seed: int | None = None) -> None:
        reset(seed)
        world._chunks = defaultdict(_Bag)

    world.reset = ordered_reset


class _LocalView:
    """Upstream's picture of the player's surroundings, its 63 tiles drawn at once, not one by one.

    Objects, daylight, noise (from the world's own generator) and sleep are left to upstream.
    """

    def __init__(self, original: Any, engine: Any) -> None:
        self._original = original
        self._draw_object = engine._draw_alpha
        self._world = original._world
        self._textures = original._textures
        self._grid = tuple(int(n) for n in original._grid)
        self._tiles: np.ndarray | None = None

    def __call__(self, player: Any, unit: np.ndarray) -> np.ndarray:
        if self._tiles is None:
            self._tiles = self._draw_tiles(unit)
        left, top = (int(p) - n // 2 for p, n in zip(player.pos, self._grid, strict=True))
        canvas = self._draw_terrain(self._tiles, left, top)
        for thing in self._world.objects:
            column, row = thing.pos[0] - left, thing.pos[1] - top
            if 0 <= column < self._grid[0] and 0 <= row < self._grid[1]:
                texture = self._textures.get(thing.texture, unit)
                self._draw_object(canvas, np.array((column, row)) * unit, texture)
        lit: np.ndarray = self._original._light(canvas, self._world.daylight)
        if player.sleeping:
            lit = self._original._sleep(lit)
        return lit

    def _draw_tiles(self, unit: np.ndarray) -> np.ndarray:
        """[materials + 1, width, height, 3]: texture of each material id; the last is outside."""
        names = self._world._mat_names
        tiles = [self._textures.get(names[i], unit)[..., :3] for i in range(len(names))]
        return np.stack([*tiles, np.full_like(tiles[0], OUTSIDE_GREY)])

    def _draw_terrain(self, tiles: np.ndarray, left: int, top: int) -> np.ndarray:
        material = self._world._mat_map
        width, height = self._grid
        seen: np.ndarray = np.full(self._grid, len(tiles) - 1)
        x0, x1 = max(left, 0), min(left + width, material.shape[0])
        y0, y1 = max(top, 0), min(top + height, material.shape[1])
        seen[x0 - left : x1 - left, y0 - top : y1 - top] = material[x0:x1, y0:y1]
        _, w, h, channels = tiles.shape
        canvas: np.ndarray = tiles[seen].transpose(0, 2, 1, 3, 4)
        return canvas.reshape(width * w, height * h, channels)


def _import_crafter() -> Any:
    """Crafter without `gym`: it would take its base class from an old one, if it found one."""
    missing = object()
    gym = sys.modules.get("gym", missing)
    sys.modules["gym"] = None  # type: ignore[assignment]
    try:
        import crafter
    finally:
        if gym is missing:
            del sys.modules["gym"]
        else:
            sys.modules["gym"] = gym  # type: ignore[assignment]
    return crafter
