"""The folder a run leaves behind: where things lie, and its append-only records."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from continual.errors import UserError
from continual.files import named, sync_path, write_atomically
from continual.strict_yaml import dump
from eval.records import EpisodeRecord, PhaseRecord, Record, TrainRecord

KINDS: tuple[type[Record], ...] = (EpisodeRecord, PhaseRecord, TrainRecord)
_LIBRARIES = (
    "continual",
    "jax",
    "jaxlib",
    "flax",
    "numpy",
    "zarr",
    "dm_control",
    "mujoco",
    "crafter",
)


@dataclass(frozen=True)
class RunFolder:
    """Paths inside runs/<name>. Holds nothing and opens nothing."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def curriculum(self) -> Path:
        return self.path / "curriculum.yaml"

    @property
    def versions(self) -> Path:
        return self.path / "versions.json"

    @property
    def ancestry(self) -> Path:
        return self.path / "ancestry.json"

    @property
    def records(self) -> Path:
        return self.path / "records"

    @property
    def replay(self) -> Path:
        return self.path / "replay"

    @property
    def pictures(self) -> Path:
        return self.path / "pictures"

    @property
    def videos(self) -> Path:
        return self.path / "videos"

    @property
    def faults(self) -> Path:
        return self.path / "faults"

    @property
    def wandb(self) -> Path:
        return self.path / "wandb"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"


def create_run(
    folder: RunFolder, config: Mapping[str, Any], curriculum: Mapping[str, Any], command: str
) -> None:
    """Make the folder with all that describes the run; `config.yaml` last: it marks a whole one.

    Args:
      command: that begins it, for a reader.
    """
    for path in (folder.path, folder.records, folder.checkpoints):
        path.mkdir(parents=True, exist_ok=True)
    write_atomically(
        folder.versions, json.dumps({"command": command, **versions()}, indent=2) + "\n"
    )
    write_atomically(folder.curriculum, dump(curriculum))
    write_atomically(folder.config, dump(config))


def versions() -> dict[str, str]:
    """What this run was made with."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for library in _LIBRARIES:
        try:
            found[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            found[library] = "not installed"
    return found


class RecordBook:
    """Append-only records of one run. Cursors go into checkpoints, and a restart cuts to them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def append(self, record: Record) -> None:
        path = self._folder / record.file
        with named(path, "write"), path.open("a", encoding="utf-8") as file:
            file.write(record.to_json() + "\n")

    def commit(self) -> dict[str, int]:
        """Make everything durable; -> bytes of each file, for `rewind`."""
        sizes = {}
        with named(self._folder, "make durable"):
            for kind in KINDS:
                path = self._folder / kind.file
                with path.open("ab") as file:
                    os.fsync(file.fileno())
                    sizes[kind.file] = file.tell()
            sync_path(self._folder)
        return sizes

    def rewind(self, cursors: Mapping[str, int]) -> None:
        """Drop what was written after a commit.

        Raises:
          UserError: a file is shorter than its cursor: committed records are gone.
        """
        for kind in KINDS:
            path = self._folder / kind.file
            size, wanted = (path.stat().st_size if path.exists() else 0), cursors.get(kind.file, 0)
            if size < wanted:
                raise UserError(
                    f"{path}: {size} bytes, but the checkpoint counted {wanted}: "
                    "records are missing"
                )
            if size > wanted:
                os.truncate(path, wanted)
