"""Worlds that break are reported with all that leads there, so that they can be made to again."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from continual.envs.interact import replay_actions
from continual.envs.registry import make_world
from continual.envs.world import Action, TimeStep, World
from continual.errors import UserError


class Witness:
    """A world that keeps what it was told since its reset, and puts it on the disk if it raises."""

    def __init__(self, world: World, task: str, repeat: int, folder: Path) -> None:
        self.interface, self.deterministic = world.interface, world.deterministic
        self._world, self._task, self._repeat, self._folder = world, task, repeat, folder
        self._seed = 0
        self._actions: list[Action] = []

    def reset(self, seed: int) -> TimeStep:
        self._seed, self._actions = seed, []
        return self._tried(lambda: self._world.reset(seed))

    def step(self, action: Action) -> TimeStep:
        self._actions.append(action)
        return self._tried(lambda: self._world.step(action))

    def draw(self) -> np.ndarray | None:
        return self._world.draw()

    def close(self) -> None:
        self._world.close()

    def _tried(self, call: Callable[[], TimeStep]) -> TimeStep:
        """Raises UserError: what a simulator raised, in one line, and where the rest is."""
        try:
            return call()
        except UserError:
            raise
        except Exception as error:
            path = self._keep(traceback.format_exc())
            raise UserError(
                f"{self._task}: the world of seed {self._seed} broke after "
                f"{len(self._actions)} actions with {type(error).__name__}: "
                f"{' '.join(str(error).split())}; python -m continual.reproduce {path}"
            ) from error

    def _keep(self, told: str) -> Path:
        name = f"{self._task.replace('/', '_')}-seed{self._seed}-action{len(self._actions)}"
        path = self._folder / f"{name}.safetensors"
        about = {"task": self._task, "repeat": f"{self._repeat}", "seed": f"{self._seed}"}
        heads = self._actions[0] if self._actions else {}
        actions = {head: np.stack([a[head] for a in self._actions]) for head in heads}
        self._folder.mkdir(parents=True, exist_ok=True)
        save_file(actions, path, metadata={**about, "error": told})
        return path


def make_witnessed_world(task: str, *, repeat: int, folder: Path) -> World:
    """`make_world` whose failures are kept in `folder`, which is made when the first comes."""
    return Witness(make_world(task, repeat=repeat), task, repeat, folder)


def reproduce(path: Path) -> str:
    """Tell a world again what it was told before it broke; -> what came of it, in one line.

    Raises:
      UserError: no such file, or not one of ours.
      Exception: what the world raises, if it breaks again.
    """
    try:
        with safe_open(path, "numpy") as kept:
            about = kept.metadata()
            arrays = {head: kept.get_tensor(head) for head in kept.keys()}  # noqa: SIM118
        task, repeat, seed = about["task"], int(about["repeat"]), int(about["seed"])
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: expected what a broken world left in faults/: {error}") from error
    world = make_world(task, repeat=repeat)
    length = min((len(values) for values in arrays.values()), default=0)
    try:
        actions = [{head: values[t] for head, values in arrays.items()} for t in range(length)]
        replay_actions(world, 0, seed, actions)
    finally:
        world.close()
    return f"{task}: seed {seed} and {length} actions, and nothing broke"
