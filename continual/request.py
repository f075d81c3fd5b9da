"""What a person asked for on the command line of `continual.run`."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

from pydantic import Field

from agent.config import RandomGate
from continual import resources
from continual.ancestry import Origin, config_of, inherited, parse_origin
from continual.cli import split_arguments
from continual.config import Config, EvaluateConfig, check_name, resolve_config
from continual.errors import UserError, nearest
from continual.pacing import refuse_short_phases
from continual.rundir import RunFolder
from continual.scheduler import Clock, inside_points
from continual.strict_yaml import shown
from continual.usage import make_parser
from continual.validation import dotted_names
from continual.videos import refuse_without_av
from continual.wandb_sink import refuse_without_wandb
from curricula.loader import NamedCurriculum, PlannedPhase, load_curriculum, with_budgets
from eval.gate_behaviour import choice_rates
from eval.run_folder import load_run, reference_folder


class _Arguments(Config):
    """What may be set on the command line: a run, and where it lies."""

    name: str = ""
    runs: str = "runs"
    fresh: bool = False
    from_: str = Field("", alias="from")
    reference: bool = False
    track: str = ""
    video: bool = False


_LOCAL = {"name", "runs", "fresh", "from", "reference", "track", "video"}


@dataclass(frozen=True)
class Request:
    """A run as asked for, every default filled in.

    Attributes:
      path: of the run's folder.
      origin: what it branches off, if it does.
      references: each task of the curriculum alone, to be lived afterwards, if asked for.
      reference_of: folder of the run that this is a reference of.
      reason: why this scale.
      is_dry: only say what would be done.
      command: line for a shell that goes on with this run.
      recorded: the line that begins it, as the run keeps it.
      is_tracked: W&B hears of the life while it is lived.
      is_filmed: an episode of every task is kept as a film at every phase end.
    """

    curriculum: NamedCurriculum
    config: Config
    path: Path
    origin: Origin | None
    reason: str
    is_dry: bool
    command: str
    recorded: str
    is_tracked: bool
    is_filmed: bool
    references: tuple[Request, ...] = ()
    reference_of: Path | None = None

    @property
    def name(self) -> str:
        """Of the run, among others."""
        run = f"{self.reference_of.name}-alone-" if self.reference_of else ""
        return run + self.path.name

    def banner(self, clock: Clock | None) -> str:
        """What is about to happen, in two lines; `clock` is that of a life that goes on."""
        c, model = self.config, self.config.agent.model
        scale = (
            f"scale {c.scale} ({self.reason}): deter {model.deter}, "
            f"batches {c.replay.batch}x{c.replay.length}, "
            f"{self.curriculum.env_steps:,} environment steps; "
            f"another: scale={_other_scale(c.scale)}"
        )
        if clock is None:
            return f"{scale}\nbegins: {self.path}"
        if self.origin:
            scale += f"\nis a branch of {self.origin.label}"
        if clock.phase > len(self.curriculum.plan):
            return f"{scale}\nhas been lived to its end: {self.path}; another: fresh=true"
        return (
            f"{scale}\ngoes on: {self.path}, from {clock.env_steps:,} environment steps "
            f"({clock.updates:,} updates), phase {clock.phase}"
        )


def parse_request(argv: list[str]) -> Request:
    """Read the command line; touches no disk but to read.

    Raises:
      UserError: anything in it that cannot be used.
      SystemExit: `--help`.
    """
    positionals, overrides, flags = split_arguments(argv, _Arguments)
    is_dry = bool(make_parser().parse_args(flags).dry_run)
    if len(positionals) != 1:
        found = "none" if not positionals else " ".join(map(shown, positionals))
        shipped = ", ".join(resources.packaged_names("curricula"))
        raise UserError(f"expected one curriculum, found {found}; shipped: {shipped}")
    local = {key: overrides.pop(key) for key in _LOCAL if key in overrides}
    curriculum = load_curriculum(positionals[0])
    _refuse_misspelt_local(overrides)
    origin = parse_origin(local["from"]) if "from" in local else None
    default, reason = _default_scale(curriculum, overrides)
    if origin:
        reason = reason if "scale" in overrides else f"that of {origin.run.name}"
        overrides = inherited(origin, overrides)
    config = resolve_config(overrides, default)
    curriculum = with_budgets(curriculum, config.collect.budgets)
    shortest = [_at_its_shortest(phase, config.evaluate) for phase in curriculum.plan]
    refuse_short_phases(shortest, config.collect, config.replay)
    name = local.get("name") or "-".join(
        (curriculum.name, _stem(config.scale), _stem(config.variant), f"s{config.seed}")
    )
    if origin and "name" not in local:
        name += f"-from-phase{origin.phase}" if origin.phase else "-from-end"
    path = Path(local.get("runs", "runs")) / check_name(name)
    is_fresh = _truth("fresh", local.get("fresh", False))
    if is_fresh:
        path = _beside(path)
    config = _with_recorded_rates(config, path)
    request = Request(
        curriculum,
        config,
        path,
        origin,
        reason,
        is_dry,
        _command(argv, path.name if is_fresh else None),
        _recorded(argv),
        _is_tracked(local.get("track", "")),
        _is_filmed(local.get("video", False)),
    )
    if not _truth("reference", local.get("reference", False)):
        return request
    return replace(request, references=tuple(_references(request)))


def _recorded(argv: list[str]) -> str:
    """The command line without what it says of this machine: a run's folder may travel."""
    kept = [a for a in argv if a.partition("=")[0] not in ("runs", "replay.scratch")]
    shown = [
        f"{key}={PurePath(value).name}"
        if key in ("from", "agent.gate.recorded")
        else a
        if sign
        else PurePath(a).name
        for a in kept
        for key, sign, value in [a.partition("=")]
    ]
    return shlex.join(["python", "-m", "continual.run", *shown])


