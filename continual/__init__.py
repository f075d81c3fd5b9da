"""A testbed for lifelong reinforcement learning: one agent, one life, many worlds."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import itertools
import sys
from pathlib import Path

try:
    __version__ = importlib.metadata.version("continual")
except importlib.metadata.PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

_SIBLINGS = ("agent", "configs", "curricula", "eval", "storage")


def _shadow() -> str | None:
    """What is wrong when a package of ours would be imported from elsewhere than beside this one.

    Their names are common words: an `agent.py` in the working directory comes first on the path.
    """
    ours = Path(__file__).resolve().parent.parent
    for name in _SIBLINGS:
        try:
            spec = importlib.util.find_spec(name)
        except ValueError:  # already imported, by somebody who made it by hand
            return f"module {name!r} is not ours, expected the package in {ours}"
        if spec is None:
            continue
        places = list(spec.submodule_search_locations or [spec.origin or "?"])
        if not any(Path(place).resolve() == ours / name for place in places):
            found = spec.origin or places[0]
            return (
                f"{found} hides the package {name!r} that continual needs from {ours}; "
                "rename it or run from another folder"
            )
    return None


def _is_run_as_door() -> bool:
    """Whether this process is `python -m <a module of ours>`, so that a person reads its errors."""
    names = ("continual", *_SIBLINGS)
    return any(
        flag.startswith("-") and flag.endswith("m") and module.partition(".")[0] in names
        for flag, module in itertools.pairwise(sys.orig_argv)
    )


if (_problem := _shadow()) is not None:
    if _is_run_as_door():
        sys.stderr.write(f"error: {_problem}\n")
        raise SystemExit(2)
    raise ImportError(_problem)
