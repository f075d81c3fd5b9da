"""What a run folder holds for a reader: its settings, its plan and its records."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from continual.dotted import leaves
from continual.errors import UserError, nearest
from continual.strict_yaml import Document, load, one_line
from continual.validation import validate
from eval.records import EpisodeRecord, PhaseRecord, Record, TrainRecord, load_records

R = TypeVar("R", bound=Record)
_Finite = Annotated[float, Field(allow_inf_nan=False)]

# What says nothing of what a life is: settings that change no number, or name it.
_ASIDE = ("seed", "variant", "scale", "log.", "checkpoint.", "evaluate.worlds")
# A random gate that opens as often as another life's did takes the rates of its own seed's.
_OF_ITS_SEED = ("agent.gate.by_task", "agent.gate.recorded")


class KeptPhase(BaseModel):
    """A phase as the run's curriculum.yaml has it. `steps` are environment steps."""

    model_config = ConfigDict(frozen=True)

    task: str
    steps: int
    cycle: int


class KeptCurriculum(BaseModel):
    """What is read of the curriculum.yaml that a run keeps: cycles unrolled, tasks resolved.

    Tasks are taken as they are: records of a world that is gone can still be judged.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    phases: Annotated[tuple[KeptPhase, ...], Field(min_length=1)]
    judged: tuple[str, ...]
    return_ranges: Mapping[str, tuple[_Finite, _Finite]] = {}


@dataclass(frozen=True)
class Span:
    """Where in the life a phase lay, or lies: environment steps [start, stop)."""

    number: int
    task: str
    start: int
    stop: int


@dataclass(frozen=True)
class RecordedRun:
    """A run as its folder tells it, finished or not.

    Attributes:
      path: the folder; its name is the run's.
      scale, variant, seed: from config.yaml, as text; empty where it does not say.
      config, versions: config.yaml, and versions.json but for the command.
      command: that began the run; empty where versions.json does not say.
      ancestry: (origin, environment steps) of each branching that led here, the first one first.
      curriculum: its name.
      plan: all phases; plan[k-1] is phase k.
      tasks: trained ones, then those that are judged only, in order of first appearance.
      return_ranges: task -> (lowest, highest) possible return.
      episodes, phases, train: the records.
    """

    path: Path
    scale: str
    variant: str
    seed: str
    config: Mapping[str, Any]
    versions: Mapping[str, Any]
    command: str
    ancestry: tuple[tuple[str, int], ...]
    curriculum: str
    plan: tuple[KeptPhase, ...]
    tasks: tuple[str, ...]
    return_ranges: Mapping[str, tuple[float, float]]
    episodes: Sequence[EpisodeRecord]
    phases: Sequence[PhaseRecord]
    train: Sequence[TrainRecord]

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def trained(self) -> tuple[int, ...]:
        """s(1) … s(K): index in `tasks` of what each phase trains."""
        return tuple(self.tasks.index(phase.task) for phase in self.plan)

    @property
    def settings(self) -> dict[str, Any]:
        """What lives that differ in their seed alone have in common, key -> value.

        The config, flattened, but for what says nothing of what a life is; and what else makes
        lives different: the lengths of their phases, and where they were branched off others.
        """
        settings = {k: v for k, v in leaves(self.config).items() if not k.startswith(_ASIDE)}
        if settings.get("agent.gate.recorded"):
            settings = {k: v for k, v in settings.items() if not k.startswith(_OF_ITS_SEED)}
            settings["agent.gate.recorded"] = "each its seed's"
        settings["curriculum.steps"] = " + ".join(f"{phase.steps:,}" for phase in self.plan)
        settings["branched_at"] = " and ".join(f"{steps:,}" for _, steps in self.ancestry)
        return settings

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
        for number, phase in enumerate(self.plan, start=1):
            start = spans[-1].stop if spans else 0
            if number in over:
                start, stop = over[number].env_steps
            elif number in newest:
                stop = max(start, newest[number])
            else:
                break
            spans.append(Span(number, phase.task, start, stop))
        return spans


def reference_folder(run: Path, task: str) -> Path:
    """Where a run keeps the life of one of its tasks alone."""
    return run / "references" / task.replace("/", "_")


def load_references(run: RecordedRun) -> dict[str, RecordedRun]:
    """Task -> the finished life of that task alone, for those that are there."""
    found: dict[str, RecordedRun] = {}
    for task in run.tasks:
        folder = reference_folder(run.path, task)
        if (folder / "config.yaml").is_file() and not (alone := load_run(folder)).unfinished:
            found[task] = alone
    return found


def load_run(path: Path) -> RecordedRun:
    """Read a run folder.

    Raises:
      UserError: it is not there, or something in it is missing or is not what it should be.
    """
    if not path.is_dir():
        raise UserError(_no_such_run(path))
    for name in ("config.yaml", "curriculum.yaml"):
        if not (path / name).is_file():
            raise UserError(f"{path}: not a run folder: no {name}; expected one such as runs/NAME")
    config = _mapping(path / "config.yaml", _load_yaml(path / "config.yaml").value)
    curriculum = validate(KeptCurriculum, _load_yaml(path / "curriculum.yaml"))
    plan = curriculum.phases
    tasks = tuple(dict.fromkeys([*(phase.task for phase in plan), *curriculum.judged]))
    episodes = load_records(path / "records", EpisodeRecord)
    phases = load_records(path / "records", PhaseRecord)
    _check_episodes(path / "records" / EpisodeRecord.file, episodes, tasks, len(plan))
    kept = _load_versions(path / "versions.json")
    return RecordedRun(
        path=path,
        scale=_text(config.get("scale")),
        variant=_text(config.get("variant")),
        seed=_text(config.get("seed")),
        config=config,
        versions={name: v for name, v in kept.items() if name != "command"},
        command=_text(kept.get("command")),
        ancestry=_load_ancestry(path / "ancestry.json"),
        curriculum=curriculum.name,
        plan=plan,
        tasks=tasks,
        return_ranges=curriculum.return_ranges,
        episodes=episodes,
        phases=phases,
        train=load_records(path / "records", TrainRecord),
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
        raise UserError(f"{path}: cannot be read as text: {one_line(error)}") from error


def _load_yaml(path: Path) -> Document:
    return load(_read(path), str(path))


def _load_versions(path: Path) -> Mapping[str, Any]:
    """{} where the file is missing: versions explain a run, nothing is computed from them."""
    if not path.exists():
        return {}
    try:
        return _mapping(path, json.loads(_read(path)))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not JSON: {error.msg}") from error


def _load_ancestry(path: Path) -> tuple[tuple[str, int], ...]:
    if not path.exists():
        return ()
    try:
        kept = json.loads(_read(path))
        return tuple((str(entry["origin"]), int(entry["env_steps"])) for entry in kept)
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path}: not the ancestry of a run: {one_line(error)}") from error


def _mapping(path: Path, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{path}: found {type(value).__name__}, expected keys and values")
    return value


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
