"""A little life with a replay, to be killed from outside.

It appends, draws, writes back, commits and evicts, always the same. FOLDER/cursor.json is its
checkpoint; FOLDER/drawn has a checksum of every batch, at the place of its number.
"""

from __future__ import annotations

import json
import sys
import zlib
from pathlib import Path

import numpy as np

from continual.files import write_atomically
from storage import Capacity, retention
from tests.storage_cases import (
    CRAFTER,
    CRAFTER_SCHEMA,
    LATENTS,
    UNION,
    WALKER,
    WALKER_SCHEMA,
    fill,
    open_at,
)

UPDATES, EVERY = 240, 8  # batches in all, and between two commits
B, T = 8, 6
RULES = {
    "fifo": retention.Fifo(),
    "reservoir": retention.Reservoir(),
    "half_recent": retention.HalfRecent(),
}


def live(folder: Path, rule: str, updates: int = UPDATES) -> None:
    """Go on from the checkpoint, or begin, until all batches are drawn."""
    capacity = Capacity(600, keep=RULES[rule], seed=1)
    replay = open_at(folder / "replay", capacity=capacity)
    saved = folder / "cursor.json"
    state = json.loads(saved.read_text()) if saved.exists() else {"cursor": None, "next": 0}
    replay.rewind(state["cursor"])
    drawn = folder / "drawn"
    drawn.touch()
    with drawn.open("r+b") as log:
        for number in range(state["next"], updates):
            # Phases of the one and of the other, a stream coming back now and then.
            if (number // 40) % 2:
                fill(replay, CRAFTER, CRAFTER_SCHEMA, 5, worlds=2)
            else:
                fill(replay, WALKER, WALKER_SCHEMA, 11)
            batch = replay.sample(np.random.default_rng(number), B, T, UNION)
            replay.prefetch(np.random.default_rng(number + 1), B, T, UNION, 11)
            log.seek(4 * number)
            log.write(checksum(batch).to_bytes(4, "little"))
            log.flush()
            new = {n: np.full((B, T, *c.shape), number, c.dtype) for n, c in LATENTS.items()}
            replay.write_latents(batch.where, new)
            if (number + 1) % EVERY == 0:
                cursor = replay.commit()
                write_atomically(saved, json.dumps({"cursor": cursor, "next": number + 1}))
                replay.release()
    replay.close()


def checksum(batch) -> int:
    """Of all that a batch holds."""
    arrays = [batch.frames, batch.task, batch.draw, batch.age, batch.latent_age]
    for kind in (batch.columns, batch.previous, batch.context):
        arrays += [kind[name] for name in sorted(kind)]
    total = 0
    for array in arrays:
        total = zlib.crc32(np.ascontiguousarray(array).tobytes(), total)
    return total


def in_a_process(code: str) -> list[str]:
    """A command that runs code which may import from `tests`, whatever else is called that."""
    root = Path(__file__).parents[1]
    prelude = f"""
import sys, types
sys.path.insert(0, {str(root)!r})
tests = sys.modules["tests"] = types.ModuleType("tests")
tests.__path__ = [{str(root / "tests")!r}]
"""
    return [sys.executable, "-c", prelude + code]
