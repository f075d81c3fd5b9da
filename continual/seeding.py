"""Randomness as a function of (root seed, named stream, counters).

No generator state is ever stored: whoever needs the 17th batch of a life asks for stream `batch`,
counter 17, and gets the same numbers before and after a restart.
"""

from __future__ import annotations

import hashlib

import numpy as np

# Evaluation plays fixed episodes, the same for every run and phase; training never meets them.
EVALUATION_SEEDS = range(2**20)
TRAINING_SEEDS = range(2**20, 2**31)


def stream_seed(root: int, stream: str, *counters: int) -> int:
    """A 32-bit seed for one draw of a named stream, in [0, 2**32).

    Hashed rather than mixed arithmetically, so that neighbouring roots or counters share nothing
    and the value is the same on every platform.
    """
    text = "/".join([str(int(root)), stream, *(str(int(c)) for c in counters)])
    return int.from_bytes(hashlib.blake2s(text.encode(), digest_size=4).digest(), "little")


def generator(root: int, stream: str, *counters: int) -> np.random.Generator:
    """A fresh numpy generator for one draw of a named stream."""
    return np.random.Generator(np.random.Philox(key=stream_seed(root, stream, *counters)))


def training_seed(root: int, phase: int, world: int, episode: int) -> int:
    """World seed of a training episode; disjoint from every evaluation seed."""
    span = len(TRAINING_SEEDS)
    return TRAINING_SEEDS.start + stream_seed(root, "episode", phase, world, episode) % span


def evaluation_seed(episode: int) -> int:
    """World seed of evaluation episode 0, 1, 2, …; the same in every run, so that runs compare."""
    return EVALUATION_SEEDS[episode]
