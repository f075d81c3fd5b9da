"""A world as a `gymnasium.Env`, and a policy that acts there: for loops that are not ours."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from continual.envs.interact import Policy, Seen
from continual.envs.interface import Head, Slot
from continual.envs.world import TimeStep, World
from continual.errors import UserError

Observation = dict[str, Any]


class GymWorld(gymnasium.Env[Observation, Any]):
    """A world with one head: observations by slot, actions a box in [-1, 1] or a class.

    An episode is a function of the seed given to `reset` and of the actions; without a seed the
    next number is taken.

    Raises:
      UserError: the world has several heads.
    """

    def __init__(self, world: World) -> None:
        if len(world.interface.heads) != 1:
            heads = [head.name for head in world.interface.heads]
            raise UserError(f"a world with the heads {', '.join(heads)}, expected one")
        (self._head,) = world.interface.heads
        self._world, self._next_seed = world, 0
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": 25}
        self.render_mode = "rgb_array"
        shown: dict[str, spaces.Space[Any]] = {
            slot.name: _space_of(slot) for slot in world.interface.slots
        }
        self.observation_space: spaces.Space[Observation] = spaces.Dict(shown)
        self.action_space = _actions_of(self._head)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        super().reset(seed=seed)
        seed = self._next_seed if seed is None else seed
        self._next_seed = seed + 1
        return _shown(self._world.reset(seed)), {}

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """-> (observation, reward, terminated, truncated, info); info holds `env_steps`."""
        timestep = self._world.step({self._head.name: np.asarray(action, self._head.dtype)})
        truncated = timestep.is_last and not timestep.is_terminal
        info = {**timestep.extras, "env_steps": timestep.env_steps}
        return _shown(timestep), timestep.reward, timestep.is_terminal, truncated, info

    def render(self) -> Any:
        """[H, W, 3] uint8, how the world looks now; None where it has no looks."""
        return self._world.draw()

    def close(self) -> None:
        self._world.close()


class Actor:
    """One policy in one `GymWorld`: an action an observation, remembering what came before."""

    def __init__(self, policy: Policy, head: str) -> None:
        self._policy, self._head = policy, head
        self.reset()

    def reset(self, seed: int = 0) -> None:
        """An episode begins; `seed` decides its draws."""
        self._state: Any = self._policy.initial(1)
        self._seed, self._decision = seed, 0

    def __call__(self, observation: dict[str, np.ndarray]) -> Any:
        """The action in this observation: [A] in [-1, 1], or a class."""
        seen = Seen(
            {name: np.asarray(value)[None] for name, value in observation.items()},
            np.array([self._decision == 0]),
            np.array([[self._seed, self._decision]], np.uint32),
        )
        self._state, actions, _ = self._policy.act(self._state, seen)
        self._decision += 1
        action = actions[self._head][0]
        return np.clip(action, -1.0, 1.0) if action.ndim else int(action)


def _space_of(slot: Slot) -> spaces.Box:
    dtype = np.dtype(slot.dtype)
    low, high = (0, 255) if dtype == np.uint8 else (-np.inf, np.inf)
    return spaces.Box(low, high, slot.shape, dtype.type)


def _actions_of(head: Head) -> spaces.Space[Any]:
    if head.kind == "continuous":
        return spaces.Box(-1.0, 1.0, (head.size,), np.float32)
    return spaces.Discrete(head.size)


def _shown(timestep: TimeStep) -> Observation:
    return {name: np.asarray(value) for name, value in timestep.observation.items()}
