"""From a command line to an open run: folder, lock, agent, replay, records, and the life so far."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

import jax

from agent.agent import Agent, make_agent
from continual import seeding
from continual.backend import keep_compiled_programs
from continual.checkpoint import (
    Saved,
    find_checkpoint,
    load_agent,
    load_meter,
    load_stage,
    save_checkpoint,
)
from continual.collect import Living
from continual.config import Config, differences
from continual.envs.interface import union
from continual.envs.registry import interface_of, make_world, return_range
from continual.envs.world import World
from continual.errors import UserError
from continual.judging import Abandoned, Judge, judged_pieces, repeat_of
from continual.life import Life
from continual.progress import Progress
from continual.request import Request
from continual.rundir import RecordBook, RunFolder, create_run, lock_run
from continual.scheduler import Agenda, Clock, Evaluate
from continual.strict_yaml import load
from continual.tracking import JsonLines, Timing, Trackers
from curricula.loader import PlannedPhase, resolved
from eval.records import EpisodeRecord, PhaseRecord, load_records
from eval.report import write_report
from storage import Replay, open_replay


class Stop:
    """Whether somebody asked the run to stop. The second signal leaves at once: the disk is always
    in a state that can be gone on from.
    """

    def __init__(self) -> None:
        self.signal = 0

    @property
    def asked(self) -> bool:
        return self.signal != 0

    def _hear(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.asked:
            os._exit(128 + number)
        self.signal = number

    @contextlib.contextmanager
    def listening(self) -> Iterator[Stop]:
        """Hear SIGINT and SIGTERM while the context lasts."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, self._hear) for number in numbers]
        try:
            yield self
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)


@dataclass
class Opened:
    """A run in progress: the five nouns with side effects, and the life they serve."""

    request: Request
    folder: RunFolder
    agenda: Agenda
    agent: Agent
    replay: Replay
    book: RecordBook
    tracker: Trackers
    progress: Progress
    judge: Judge
    stop: Stop
    life: Life
    judged: set[Evaluate]
    saved: Clock | None
    _living: Living | None = None

    @property
    def phase(self) -> PlannedPhase:
        return self.agenda.curriculum.plan[self.life.clock.phase - 1]

    def living(self) -> Living:
        """The running phase; its worlds are built when it begins."""
        if self._living is None:
            worlds = make_worlds(self.request.config, self.phase.task)
            self._living = self.enter(worlds)
        return self._living

    def enter(self, worlds: list[World]) -> Living:
        """Live in `worlds` from where the life stands."""
        config = self.request.config
        policy = self.agent.living_policy(
            lambda: self.life.agent, self.phase.task, seeding.stream_seed(config.seed, "act")
        )
        self._living = Living(
            self.life,
            self.phase,
            worlds,
            policy,
            agent=self.agent,
            replay=self.replay,
            config=config,
            tracker=self.tracker,
            policy_name=self.agent.policies()[0],
        )
        return self._living

    def evaluate(self, piece: Evaluate) -> None:
        """Judge one policy on one task; nothing is recorded of a piece that was broken off."""
        self.tracker.judging(piece)
        with contextlib.suppress(Abandoned):
            records = self.judge(piece, self.life.clock, lambda: self.life.agent)
            for record in records:
                self.tracker.record(record)
            self.judged.add(piece)

    def end_phase(self) -> None:
        """Close the open rows, record the phase, and let the clock enter the next."""
        phase = self.phase
        self.living().end()
        self._living = None
        clock, held = self.life.clock, self.replay.held_rows()
        total = max(1, sum(held.values()))
        starts = clock.phase_start
        self.tracker.record(
            PhaseRecord(
                phase=phase.number,
                cycle=phase.cycle,
                task=phase.task,
                env_steps=(starts[0], clock.env_steps),
                agent_steps=(starts[1], clock.agent_steps),
                updates=(starts[2], clock.updates),
                boundary="steps",
                replay_shares={task: rows / total for task, rows in held.items()},
            )
        )
        self.life.clock = clock.next_phase()

    def save(self) -> None:
        """Checkpoint: replay first, then records, then the folder that names their cursors."""
        replay, records = self.replay.commit(), self.book.commit()
        save_checkpoint(
            self.folder.checkpoints,
            self.life,
            replay=replay,
            records=records,
            keep=self.request.config.checkpoint.keep,
        )
        self.saved = self.life.clock

    def report(self) -> None:
        """Write the report; also on a run that had been finished before, should it be gone."""
        self.progress.say(f"finished. The report: {write_report(self.folder.path)}")

    def say_how_to_go_on(self) -> None:
        clock = self.life.clock
        self.progress.say(
            f"stopped at {clock.env_steps:,} environment steps in phase {clock.phase}, "
            f"all of it saved. The same command goes on: {self.request.command}"
        )


