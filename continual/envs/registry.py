"""All tasks by name, and what to know about them before a world is built.

A task is named `<provider>/<task>`, such as `dmc/walker_walk`. A new family of worlds is one module
that fulfils `Provider`, and one line in `PROVIDERS`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from continual.envs import crafter, dmc, toy
from continual.envs.interface import Interface
from continual.envs.repeat import ActionRepeat
from continual.envs.world import World
from continual.errors import UserError, nearest


class Provider(Protocol):
    """A module that makes worlds. Importing it must be cheap: simulators are imported by `make`."""

    @property
    def TASKS(self) -> Collection[str]:
        """Names of its tasks, without the provider's."""
        ...

    def make(self, name: str) -> World: ...

    def interface(self, name: str) -> Interface:
        """What `make(name)` will show and accept; without building it where possible."""
        ...

    def return_range(self, name: str) -> tuple[float, float] | None:
        """Returns that count as 0 and as 1 when tasks are compared; None: nothing is agreed."""
        ...


PROVIDERS: Mapping[str, Provider] = {"dmc": dmc, "crafter": crafter, "toy": toy}

# Names that papers and other code bases use for the same task.
ALIASES = {"dmc/cup_catch": "dmc/ball_in_cup_catch", "crafter": "crafter/reward"}


def task_names() -> tuple[str, ...]:
    """Canonical names of all tasks; imports no simulator."""
    return tuple(
        f"{provider}/{task}" for provider, module in PROVIDERS.items() for task in module.TASKS
    )


def resolve_task(name: str) -> str:
    """The canonical name of a task, given that or an alias.

    Raises:
      UserError: no such task; names the nearest.
    """
    task = ALIASES.get(name, name)
    names = task_names()
    if task not in names:
        raise UserError(f"task {name!r}: unknown, {nearest(name, {*names, *ALIASES})}")
    return task


def covers(key: str, task: str) -> bool:
    """Whether a key of a table names a task: itself, its domain (`dmc/walker`) or its provider."""
    return task == key or task.startswith((f"{key}/", f"{key}_") if "/" in key else f"{key}/")


def most_specific(table: Mapping[str, int], task: str, default: int) -> int:
    """The entry of the longest key that covers a task."""
    covering = [key for key in table if covers(key, task)]
    return table[max(covering, key=len)] if covering else default


def make_world(task: str, *, repeat: int = 1) -> World:
    """Build a world; not reset yet.

    Args:
      task: name or alias.
      repeat: control steps per decision.
    Raises:
      UserError: no such task, a repeat below 1, or a simulator that cannot run here.
    """
    if repeat < 1:
        raise UserError(f"{task}: action repeat {repeat}, expected at least 1")
    provider, name = _find(task)
    world = provider.make(name)
    return world if repeat == 1 else ActionRepeat(world, repeat)


def interface_of(task: str) -> Interface:
    """What a task shows and accepts; the same at every action repeat."""
    provider, name = _find(task)
    return provider.interface(name)


def return_range(task: str) -> tuple[float, float] | None:
    """Returns that count as 0 and as 1 when tasks of different scale are compared."""
    provider, name = _find(task)
    return provider.return_range(name)


def _find(task: str) -> tuple[Provider, str]:
    provider, name = resolve_task(task).split("/", 1)
    return PROVIDERS[provider], name
