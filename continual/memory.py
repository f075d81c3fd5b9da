"""The replay of a life, as its config and its agent want it."""

from __future__ import annotations

from pathlib import Path

from agent.agent import Agent
from continual import seeding
from continual.config import Config
from storage import Replay, open_replay
from storage.sampling import OneTask


def open_memory(
    config: Config,
    agent: Agent,
    folder: Path,
    home: Path | None = None,
    only: str | None = None,
) -> Replay:
    """Open a replay, see `storage.open_replay`; it holds nothing before a `rewind`.

    Args:
      folder, home: where it lies, and where commits bring it if that is a scratch disk.
      only: the one task of which sequences are drawn; else as the config says.
    """
    tasks = list(agent.union.tasks)
    return open_replay(
        folder,
        capacity=config.replay.held(seeding.stream_seed(config.seed, "retention")),
        latents=agent.latents,
        tasks=tasks,
        context="stored" if config.replay.context == "stored" else "zero",
        draw=OneTask(tasks.index(only)) if only else config.replay.sampling,
        home=home,
    )
