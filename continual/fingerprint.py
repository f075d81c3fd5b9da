"""The door `python -m continual.fingerprint runs/NAME`: what a life has come to, as hashes.

Two runs whose hashes are equal have learnt, hold and recorded the same, to the last bit. Nothing
that a clock on the wall shows is hashed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from continual.checkpoint import Saved, find_checkpoint
from continual.cli import Parser, run_door
from continual.errors import UserError
from continual.rundir import KINDS, RunFolder
from storage.inspect import is_at, open_commit, rows_of

OPTIMISER = "optimiser/"  # in names of leaves, DreamerV3's and the riders'


def fingerprint(path: Path) -> dict[str, str]:
    """What of a run -> hash: parameters, optimiser, replay, records, report.

    Of the newest checkpoint and of what belongs to it; `report` is empty before there is one.

    Raises:
      UserError: no run, no checkpoint, or one that cannot be read; or a replay ahead of it.
    """
    folder = RunFolder(path)
    if not folder.config.exists():
        raise UserError(f"{path}: expected a run's folder, found no config.yaml")
    saved = find_checkpoint(folder.checkpoints)
    if saved is None:
        raise UserError(f"{path}: has no checkpoint yet")
    if not is_at(folder.replay, saved.replay):
        raise UserError(
            f"{path}: was killed after its newest checkpoint, and its replay is ahead of that; to "
            "bring it back go on with the run, and stop it"
        )
    arrays = load_file(saved.path / "agent.safetensors")
    return {
        "parameters": _of_arrays((n, a) for n, a in sorted(arrays.items()) if OPTIMISER not in n),
        "optimiser": _of_arrays((n, a) for n, a in sorted(arrays.items()) if OPTIMISER in n),
        "replay": _of_arrays(_rows(folder.replay)),
        "records": _of_bytes(_records(folder, saved)),
        "report": _of_bytes(_report(path / "report")),
    }


def _rows(replay: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Every held row of the last commit, latents included."""
    commit, streams = open_commit(replay)
    for stream in streams:
        for name, values in rows_of(stream, commit.oldest):
            yield f"{stream.id.name}/{name}", values


def _records(folder: RunFolder, saved: Saved) -> Iterator[bytes]:
    for kind in KINDS:
        content = (folder.records / kind.file).read_bytes()
        yield content[: saved.records[kind.file]]


def _report(folder: Path) -> Iterator[bytes]:
    """Its data, but for the name of the run and of those it came from."""
    if (folder / "summary.json").exists():
        summary = json.loads((folder / "summary.json").read_bytes())
        del summary["run"]["name"], summary["run"]["ancestry"]
        yield json.dumps(summary, sort_keys=True).encode()
        yield (folder / "matrix.csv").read_bytes()


def _of_arrays(arrays: Iterable[tuple[str, np.ndarray]]) -> str:
    def parts() -> Iterator[bytes]:
        for name, values in arrays:
            yield f"{name} {values.dtype} {values.shape}".encode()
            yield values.tobytes()

    return _of_bytes(parts())


def _of_bytes(parts: Iterable[bytes]) -> str:
    total = hashlib.sha256()
    empty = total.hexdigest()
    for part in parts:
        total.update(len(part).to_bytes(8, "little"))
        total.update(part)
    found = total.hexdigest()
    return "" if found == empty else found


def main(argv: list[str]) -> int:
    parser = Parser(
        prog="python -m continual.fingerprint",
        description="Print one hash each of a run's parameters, optimiser, replay, records and "
        "report, as of its newest checkpoint.",
        epilog="example: python -m continual.fingerprint runs/first runs/second",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a folder runs/NAME")
    for path in parser.parse_args(argv).runs:
        print(path)
        for name, value in fingerprint(path).items():
            print(f"  {name:<11} {value or 'none'}")
    return 0


if __name__ == "__main__":
    run_door(main)
