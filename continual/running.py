"""A run in progress: what it can be told to do next, and how somebody asks it to stop."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from types import FrameType

from agent.agent import Agent
from continual import seeding
from continual.checkpoint import save_checkpoint
from continual.collect import Living, begin_living, make_worlds
from continual.envs.gym import Actor, GymWorld
from continual.envs.world import World
from continual.files import replace_file
from continual.judging import Abandoned, Judge, judged_pieces
from continual.life import Life
from continual.needs import Needs, refuse_full_disk
from continual.pictures import open_loop_picture
from continual.progress import Progress
from continual.request import Request
from continual.rundir import RecordBook, RunFolder
from continual.scheduler import Agenda, Clock, Evaluate, end_of
from continual.tracking import Trackers
from continual.videos import play, write_video
from curricula.loader import PlannedPhase
from eval.page import write_report
from eval.records import PhaseRecord
from storage import Replay

_SHOW_CURSOR = b"\x1b[?25h\n"


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
            # The live line hides the cursor. To stop it properly takes locks, which its thread may
            # hold for good; a terminal understands bytes.
            with contextlib.suppress(OSError):
                if os.isatty(1):
                    os.write(1, _SHOW_CURSOR)
            os._exit(128 + number)
        self.signal = number

    @contextlib.contextmanager
    def listening(self) -> Iterator[Stop]:
        """Hear SIGINT, SIGTERM and SIGUSR1, which job schedulers send, while the context lasts."""
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
        before = [signal.signal(number, self._hear) for number in numbers]
        try:
            yield self
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)


@dataclass
class Opened:
    """A run in progress: the five nouns with side effects, and the life they serve.

    Attributes:
      judged: pieces whose records are there, and their mean returns.
      saved: clock of the newest checkpoint, None before the first.
      needs: of the disk.
    """

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
    judged: dict[Evaluate, float]
    saved: Clock | None
    needs: Needs
    _living: Living | None = None

    @property
    def phase(self) -> PlannedPhase:
        return self.agenda.curriculum.plan[self.life.clock.phase - 1]

    def living(self) -> Living:
        """The running phase; its worlds are built when it begins."""
        config = self.request.config
        return self._living or self.enter(make_worlds(config, self.phase.task, self.folder.faults))

    def enter(self, worlds: list[World]) -> Living:
        """Live in `worlds` from where the life stands."""
        config = self.request.config
        policy = self.agent.living_policy(
            lambda: self.life.agent, self.phase.task, seeding.stream_seed(config.seed, "act")
        )
        self._living = begin_living(
            self.life,
            self.phase,
            worlds,
            policy,
            agent=self.agent,
            replay=self.replay,
            config=config,
            tracker=self.tracker,
            faults=self.folder.faults,
        )
        return self._living

    def evaluate(self, piece: Evaluate) -> None:
        """Judge one policy on one task; nothing is recorded of a piece that was broken off."""
        with contextlib.suppress(Abandoned):
            records = list(self.judge(piece, self.life.clock, lambda: self.life.agent))
            for record in records:
                self.tracker.record(record)
            self.judged |= judged_pieces(records)

    def end_phase(self) -> None:
        """Close the open rows, record the phase, and let the clock enter the next."""
        phase = self.phase
        if self.agent.policies() != ("random",):  # which models nothing, and needs no film
            self._picture()
            if self.request.is_filmed:
                self._film()
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
                boundary="steps" if self._is_spent else "return",
                replay_shares={task: rows / total for task, rows in held.items()},
            )
        )
        self.life.clock = clock.next_phase()

    @property
    def _is_spent(self) -> bool:
        """Whether the phase has lived its whole budget."""
        return end_of(self.agenda, self.phase, self.judged) == self.phase.steps

    @property
    def _trained(self) -> list[str]:
        """Tasks of the phases so far."""
        lived = self.agenda.curriculum.plan[: self.phase.number]
        return list(dict.fromkeys(phase.task for phase in lived))

    def _picture(self) -> None:
        """Keep what the model now expects of each task that was trained and shows images."""
        for task in self._trained:
            if self.agent.union.tasks[task].image is None:
                continue
            (world,) = make_worlds(self.request.config, task, self.folder.faults, 1)
            with contextlib.closing(world):
                picture = open_loop_picture(self.agent, self.life.agent, task, world, seed=0)
            self.folder.pictures.mkdir(exist_ok=True)
            name = f"open_loop-phase{self.phase.number:04d}-{task.replace('/', '_')}.png"
            replace_file(self.folder.pictures / name, picture, durable=False)

    def _film(self) -> None:
        """Keep one episode of each task that was trained so far, always the same one.

        It is played in a world of its own, and draws from no stream that the life draws from.
        """
        self.folder.videos.mkdir(exist_ok=True)
        for task in self._trained:
            (world,) = make_worlds(self.request.config, task, self.folder.faults, 1)
            with contextlib.closing(GymWorld(world)) as env:
                state = lambda: self.life.agent
                policy = self.agent.policy(state, task, self.agent.policies()[0], "mode", 0)
                act = Actor(policy, self.agent.union.tasks[task].heads[0].name)
                if world.reset(0) and world.draw() is not None:
                    name = f"phase{self.phase.number:04d}-{task.replace('/', '_')}.mp4"
                    frames = play(env, act, 0, draw=True).frames
                    write_video(self.folder.videos / name, frames, env.metadata["render_fps"])

    def save(self) -> None:
        """Checkpoint: replay first, then records, then the folder that names their cursors.

        Until the next one the replay can go back to the checkpoint before as well, should this one
        turn out to be damaged.
        """
        self.replay.release()
        replay, records = self.replay.commit(), self.book.commit()
        config = self.request.config.checkpoint
        is_between = self.life.stage is None and self.life.clock.phase > 1
        save_checkpoint(
            self.folder.checkpoints,
            self.life,
            replay=replay,
            records=records,
            keep=config.keep,
            fork=partial(self.replay.fork, replay) if is_between and config.keep_replays else None,
        )
        self.saved = self.life.clock
        self.tracker.saved()
        if self.life.clock.phase <= len(self.agenda.curriculum.plan):
            refuse_full_disk(self.needs, self.folder.path)

    def report(self) -> None:
        """Write the report; also on a run that had been finished before, should it be gone.

        A reference writes that of the run it serves as well.
        """
        page = write_report(self.folder.path)
        if self.request.reference_of:
            page = write_report(self.request.reference_of)
        self.progress.say(f"finished. The report: {page}")

    def say_how_to_go_on(self) -> None:
        clock = self.life.clock
        is_over = clock.phase > len(self.agenda.curriculum.plan)
        self.progress.say(
            f"stopped at {clock.env_steps:,} environment steps "
            f"{'after the last phase' if is_over else f'in phase {clock.phase}'}, "
            f"all of it saved. This goes on: {self.request.command}"
        )

    def close(self) -> None:
        """Close all worlds; nothing is saved."""
        if self._living:
            self._living.close()
        self.judge.close()
