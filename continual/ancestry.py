"""Where a life comes from, if it was branched off another: asked for as `from=runs/NAME@phase2`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from continual import resources
from continual.config import Config, resolve_config
from continual.dotted import leaves
from continual.errors import UserError
from continual.rundir import RunFolder
from continual.strict_yaml import load, shown
from continual.validation import known_keys, validate

_PHASE = re.compile(r"phase([1-9][0-9]{0,5})")


@dataclass(frozen=True)
class Origin:
    """A run, and the phase at whose end a life branches off; None: the last that has ended."""

    run: Path
    phase: int | None

    @property
    def label(self) -> str:
        """Without the way there, so that run folders can be moved."""
        return self.run.resolve().name + (f"@phase{self.phase}" if self.phase else "")


@dataclass(frozen=True)
class Ancestor:
    """One branching in the past of a life.

    Attributes:
      origin: label of the run, and of the phase that was asked for.
      checkpoint: name of the one that was gone on from.
      phase: at whose end.
      env_steps: lived until then.
      agent_sha256: of what had been learnt.
    """

    origin: str
    checkpoint: str
    phase: int
    env_steps: int
    agent_sha256: str


def parse_origin(text: str) -> Origin:
    """Raises UserError: not a run, with or without a phase."""
    run, at, phase = text.rpartition("@")
    match = _PHASE.fullmatch(phase)
    if at and not match:
        raise UserError(f"from={shown(text)}: expected runs/NAME or runs/NAME@phase2")
    path = Path(run if at else text)
    if not RunFolder(path).config.is_file():
        raise UserError(f"from={shown(text)}: {path}: no run of ours: no config.yaml in it")
    return Origin(path, int(match[1]) if match else None)


def load_ancestry(folder: RunFolder) -> list[Ancestor]:
    """Branchings, the first one first; [] for a life that began as one.

    Raises:
      UserError: the file is damaged.
    """
    if not folder.ancestry.exists():
        return []
    try:
        kept = json.loads(folder.ancestry.read_text(encoding="utf-8"))
        return [Ancestor(**entry) for entry in kept]
    except (ValueError, TypeError) as error:
        raise UserError(f"{folder.ancestry}: damaged: {error}") from error


def ancestry_text(ancestry: Sequence[Ancestor]) -> str:
    return json.dumps([asdict(entry) for entry in ancestry], indent=1) + "\n"


def inherited(origin: Origin, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """What the branch is asked to be, where the command line does not say: what its origin was.

    A scale or variant that the command line names counts for more than what the origin's had set
    in the sections that the new one, or the old one, speaks of.

    Args:
      overrides: dotted key -> value, of the command line.
    Returns:
      Dotted key -> value: the origin's, with the command line's laid upon them.
    """
    theirs = config_of(origin.run)
    found = dict(_changed(theirs))
    # The rates that were recorded then are among the settings; the run they are of may be gone.
    found.pop("agent.gate.recorded", None)
    for kind, field in (("scales", "scale"), ("variants", "variant")):
        new, old = overrides.get(field), getattr(theirs, field)
        if new not in (None, old):
            spoken = {part for name in (str(new), old) for part in _sections(name, kind)}
            found = {key: v for key, v in found.items() if _section(key) not in spoken}
    kept = {k: v for k, v in found.items() if not any(_holds(o, k) for o in overrides)}
    return {"scale": theirs.scale, "variant": theirs.variant} | kept | dict(overrides)


def config_of(run: Path) -> Config:
    """As a run keeps it. Raises UserError: no run, or of another version."""
    path = RunFolder(run).config
    return validate(Config, load(path.read_text(encoding="utf-8"), str(path)))


def _changed(config: Config) -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of what a config sets besides its scale and variant."""
    plain = resolve_config({"scale": config.scale, "variant": config.variant}, config.scale)
    was, now = (c.model_dump(mode="json", by_alias=True) for c in (plain, config))
    yield from _apart(was, now, ())


def _apart(was: Any, now: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of what differs; of a table that lacks a key all, so that it is gone."""
    both = isinstance(was, dict) and isinstance(now, dict)
    if both and (was.keys() <= now.keys() or known_keys(Config, path) is not None):
        for key, value in now.items():
            yield from _apart(was.get(key), value, (*path, key))
    elif now != was:
        yield ".".join(path), now


def _sections(chosen: str, kind: str) -> set[str]:
    """What a scale or variant speaks of."""
    file = resources.find(chosen, f"configs.{kind}")
    content = load(resources.read_text(file), str(file)).value
    return {_section(key) for key in leaves(content)}


def _section(key: str) -> str:
    """The first two parts of a dotted key, such as `agent.riders`."""
    return ".".join(key.split(".")[:2])


def _holds(outer: str, key: str) -> bool:
    return f"{key}.".startswith(f"{outer}.")
