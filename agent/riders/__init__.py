"""Second actors that learn beside DreamerV3 and touch nothing that is shared.

A rider has its own parameters, optimiser and jitted update, fed with what the main update hands
out. So a life with riders that never act is DreamerV3's, bit for bit. To add one: a module here,
its config in `agent/config.py`, its line in `RIDERS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agent.config import AgentConfig, RiderConfig
from agent.model import Model
from agent.riders.awac import make_awac
from agent.riders.ema import make_ema
from agent.riders.rider import Rider
from agent.riders.twin import make_twin

RIDERS: dict[str, Callable[[Model, AgentConfig, Any], Rider]] = {
    "awac": make_awac,
    "ema": make_ema,
    "twin": make_twin,
}


def make_rider(model: Model, agent: AgentConfig, config: RiderConfig) -> Rider:
    return RIDERS[config.kind](model, agent, config)
