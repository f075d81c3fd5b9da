"""How much of a life's time goes into its replay, and how much into checkpoints.

    python benchmarks/replay_share.py --json
    python benchmarks/replay_share.py --share 0.05    # a first look
    python benchmarks/replay_share.py --share 1       # with as many checkpoints as such a life has

Lives a part of the main curriculum on the scale `laptop` in a folder that is removed afterwards,
and counts the seconds for which living waits on the replay. What a thread copies ahead meanwhile is
not waited for. A checkpoint commits the replay, so the two shares overlap. Judging is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from continual import run
from continual.cli import run_door
from continual.collect import Living
from continual.config import resolve_config
from continual.running import Opened
from storage import Replay

CURRICULUM = Path(__file__).parents[1] / "curricula" / "dmc_then_crafter.yaml"
WAITED = ("append", "sample", "prefetch", "write_latents", "commit", "release")


@contextlib.contextmanager
def stopwatch(owner: type, name: str, seconds: Counter[str]) -> Iterator[None]:
    """Adds up what calls of a method take, while the context lasts."""
    original: Callable[..., Any] = getattr(owner, name)

    def timed(*arguments: Any, **options: Any) -> Any:
        start = time.perf_counter()
        try:
            return original(*arguments, **options)
        finally:
            seconds[name] += time.perf_counter() - start

    with mock.patch.object(owner, name, timed):
        yield


def measure(share: float, folder: str) -> dict[str, Any]:
    """-> seconds lived, and the share of each call of the replay."""
    config = resolve_config({}, "laptop")
    budgets = {task: round(steps * share) for task, steps in config.collect.budgets.items()}
    seconds: Counter[str] = Counter()
    with contextlib.ExitStack() as stack:
        for name in WAITED:
            stack.enter_context(stopwatch(Replay, name, seconds))
        stack.enter_context(stopwatch(Living, "_learn", seconds))
        stack.enter_context(stopwatch(Living, "until", seconds))
        stack.enter_context(stopwatch(Opened, "save", seconds))
        run.main(
            [
                *(str(CURRICULUM), "scale=laptop", f"runs={folder}", "name=share"),
                f"collect.budgets={json.dumps(budgets)}",
                *("evaluate.inside_every=1", "evaluate.episodes=1", "evaluate.episodes_of={}"),
                "evaluate.sampled=false",
            ]
        )
    lived = seconds["until"] + seconds["save"]
    return {
        "seconds_lived": lived,
        "replay_share_of_life": sum(seconds[name] for name in WAITED) / lived,
        "checkpoint_share_of_life": seconds["save"] / lived,
        "learning_share_of_life": seconds["_learn"] / lived,
        **{f"{name}_share_of_life": seconds[name] / lived for name in WAITED},
    }


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog=Path(__file__).name,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--share", type=float, default=0.25, help="of the budgets that is lived")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.json:
            with contextlib.redirect_stdout(io.StringIO()):
                found = measure(arguments.share, folder)
            print(json.dumps(found))
        else:
            for name, value in measure(arguments.share, folder).items():
                print(f"{name:30} {value:,.4f}")
    return 0


if __name__ == "__main__":
    run_door(main)
