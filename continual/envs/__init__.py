"""Worlds: what they are, what they emit, and the loop that steps them."""

from continual.envs.interact import (
    Episode,
    Moment,
    Policy,
    Seen,
    begin,
    interact,
    replay_actions,
)
from continual.envs.interface import IMAGE, Head, Interface, Slot, Union, union
from continual.envs.random_policy import RandomPolicy
from continual.envs.registry import (
    interface_of,
    make_world,
    resolve_task,
    return_range,
    task_names,
)
from continual.envs.world import Action, Observation, TimeStep, World

__all__ = [
    "IMAGE",
    "Action",
    "Episode",
    "Head",
    "Interface",
    "Moment",
    "Observation",
    "Policy",
    "RandomPolicy",
    "Seen",
    "Slot",
    "TimeStep",
    "Union",
    "World",
    "begin",
    "interact",
    "interface_of",
    "make_world",
    "replay_actions",
    "resolve_task",
    "return_range",
    "task_names",
    "union",
]
