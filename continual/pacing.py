"""How many updates a life owes: a function of the clock, so nothing about it is ever stored."""

from __future__ import annotations

from continual.config import CollectConfig, ReplayConfig


def updates_due(agent_steps: int, collect: CollectConfig, replay: ReplayConfig) -> int:
    """Updates that should have happened after `agent_steps` decisions.

    train_ratio counts replayed rows per decision, and an update replays B * T of them.
    """
    lived = max(0, agent_steps - collect.start)
    return int(lived * collect.train_ratio / (replay.batch * replay.length))
