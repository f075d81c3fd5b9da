"""Opening a replay: what may be there, and who may write to it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from continual.errors import UserError
from continual.files import lock_folder, named
from storage import commits, files, sampling
from storage.batch import LATENT, WRITTEN, Schema
from storage.held import Capacity
from storage.replay import Replay
from storage.staging import Home
from storage.zarr_files import COMMITS, check_capacity, create_store, has_store


def open_replay(
    folder: Path,
    *,
    capacity: int | Capacity,
    latents: Schema,
    tasks: Sequence[str],
    context: Literal["stored", "zero"],
    draw: sampling.Rule | sampling.OneTask | None = None,
    home: Path | None = None,
) -> Replay:
    """Lock a replay folder, making it first where there is none. The replay holds nothing yet.

    Where a run goes on, `rewind` to its cursor comes next; where it begins anew in an old folder,
    `rewind(None)`.

    Args:
      folder: made with its parents.
      capacity: over all streams that can be sampled; a number is that of the newest rows. Size and
        unit are fixed for the life of the folder; the rule is not.
      latents: the columns that `write_latents` rewrites, `latent.*`.
      tasks: all tasks of the run; the position of a task is its index in `Batch.task`.
      context: `stored` keeps latents with the rows; `zero` keeps none and hands out zeros.
      draw: where sequences start, by default anywhere.
      home: where commits put a copy, if `folder` is on a scratch disk, and rewinds may find it.

    Raises:
      UserError: the folder is something else, cannot be written, lies on a network file system, is
        locked, or was made for another capacity.
    """
    capacity = capacity if isinstance(capacity, Capacity) else Capacity(capacity)
    if capacity.size < 1:
        raise UserError(f"replay capacity of {capacity.size} {capacity.unit}, expected 1 or more")
    misnamed = [name for name in latents if not name.startswith(LATENT) or name == WRITTEN]
    if misnamed:
        raise ValueError(f"latent columns {misnamed}, expected names that begin with {LATENT!r}")
    files.refuse_network(folder)
    exists = has_store(folder)
    there = commits.commits_of(folder)
    with named(folder, "keep a replay"):
        (folder / COMMITS).mkdir(parents=True, exist_ok=True)
        lock = lock_folder(folder, "a replay has one writer, wait for it")
    try:
        if not exists:
            # Lost with a commit there, it is made again as it was.
            made_for = commits.load_commit(folder, there[-1])[0].capacity if there else None
            create_store(folder, made_for or capacity.measure)
        check_capacity(folder, capacity.measure)
    except BaseException:
        os.close(lock)
        raise
    return Replay(
        folder,
        lock,
        capacity=capacity,
        latents=latents,
        tasks=tasks,
        context=context,
        draw=draw or sampling.Uniform(),
        home=Home(home, capacity) if home else None,
        is_new=not exists and not there,
    )
