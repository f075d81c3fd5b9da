"""A run's agent, outside its run: load it, and act with it in a loop of one's own."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import jax

from agent.acting import ActionMode
from agent.agent import Agent, AgentState, make_agent
from continual.ancestry import config_of
from continual.branching import replay_at
from continual.checkpoint import Saved, find_checkpoint, load_agent
from continual.config import Config
from continual.envs.gym import Actor, GymWorld
from continual.envs.interface import union
from continual.envs.registry import interface_of, make_world, resolve_task
from continual.envs.world import World
from continual.errors import UserError, nearest
from continual.memory import open_memory
from continual.pacing import repeat_of
from continual.rundir import RunFolder
from continual.scheduler import Clock
from eval.run_folder import RecordedRun, load_run
from storage import Replay, fork_replay


@dataclass(frozen=True)
class Trained:
    """What a run has learnt so far.

    Attributes:
      run: what it has recorded, up to now.
      checkpoint: its name.
      clock: of the life when it was saved.
      agent: functions; `state`: what was learnt.
    """

    run: RecordedRun
    config: Config
    checkpoint: str
    clock: Clock
    agent: Agent
    state: AgentState

    @property
    def lived(self) -> tuple[str, ...]:
        """Tasks of the phases that were begun, in their order."""
        begun = self.clock.phase - (self.clock.phase > 1 and self.clock.phase_step == 0)
        return tuple(phase.task for phase in self.run.plan[:begun])

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(self.agent.union.tasks)

    def make_world(self, task: str) -> World:
        """A world of a task of the run, by its full name, with the run's action repeat."""
        return make_world(task, repeat=repeat_of(task, self.config.collect))

    def make_env(self, task: str) -> GymWorld:
        """The same for loops that are not ours."""
        return GymWorld(self.make_world(self.known(task)))

    def policy(
        self,
        task: str,
        name: str | None = None,
        action_mode: ActionMode = "mode",
        seed: int = 0,
    ) -> Actor:
        """A policy for one task; without a name the one that lived.

        Args:
          name: `gated`, `dreamer_actor` or `<rider>_actor`.
          action_mode: `mode` of the distributions, or `sampled` as the agent lived.
        Raises:
          UserError: the run has no such task or policy.
        """
        task, names = self.known(task), self.agent.policies()
        name = name or names[0]
        if names == ("random",):
            raise UserError(
                f"{self.run.path}: it lived by random actions, and has learnt no policy"
            )
        if name not in names:
            raise UserError(f"policy {name!r}: {nearest(name, names)}")
        policy = self.agent.policy(lambda: self.state, task, name, action_mode, seed)
        return Actor(policy, self.agent.union.tasks[task].heads[0].name)

    def known(self, task: str) -> str:
        """The full name of a task of the run. Raises UserError: it has no such task."""
        task = resolve_task(task)
        if task not in self.tasks:
            raise UserError(f"task {task!r} is not one of this run, {nearest(task, self.tasks)}")
        return task


@dataclass(frozen=True)
class PastLife(Trained):
    """A life as it was, its memory included, to look at or to learn on with.

    Attributes:
      replay: a private one, which goes when it is closed or forgotten.
    """

    replay: Replay
    _place: tempfile.TemporaryDirectory[str]

    def close(self) -> None:
        self.replay.close()
        self._place.cleanup()


def load_trained(path: str | Path, phase: int | None = None) -> Trained:
    """Load a checkpoint of a run; nothing in its folder is changed.

    Args:
      phase: the agent as it was at the end of this phase, or is in it; else the newest.
    Raises:
      UserError: no run, no checkpoint (of that phase) yet, or damaged ones alone.
    """
    return _load(Path(path), phase)[0]


def life_at(
    path: str | Path,
    phase: int | None = None,
    scratch: Path | None = None,
    only: str | None = None,
) -> PastLife:
    """Agent, replay and clock of a run; nothing in its folder is changed.

    Args:
      phase: as they were at the end of this phase; else at the newest checkpoint.
      scratch: folder in which a copy of the replay is made, by default the system's for what is
        temporary. On the disk of the run most of the copy takes no room.
      only: the one task of which the replay's batches are to be; else as in the run.
    Raises:
      UserError: as for `load_trained`; or the run is going on, or did not keep that replay.
    """
    trained, saved = _load(Path(path), phase)
    place = tempfile.TemporaryDirectory(prefix="life-", dir=scratch)
    try:
        copy = Path(place.name, "replay")
        with replay_at(Path(path), saved) as source:
            fork_replay(source, saved.replay, copy)
        replay = open_memory(trained.config, trained.agent, copy, only=only)
        replay.rewind(saved.replay)
    except BaseException:
        place.cleanup()
        raise
    return PastLife(**vars(trained), replay=replay, _place=place)


def _load(path: Path, phase: int | None) -> tuple[Trained, Saved]:
    folder = RunFolder(path)
    run = load_run(folder.path)
    config = config_of(folder.path)
    saved = find_checkpoint(folder.checkpoints, phase)
    if saved is None:
        raise UserError(f"{folder.path}: has no checkpoint yet")
    agent = make_agent(config.agent, union({task: interface_of(task) for task in run.tasks}))
    shapes = jax.eval_shape(agent.init, jax.random.key(0))
    state = load_agent(saved, shapes)
    return Trained(run, config, saved.path.name, saved.clock, agent, state), saved
