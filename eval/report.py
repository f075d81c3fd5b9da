"""The door `python -m eval.report runs/NAME`: the report again, also of an unfinished run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from continual.errors import UserError
from eval.page import write_report


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m eval.report",
        description="Write index.html, matrix.csv, matrix.tex and summary.json into report/ of run "
        "folders, from their records alone. A run that is not finished yet gets a report too.",
        epilog="example: python -m eval.report runs/smoke-smoke-gated-s0",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a folder runs/NAME")
    try:
        for run in parser.parse_args(arguments).runs:
            print(write_report(run))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
