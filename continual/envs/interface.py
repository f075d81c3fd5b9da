"""What a world shows and accepts: named slots and heads, and their union over tasks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

IMAGE = "image"  # one slot for every world that shows pictures


@dataclass(frozen=True)
class Slot:
    """One observed quantity.

    Attributes:
      name: `image`, or `<provider>.<domain>.<key>` such as `dmc.walker.height`, so that the tasks
        of one domain share a slot and those of two domains cannot collide.
      shape: () for a scalar, (n,) for a vector, (64, 64, 3) for the image.
      dtype: `float32` for vectors, `uint8` for the image.
    """

    name: str
    shape: tuple[int, ...]
    dtype: Literal["float32", "uint8"] = "float32"

    @property
    def is_image(self) -> bool:
        return self.name == IMAGE

    @property
    def width(self) -> int:
        """Numbers in one observation of this slot; a scalar counts as 1."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Head:
    """One action a world accepts.

    Attributes:
      name: `<provider>.<domain>`, such as `dmc.walker`.
      kind: `continuous` (float32 [size], each number meant for [-1, 1]; the world clips) or
        `categorical` (one int32 class index out of `size`).
      size: number of dimensions or of classes.
    """

    name: str
    kind: Literal["continuous", "categorical"]
    size: int

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.size,) if self.kind == "continuous" else ()

    @property
    def dtype(self) -> Literal["float32", "int32"]:
        return "float32" if self.kind == "continuous" else "int32"


@dataclass(frozen=True)
class Interface:
    """The slots and heads of one task."""

    slots: tuple[Slot, ...]
    heads: tuple[Head, ...]

    @property
    def vectors(self) -> tuple[Slot, ...]:
        return tuple(s for s in self.slots if not s.is_image)

    @property
    def image(self) -> Slot | None:
        return next((s for s in self.slots if s.is_image), None)

    @property
    def vector_width(self) -> int:
        return sum(s.width for s in self.vectors)

    @property
    def action_width(self) -> int:
        return sum(h.size for h in self.heads)


@dataclass(frozen=True)
class Union(Interface):
    """All slots and heads of several tasks, in order of first appearance.

    Attributes:
      tasks: interface of each task, in order; the position of a task is its index everywhere.
    """

    tasks: Mapping[str, Interface] = field(default_factory=dict)

    def index(self, task: str) -> int:
        return list(self.tasks).index(task)

    def first_with(self, part: Slot | Head) -> Interface:
        """The first task's interface that has `part`: it fixes the fan-in the part is born with."""
        return next(i for i in self.tasks.values() if part in i.slots or part in i.heads)


def union(tasks: Mapping[str, Interface] | Iterable[tuple[str, Interface]]) -> Union:
    """The interface an agent needs to live in all of `tasks`.

    Raises:
      ValueError: two tasks use one name for slots or heads of different shape or kind.
    """
    tasks = dict(tasks)
    slots: dict[str, Slot] = {}
    heads: dict[str, Head] = {}
    for task, interface in tasks.items():
        for slot in interface.slots:
            if slots.setdefault(slot.name, slot) != slot:
                raise ValueError(f"{task}: slot {slot} clashes with {slots[slot.name]}")
        for head in interface.heads:
            if heads.setdefault(head.name, head) != head:
                raise ValueError(f"{task}: head {head} clashes with {heads[head.name]}")
    return Union(tuple(slots.values()), tuple(heads.values()), tasks)
