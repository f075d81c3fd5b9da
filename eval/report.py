"""The door `python -m eval.report runs/NAME`: the report again, also of an unfinished run."""

from __future__ import annotations

from pathlib import Path

from continual.cli import Parser, run_door
from eval.page import write_report


def main(argv: list[str]) -> int:
    parser = Parser(
        prog="python -m eval.report",
        description="Write index.html, matrix.csv, matrix.tex and summary.json into report/ of run "
        "folders, from their records alone. A run that is not finished yet gets a report too.",
        epilog="example: python -m eval.report runs/smoke-smoke-gated-s0",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a folder runs/NAME")
    for run in parser.parse_args(argv).runs:
        print(write_report(run))
    return 0


if __name__ == "__main__":
    run_door(main)
