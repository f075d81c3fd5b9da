"""Slots, heads, and the union of several tasks' interfaces."""

from __future__ import annotations

import pytest

from continual.envs.interface import Head, Interface, Slot, union

HEIGHT = Slot("dmc.walker.height", ())
JOINTS = Slot("dmc.walker.joints", (14,))
IMAGE = Slot("image", (64, 64, 3), "uint8")
LEGS = Head("dmc.walker", "continuous", 6)
KEYS = Head("crafter", "categorical", 17)

WALKER = Interface((HEIGHT, JOINTS), (LEGS,))
CRAFTER = Interface((IMAGE,), (KEYS,))


def test_widths_count_numbers_and_a_scalar_is_one() -> None:
    assert (HEIGHT.width, JOINTS.width, IMAGE.width) == (1, 14, 64 * 64 * 3)
    assert (WALKER.vector_width, WALKER.action_width) == (15, 6)
    assert (CRAFTER.vector_width, CRAFTER.action_width) == (0, 17)


def test_image_and_vectors_are_told_apart() -> None:
    assert (WALKER.vectors, WALKER.image) == ((HEIGHT, JOINTS), None)
    assert (CRAFTER.vectors, CRAFTER.image) == ((), IMAGE)


def test_actions_are_vectors_of_numbers_or_one_class() -> None:
    assert (LEGS.shape, LEGS.dtype) == ((6,), "float32")
    assert (KEYS.shape, KEYS.dtype) == ((), "int32")


def test_union_keeps_the_order_of_first_appearance_and_shares_what_is_equal() -> None:
    speed = Slot("dmc.walker.speed", (9,))
    runner = Interface((JOINTS, speed), (LEGS,))
    both = union({"walk": WALKER, "crafter": CRAFTER, "run": runner})
    assert both.slots == (HEIGHT, JOINTS, IMAGE, speed)
    assert both.heads == (LEGS, KEYS)
    assert list(both.tasks) == ["walk", "crafter", "run"]
    assert [both.index(task) for task in both.tasks] == [0, 1, 2]
    assert both.vector_width == 1 + 14 + 9
    assert both.image == IMAGE


def test_adding_a_task_only_appends_to_the_union() -> None:
    one = union([("crafter", CRAFTER)])
    two = union([("crafter", CRAFTER), ("walk", WALKER)])
    assert two.slots[: len(one.slots)] == one.slots
    assert two.heads[: len(one.heads)] == one.heads


def test_a_part_is_born_with_the_first_task_that_has_it() -> None:
    runner = Interface((JOINTS,), (LEGS,))
    both = union({"crafter": CRAFTER, "run": runner, "walk": WALKER})
    assert both.first_with(JOINTS) == runner
    assert both.first_with(LEGS) == runner
    assert both.first_with(HEIGHT) == WALKER
    assert both.first_with(IMAGE) == CRAFTER


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (Interface((Slot("dmc.walker.height", (2,)),), (LEGS,)), "other: slot .*height.* clashes"),
        (Interface((HEIGHT,), (Head("dmc.walker", "categorical", 6),)), "other: head .* clashes"),
        (Interface((HEIGHT,), (Head("dmc.walker", "continuous", 5),)), "other: head .* clashes"),
    ],
)
def test_one_name_for_two_things_is_refused(other: Interface, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        union({"walk": WALKER, "other": other})
