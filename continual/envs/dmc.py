"""The DeepMind Control Suite, by proprioception. Nothing is rendered but for people who ask.

Episodes are 1000 control steps and end by the time limit, so they are truncated, never terminated.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from continual.envs.interface import Head, Interface, Slot
from continual.envs.world import (
    Action,
    Observation,
    TimeStep,
    restart,
    termination,
    transition,
    truncation,
)
from continual.errors import UserError

# The suite's contents, so that names can be checked and completed without importing a simulator.
_SUITE = {
    "acrobot": ("swingup", "swingup_sparse"),
    "ball_in_cup": ("catch",),
    "cartpole": (
        "balance",
        "balance_sparse",
        "swingup",
        "swingup_sparse",
        "two_poles",
        "three_poles",
    ),
    "cheetah": ("run",),
    "dog": ("stand", "walk", "trot", "run", "fetch"),
    "finger": ("spin", "turn_easy", "turn_hard"),
    "fish": ("upright", "swim"),
    "hopper": ("stand", "hop"),
    "humanoid": ("stand", "walk", "run", "run_pure_state"),
    "humanoid_CMU": ("stand", "walk", "run"),
    "manipulator": ("bring_ball", "bring_peg", "insert_ball", "insert_peg"),
    "pendulum": ("swingup",),
    "point_mass": ("easy", "hard"),
    "quadruped": ("walk", "run", "escape", "fetch"),
    "reacher": ("easy", "hard"),
    "stacker": ("stack_2", "stack_4"),
    "swimmer": ("swimmer6", "swimmer15"),
    "walker": ("stand", "walk", "run"),
}

EXCLUDED = {
    "lqr": "forces are unbounded, so [-1, 1] has no meaning; no time limit; returns have no bound"
}

TASKS: Mapping[str, tuple[str, str]] = {
    f"{domain}_{task}": (domain, task) for domain, tasks in _SUITE.items() for task in tasks
}

# Quantities of which the tasks of one domain have different numbers, and the number that goes by
# the plain name; others carry theirs, e.g. `dmc.cartpole.position_5` of two poles.
_PLAIN_SIZE = {
    "cartpole.position": 3,
    "cartpole.velocity": 2,
    "stacker.box_pos": 8,
    "stacker.box_vel": 6,
    "swimmer": 5,
    "swimmer.joints": 5,
    "swimmer.body_velocities": 18,
}

DRAWN = 240  # pixels of an edge of a picture

# Values of MUJOCO_GL that load no rendering library.
_WITHOUT_GL = {"0", "disable", "disabled", "false", "off"}


def domain(name: str) -> str:
    return TASKS[name][0]


def make(name: str) -> DmcWorld:
    return DmcWorld(*TASKS[name])


@functools.cache
def interface(name: str) -> Interface:
    """Builds the simulation once to look: a tenth of a second, a second for the dog."""
    world = make(name)
    world.close()
    return world.interface


def return_range(name: str) -> tuple[float, float]:
    """Rewards lie in [0, 1] in all tasks."""
    del name
    return 0.0, 1000.0


class DmcWorld:
    """One task of the suite.

    Slots are `dmc.<domain>.<key>` in the suite's order, matrices flattened; the head is
    `dmc.<domain>`. An episode whose simulation diverges is truncated, with `physics_error` among
    the extras: a life of weeks must not end by one bad contact.
    """

    deterministic = True

    def __init__(self, domain: str, task: str) -> None:
        suite, self._diverged = _import_suite()
        # Seeded anew by every reset; a number here only keeps the system's entropy out.
        self._env = suite.load(domain, task, task_kwargs={"random": 0})
        self._drawable = type(self._env.physics)
        _forbid_rendering(self._env.physics)
        self._domain = domain
        spec = self._env.action_spec()
        self._centre = (spec.maximum + spec.minimum) / 2
        self._scale = (spec.maximum - spec.minimum) / 2
        self._newest = self._observe(self._env.task.get_observation(self._env.physics))
        size = spec.shape[0]
        self._head = Head(_part_name(domain, size), "continuous", size)
        slots = tuple(Slot(slot, value.shape) for slot, value in self._newest.items())
        self.interface = Interface(slots, (self._head,))

    def reset(self, seed: int) -> TimeStep:
        self._env.task.random.seed(seed)
        self._newest = self._observe(self._env.reset().observation)
        self._over = False
        return restart(self._newest)

    def step(self, action: Action) -> TimeStep:
        assert not self._over, "step after the last one"
        control = np.clip(np.asarray(action[self._head.name], np.float64), -1, 1)
        try:
            timestep = self._env.step(self._centre + self._scale * control)
        except self._diverged:
            self._over = True
            return truncation(self._newest, 0.0, physics_error=True)
        self._newest = self._observe(timestep.observation)
        self._over = timestep.last()
        if not self._over:
            return transition(self._newest, float(timestep.reward))
        end = termination if timestep.discount == 0 else truncation
        return end(self._newest, float(timestep.reward))

    def draw(self) -> np.ndarray | None:
        if os.environ.get("MUJOCO_GL") in _WITHOUT_GL:
            raise UserError(
                f"MUJOCO_GL={os.environ['MUJOCO_GL']}: dm_control draws nothing with it; set it to "
                "egl (libegl1) or osmesa (libosmesa6)"
            )
        physics = self._env.physics
        physics.__class__ = self._drawable
        try:
            return np.asarray(physics.render(DRAWN, DRAWN, camera_id=0))
        finally:
            _forbid_rendering(physics)

    def close(self) -> None:
        self._env.close()

    def _observe(self, observation: Mapping[str, Any]) -> Observation:
        slots = {}
        for key, value in observation.items():
            array = np.array(value, np.float32)
            slot = _part_name(f"{self._domain}.{key}", array.size)
            slots[slot] = array.reshape(array.size) if array.ndim > 1 else array
        return slots


def _part_name(part: str, size: int) -> str:
    return f"dmc.{part}" if size == _PLAIN_SIZE.get(part, size) else f"dmc.{part}_{size}"


def _import_suite() -> tuple[Any, type[Exception]]:
    """The suite and the error it raises when a simulation diverges.

    Raises:
      UserError: the rendering library that the user asks for is missing or unknown.
    """
    # Unset, a missing GL library would break the import, although nothing is rendered.
    backend = os.environ.setdefault("MUJOCO_GL", "disable")
    try:
        from dm_control import suite
        from dm_control.rl.control import PhysicsError
    except (ImportError, AttributeError, RuntimeError) as error:
        if backend in _WITHOUT_GL:
            raise
        raise UserError(
            f"MUJOCO_GL={backend}: dm_control cannot be imported with it ({error}); leave "
            "MUJOCO_GL unset, or install libegl1 for egl, libosmesa6 for osmesa"
        ) from error
    return suite, PhysicsError


def _forbid_rendering(physics: Any) -> None:
    """Let the physics say that it has no rendering context, rather than make one to find out.

    `quadruped escape` asks at every reset, in order to refresh its picture of the terrain.
    """
    kind = type(physics)
    physics.__class__ = type(kind.__name__, (kind,), {"contexts": None})
