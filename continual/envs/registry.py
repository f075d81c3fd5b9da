"""All tasks by name, and what to know about them before a world is built.

A task is named `<provider>/<task>`, such as `dmc/walker_walk`. A new family of worlds is one module
that fulfils `Provider`, and one line in `PROVIDERS`.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from typing import Protocol, TypeVar

from continual.envs import crafter, dmc, toy
from continual.envs.interface import Interface
from continual.envs.repeat import ActionRepeat
from continual.envs.world import World
from continual.errors import UserError, nearest

N = TypeVar("N", int, float)


class Provider(Protocol):
    """A module that makes worlds. Importing it must be cheap: simulators are imported by `make`."""

    @property
    def TASKS(self) -> Collection[str]:
        """Names of its tasks, without the provider's."""
        ...

    def domain(self, name: str) -> str:
        """What a task and its siblings are called together; its own name where it has none."""
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


@functools.cache  # asked at every decision of a life
def keys_of(task: str) -> tuple[str, str, str]:
    """Keys of a table that name a task: itself, its domain (`dmc/walker`), its provider."""
    task = resolve_task(task)
    provider, name = task.split("/", 1)
    return task, f"{provider}/{PROVIDERS[provider].domain(name)}", provider


def resolve_key(key: str) -> str:
    """The canonical form of a key of a table: of a task, a domain or a provider.

    Raises:
      UserError: it names no task of any world; names the nearest.
    """
    known = {key for task in task_names() for key in keys_of(task)}
    if key in known:
        return key
    if key in ALIASES:
        return ALIASES[key]
    raise UserError(f"{key!r}: no task, domain or provider, {nearest(key, {*known, *ALIASES})}")


def most_specific(table: Mapping[str, N], task: str, default: N) -> N:
    """The entry for a task in a table of canonical keys, else for its domain, its provider."""
    return next((table[key] for key in keys_of(task) if key in table), default)


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
