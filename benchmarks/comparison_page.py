"""What the page of a comparison costs: ten lives of 100 phases over ten tasks, unless told else.

    python benchmarks/comparison_page.py --json
    python benchmarks/comparison_page.py --phases 20 --tasks 5 --lives 4

The lives are made up and removed afterwards. Time and memory are those of `python -m eval.compare`
in a process of its own; beside them stands what merely parsing the same records takes here.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from continual.cli import run_door

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from synthetic_run import SyntheticRun  # noqa: E402  where made-up lives are

VARIANTS = ("gated", "dreamer_actor")


def make_lives(folder: Path, phases: int, tasks: int, lives: int) -> list[Path]:
    """As many of each variant, or one more of the first."""
    plan = [f"toy/task{k % tasks}" for k in range(phases)]
    return [
        SyntheticRun(
            folder / f"{VARIANTS[life % 2]}-s{life // 2}",
            plan=plan,
            policies=VARIANTS[life % 2 :],
            episodes=2,
            seed=life // 2,
            settings={"variant": VARIANTS[life % 2]},
        ).write()
        for life in range(lives)
    ]


def parse(runs: list[Path]) -> int:
    """-> how many records there are."""
    found = 0
    for run in runs:
        for file in (run / "records").iterdir():
            with file.open(encoding="utf-8") as lines:
                found += sum(1 for _ in map(json.loads, lines))
    return found


def measure(phases: int, tasks: int, lives: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        runs = make_lives(Path(folder), phases, tasks, lives)
        start = time.perf_counter()
        records = parse(runs)
        parsing = time.perf_counter() - start
        start = time.perf_counter()
        command = [sys.executable, "-m", "eval.compare", *map(str, runs)]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - start
        page = Path(folder) / "comparison" / "index.html"
        return {
            "phases": phases,
            "tasks": tasks,
            "lives": lives,
            "records": records,
            "seconds": seconds,
            "times_parsing": seconds / parsing,
            "peak_rss_mib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024,
            "page_mib": page.stat().st_size / 2**20,
        }


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--phases", type=int, default=100)
    parser.add_argument("--tasks", type=int, default=10)
    parser.add_argument("--lives", type=int, default=10)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a line")
    asked = parser.parse_args(argv)
    found = measure(asked.phases, asked.tasks, asked.lives)
    if asked.json:
        print(json.dumps(found))
    else:
        print(
            f"{found['lives']} lives of {found['phases']} phases and {found['tasks']} tasks: "
            f"{found['seconds']:.1f} s, {found['times_parsing']:.1f} times what parsing their "
            f"{found['records']:,} records takes; {found['peak_rss_mib']:.0f} MiB, page "
            f"{found['page_mib']:.1f} MiB"
        )
    return 0


if __name__ == "__main__":
    run_door(main)
