"""`python -m continual.run --help`: every key that can be set, read off the config's models."""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydantic

from continual import resources
from continual.cli import Parser
from continual.config import Config
from continual.validation import kinds_at


def make_parser() -> argparse.ArgumentParser:
    """Flags, and a help text of all keys."""
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

  video=true  keeps a film of one episode of every task trained so far, at every phase end
  reference=true  lives each of its tasks alone as well, afterwards, inside the run's folder: what
              transfer is measured against

who hears of it
  track=wandb  Weights & Biases, while it is lived; without a key it is written into the run's
              folder, to be sent later. A run may be gone on with or without it

where it comes from
  from=runs/NAME@phase2  go on from what another run was at the end of its phase 2, with its
              settings but for those that are given; the curriculum tells the whole life. Without
              @phase2: from the last phase that it has ended

keys (key.path=value; shown with the defaults that scales and variants change. Of a table, such as
      collect.budgets, collect.budgets.dmc=900 sets one key, collect.budgets={{dmc: 900}} all of it)
"""
    parser = Parser(
        prog=f"{Path(sys.executable).name} -m continual.run",
        usage="%(prog)s CURRICULUM [key.path=value ...] [--dry-run] [--help]",
        description="One agent lives through a curriculum of worlds.",
        epilog=epilog + "\n".join(_described(Config)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be done, and do nothing"
    )
    return parser


def _list(package: str) -> str:
    return ", ".join(resources.packaged_names(package))


def _described(model: type[pydantic.BaseModel], prefix: str = "", arm: str = "") -> Iterator[str]:
    """One line a key of a config model, nested models and all arms of unions included.

    Args:
      arm: what the lines of one arm of a union begin with, to tell it from the others.
    """
    # The tag that chooses an arm stands above the keys which that arm has.
    for name, field in sorted(model.model_fields.items(), key=lambda item: item[0] != "kind"):
        key = field.alias or name
        held, entries = _models_at(model, key), _models_at(model, key, "NAME")
        default = field.get_default(call_default_factory=True)
        if field.description or not held:
            yield _line(f"{prefix}{key}", default, f"{arm}{field.description or _summary(model)}")
        for kind in held or entries:
            inside = f"{prefix}{key}." if held else f"{prefix}{key}.NAME."
            tag = kind.model_fields.get("kind")
            yield from _described(kind, inside, f"kind {tag.default}: " if tag else "")


def _models_at(model: type[pydantic.BaseModel], *path: str) -> list[type[pydantic.BaseModel]]:
    kinds = kinds_at(model, path)
    return [k for k in kinds if isinstance(k, type) and issubclass(k, pydantic.BaseModel)]


def _line(key: str, default: Any, text: str) -> str:
    if isinstance(default, dict):
        shown = "{…}" if default else "{}"
    else:
        shown = default if isinstance(default, str) and default else json.dumps(default)
    return f"  {key}={textwrap.shorten(shown, 30, placeholder='…')}".ljust(38) + f" {text}"


def _summary(model: type[pydantic.BaseModel]) -> str:
    """First line of a docstring, for a key that only says which model it is."""
    return (model.__doc__ or "").partition("\n")[0]
