"""What a run folder holds for a reader: its settings, its plan and its records."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from continual.errors import UserError, nearest
from eval.records import EpisodeRecord, PhaseRecord, Record, load_records

R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Plan:
    """A phase as the curriculum has it. `steps` are environment steps."""

    number: int
    task: str
    steps: int
    cycle: int


@dataclass(frozen=True)
class Span:
    """Where in the life a phase lay, or lies: environment steps [start, stop)."""

    number: int
    task: str
    start: int
    stop: int


@dataclass(frozen=True)
class RunFolder:
    """A run as its folder tells it, finished or not.

    Attributes:
      path: the folder.
      name, scale, variant, seed: from config.yaml, as text; empty where it does not say.
      config, versions: config.yaml and versions.json.
      curriculum: its name.
      plan: all phases; plan[k-1] is phase k.
      tasks: trained ones, then those that are judged only, in order of first appearance.
      return_ranges: task -> (lowest, highest) possible return.
      episodes, phases: the records.
    """

    path: Path
    name: str
    scale: str
    variant: str
    seed: str
    config: Mapping[str, Any]
    versions: Mapping[str, Any]
    curriculum: str
    plan: tuple[Plan, ...]
    tasks: tuple[str, ...]
    return_ranges: Mapping[str, tuple[float, float]]
    episodes: Sequence[EpisodeRecord]
    phases: Sequence[PhaseRecord]

    @property
    def trained(self) -> tuple[int, ...]:
        """s(1) … s(K): index in `tasks` of what each phase trains."""
        return tuple(self.tasks.index(phase.task) for phase in self.plan)

    @property
    def unfinished(self) -> str:
        """`unfinished: phase 2 of 3`; empty once the last phase is over and was judged."""
        total, over = len(self.plan), max((p.phase for p in self.phases), default=0)
        if over < total:
            return f"unfinished: phase {over + 1} of {total}"
        judged = {e.task for e in self.episodes if e.when == "end" and e.phase == total}
        if not judged.issuperset(self.tasks):
            return f"unfinished: phase {total} of {total} is over, not all tasks are judged"
        return ""

    @property
    def spans(self) -> list[Span]:
        """The phases begun so far; the one that is running ends where its records do."""
        over = {p.phase: p for p in self.phases}
        newest: dict[int, int] = {}
        for e in self.episodes:
            newest[e.phase] = max(newest.get(e.phase, 0), e.env_steps)
        spans: list[Span] = []
        for phase in self.plan:
            start = spans[-1].stop if spans else 0
            if phase.number in over:
                start, stop = over[phase.number].env_steps
            elif phase.number in newest:
                stop = max(start, newest[phase.number])
            else:
                break
            spans.append(Span(phase.number, phase.task, start, stop))
        return spans


def load_run(path: Path) -> RunFolder:
    """Read a run folder.

    Raises:
      UserError: it is not there, or something in it is missing or is not what it should be.
    """
    if not path.is_dir():
        raise UserError(_no_such_run(path))
    for name in ("config.yaml", "curriculum.yaml"):
        if not (path / name).is_file():
            raise UserError(f"{path}: not a run folder: no {name}; expected one such as runs/NAME")
    config = _load_yaml(path / "config.yaml")
    curriculum = _load_yaml(path / "curriculum.yaml")
    plan = _plan(path / "curriculum.yaml", curriculum)
    judged_only = _texts(path / "curriculum.yaml", curriculum, "judged")
    tasks = tuple(dict.fromkeys([*(phase.task for phase in plan), *judged_only]))
    episodes = _load_records(path / "records", EpisodeRecord)
    phases = _load_records(path / "records", PhaseRecord)
    _check_episodes(path / "records" / EpisodeRecord.file, episodes, tasks, len(plan))
    return RunFolder(
        path=path,
        name=str(config.get("name") or path.resolve().name),
        scale=_text(config.get("scale")),
        variant=_text(config.get("variant")),
        seed=_text(config.get("seed")),
        config=config,
        versions=_load_versions(path / "versions.json"),
        curriculum=str(curriculum.get("name", "")),
        plan=plan,
        tasks=tasks,
        return_ranges=_return_ranges(path / "curriculum.yaml", curriculum),
        episodes=episodes,
        phases=phases,
    )


def _no_such_run(path: Path) -> str:
    if path.exists():
        return f"{path}: a file; expected a run folder such as runs/NAME"
    beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    hint = f"; {nearest(path.name, beside)}" if beside else ""
    return f"{path}: no such run folder{hint}"


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text: {_one_line(error)}") from error


def _load_yaml(path: Path) -> Mapping[str, Any]:
    try:
        value = yaml.safe_load(_read(path))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UserError(f"{path}:{line}: not YAML: {_one_line(error.problem)}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML: {_one_line(error)}") from error
    return _mapping(path, value)


def _load_versions(path: Path) -> Mapping[str, Any]:
    """{} where the file is missing: versions explain a run, nothing is computed from them."""
    if not path.exists():
        return {}
    try:
        return _mapping(path, json.loads(_read(path)))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not JSON: {error.msg}") from error


def _mapping(path: Path, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{path}: found {type(value).__name__}, expected keys and values")
    return value


def _load_records(folder: Path, kind: type[R]) -> list[R]:
    try:
        return load_records(folder, kind)
    except (OSError, ValueError) as error:
        said = _one_line(error)
        path = str(folder / kind.file)
        raise UserError(said if said.startswith(path) else f"{path}: {said}") from error


def _plan(path: Path, curriculum: Mapping[str, Any]) -> tuple[Plan, ...]:
    phases = curriculum.get("phases")
    if not isinstance(phases, list) or not phases:
        raise UserError(f"{path}: phases: found {phases!r:.40}, expected a list of phases")
    plan = []
    for number, phase in enumerate(phases, start=1):
        match phase:
            case {"task": str(task), "steps": int(steps)}:
                plan.append(Plan(number, task, steps, int(phase.get("cycle", 1))))
            case _:
                raise UserError(
                    f"{path}: phases[{number - 1}]: found {phase!r:.60}, expected task and steps"
                )
    return tuple(plan)


def _texts(path: Path, curriculum: Mapping[str, Any], key: str) -> list[str]:
    texts = curriculum.get(key) or []
    if not isinstance(texts, list) or not all(isinstance(t, str) for t in texts):
        raise UserError(f"{path}: {key}: found {texts!r:.60}, expected a list of tasks")
    return texts


def _return_ranges(path: Path, curriculum: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    ranges = {}
    for task, pair in (curriculum.get("return_ranges") or {}).items():
        match pair:
            case [int() | float() as low, int() | float() as high] if math.isfinite(high - low):
                ranges[str(task)] = (float(low), float(high))
            case _:
                raise UserError(
                    f"{path}: return_ranges: {task}: found {pair!r:.40}, expected [low, high]"
                )
    return ranges


def _check_episodes(
    path: Path, episodes: Sequence[EpisodeRecord], tasks: Sequence[str], phases: int
) -> None:
    """Records of another curriculum would be judged as if they were this one's."""
    for line, e in enumerate(episodes, start=1):
        if e.task not in tasks:
            raise UserError(
                f"{path}:{line}: task {e.task!r}, not in curriculum.yaml, {nearest(e.task, tasks)}"
            )
        first = 0 if e.split == "eval" else 1
        if not isinstance(e.phase, int) or not first <= e.phase <= phases:
            raise UserError(f"{path}:{line}: phase {e.phase!r}, expected {first} to {phases}")
        if not isinstance(e.return_, (int, float)):
            raise UserError(f"{path}:{line}: return_ {e.return_!r:.40}, expected a number")


def _one_line(error: object) -> str:
    return " ".join(str(error).split())
