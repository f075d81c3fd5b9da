"""What must not go on: a learner whose losses are no numbers any more."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from agent.learner import Metrics
from continual.errors import UserError
from storage.batch import Batch


def refuse_poisoned(
    metrics: Metrics, batch: Batch, tasks: Sequence[str], update: int, folder: Path
) -> None:
    """See that every loss of an update is a finite number.

    Args:
      tasks: of the union, which `batch.task` counts.
      update: its number.
      folder: where the batch is kept if one is not.
    Raises:
      UserError: names losses and tasks. The checkpoints that are there are from before.
    """
    poisoned = {
        name: float(value)
        for name, value in metrics.means.items()
        if _is_watched(name) and not math.isfinite(float(value))
    }
    if not poisoned:
        return
    present = np.unique(batch.task).tolist()
    # Every task may be poisoned, by the parameters; where one alone is, it is to blame.
    blamed = [
        tasks[index]
        for index in present
        if any(not math.isfinite(float(values[index])) for values in metrics.by_task.values())
    ] or [tasks[index] for index in present]
    path = _keep(folder / f"update-{update}.safetensors", batch)
    losses = ", ".join(f"{name} = {value}" for name, value in poisoned.items())
    raise UserError(
        f"update {update}, on {', '.join(blamed)}: {losses}; the run stays at its last "
        f"checkpoint, and its command would come here again. The batch is in {path}"
    )


def _is_watched(name: str) -> bool:
    return name.startswith("loss/") or name.endswith("/loss") or name == "gradient_norm"


def _keep(path: Path, batch: Batch) -> Path:
    arrays = {"frames": batch.frames, "task": batch.task, "draw": batch.draw, "age": batch.age}
    arrays |= {f"previous/{name}": values for name, values in batch.previous.items()}
    arrays |= {f"context/{name}": values for name, values in batch.context.items()}
    arrays |= {f"columns/{name}": values for name, values in batch.columns.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: np.ascontiguousarray(values) for name, values in arrays.items()}, path)
    return path
