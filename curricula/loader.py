"""From a curriculum file to the phases of a life, tasks resolved and cycles unrolled."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from continual import resources
from continual.envs.registry import most_specific, resolve_task
from continual.errors import UserError
from continual.strict_yaml import Document, load, one_line
from continual.validation import locate, validate
from curricula.schema import Curriculum

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True)
class PlannedPhase:
    """One phase of a life.

    Attributes:
      number: counts from 1 over all cycles.
      cycle: counts from 1.
      task: canonical name.
      steps: budget in environment steps.
      until_return: mean return that ends it earlier, if judged inside it.
    """

    number: int
    cycle: int
    task: str
    steps: int
    until_return: float | None = None


@dataclass(frozen=True)
class NamedCurriculum:
    """A curriculum ready to be lived through.

    Attributes:
      name: of its file, without suffix.
      description: the question it asks.
      scale: the scale it is pinned to, if any.
      plan: its phases, cycles unrolled.
      judged: tasks that are judged besides those of the plan.
    """

    name: str
    description: str
    scale: str | None
    plan: tuple[PlannedPhase, ...]
    judged: tuple[str, ...] = ()

    @property
    def tasks(self) -> tuple[str, ...]:
        """Every task trained, then those only judged, each once, in order of first appearance."""
        return tuple(dict.fromkeys([*(phase.task for phase in self.plan), *self.judged]))

    @property
    def env_steps(self) -> int:
        """Environment steps of the whole life."""
        return sum(phase.steps for phase in self.plan)


def load_curriculum(argument: str) -> NamedCurriculum:
    """The curriculum that a command line names: a path, or the name of a shipped one.

    Raises:
      UserError: it is not there or not right; one line that says what and where.
    """
    file = resources.find(argument, "curricula")
    return parse_curriculum(resources.read_text(file), str(file))


def parse_curriculum(text: str, source: str) -> NamedCurriculum:
    """Read a curriculum; `source` is the file name, which names the curriculum too."""
    name = PurePath(source).stem
    if not _NAME.fullmatch(name):
        problem = "expected a file name of letters, digits, '-', '_' and '.', at most 64"
        raise UserError(f"{one_line(source)}: {problem}, for it names the run's folder")
    document = load(text, source)
    curriculum = validate(Curriculum, document)
    tasks = [
        _resolve(document, ("phases", i, "task"), phase.task)
        for i, phase in enumerate(curriculum.phases)
    ]
    judged = [_resolve(document, ("judged", i), task) for i, task in enumerate(curriculum.judged)]
    plan = (
        (cycle, task, phase.steps, phase.until_return)
        for cycle in range(1, curriculum.cycles + 1)
        for task, phase in zip(tasks, curriculum.phases, strict=True)
    )
    return NamedCurriculum(
        name,
        curriculum.description,
        curriculum.scale,
        tuple(PlannedPhase(number, *phase) for number, phase in enumerate(plan, start=1)),
        tuple(judged),
    )


def with_budgets(curriculum: NamedCurriculum, budgets: Mapping[str, int]) -> NamedCurriculum:
    """Give phases other budgets, as a scale does.

    Args:
      budgets: environment steps of a phase by task (`dmc/walker_walk`), domain (`dmc/walker`) or
        provider (`dmc`); the most specific key wins. Keys of tasks that this curriculum does not
        have are passed over, for one scale serves all curricula.
    """
    plan = tuple(
        dataclasses.replace(phase, steps=most_specific(budgets, phase.task, phase.steps))
        for phase in curriculum.plan
    )
    return dataclasses.replace(curriculum, plan=plan)


def resolved(curriculum: NamedCurriculum) -> dict[str, Any]:
    """Plain data that a run keeps of its curriculum; what a scale changed is in it."""
    return {
        "name": curriculum.name,
        "description": curriculum.description,
        "phases": [
            {"task": phase.task, "steps": phase.steps, "cycle": phase.cycle}
            | ({} if phase.until_return is None else {"until_return": phase.until_return})
            for phase in curriculum.plan
        ],
        "judged": list(curriculum.judged),
    }


def _resolve(document: Document, path: tuple[str | int, ...], task: str) -> str:
    try:
        return resolve_task(task)
    except UserError as error:
        raise UserError(f"{locate(document, path)}: {one_line(error)}") from None
