"""What a rider is to the agent that carries it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from jaxtyping import PRNGKeyArray

from agent.learner import Handout, LearnerState, Metrics
from agent.world_model import TrainBatch


class RiderState(Protocol):
    """A tree of arrays; `params` are those of a policy shaped like the actor."""

    @property
    def params(self) -> Any: ...


@dataclass(frozen=True)
class Rider:
    """Attributes:
    init: (key, actor's parameters) -> state; copies what it keeps.
    update: (state, learner, batch, handout, key) -> (state, metrics), jitted; consumes the state,
      reads the learner as it is after its own update.
    """

    init: Callable[[PRNGKeyArray, Any], Any]
    update: Callable[[Any, LearnerState, TrainBatch, Handout, PRNGKeyArray], tuple[Any, Metrics]]
