"""Judging inside a life: one policy on one task, in worlds of its own, without learning."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from agent.agent import Agent, AgentState
from continual import seeding
from continual.collect import make_worlds
from continual.config import Config
from continual.envs.interact import Policy, Seen
from continual.envs.random_policy import RandomPolicy
from continual.envs.registry import most_specific
from continual.envs.world import World
from continual.scheduler import Clock, Evaluate
from continual.tracking import Tracker
from curricula.loader import NamedCurriculum
from eval.judge import judge
from eval.records import EpisodeRecord


def episodes_of(config: Config, piece: Evaluate) -> int:
    if piece.when == "inside":
        return config.evaluate.inside_episodes
    return most_specific(config.evaluate.episodes_of, piece.task, config.evaluate.episodes)


def judged_pieces(records: Iterable[EpisodeRecord]) -> dict[Evaluate, float]:
    """The pieces that are in the records, and their mean returns.

    One is recorded whole or, after a rewind, not at all.
    """
    returns: dict[Evaluate, list[float]] = {}
    for r in records:
        if r.split == "eval" and r.when:
            piece = Evaluate(r.eval_id, r.when, r.task, r.policy, r.action_mode)
            returns.setdefault(piece, []).append(r.return_)
    return {piece: statistics.fmean(values) for piece, values in returns.items()}


class Abandoned(Exception):
    """Somebody asked to stop in the middle of a piece; it will be played again from the start."""


class _Attended:
    """A policy that says at every decision that it is at work, and gives up when asked to."""

    def __init__(
        self, policy: Policy, at_work: Callable[[], None], stop: Callable[[], bool]
    ) -> None:
        self._policy, self._at_work, self._stop = policy, at_work, stop

    def initial(self, n: int) -> Any:
        return self._policy.initial(n)

    def act(self, state: Any, seen: Seen) -> tuple[Any, dict[str, Any], dict[str, Any]]:
        if self._stop():
            raise Abandoned
        self._at_work()
        return self._policy.act(state, seen)


class Judge:
    """Keeps the evaluation worlds of each task, apart from those that are lived in.

    Args:
      tracker: hears of every decision.
      stop: asked between two decisions; true breaks the piece off.
      faults: folder of what led to a stop.
    """

    def __init__(
        self,
        config: Config,
        curriculum: NamedCurriculum,
        agent: Agent,
        tracker: Tracker,
        stop: Callable[[], bool],
        faults: Path,
    ) -> None:
        self._faults = faults
        self._config, self._curriculum, self._agent = config, curriculum, agent
        self._tracker, self._stop = tracker, stop
        self._worlds: dict[str, list[World]] = {}

    def __call__(
        self, piece: Evaluate, clock: Clock, state: Callable[[], AgentState]
    ) -> Iterator[EpisodeRecord]:
        """Play the piece's episodes; one record each, in order.

        Raises:
          Abandoned: stopped; no record was handed out.
        """
        config = self._config

        def at_work() -> None:
            self._tracker.judging(piece)

        at_work()
        if piece.task not in self._worlds:
            self._worlds[piece.task] = make_worlds(
                config, piece.task, self._faults, config.evaluate.worlds
            )
        phase, phase_step = piece.phase, clock.phase_step
        if phase != clock.phase:  # before training, or late, in a branch
            phase_step = piece.phase_step
        cycle = self._curriculum.plan[max(phase, 1) - 1].cycle
        for e in judge(
            self._worlds[piece.task],
            _Attended(self._policy(piece, state), at_work, self._stop),
            episodes=episodes_of(config, piece),
        ):
            yield EpisodeRecord(
                split="eval",
                eval_id=piece.eval_id,
                when=piece.when,
                task=piece.task,
                variant="",
                policy=piece.policy,
                action_mode=piece.action_mode,
                phase=phase,
                cycle=cycle,
                phase_step=phase_step,
                env_steps=clock.env_steps,
                agent_steps=clock.agent_steps,
                updates=clock.updates,
                world=e.world,
                episode=e.episode,
                seed=e.seed,
                return_=e.return_,
                length=e.length,
                terminated=e.terminated,
                extras=e.extras,
                gate=e.gate,
            )

    def close(self) -> None:
        """Close the worlds."""
        for worlds in self._worlds.values():
            for world in worlds:
                world.close()

    def _policy(self, piece: Evaluate, state: Callable[[], AgentState]) -> Policy:
        # One seed for all evaluations of a life: what differs between them is the agent alone.
        seed = seeding.stream_seed(self._config.seed, "judge")
        if piece.policy == "random":
            return RandomPolicy(self._agent.union.tasks[piece.task], seed)
        return self._agent.policy(state, piece.task, piece.policy, piece.action_mode, seed)
