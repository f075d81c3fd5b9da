"""Looking for what a life has lost, in what it left behind: see docs/autopsy.md.

Nothing is lived and nothing in the run's folder is changed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from agent.agent import AgentState
from agent.learner import update_key
from agent.recovery import transplant
from continual import seeding
from continual.checkpoint import AGENT, ended_phases, find_checkpoint, load_agent
from continual.collect import batch_schema
from continual.envs.registry import resolve_task
from continual.envs.world import World
from continual.errors import UserError, nearest
from continual.rundir import RunFolder
from continual.trained import PastLife, Trained, life_at, load_trained
from eval.autopsy import Autopsy, Dissected, Judged, TaskAutopsy, Transplant
from eval.judge import judge

POLICY = "dreamer_actor"  # the one that imagination teaches
Work = Literal["updates", "judgements"]
Tick = Callable[[Work], None]  # hears of every piece that is done


@dataclass(frozen=True)
class Remains:
    """What is left of a life.

    Attributes:
      path: the run's folder.
      final: the agent that the last phase ended with.
      last: that phase, the newest that has ended.
      params: phase -> parameters of DreamerV3 at its end, as far as they are there.
      agents: of phases 1 … last.
    """

    path: Path
    final: Trained
    last: int
    params: Mapping[int, Mapping[str, Any]]
    agents: tuple[Dissected, ...]

    @property
    def old(self) -> dict[str, int]:
        """Old task -> the last phase that trained it, which is before the last of all."""
        plan = self.final.run.plan[: self.last]
        own = {phase.task: number for number, phase in enumerate(plan, start=1)}
        return {task: number for task, number in own.items() if number < self.last}


def load_remains(path: Path) -> Remains:
    """Load the agents of all phase ends.

    Raises:
      UserError: no run, no phase of it has ended, nothing can be lost yet, or its agent does not
        learn in imagination.
    """
    newest = load_trained(path)
    if POLICY not in newest.agent.policies():
        raise UserError(f"{path}: its agent has no {POLICY}, so nothing can be recovered in dreams")
    folder = RunFolder(path).checkpoints
    last = max(ended_phases(folder), default=0)
    if last == 0:
        raise UserError(f"{path}: no phase of it has ended yet")
    shapes = jax.eval_shape(newest.agent.init, jax.random.key(0))
    params: dict[int, Mapping[str, Any]] = {}
    final, agents = newest, []
    for phase in range(1, last + 1):
        try:
            saved = find_checkpoint(folder, phase)
            if saved is None or not saved.is_end_of(phase):
                raise UserError(f"{folder}: no checkpoint of the end of phase {phase}")
            state = load_agent(saved, shapes)
            params[phase] = state.learner.params
            final = replace(newest, checkpoint=saved.path.name, clock=saved.clock, state=state)
            sha256 = saved.manifest["sha256"][AGENT]
            agents.append(Dissected(phase=phase, checkpoint=saved.path.name, agent_sha256=sha256))
        except UserError as error:
            agents.append(Dissected(phase=phase, reason=str(error)))
    if last not in params:
        raise UserError(agents[-1].reason)
    remains = Remains(path, final, last, params, tuple(agents))
    if not remains.old:
        raise UserError(
            f"{path}: phase {last} is the newest that has ended, and trained all that was trained "
            "before it: nothing is old enough to be lost"
        )
    return remains


def chosen_tasks(remains: Remains, asked: Sequence[str]) -> tuple[str, ...]:
    """The old tasks that were asked for, in order of their phases; without any, all.

    Raises:
      UserError: one of them is not old.
    """
    wanted = [resolve_task(task) for task in asked]
    for task in wanted:
        if task not in remains.old:
            raise UserError(
                f"tasks: {task!r} was not trained in a phase before the last, "
                f"{nearest(task, remains.old)}"
            )
    return tuple(task for task in remains.old if task in wanted or not wanted)


@dataclass(frozen=True)
class Examination:
    """How the remains are looked at.

    Attributes:
      updates: in dreams, for the recovery of each task.
      episodes: of each judgement.
    """

    remains: Remains
    updates: int
    episodes: int

    def work(self, tasks: Sequence[str]) -> dict[str, int]:
        """Pieces to come."""
        pairs = len(self.remains.params) ** 2
        return {"updates": len(tasks) * self.updates, "judgements": len(tasks) * (pairs + 1)}

    def examine(self, task: str, tick: Tick) -> TaskAutopsy:
        """Recover one task and judge every transplant in it; `tick` hears of each piece."""
        own, last = self.remains.old[task], self.remains.last
        with self._worlds(task) as worlds:
            recovered, replay_phase = self._recovered(task, own, worlds, tick)
            transplants = tuple(self._transplants(task, worlds, tick))
        pure = {t.heads: t for t in transplants if t.heads == t.world_model}
        return TaskAutopsy(
            task=task,
            own_phase=own,
            own=Judged(returns=pure[own].returns, reason=pure[own].reason),
            final=Judged(returns=pure[last].returns, reason=pure[last].reason),
            recovered=recovered,
            replay_phase=replay_phase,
            transplants=transplants,
        )

    def report(self, tasks: Sequence[TaskAutopsy]) -> Autopsy:
        """All that was found, and by what it can be found again."""
        remains = self.remains
        return Autopsy(
            run=remains.final.run.name,
            seed=remains.final.config.seed,
            last_phase=remains.last,
            policy=POLICY,
            action_mode="mode",
            updates=self.updates,
            episode_seeds=tuple(map(seeding.evaluation_seed, range(self.episodes))),
            context=remains.final.config.replay.context,
            agents=remains.agents,
            tasks=tuple(tasks),
        )

    def _transplants(self, task: str, worlds: Sequence[World], tick: Tick) -> Iterator[Transplant]:
        reasons = {agent.phase: agent.reason for agent in self.remains.agents}
        params, final = self.remains.params, self.remains.final.state
        for i in reasons:
            for j in reasons:
                returns: tuple[float, ...] = ()
                if not (reason := reasons[i] or reasons[j]):
                    learner = replace(final.learner, params=transplant(params[i], params[j]))
                    returns = self._judged(AgentState(learner, final.riders), task, worlds)
                    tick("judgements")
                yield Transplant(world_model=i, heads=j, returns=returns, reason=reason)

    def _recovered(
        self, task: str, own: int, worlds: Sequence[World], tick: Tick
    ) -> tuple[Judged, int]:
        """What the final agent returns after its recovery, and the phase whose replay was had."""
        reason = ""
        # Where replays are not kept, the newest may still hold rows of the task.
        for phase in (own, self.remains.last):
            try:
                with contextlib.closing(life_at(self.remains.path, phase, only=task)) as memory:
                    state = self._recover(memory, task, own, tick)
            except UserError as error:
                reason = reason or str(error)
                continue
            if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.learner.params)):
                return Judged(reason="recovery came to what is no number"), phase
            returns = self._judged(state, task, worlds)
            tick("judgements")
            return Judged(returns=returns), phase
        return Judged(reason=reason), 0

    def _recover(self, memory: PastLife, task: str, own: int, tick: Tick) -> AgentState:
        """The final agent, its actor and critic trained in dreams from the task's rows.

        Batches, posteriors and what becomes of them are as in a life: the latents that this model
        makes of the rows are written back, to the copy that `memory` is.

        Raises:
          UserError: the replay holds no sequence of the task.
        """
        trained = self.remains.final
        agent, state, config = trained.agent, trained.state, trained.config
        replay, schema = config.replay, batch_schema(agent.union)
        seed = seeding.stream_seed(config.seed, "autopsy/update", own)
        for number in range(self.updates):
            rng = seeding.generator(config.seed, "autopsy/batch", own, number)
            try:
                batch = memory.replay.sample(rng, replay.batch, replay.drawn, schema)
            except ValueError as error:
                raise UserError(f"{task}: {error}") from error
            key = update_key(seed, number)
            state, learnt = agent.recover(state, batch, key, replay.untrained)
            memory.replay.write_latents(batch.where, learnt.latents)
            tick("updates")
        return state

    def _judged(self, state: AgentState, task: str, worlds: Sequence[World]) -> tuple[float, ...]:
        """Returns, as the life itself was judged: the same episodes, and the same draws."""
        trained = self.remains.final
        seed = seeding.stream_seed(trained.config.seed, "judge")
        policy = trained.agent.policy(lambda: state, task, POLICY, "mode", seed)
        return tuple(e.return_ for e in judge(worlds, policy, episodes=self.episodes))

    @contextlib.contextmanager
    def _worlds(self, task: str) -> Iterator[list[World]]:
        trained = self.remains.final
        worlds = [trained.make_world(task) for _ in range(trained.config.evaluate.worlds)]
        try:
            yield worlds
        finally:
            for world in worlds:
                world.close()
