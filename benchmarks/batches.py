"""Random batches of replay rows, for timing only."""

from __future__ import annotations

import numpy as np

from agent.agent import Agent
from agent.device_batch import latent_schema
from continual.collect import batch_schema
from storage.batch import Batch, Where


def random_batch(agent: Agent, tasks: list[int], length: int, rng: np.random.Generator) -> Batch:
    """B sequences of T rows, one of each given task; those with pictures stand first."""
    kinds = list(agent.union.tasks.values())
    tasks = sorted(tasks, key=lambda task: kinds[task].image is None)
    size, frames = len(tasks), sum(kinds[task].image is not None for task in tasks)
    schema = batch_schema(agent.union)

    def column(name: str, *lead: int) -> np.ndarray:
        shape = (*lead, *schema[name].shape)
        if np.issubdtype(schema[name].dtype, np.integer):
            return np.zeros(shape, schema[name].dtype)
        return rng.normal(size=shape).astype(schema[name].dtype)

    columns = {name: column(name, size, length) for name in schema}
    for flag in ("is_first", "is_last", "is_terminal"):
        columns[flag] = np.zeros((size, length), bool)
    index = np.zeros(size, np.int64)
    return Batch(
        columns=columns,
        frames=rng.integers(0, 256, (frames, length, 64, 64, 3), dtype=np.uint8),
        task=np.array(tasks, np.int32),
        previous={name: column(name, size) for name in schema if name.startswith("action.")},
        context={
            name: np.zeros((size, *c.shape), c.dtype)
            for name, c in latent_schema(agent.config.model).items()
        },
        draw=np.arange(size, dtype=np.int32),
        age=index,
        latent_age=index,
        where=Where(index, index, index),
    )
