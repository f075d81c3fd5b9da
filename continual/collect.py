"""Living: acting in the worlds of a phase, filling the replay, and learning from it as one goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from agent.agent import Agent
from agent.learner import update_key
from continual import seeding
from continual.config import Config
from continual.envs.interact import Episode, Moment, Policy, begin, interact
from continual.envs.interface import Interface, Union
from continual.envs.witness import make_witnessed_world
from continual.envs.world import TimeStep, World
from continual.life import Life, Meter, Stage
from continual.pacing import repeat_of, rows_before_update, updates_due
from continual.scheduler import Clock
from continual.tracking import Tracker
from continual.watch import refuse_poisoned
from curricula.loader import PlannedPhase
from eval.gate_sums import GATE_SUMS, GateSums
from eval.records import EpisodeRecord
from storage import Replay, StreamId
from storage.batch import FRAMES, Column, Schema

Rows = dict[str, np.ndarray]


def row_schema(interface: Interface, gated: bool) -> Schema:
    """Columns of one world's rows."""
    columns = {f"obs.{s.name}": Column(s.shape, s.dtype) for s in interface.slots}
    columns |= {f"action.{h.name}": Column(h.shape, h.dtype) for h in interface.heads}
    columns |= {"reward": Column((), "float32"), "env_step": Column((), "int64")}
    columns |= {name: Column((), "bool") for name in ("is_first", "is_last", "is_terminal")}
    if gated:
        columns |= {f"gate.{name}": Column((), "float32") for name in GATE_SUMS}
    return columns


def batch_schema(union: Union) -> Schema:
    """Columns an update needs, over all tasks; frames come on their own."""
    columns = row_schema(union, gated=False)
    return {name: c for name, c in columns.items() if name not in (FRAMES, "env_step")}


def make_worlds(config: Config, task: str, faults: Path, n: int | None = None) -> list[World]:
    """N worlds, by default those of a phase; not reset yet."""
    repeat = repeat_of(task, config.collect)
    return [
        make_witnessed_world(task, repeat=repeat, folder=faults)
        for _ in range(n or config.collect.worlds)
    ]


def begin_living(
    life: Life,
    phase: PlannedPhase,
    worlds: Sequence[World],
    policy: Policy,
    *,
    agent: Agent,
    replay: Replay,
    config: Config,
    tracker: Tracker,
    faults: Path,
) -> Living:
    """Go on in a phase where `life.stage` stands; without one, reset the worlds and begin it.

    Args:
      worlds: N of the phase's task; `Living` closes them.
      policy: the living one.
      faults: folder of what led to a stop.
    Raises:
      UserError: the replay holds this phase with other columns or worlds.
    """
    policy_name = agent.policies()[0]
    schema = row_schema(worlds[0].interface, gated=policy_name == "gated")
    stream = StreamId(phase.number, phase.task)
    replay.open_stream(stream, schema, len(worlds))

    def next_episode(world: int) -> tuple[int, int]:
        assert life.stage is not None
        number = life.stage.begun
        life.stage.begun += 1
        return number, seeding.training_seed(config.seed, phase.number, world, number)

    if life.stage is None:
        life.stage = Stage(policy.initial(len(worlds)), (), 0, GateSums(len(worlds)))
        life.stage.episodes = begin(worlds, next_episode)
    stage = life.stage
    moments = interact(worlds, policy, stage.policy_state, stage.episodes, next_episode)
    return Living(
        life=life,
        phase=phase,
        worlds=worlds,
        moments=moments,
        agent=agent,
        replay=replay,
        config=config,
        tracker=tracker,
        faults=faults,
        policy_name=policy_name,
        stream=stream,
        schema=schema,
    )


