"""What a person asked for on the command line of `continual.run`."""

from __future__ import annotations

import argparse
import shlex
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from continual import resources
from continual.cli import Parser, split_arguments
from continual.config import Config, check_name, resolve_config
from continual.errors import UserError, nearest
from continual.scheduler import Clock
from continual.strict_yaml import shown
from continual.validation import dotted_names
from curricula.loader import NamedCurriculum, load_curriculum, with_budgets

_LOCAL = ("name", "runs", "fresh")  # where a run lies, not what it is


@dataclass(frozen=True)
class Request:
    """A run as asked for, every default filled in.

    Attributes:
      path: of the run's folder.
      reason: why this scale.
      is_dry: only say what would be done.
    """

    curriculum: NamedCurriculum
    config: Config
    path: Path
    reason: str
    is_dry: bool
    command: str

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
    positionals, overrides, flags = split_arguments(argv, Config)
    parser = _parser()
    is_dry = bool(parser.parse_args(flags).dry_run)
    if len(positionals) != 1:
        found = "none" if not positionals else " ".join(map(shown, positionals))
        raise UserError(f"expected one curriculum, found {found}; shipped: {_list('curricula')}")
    local = {key: overrides.pop(key) for key in _LOCAL if key in overrides}
    curriculum = load_curriculum(positionals[0])
    _refuse_misspelt_local(overrides)
    default, reason = _default_scale(curriculum, overrides)
    config = resolve_config(overrides, default)
    curriculum = with_budgets(curriculum, config.collect.budgets)
    name = str(
        local.get("name", f"{curriculum.name}-{config.scale}-{config.variant}-s{config.seed}")
    )
    path = Path(str(local.get("runs", "runs"))) / check_name(name)
    if _truth("fresh", local.get("fresh", False)):
        path = _beside(path)
    command = shlex.join(["python", "-m", "continual.run", *argv])
    return Request(curriculum, config, path, reason, is_dry, command)


def _default_scale(curriculum: NamedCurriculum, overrides: Mapping[str, Any]) -> tuple[str, str]:
    """The scale to take when none is asked for, and why in a few words."""
    if "scale" in overrides:
        return str(overrides["scale"]), "as asked"
    if curriculum.scale:
        return curriculum.scale, "the curriculum's own"
    import jax  # slow to import, and an error in the command line should not wait for it

    if jax.default_backend() == "cpu":
        return "laptop", "no accelerator found"
    return "full", f"{jax.devices()[0].device_kind} found"


def _other_scale(scale: str) -> str:
    others = [s for s in resources.packaged_names("configs.scales") if s != scale]
    return " or scale=".join(others)


def _truth(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise UserError(f"override {key}={shown(value)}: expected true or false")
    return value


def _beside(path: Path) -> Path:
    """The first free name of path, path-2, path-3, …"""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free


def _refuse_misspelt_local(overrides: Mapping[str, Any]) -> None:
    """`nmae=x` should be told of `name`, which is not a key of the config."""
    known = [*dotted_names(Config), *Config.model_fields]
    for key in overrides:
        if "." not in key and key not in known:
            raise UserError(f"override {key}: unknown key, {nearest(key, [*known, *_LOCAL])}")


def _list(package: str) -> str:
    return ", ".join(resources.packaged_names(package))


def _parser() -> argparse.ArgumentParser:
    keys = []
    for name in ("scale", "variant", "seed"):
        keys.append(
            f"  {name}={Config.model_fields[name].default}".ljust(39)
            + str(Config.model_fields[name].description)
        )
    keys += _described(Config, "")
    epilog = f"""\
what it does
  Lives the curriculum's phases one after another with one agent, judges all its tasks before,
  inside and after every phase, and writes runs/NAME/report/index.html. Called again, the same
  command goes on where it was stopped or killed; Ctrl-C saves at once.

examples
  python -m continual.run dmc_then_crafter
  python -m continual.run dmc_then_crafter variant=dreamer seed=1
  python -m continual.run my_curriculum.yaml scale=laptop agent.optim.lr=1e-4 name=slow-lr
  python -m continual.run dmc_then_crafter --dry-run

shipped
  curricula  {_list("curricula")}
  scales     {_list("configs.scales")} (default: laptop without an accelerator, full with one)
  variants   {_list("configs.variants")}

where it goes
  name=…      the folder's name; default CURRICULUM-SCALE-VARIANT-sSEED
  runs=runs   the folder above it
  fresh=true  begin anew beside a run of that name, never over it

keys (key.path=value; shown with the defaults that scales and variants change)
"""
    parser = Parser(
        prog=f"{Path(sys.executable).name} -m continual.run",
        usage="%(prog)s CURRICULUM [key.path=value ...] [--dry-run] [--help]",
        description="One agent lives through a curriculum of worlds.",
        epilog=epilog + "\n".join(keys),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be done, and do nothing"
    )
    return parser


def _described(model: Any, prefix: str) -> list[str]:
    """One line a key of a config model, nested ones included."""
    lines: list[str] = []
    for name, field in model.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        default = field.get_default(call_default_factory=True)
        if hasattr(type(default), "model_fields"):
            lines += _described(type(default), f"{key}.")
        elif prefix:
            text = f"  {key}={_short(default)}".ljust(38)
            lines.append(f"{text} {field.description or ''}".rstrip())
    return lines


def _short(default: Any) -> str:
    text = str(default) if not isinstance(default, dict) else "{…}" if default else "{}"
    return textwrap.shorten(text, 30, placeholder="…")
