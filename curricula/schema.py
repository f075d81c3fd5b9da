"""What a curriculum file may say."""

from __future__ import annotations

import json
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

MAX_ENV_STEPS = 10**10

EnvSteps = Annotated[int, Field(gt=0, le=MAX_ENV_STEPS)]
Task = Annotated[str, Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Phase(_Strict):
    """Living in one task until its budget is spent."""

    task: Task
    """Task lived in, such as `dmc/walker_walk`."""

    steps: EnvSteps
    """Budget in environment steps: control steps of the simulator, whatever the action repeat."""

    until_return: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """The phase ends before its budget is spent, at the first evaluation inside it in which the
    policy that lives has this mean return on the phase's task."""


class Curriculum(_Strict):
    """Which tasks an agent lives through, in which order, and what it is judged on besides."""

    description: str = ""
    """The question that this curriculum asks."""

    scale: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")] | None = None
    """Scale the curriculum is pinned to; left out, the machine decides."""

    cycles: Annotated[int, Field(gt=0, le=1000)] = 1
    """How many times the phases are lived through, one round after the other."""

    phases: Annotated[tuple[Phase, ...], Field(min_length=1, max_length=1000)]
    """Phases of one cycle, in order."""

    judged: Annotated[tuple[Task, ...], Field(max_length=1000)] = ()
    """Tasks that are judged besides those of the phases, and never trained."""


def json_schema() -> str:
    """JSON schema of a curriculum, for editors; `python -m curricula` prints it."""
    schema = Curriculum.model_json_schema()
    return json.dumps(schema, indent=2) + "\n"