@dataclass(eq=False)
class Living:
    """One phase of a life, in progress. Everything that must survive is in `life.stage`.

    Attributes:
      worlds: N of the phase's task.
      moments: the decisions to come.
      policy_name: of the policy that lives.
      stream, schema: of the phase's replay rows, latents apart.
    """

    life: Life
    phase: PlannedPhase
    worlds: Sequence[World]
    moments: Iterator[Moment]
    agent: Agent
    replay: Replay
    config: Config
    tracker: Tracker
    faults: Path
    policy_name: str
    stream: StreamId
    schema: Schema

    def until(self, env_steps: int, stop: Callable[[], bool]) -> None:
        """Live until the clock shows `env_steps`, or `stop()` says so between two decisions."""
        while self.life.clock.env_steps < env_steps and not stop():
            self._live(next(self.moments))
            self._learn()
            self.tracker.lived(self.life.clock)

    def end(self) -> None:
        """Close the phase: what is open becomes a truncated last row without an action."""
        stage, clock = self._stage, self.life.clock
        open_rows = [e for e in stage.episodes if e is not None]
        if any(e.actions for e in open_rows):
            last = [replace(e.timestep, is_last=True) for e in open_rows]
            nothing = {
                h.name: np.zeros((len(last), *h.shape), h.dtype) for h in self._interface.heads
            }
            self.replay.append(self.stream, self._rows(last, nothing, {}))
            self.life.clock = replace(clock, agent_steps=clock.agent_steps + len(last))
        for index, episode in enumerate(open_rows):
            if episode.actions:
                self._record(index, episode, cut=not episode.timestep.is_last)
        if self.life.meter.updates or self.life.meter.gate:
            self._record_training()
        self.close()
        self.life.stage = None

    def close(self) -> None:
        """Close the worlds; the life stays where it is."""
        for world in self.worlds:
            world.close()

    @property
    def _stage(self) -> Stage:
        assert self.life.stage is not None
        return self.life.stage

    @property
    def _interface(self) -> Interface:
        return self.worlds[0].interface

    def _live(self, moment: Moment) -> None:
        """Record one decision in each world."""
        life, stage = self.life, self._stage
        timesteps = [t for t in moment.timesteps if t is not None]
        self.replay.append(self.stream, self._rows(timesteps, moment.actions, moment.info))
        stage.gate.add(moment)
        life.meter.count_decisions(moment, self.phase.task)
        stage.policy_state, stage.episodes = moment.state, moment.episodes
        ended = {index for index, _ in moment.ended}
        stepped = sum(
            e.timestep.env_steps
            for index, e in enumerate(moment.episodes)
            if e is not None and index not in ended
        )
        clock = life.clock
        life.clock = replace(
            clock,
            env_steps=clock.env_steps + stepped,
            agent_steps=clock.agent_steps + len(timesteps),
        )
        for index, episode in moment.ended:
            self._record(index, episode, cut=False)

    def _learn(self) -> None:
        """Do the updates that the clock owes."""
        life, config = self.life, self.config
        task = self.phase.task
        while life.clock.updates < updates_due(life.clock, task, config.collect, config.replay):
            number, tasks = life.clock.updates, list(self.agent.union.tasks)
            rng = seeding.generator(config.seed, "batch", number)
            replay = config.replay
            schema = batch_schema(self.agent.union)
            batch = self.replay.sample(rng, replay.batch, replay.drawn, schema)
            if config.log.diagnose_every and number and number % config.log.diagnose_every == 0:
                key = update_key(seeding.stream_seed(config.seed, "diagnose"), number)
                found = self.agent.diagnose(life.agent, batch, key, replay.untrained)
                life.meter.take_diagnosis(found, tasks)
            self._prefetch(number + 1, schema)
            key = update_key(seeding.stream_seed(config.seed, "update"), number)
            life.agent, learnt = self.agent.learn(life.agent, batch, key, replay.untrained)
            refuse_poisoned(learnt.metrics, batch, tasks, number, self.faults)
            self.replay.write_latents(batch.where, learnt.latents)
            life.meter.count_update(learnt.metrics, batch, tasks, replay.length)
            life.clock = replace(life.clock, updates=number + 1)
            if life.meter.updates >= config.log.every:
                self._record_training()

    def _prefetch(self, number: int, schema: Schema) -> None:
        """Let the rows of a batch to come be copied while the learner is busy."""
        config, replay = self.config, self.config.replay
        clock, task = self.life.clock, self.phase.task
        ahead = rows_before_update(number, clock, task, config.collect, replay)
        rng = seeding.generator(config.seed, "batch", number)
        self.replay.prefetch(rng, replay.batch, replay.drawn, schema, ahead)

    def _record_training(self) -> None:
        """Record what the meter holds, which is all of this phase, and begin a new one."""
        life, phase = self.life, self.phase
        held = self.replay.held_rows()
        self.tracker.record(life.meter.record(life.clock, phase.cycle, phase.task, held))
        life.meter = Meter()

    def _rows(
        self,
        timesteps: Sequence[TimeStep],
        actions: Mapping[str, np.ndarray],
        info: Mapping[str, np.ndarray],
    ) -> Rows:
        """One replay row a world."""
        n = len(timesteps)
        rows: Rows = {
            f"obs.{slot.name}": np.stack([t.observation[slot.name] for t in timesteps])
            for slot in self._interface.slots
        }
        rows |= {f"action.{name}": np.asarray(a) for name, a in actions.items()}
        rows["reward"] = np.array([t.reward for t in timesteps], np.float32)
        rows["env_step"] = np.full(n, self.life.clock.env_steps, np.int64)
        for flag in ("is_first", "is_last", "is_terminal"):
            rows[flag] = np.array([getattr(t, flag) for t in timesteps])
        for name, column in {**self.schema, **self.agent.latents}.items():
            if name not in rows:
                # The policy did not record it: a random one has no latents, a closing row no gate.
                rows[name] = np.asarray(info.get(name, np.zeros((n, *column.shape), column.dtype)))
        return rows

    def _record(self, world: int, episode: Episode, cut: bool) -> None:
        clock: Clock = self.life.clock
        self.tracker.record(
            EpisodeRecord(
                split="train",
                eval_id="",
                when="",
                task=self.phase.task,
                variant="",
                policy=self.policy_name,
                action_mode="sampled",
                phase=clock.phase,
                cycle=self.phase.cycle,
                phase_step=clock.phase_step,
                env_steps=clock.env_steps,
                agent_steps=clock.agent_steps,
                updates=clock.updates,
                world=world,
                episode=episode.number,
                seed=episode.seed,
                return_=float(episode.episode_return),
                length=len(episode.actions),
                terminated=bool(episode.timestep.is_terminal),
                cut=cut,
                extras=_plain(episode.timestep.extras),
                gate=self._stage.gate.take(world),
            )
        )


def _plain(value: Any) -> Any:
    """Numpy scalars as Python numbers, for records."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    return value.item() if isinstance(value, np.generic) else value