def _references(request: Request) -> Iterator[Request]:
    """Every trained task alone, lived from scratch with the same agent and budget.

    The budget is that of the first phase that trains it; a folder of its own, inside the run's.
    """
    first: dict[str, PlannedPhase] = {}
    for phase in request.curriculum.plan:
        first.setdefault(phase.task, phase)
    for task, phase in first.items():
        folder = reference_folder(request.path, task)
        alone = replace(phase, number=1, cycle=1)
        curriculum = NamedCurriculum(folder.name, f"{task} alone", None, (alone,))
        yield replace(
            request, curriculum=curriculum, path=folder, origin=None, reference_of=request.path
        )


def _command(argv: list[str], fresh: str | None) -> str:
    """The command line that goes on with a run; `fresh` is the name that was found for it."""
    interpreter = os.path.relpath(sys.executable)
    if os.sep not in interpreter or len(interpreter) > len(sys.executable):
        interpreter = sys.executable
    if fresh is not None:
        end = argv.index("--") if "--" in argv else len(argv)
        kept = [a for a in argv[:end] if a.partition("=")[0] not in ("fresh", "name")]
        argv = [*kept, f"name={fresh}", *argv[end:]]
    return shlex.join([interpreter, "-m", "continual.run", *argv])


def _at_its_shortest(phase: PlannedPhase, evaluate: EvaluateConfig) -> PlannedPhase:
    """Raises UserError: it waits for a return that is never judged."""
    if phase.until_return is None:
        return phase
    points = inside_points(evaluate, phase)
    if not points:
        raise UserError(
            f"phase {phase.number} ({phase.task}): until_return is judged inside the phase, and "
            f"with evaluate.inside_every={evaluate.inside_every:g} nothing is; expected less"
        )
    return replace(phase, steps=points[0])


def _stem(chosen: str) -> str:
    """Name of a scale or variant, which may have been given as a path."""
    return PurePath(chosen).name.removesuffix(".yaml")


def _default_scale(curriculum: NamedCurriculum, overrides: Mapping[str, Any]) -> tuple[str, str]:
    """The scale to take when none is asked for, and why in a few words."""
    if "scale" in overrides:
        return overrides["scale"], "as asked"
    if curriculum.scale:
        return curriculum.scale, "the curriculum's own"
    import jax  # slow to import, and an error in the command line should not wait for it

    if jax.default_backend() == "cpu":
        return "laptop", "no accelerator found"
    return "full", f"{jax.devices()[0].device_kind} found"


def _with_recorded_rates(config: Config, path: Path) -> Config:
    """Fill in the rates of a random gate that shall open as often as the gate of another run.

    A run that goes on has them in its config: the other one may be gone by then, or have lived on.

    Args:
      path: of the run's folder.
    Raises:
      UserError: no such run, or it had no gate.
    """
    gate = config.agent.gate
    if not isinstance(gate, RandomGate) or not gate.recorded:
        return config
    name = Path(gate.recorded).resolve().name
    kept = config_of(path).agent.gate if RunFolder(path).config.is_file() else None
    if isinstance(kept, RandomGate) and kept.recorded == name:
        rates = kept.by_task
    else:
        rates = choice_rates(load_run(Path(gate.recorded)).episodes)
    if not rates:
        raise UserError(f"agent.gate.recorded={gate.recorded}: no episode lived with a gate")
    gate = gate.model_copy(update={"by_task": rates | gate.by_task, "recorded": name})
    agent = config.agent.model_copy(update={"gate": gate})
    return config.model_copy(update={"agent": agent})


def _other_scale(scale: str) -> str:
    others = [s for s in resources.packaged_names("configs.scales") if s != _stem(scale)]
    return " or scale=".join(others)


def _truth(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise UserError(f"override {key}={shown(value)}: expected true or false")
    return value


def _is_tracked(track: str) -> bool:
    if not track:
        return False
    if track != "wandb":
        raise UserError(f"override track={shown(track)}: expected wandb")
    refuse_without_wandb("override track=wandb")
    return True


def _is_filmed(video: Any) -> bool:
    if not _truth("video", video):
        return False
    refuse_without_av()
    return True


def _beside(path: Path) -> Path:
    """The first free name of path, path-2, path-3, …"""
    number, free = 1, path
    while os.path.lexists(free):
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free


def _refuse_misspelt_local(overrides: Mapping[str, Any]) -> None:
    """`nmae=x` should be told of `name`, which is not a key of the config."""
    known = list(dotted_names(_Arguments))
    for key in overrides:
        if "." not in key and key not in known:
            raise UserError(f"override {key}: unknown key, {nearest(key, known)}")
