"""The door `python -m eval.compare runs/a-* runs/b-*`: variants and seeds side by side."""

from __future__ import annotations

import os
from pathlib import Path

from continual.cli import Parser, run_door
from eval.compare_page import write_comparison


def main(argv: list[str]) -> int:
    parser = Parser(
        prog="python -m eval.compare",
        description="Write a page that compares runs of one plan, from their records alone. Runs "
        "whose settings differ in the seed alone make a group; the group of the first run is what "
        "the others are compared with.",
        epilog="example: python -m eval.compare runs/*-gated-* runs/*-dreamer-*",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a folder runs/NAME")
    parser.add_argument(
        "--out", type=Path, help="folder of the page; else `comparison` beside the first run"
    )
    asked = parser.parse_args(argv)
    out = asked.out or asked.runs[0].parent / "comparison"
    print(write_comparison(asked.runs, out, processes=len(os.sched_getaffinity(0))))
    return 0


if __name__ == "__main__":
    run_door(main)