def make_worlds(config: Config, task: str) -> list[World]:
    repeat = repeat_of(config, task)
    return [make_world(task, repeat=repeat) for _ in range(config.collect.worlds)]


@contextlib.contextmanager
def open_life(request: Request) -> Iterator[Opened]:
    """Begin the run, or bring it back to its newest checkpoint. All is closed in the end.

    Raises:
      UserError: the folder holds a run of another config, is in use, or is damaged.
    """
    keep_compiled_programs()
    config, curriculum = request.config, request.curriculum
    folder = RunFolder(request.path)
    kept_config = config.model_dump(mode="json", by_alias=True)
    kept_curriculum = resolved(curriculum) | {
        "return_ranges": {t: list(r) for t in curriculum.tasks if (r := return_range(t))}
    }
    exists = folder.config.exists()
    if exists:
        _refuse_other_settings(folder, request, kept_config, kept_curriculum)
    agent = make_agent(config.agent, union({t: interface_of(t) for t in curriculum.tasks}))
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(Stop().listening())
        if not exists:
            _refuse_foreign_folder(folder)
        stack.callback(os.close, lock_run(folder))
        if not folder.config.exists():
            create_run(folder, kept_config, kept_curriculum)
        saved = find_checkpoint(folder.checkpoints)
        replay = open_replay(
            folder.replay,
            capacity=config.replay.capacity,
            latents=agent.latents,
            tasks=list(curriculum.tasks),
            context=config.replay.context,
        )
        stack.callback(replay.close)
        replay.rewind(saved.replay if saved else None)
        book = RecordBook(folder.records)
        book.rewind(saved.records if saved else {})
        life, worlds = _life(config, agent, request, saved)
        progress = stack.enter_context(Progress(curriculum, config, sys.stdout, life.clock))
        progress.say(request.banner(life.clock if saved else None))
        opened = Opened(
            request=request,
            folder=folder,
            agenda=Agenda(curriculum, agent.policies(), config.evaluate, config.checkpoint.every),
            agent=agent,
            replay=replay,
            book=book,
            tracker=Trackers([JsonLines(book), Timing(folder.records / "timing.jsonl"), progress]),
            progress=progress,
            judge=Judge(config, curriculum, agent, lambda: stop.asked),
            stop=stop,
            life=life,
            judged=judged_pieces(load_records(folder.records, EpisodeRecord)),
            saved=saved.clock if saved else None,
        )
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
    worlds = make_worlds(config, task)
    policy = agent.living_policy(lambda: life.agent, task, 0)
    heads = tuple(h.name for h in worlds[0].interface.heads)
    life.stage = load_stage(saved, worlds, policy.initial, heads)
    return life, worlds


def _refuse_other_settings(
    folder: RunFolder, request: Request, config: dict[str, Any], curriculum: dict[str, Any]
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
    ours = {"records", "checkpoints", "versions.json", "curriculum.yaml", "LOCK"}
    if not folder.path.exists():
        return
    if not folder.path.is_dir():
        raise UserError(f"{folder.path}: a file is in the way of the run's folder")
    foreign = (
        {p.name.removesuffix(".partial") for p in folder.path.iterdir()} - ours - {"config.yaml"}
    )
    if foreign:
        raise UserError(
            f"{folder.path}: holds {sorted(foreign)[0]!r} but no config.yaml: "
            "not a run of ours; choose another name=…"
        )
