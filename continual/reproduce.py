"""The door `python -m continual.reproduce runs/NAME/faults/FILE`: break a world again."""

from __future__ import annotations

from pathlib import Path

from continual.cli import Parser, run_door
from continual.envs.witness import reproduce


def main(argv: list[str]) -> int:
    parser = Parser(
        prog="python -m continual.reproduce",
        description="Reset the world that broke with its seed and repeat the actions of the "
        "episode, up to the error with all its lines.",
    )
    parser.add_argument("file", type=Path, help="what the run left in its folder faults/")
    print(reproduce(parser.parse_args(argv).file))
    return 0


if __name__ == "__main__":
    run_door(main)
