"""From a command line to an open run: folder, lock, agent, replay, records, and the life so far."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from agent.agent import Agent, make_agent
from continual import seeding
from continual.ancestry import Origin, load_ancestry
from continual.backend import keep_compiled_programs
from continual.branching import (
    branch_off,
    find_branch,
    refuse_contradictions,
    refuse_other_past,
)
from continual.checkpoint import (
    Saved,
    find_checkpoint,
    load_agent,
    load_meter,
    load_stage,
    set_aside,
)
from continual.collect import make_worlds
from continual.config import Config, differences
from continual.envs.interface import union
from continual.envs.registry import interface_of, make_world, return_range
from continual.envs.world import World
from continual.errors import UserError
from continual.files import LOCK, PARTIAL, lock_folder, sync_path
from continual.judging import Judge, judged_pieces
from continual.life import Life
from continual.live_tracker import tracking_live
from continual.memory import open_memory
from continual.needs import needs_of, warning
from continual.progress import Progress
from continual.request import Request
from continual.rundir import RecordBook, RunFolder, create_run
from continual.running import Opened, Stop
from continual.scheduler import Agenda, Clock
from continual.strict_yaml import load
from continual.tracking import JsonLines, Timing, Tracker, Trackers
from curricula.loader import NamedCurriculum, resolved
from eval.records import EpisodeRecord, load_records


@contextlib.contextmanager
def open_life(request: Request) -> Iterator[Opened]:
    """Begin the run, or bring it back to its newest checkpoint. All is closed in the end.

    Raises:
      UserError: the folder holds a run of another config, is in use, or is damaged; or the run
        cannot be lived.
    """
    keep_compiled_programs()
    config, curriculum = request.config, request.curriculum
    folder = RunFolder(request.path)
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(Stop().listening())
        agent = make_agent(config.agent, union({t: interface_of(t) for t in curriculum.tasks}))
        _own(folder, request, agent, stack)
        ancestry = load_ancestry(folder)
        saved = find_checkpoint(folder.checkpoints)
        scratch = config.replay.scratch
        replay = open_memory(
            config,
            agent,
            Path(scratch, request.name, "replay") if scratch else folder.replay,
            home=folder.replay if scratch else None,
        )
        stack.callback(replay.close)
        leave_out = config.replay.damaged == "leave_out"
        replay.rewind(saved.replay if saved else None, leave_out=leave_out)
        book = RecordBook(folder.records)
        book.rewind(saved.records if saved else {})
        life, worlds = _life(config, agent, request, saved)
        progress = stack.enter_context(Progress(curriculum, config, sys.stdout, life.clock))
        progress.say(request.banner(life.clock if saved else None))
        for note in replay.notes:
            progress.say(note)
        needs = needs_of(config, curriculum, agent, life.agent)
        if warned := warning(needs, folder.path):
            progress.say(warned)
        if saved:
            for note in saved.passed_over.values():
                progress.say(f"{note}; the run goes on from the checkpoint before it")
            set_aside(saved)
        trackers: list[Tracker] = [
            JsonLines(book),
            Timing(folder.records / "timing.jsonl"),
            progress,
        ]
        if request.is_tracked:
            told = tracking_live(folder, request.name, progress.say)
            trackers.append(stack.enter_context(told))
        tracker = Trackers(trackers)
        opened = Opened(
            request=request,
            folder=folder,
            agenda=Agenda(
                curriculum,
                agent.policies(),
                config.evaluate,
                config.checkpoint.every,
                begun_at=ancestry[-1].env_steps if ancestry else 0,
            ),
            agent=agent,
            replay=replay,
            book=book,
            tracker=tracker,
            progress=progress,
            judge=Judge(config, curriculum, agent, tracker, lambda: stop.asked, folder.faults),
            stop=stop,
            life=life,
            judged=judged_pieces(load_records(folder.records, EpisodeRecord)),
            saved=saved.clock if saved else None,
            needs=needs,
        )
        stack.callback(opened.close)
        if worlds:
            opened.enter(worlds)
        yield opened


def _life(
    config: Config, agent: Agent, request: Request, saved: Saved | None
) -> tuple[Life, list[World]]:
    """A new life, or the saved one with its worlds brought back."""
    key = jax.random.key(seeding.stream_seed(config.seed, "init"))
    if saved is None:
        return Life(Clock(), agent.init(key)), []
    shapes = jax.eval_shape(agent.init, key)
    life = Life(saved.clock, load_agent(saved, shapes), meter=load_meter(saved))
    if saved.manifest["episodes"] is None:
        return life, []
    task = request.curriculum.plan[saved.clock.phase - 1].task
    worlds = make_worlds(config, task, RunFolder(request.path).faults)
    policy = agent.living_policy(lambda: life.agent, task, 0)
    heads = tuple(h.name for h in worlds[0].interface.heads)
    life.stage = load_stage(saved, worlds, policy.initial, heads)
    return life, worlds


def _own(folder: RunFolder, request: Request, agent: Agent, stack: contextlib.ExitStack) -> None:
    """Make the run's folder, or see that it is this run's, and keep others out of it."""
    kept_config, kept_curriculum = kept_settings(request)
    try:
        if not folder.config.exists():
            _refuse_foreign_folder(folder)
            _refuse_what_cannot_be_repeated(request.curriculum)
            if request.origin:
                _make_branch(folder, request, request.origin, agent)
        folder.path.mkdir(parents=True, exist_ok=True)
        lock = lock_folder(folder.path, "wait for it, or start another run with name=…")
        stack.callback(os.close, lock)
        # Looked at again: another process may have made the run since.
        if folder.config.exists():
            _refuse_other_settings(folder, kept_config, kept_curriculum)
            _refuse_other_origin(folder, request.origin)
        else:
            create_run(folder, kept_config, kept_curriculum, request.recorded)
    except OSError as error:
        raise UserError(
            f"{folder.path}: cannot be used: {error.strerror}; choose another runs=…"
        ) from None


def kept_settings(request: Request) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a run's folder keeps of its config and of its curriculum."""
    # Where a run lives for the time is no part of it, and may be another place tomorrow.
    elsewhere = {"replay": {"scratch", "damaged"}}
    ranges = {t: list(r) for t in request.curriculum.tasks if (r := return_range(t))}
    return (
        request.config.model_dump(mode="json", by_alias=True, exclude=elsewhere),
        resolved(request.curriculum) | {"return_ranges": ranges},
    )


