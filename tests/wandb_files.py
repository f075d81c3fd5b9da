"""Reads what W&B writes offline."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

from continual.wandb_log import log_records


@dataclass
class OfflineRun:
    """What one offline folder holds.

    Attributes:
      run: id, name, group, job type, tags, host.
      axes: metric or glob -> its axis.
      history: rows, with W&B's own values (`_step`, …).
      artifacts: name -> file names in it.
    """

    folder: Path
    run: Any = None
    config: dict[str, Any] = field(default_factory=dict)
    axes: dict[str, str] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, list[str]] = field(default_factory=dict)
    exit_code: int | None = None

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Rows that were made of records."""
        return [row for row in self.history if "record" in row]

    def file(self, name: str) -> Path:
        """A table or picture that was logged under a name."""
        (value,) = (row[name] for row in self.history if name in row)
        return self.folder / "files" / value["path"]


def offline_runs(place: Path, killed: int = 0) -> list[OfflineRun]:
    """All of a run folder, in the order in which they were begun.

    W&B's own process writes the last of them a moment after we are done.

    Args:
      killed: how many will never be whole.
    """
    for _ in range(100):
        told = [read(path) for path in place.glob("wandb/offline-run-*/*.wandb")]
        if sum(one.exit_code is None for one in told) <= killed:
            break
        time.sleep(0.1)
    return sorted(told, key=lambda one: one.run.start_time.ToNanoseconds())


def read(path: Path) -> OfflineRun:
    found = OfflineRun(path.parent)
    for record in map(Record.FromString, log_records(path)):
        match record.WhichOneof("record_type"):
            case "run":
                found.run = record.run
                found.config = {c.key: json.loads(c.value_json) for c in record.run.config.update}
            case "metric":
                name = record.metric.name or record.metric.glob_name
                found.axes[name] = record.metric.step_metric
            case "history":
                found.history.append(_values(record.history.item))
            case "summary":
                found.summary |= _values(record.summary.update)
            case "artifact":
                files = [entry.path for entry in record.artifact.manifest.contents]
                found.artifacts[record.artifact.name] = files
            case "exit":
                found.exit_code = record.exit.exit_code
    return found


def _values(items: Any) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for item in items:
        *outer, name = list(item.nested_key) or [item.key]
        held = values
        for key in outer:
            held = held.setdefault(key, {})
        held[name] = json.loads(item.value_json)
    return values
