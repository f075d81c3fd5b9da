"""Curricula: what files may say, how they unroll, and how mistakes in them are told."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import curricula
from continual import resources
from continual.envs.registry import task_names
from continual.errors import UserError
from curricula.loader import (
    NamedCurriculum,
    PlannedPhase,
    load_curriculum,
    parse_curriculum,
    resolved,
    with_budgets,
)
from curricula.schema import json_schema

FOLDER = Path(curricula.__file__).parent

TWO_CYCLES = """\
description: Back and forth.
cycles: 2
phases:
  - {task: dmc/cup_catch, steps: 5e5}
  - {task: crafter/reward, steps: 1_000}
judged: [dmc/walker_run, crafter/reward]
"""


def complaint(text: str, source: str = "cur.yaml") -> str:
    with pytest.raises(UserError) as caught:
        parse_curriculum(text, source)
    return str(caught.value)


def test_cycles_unroll_into_numbered_phases_with_canonical_tasks() -> None:
    cup = "dmc/ball_in_cup_catch"
    built = parse_curriculum(TWO_CYCLES, "folder/back_forth.yaml")
    assert built == NamedCurriculum(
        name="back_forth",
        description="Back and forth.",
        scale=None,
        plan=(
            PlannedPhase(1, 1, cup, 500_000),
            PlannedPhase(2, 1, "crafter/reward", 1000),
            PlannedPhase(3, 2, cup, 500_000),
            PlannedPhase(4, 2, "crafter/reward", 1000),
        ),
        judged=("dmc/walker_run", "crafter/reward"),
    )
    assert built.tasks == (cup, "crafter/reward", "dmc/walker_run")
    assert built.env_steps == 1_002_000


def test_the_headline_curriculum_is_cup_walker_crafter() -> None:
    assert [(p.task, p.steps) for p in load_curriculum("curricula/dmc_then_crafter.yaml").plan] == [
        ("dmc/ball_in_cup_catch", 500_000),
        ("dmc/walker_walk", 500_000),
        ("crafter/reward", 1_000_000),
    ]


def test_the_smoke_curriculum_is_pinned_to_its_scale() -> None:
    smoke = load_curriculum("smoke")
    assert smoke.scale == "smoke"
    assert smoke.tasks == ("toy/reach", "dmc/cartpole_swingup", "crafter/reward")


@pytest.mark.parametrize("name", resources.packaged_names("curricula"))
def test_every_shipped_curriculum_loads_and_says_what_it_asks(name: str) -> None:
    text = (FOLDER / f"{name}.yaml").read_text()
    built = load_curriculum(name)
    assert built.name == name
    assert len(built.description) > 30
    assert set(built.tasks) <= set(task_names())
    assert text.startswith("# yaml-language-server: $schema=./curriculum.schema.json\n")


def test_the_shipped_schema_is_that_of_the_model() -> None:
    shipped = (FOLDER / "curriculum.schema.json").read_text()
    assert shipped == json_schema(), "python -m curricula > curricula/curriculum.schema.json"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "phases:\n  - task: dmc/walker_walk\n    step: 5",
            "cur.yaml:3:5: phases[0].step: unknown key, did you mean 'steps'?",
        ),
        (
            "phases:\n  - {task: toy/reach, steps: ten}",
            "cur.yaml:2:23: phases[0].steps: expected a whole number, found 'ten'",
        ),
        (
            "phases: [{task: toy/reach, steps: 0}]",
            "cur.yaml:1:28: phases[0].steps: expected more than 0, found 0",
        ),
        (
            "phases: [{task: toy/reach, steps: 10_000_000_001}]",
            "cur.yaml:1:28: phases[0].steps: expected at most 10_000_000_000, found 10000000001",
        ),
        ("phases: [{steps: 1}]", "cur.yaml:1:10: phases[0].task: missing"),
        ("phases: []", "cur.yaml:1:1: phases: expected 1 or more entries, found an empty list"),
        ("description: x", "cur.yaml:1:1: phases: missing"),
        ("phases: [toy/reach]", "cur.yaml:1:10: phases[0]: expected a mapping, found 'toy/reach'"),
        (
            "cycles: 0\nphases: [{task: toy/reach, steps: 1}]",
            "cur.yaml:1:1: cycles: expected more than 0, found 0",
        ),
    ],
)
def test_a_mistake_names_file_line_key_and_what_was_expected(text: str, message: str) -> None:
    assert complaint(text) == message


def test_an_unknown_task_is_named_with_its_place_and_the_nearest() -> None:
    message = complaint("phases:\n  - {task: dmc/walker_wlk, steps: 1}")
    assert message.startswith("cur.yaml:2:6: phases[0].task: ")
    assert "dmc/walker_wlk" in message
    assert "dmc/walker_walk" in message
    judged = complaint("phases: [{task: toy/reach, steps: 1}]\njudged:\n  - crafter/rewrd")
    assert judged.startswith("cur.yaml:3:5: judged[0]: ")


def test_a_curriculum_that_does_not_exist_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'dmc_then_crafter'"):
        load_curriculum("curricula/dmc_then_craftr.yaml")


@pytest.mark.parametrize(
    "source", ["a b.yaml", ".yaml", "ä.yaml", "a\nb.yaml", "x" * 65, "-x.yaml"]
)
def test_a_file_whose_name_cannot_name_a_run_is_refused(source: str) -> None:
    assert "expected a file name of letters, digits" in complaint(TWO_CYCLES, source)
    assert complaint(TWO_CYCLES, source).isprintable()


def test_the_most_specific_budget_wins_and_others_stay() -> None:
    built = load_curriculum("walker_family")
    budgets = {"dmc": 1, "dmc/walker": 2, "dmc/walker_run": 3, "crafter/reward": 4}
    assert [p.steps for p in with_budgets(built, budgets).plan] == [2, 2, 3]
    assert [p.steps for p in with_budgets(built, {"dmc": 7}).plan] == [7, 7, 7]
    assert with_budgets(built, {"crafter": 7, "dmc/cheetah_run": 7, "dmc/cheetah": 7}) == built


def test_what_a_run_keeps_of_its_curriculum_holds_what_a_scale_changed() -> None:
    built = with_budgets(parse_curriculum(TWO_CYCLES, "back.yaml"), {"crafter": 77})
    kept = resolved(built)
    assert kept["phases"][1] == {"task": "crafter/reward", "steps": 77, "cycle": 1}
    assert list(kept) == ["name", "description", "phases", "judged"]


keys = st.sampled_from(["phases", "task", "steps", "cycles", "judged", "scale", "description", "x"])
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 2**63 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["dmc/walker_walk", "crafter/reward", "dmc/", "toy"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)
almost = st.fixed_dictionaries(
    {
        "phases": st.lists(
            st.fixed_dictionaries(
                {"task": st.sampled_from(["toy/reach", "dmc/cup_catch", "nope"]) | values},
                optional={"steps": st.integers(-1, 100) | values, "cycle": values},
            ),
            max_size=3,
        )
    },
    optional={"cycles": st.integers(-1, 5), "judged": values, "scale": values, "x": values},
)


def loads_or_is_refused_in_one_line(text: str) -> None:
    message = ""
    try:
        plan = parse_curriculum(text, "fuzz.yaml").plan
    except UserError as error:
        message = str(error)
    else:
        assert plan
        assert all(phase.steps > 0 for phase in plan)
    assert message.isprintable()


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_any_text_loads_or_is_refused_in_one_line(text: str) -> None:
    loads_or_is_refused_in_one_line(text)


@settings(max_examples=200, deadline=None)
@given(values | almost)
def test_any_yaml_loads_or_is_refused_in_one_line(value: object) -> None:
    loads_or_is_refused_in_one_line(yaml.safe_dump(value, allow_unicode=True))
