"""Action repeat: one decision lasts several control steps, in any world."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from continual.envs.world import Action, TimeStep, World


class ActionRepeat:
    """A world whose every action is done `repeat` times, or until the episode is over.

    Rewards and control steps are summed; what is in between is not observed.
    """

    def __init__(self, world: World, repeat: int) -> None:
        self._world = world
        self._repeat = repeat
        self.interface = world.interface
        self.deterministic = world.deterministic

    def reset(self, seed: int) -> TimeStep:
        return self._world.reset(seed)

    def step(self, action: Action) -> TimeStep:
        reward, env_steps = 0.0, 0
        for _ in range(self._repeat):
            timestep = self._world.step(action)
            reward += timestep.reward
            env_steps += timestep.env_steps
            if timestep.is_last:
                break
        return replace(timestep, reward=reward, env_steps=env_steps)

    def draw(self) -> np.ndarray | None:
        return self._world.draw()

    def close(self) -> None:
        self._world.close()
