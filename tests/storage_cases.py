"""Replays for tests: two tasks, and rows that say where they came from.

Every column of a row is made from the row's number in the order of all appends.
"""

from __future__ import annotations

import numpy as np

from storage import FRAMES, Column, StreamId, open_replay

WALKER, CRAFTER = StreamId(1, "dmc/walker_walk"), StreamId(2, "crafter/reward")
TASKS = [WALKER.task, CRAFTER.task]
LATENTS = {"latent.deter": Column((4,), "float16"), "latent.stoch": Column((3,), "uint8")}
SHARED = {
    "reward": Column((), "float32"),
    "is_last": Column((), "bool"),
    "env_step": Column((), "int64"),
}
WALKER_SCHEMA = {
    "obs.dmc.walker.height": Column((), "float32"),
    "obs.dmc.walker.speed": Column((2,), "float32"),
    "action.dmc.walker": Column((2,), "float32"),
    **SHARED,
}
CRAFTER_SCHEMA = {
    FRAMES: Column((64, 64, 3), "uint8"),
    "action.crafter": Column((), "int32"),
    **SHARED,
}
UNION = {n: c for n, c in (WALKER_SCHEMA | CRAFTER_SCHEMA).items() if n != FRAMES}
L = 128  # rows in a block of a small replay


def content(column, step):
    """[N, …] what a row holds, from its number [N]: everything below 2048 is exact in any dtype."""
    values = np.asarray(step).reshape(-1, *[1] * len(column.shape)) + np.arange(
        int(np.prod(column.shape))
    ).reshape(column.shape)
    wrap = {"uint8": 251, "bool": 2}.get(column.dtype, 2**15)
    return (values % wrap).astype(column.dtype)


def rows_at(schema, step, worlds=1):
    steps = np.arange(step, step + worlds)
    return {name: content(column, steps) for name, column in {**schema, **LATENTS}.items()}


def fill(replay, stream, schema, times, worlds=1):
    replay.open_stream(stream, schema, worlds)
    for _ in range(times):
        replay.append(stream, rows_at(schema, replay.rows, worlds))


def open_at(folder, capacity=1000, context="stored", latents=LATENTS, tasks=TASKS, **more):
    return open_replay(
        folder, capacity=capacity, latents=latents, tasks=tasks, context=context, **more
    )


def steps_of(batch):
    """[B, T] numbers of the trained rows."""
    return batch.columns["reward"].astype(int)


def seen_steps(replay, draws=40, batch=50, length=1):
    """Numbers of all rows that turn up in many draws, context rows among them."""
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(draws):
        drawn = replay.sample(rng, batch, length, UNION)
        seen |= set(steps_of(drawn).ravel().tolist())
        seen |= set(drawn.context["latent.deter"][:, 0].astype(int).tolist())
    return seen


def sizes_on_disk(folder):
    return sum(p.stat().st_size for p in folder.rglob("c.*"))