def _make_branch(folder: RunFolder, request: Request, origin: Origin, agent: Agent) -> None:
    """Make the folder of a run that goes on from another: whole, or not at all."""
    branch = find_branch(origin)
    refuse_other_past(branch, request.curriculum)
    refuse_contradictions(branch, request.config)
    half = RunFolder(folder.path.with_name(folder.path.name + PARTIAL))
    half.path.mkdir(parents=True, exist_ok=True)
    lock = lock_folder(half.path, "it makes the same branch, wait for it")
    try:
        for left in half.path.iterdir():
            if left.is_dir():
                shutil.rmtree(left)
            elif left.name != LOCK:
                left.unlink()
        branch_off(branch, half, agent, request.config)
        create_run(half, *kept_settings(request), request.recorded)
        sync_path(half.path)
        half.path.rename(folder.path)
        sync_path(folder.path.parent)
    finally:
        os.close(lock)


def _refuse_other_origin(folder: RunFolder, origin: Origin | None) -> None:
    ancestry = load_ancestry(folder)
    there = ancestry[-1].origin if ancestry else "no other run"
    if origin and origin.label != there:
        raise UserError(
            f"{folder.path} is a run that came from {there}, not from {origin.label}; "
            "go on with that, or name=… or fresh=true for a new one"
        )


def _refuse_other_settings(
    folder: RunFolder, config: Mapping[str, Any], curriculum: Mapping[str, Any]
) -> None:
    changed: list[str] = []
    for file, ours in ((folder.config, config), (folder.curriculum, curriculum)):
        theirs = load(file.read_text(encoding="utf-8"), str(file)).value
        changed += differences(theirs, ours)
    if changed:
        shown = "; ".join(changed[:5]) + (
            f"; and {len(changed) - 5} more" if len(changed) > 5 else ""
        )
        raise UserError(
            f"{folder.path} is a run with other settings ({shown}); "
            "go on with those, or name=… or fresh=true for a new run"
        )


def _refuse_foreign_folder(folder: RunFolder) -> None:
    """A folder without config.yaml is one whose creation was cut off, or not ours."""
    ours = {"records", "checkpoints", "versions.json", "curriculum.yaml", "config.yaml", LOCK}
    if not folder.path.exists():
        return
    if not folder.path.is_dir():
        raise UserError(f"{folder.path}: a file is in the way of the run's folder")
    foreign = {p.name.removesuffix(PARTIAL) for p in folder.path.iterdir()} - ours
    if foreign:
        raise UserError(
            f"{folder.path}: holds {sorted(foreign)[0]!r} but no config.yaml: "
            "not a run of ours; choose another name=…"
        )


def _refuse_what_cannot_be_repeated(curriculum: NamedCurriculum) -> None:
    """A life in a world is brought back by repeating its actions; found out before it begins."""
    for task in dict.fromkeys(phase.task for phase in curriculum.plan):
        with contextlib.closing(make_world(task)) as world:
            if not world.deterministic:
                raise UserError(
                    f"{task}: not a deterministic world, so a life in it could not be brought "
                    "back; it can be among the judged ones, and not be lived in yet"
                )
