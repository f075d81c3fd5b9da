"""What a world promises: a pure function of its seed and of the actions since reset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from continual.envs.interface import Interface

Observation = Mapping[str, np.ndarray]  # slot name -> array of the slot's shape and dtype
Action = Mapping[str, np.ndarray]  # head name -> array of the head's shape and dtype


@dataclass(frozen=True)
class TimeStep:
    """What a world emits. Reward and flags belong to the observation they came with.

    Attributes:
      observation: every slot of the world's interface.
      reward: sum over the control steps since the previous time step; 0 at the first.
      env_steps: control steps of the simulator since the previous time step; 0 at the first.
      is_first: the observation of a reset.
      is_last: no action will be taken here; the episode is over.
      is_terminal: over because nothing can follow (death). `is_last` without it is a truncation,
        and a learner bootstraps through it.
      extras: facts about the episode so far that records keep, e.g. Crafter's achievements;
        needs to be filled at the last step only.
    """

    observation: Observation
    reward: float = 0.0
    env_steps: int = 0
    is_first: bool = False
    is_last: bool = False
    is_terminal: bool = False
    extras: Mapping[str, Any] = field(default_factory=dict)


def restart(observation: Observation) -> TimeStep:
    return TimeStep(observation, is_first=True)


def transition(observation: Observation, reward: float, env_steps: int = 1) -> TimeStep:
    return TimeStep(observation, reward, env_steps)


def termination(
    observation: Observation, reward: float, env_steps: int = 1, **extras: Any
) -> TimeStep:
    return TimeStep(observation, reward, env_steps, is_last=True, is_terminal=True, extras=extras)


def truncation(
    observation: Observation, reward: float, env_steps: int = 1, **extras: Any
) -> TimeStep:
    return TimeStep(observation, reward, env_steps, is_last=True, extras=extras)


class World(Protocol):
    """One simulated task.

    Attributes:
      interface: what it shows and accepts.
      deterministic: whether the same seed and actions always give the same time steps, in this
        process and in any other. A world that cannot promise it can be judged in, and not be lived
        in yet: a life is brought back by repeating its actions.
    """

    interface: Interface
    deterministic: bool

    def reset(self, seed: int) -> TimeStep: ...

    def step(self, action: Action) -> TimeStep:
        """Act; must not be called after a last step. Continuous actions are clipped to [-1, 1]."""
        ...

    def draw(self) -> np.ndarray | None:
        """[H, W, 3] uint8, how the world looks now, for people; None where it has no looks.

        Changes nothing that a later step depends on.

        Raises:
          UserError: what draws it is not installed.
        """
        ...

    def close(self) -> None: ...
