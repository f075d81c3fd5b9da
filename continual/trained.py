"""A run's agent, outside its run: load it, and act with it in a loop of one's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from agent.acting import ActionMode
from agent.agent import Agent, AgentState, make_agent
from continual.checkpoint import find_checkpoint, load_agent
from continual.config import Config
from continual.envs.gym import GymWorld
from continual.envs.interact import Policy, Seen
from continual.envs.interface import union
from continual.envs.registry import interface_of, make_world, resolve_task
from continual.errors import UserError, nearest
from continual.pacing import repeat_of
from continual.rundir import RunFolder
from continual.scheduler import Clock
from continual.strict_yaml import load
from continual.validation import validate
from eval.run_folder import load_run


@dataclass(frozen=True)
class Trained:
    """What a run has learnt so far.

    Attributes:
      clock: of the life when it was saved.
      agent: functions; `state`: what was learnt.
    """

    config: Config
    clock: Clock
    agent: Agent
    state: AgentState

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(self.agent.union.tasks)

    def make_env(self, task: str) -> GymWorld:
        """A world of the run, with the run's action repeat."""
        task = self._known(task)
        return GymWorld(make_world(task, repeat=repeat_of(task, self.config.collect)))

    def policy(
        self,
        task: str,
        name: str | None = None,
        action_mode: ActionMode = "mode",
        seed: int = 0,
    ) -> Actor:
        """A policy for one task; without a name the one that lived.

        Args:
          name: `gated`, `dreamer_actor` or `<rider>_actor`.
          action_mode: `mode` of the distributions, or `sampled` as the agent lived.
        Raises:
          UserError: the run has no such task or policy.
        """
        task, names = self._known(task), self.agent.policies()
        name = name or names[0]
        if name not in names or name == "random":
            raise UserError(f"policy {name!r}: {nearest(name, names)}")
        policy = self.agent.policy(lambda: self.state, task, name, action_mode, seed)
        return Actor(policy, self.agent.union.tasks[task].heads[0].name)

    def _known(self, task: str) -> str:
        task = resolve_task(task)
        if task not in self.tasks:
            raise UserError(f"task {task!r} is not one of this run, {nearest(task, self.tasks)}")
        return task


class Actor:
    """One policy in one world: an action an observation, remembering what came before."""

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


def load_trained(path: str | Path, phase: int | None = None) -> Trained:
    """Load a checkpoint of a run; nothing in its folder is changed.

    Args:
      phase: the agent as it was at the end of this phase, or is in it; else the newest.
    Raises:
      UserError: no run, no checkpoint (of that phase) yet, or damaged ones alone.
    """
    folder = RunFolder(Path(path))
    run = load_run(folder.path)
    config = validate(Config, load(folder.config.read_text(encoding="utf-8"), str(folder.config)))
    saved = find_checkpoint(folder.checkpoints, phase)
    if saved is None:
        raise UserError(f"{folder.path}: has no checkpoint yet")
    agent = make_agent(config.agent, union({task: interface_of(task) for task in run.tasks}))
    shapes = jax.eval_shape(agent.init, jax.random.key(0))
    return Trained(config, saved.clock, agent, load_agent(saved, shapes))
