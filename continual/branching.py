"""Making a run that goes on from where another was between two phases.

The other is changed in nothing. Frames and other columns that never change are shared with it, by
hard links where both lie on one disk; everything else is copied.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax

from agent.agent import Agent, AgentState
from agent.grafting import graft
from agent.model import make_model
from continual import seeding
from continual.ancestry import Ancestor, Origin, ancestry_text, config_of, load_ancestry
from continual.checkpoint import (
    AGENT,
    KEPT_REPLAY,
    Saved,
    ended_phases,
    find_checkpoint,
    load_leaves,
    load_meter,
    save_checkpoint,
)
from continual.config import Config, differences
from continual.envs.interface import union
from continual.envs.registry import interface_of
from continual.errors import UserError
from continual.files import lock_folder, sync_path, write_atomically
from continual.life import Life
from continual.rundir import KINDS, RunFolder
from curricula.loader import NamedCurriculum
from eval.run_folder import RecordedRun, load_run
from storage import fork_replay, has_commit


@dataclass(frozen=True)
class Branch:
    """A place in a life from which another can go on.

    Attributes:
      saved: the checkpoint there.
      run: what the other has recorded.
    """

    origin: Origin
    saved: Saved
    run: RecordedRun

    @property
    def phase(self) -> int:
        """The last that was lived."""
        return self.saved.clock.phase - 1


def find_branch(origin: Origin) -> Branch:
    """Raises UserError: no such place, or what was there then is gone."""
    folder = RunFolder(origin.run)
    phase = origin.phase or max(ended_phases(folder.checkpoints), default=0)
    if phase == 0:
        raise UserError(f"{origin.run}: no phase of it has ended yet, so there is nothing to go on")
    saved = find_checkpoint(folder.checkpoints, phase)
    if saved is None or not saved.is_end_of(phase):
        raise UserError(f"{origin.run}: phase {phase} has not ended yet")
    return Branch(origin, saved, load_run(origin.run))


def refuse_other_past(branch: Branch, curriculum: NamedCurriculum) -> None:
    """Raises UserError: the curriculum does not begin with the phases that were lived."""
    lived = branch.run.plan[: branch.phase]
    for number, was in enumerate(lived, start=1):
        if number > len(curriculum.plan):
            found = "nothing"
        else:
            phase = curriculum.plan[number - 1]
            if (phase.task, phase.steps, phase.cycle) == (was.task, was.steps, was.cycle):
                continue
            found = f"{phase.task} for {phase.steps:,} steps in cycle {phase.cycle}"
        raise UserError(
            f"{curriculum.name}: phase {number} is {found}, expected what {branch.origin.label} "
            f"lived: {was.task} for {was.steps:,} steps in cycle {was.cycle}; the curriculum of a "
            "branch tells the whole life, and what is new comes after"
        )


def refuse_contradictions(branch: Branch, config: Config) -> None:
    """Raises UserError: something is to be otherwise that what was lived depends on."""
    there, here = _fixed(config_of(branch.run.path)), _fixed(config)
    if changed := list(differences(there, here)):
        raise UserError(
            f"a branch of {branch.origin.label} keeps its networks and its replay's capacity: "
            f"{'; '.join(changed)}"
        )


def _fixed(config: Config) -> dict[str, Any]:
    model = config.agent.model.model_dump(exclude={"unimix", "actor_unimix", "compute_dtype"})
    replay = config.replay
    kept = {"capacity": replay.capacity, "unit": replay.unit, "stored": replay.context == "stored"}
    return {"agent.model": model, "replay": kept}


def branch_off(branch: Branch, folder: RunFolder, agent: Agent, config: Config) -> None:
    """Put what was lived so far into the folder of a new run, which is empty.

    Raises:
      UserError: the new agent cannot go on with what was learnt, or there is no room.
    """
    for made in (folder.checkpoints, folder.records, folder.pictures):
        made.mkdir()
    with replay_at(branch.run.path, branch.saved) as source:
        fork_replay(source, branch.saved.replay, folder.replay)
    _copy_records(branch, folder)
    save_checkpoint(
        folder.checkpoints,
        Life(
            branch.saved.clock, _grafted(branch, agent, config.seed), meter=load_meter(branch.saved)
        ),
        replay=branch.saved.replay,
        records=branch.saved.records,
        keep=config.checkpoint.keep,
        fork=partial(fork_replay, folder.replay, branch.saved.replay)
        if config.checkpoint.keep_replays
        else None,
    )
    old = RunFolder(branch.run.path)
    ancestry = [*load_ancestry(old), _ancestor(branch)]
    write_atomically(folder.ancestry, ancestry_text(ancestry))


@contextlib.contextmanager
def replay_at(run: Path, saved: Saved) -> Iterator[Path]:
    """Where the replay lies as it was at a checkpoint; nobody changes it meanwhile.

    Raises:
      UserError: the run did not keep it, or is going on from there just now.
    """
    kept = saved.path / KEPT_REPLAY
    if kept.is_dir():
        yield kept
        return
    folder = RunFolder(run)
    lock = lock_folder(folder.path, "wait for it: what its replay was then, it has not kept")
    try:
        if not has_commit(folder.replay, saved.replay):
            raise UserError(
                f"{saved.path}: the replay of that moment was not kept, as "
                "checkpoint.keep_replays=false had asked; a life can still be branched where it "
                "ends"
            )
        yield folder.replay
    finally:
        os.close(lock)


def _copy_records(branch: Branch, folder: RunFolder) -> None:
    """Records up to the branch, durably, and the pictures of the phases before it."""
    old = RunFolder(branch.run.path)
    for kind in KINDS:
        ours = folder.records / kind.file
        shutil.copyfile(old.records / kind.file, ours)
        os.truncate(ours, branch.saved.records[kind.file])
        sync_path(ours)
    for number in range(1, branch.phase + 1):
        for picture in old.pictures.glob(f"*-phase{number:04d}-*"):
            shutil.copyfile(picture, folder.pictures / picture.name)


def _grafted(branch: Branch, agent: Agent, seed: int) -> AgentState:
    theirs = config_of(branch.run.path)
    interfaces = union({task: interface_of(task) for task in branch.run.tasks})
    key = jax.random.key(seeding.stream_seed(seed, "init"))
    try:
        model = make_model(theirs.agent.model, interfaces)
        return graft(agent, key, model, load_leaves(branch.saved))
    except ValueError as error:
        raise UserError(f"{branch.origin.label}: cannot be gone on from: {error}") from error


def _ancestor(branch: Branch) -> Ancestor:
    saved = branch.saved
    return Ancestor(
        origin=branch.origin.label,
        checkpoint=saved.path.name,
        phase=branch.phase,
        env_steps=saved.clock.env_steps,
        agent_sha256=saved.manifest["sha256"][AGENT],
    )
