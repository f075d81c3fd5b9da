"""The replay against a plain list, under any order of appends, draws, commits, rewinds."""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from storage import FRAMES, Column, StreamId, open_replay

LATENTS = {"latent.deter": Column((), "float16")}
PLAIN = {"reward": Column((), "float32"), "action.a": Column((), "int32")}
IMAGES = {"reward": Column((), "float32"), FRAMES: Column((2, 2, 3), "uint8")}
UNION = PLAIN
TASKS = ["plain", "images"]


@dataclass
class Model:
    """What must be true. A row is its number in the order of all appends: its place in `rows`.

    Attributes:
      rows: (stream, world) of every row.
      latents: of every row.
      worlds: stream -> number of worlds, in order of opening.
    """

    rows: list[tuple[StreamId, int]] = field(default_factory=list)
    latents: list[int] = field(default_factory=list)
    worlds: dict[StreamId, int] = field(default_factory=dict)

    def copy(self):
        return Model(list(self.rows), list(self.latents), dict(self.worlds))


class ReplayMachine(RuleBasedStateMachine):
    """Blocks are made 3 rows long, so that few rows meet every edge.

    `commits` are those that can be gone back to: the last one and, until it is released, the one
    before.
    """

    def __init__(self):
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr("storage.held.block_length", lambda *_: 3)
        self.folder = tempfile.TemporaryDirectory()
        self.model = Model()
        self.commits: list[tuple[dict, Model]] = []
        self.replay = None

    @initialize(
        capacity=st.integers(1, 60), worlds=st.integers(1, 3), small=st.sampled_from([0, 4, 1024])
    )
    def begin(self, capacity, worlds, small):
        """`small`: bytes up to which a column is kept in memory as well."""
        self.patch.setattr("storage.mirror.SMALL", small)
        self.capacity = capacity
        self.open()
        self.begin_stream(worlds, 0)

    def open(self):
        self.replay = open_replay(
            Path(self.folder.name) / "replay",
            capacity=self.capacity,
            latents=LATENTS,
            tasks=TASKS,
            context="stored",
        )

    @precondition(lambda self: len(self.model.worlds) < 3)
    @rule(worlds=st.integers(1, 3), task=st.integers(0, 1))
    def begin_stream(self, worlds, task):
        stream = StreamId(len(self.model.worlds) + 1, TASKS[task])
        self.replay.open_stream(stream, (PLAIN, IMAGES)[task], worlds)
        self.model.worlds[stream] = worlds

    @precondition(lambda self: self.model.worlds)
    @rule(which=st.integers(0, 2), times=st.integers(1, 20))
    def append(self, which, times):
        stream = list(self.model.worlds)[which % len(self.model.worlds)]
        for _ in range(times):
            worlds = range(self.model.worlds[stream])
            steps = np.arange(len(worlds)) + len(self.model.rows)
            rows = {"reward": steps.astype(np.float32), "latent.deter": steps.astype(np.float16)}
            if stream.task == "plain":
                rows["action.a"] = -steps.astype(np.int32)
            else:
                rows[FRAMES] = np.ones((1, 2, 2, 3), np.uint8) * steps.reshape(-1, 1, 1, 1) % 251
                rows[FRAMES] = rows[FRAMES].astype(np.uint8)
            self.replay.append(stream, rows)
            self.model.rows += [(stream, world) for world in worlds]
            self.model.latents += steps.tolist()
        self.check()

    @rule(seed=st.integers(0, 999), length=st.integers(1, 7), newer=st.integers(0, 2000))
    def learn(self, seed, length, newer):
        """Draw a batch, compare it, and write latents back (some after more rows came)."""
        held = self.held()
        if not any(len(rows) > length for rows in held.values()):
            with pytest.raises(ValueError, match="no world holds"):
                self.replay.sample(np.random.default_rng(seed), 5, length, UNION)
            return
        batch = self.replay.sample(np.random.default_rng(seed), 5, length, UNION)
        steps = batch.columns["reward"].astype(int)
        for b in range(5):
            rows = held[self.model.rows[steps[b, 0]]]
            at = rows.index(steps[b, 0])
            assert at >= 1, "the context row must be held"
            assert steps[b].tolist() == rows[at : at + length]
            self.check_sequence(batch, b, steps[b], rows[at - 1])
        assert (batch.age == len(self.model.rows) - 1 - steps[:, -1]).all()
        if newer % 2:
            self.append(newer % 3, 1 + newer % 5)
        values = (np.arange(5 * length).reshape(5, length) + newer).astype(np.float16)
        written = self.replay.write_latents(batch.where, {"latent.deter": values})
        oldest = self.oldest()
        assert written == (steps >= oldest).sum()
        for step, value in zip(steps.ravel().tolist(), values.ravel().tolist(), strict=True):
            if step >= oldest:
                self.model.latents[step] = value

    def check_contents(self):
        """Nearly every held row is drawn, as a context or behind one."""
        held = self.held()
        if any(len(rows) > 1 for rows in held.values()):
            batch = self.replay.sample(np.random.default_rng(0), 100, 1, UNION)
            for b, steps in enumerate(batch.columns["reward"].astype(int)):
                rows = held[self.model.rows[steps[0]]]
                self.check_sequence(batch, b, steps, rows[rows.index(steps[0]) - 1])

    def check_sequence(self, batch, b, steps, previous):
        stream, _ = self.model.rows[previous]
        plain = stream.task == "plain"
        assert batch.task[b] == TASKS.index(stream.task)
        assert (batch.columns["action.a"][b] == (-steps if plain else 0)).all()
        assert batch.previous["action.a"][b] == (-previous if plain else 0)
        assert plain or (batch.frames[b, :, 0, 0, 0] == steps % 251).all()
        assert batch.context["latent.deter"][b] == self.model.latents[previous]

    @precondition(lambda self: self.model.rows)
    @rule()
    def commit(self):
        self.commits = [*self.commits[-1:], (self.replay.commit(), self.model.copy())]
        self.check()

    @precondition(lambda self: self.commits)
    @rule()
    def release(self):
        self.replay.release()
        self.commits = self.commits[-1:]

    @precondition(lambda self: self.commits)
    @rule(back=st.sampled_from([0, 0, 0, 1]), crash=st.booleans())
    def rewind(self, back, crash):
        """Go back to the last commit, or to the one before it: to nothing where there is none."""
        if crash:
            self.replay.close()
            self.open()
        self.commits = self.commits[: len(self.commits) - back] if back else self.commits
        cursor, model = self.commits[-1] if self.commits else (None, Model())
        self.replay.rewind(cursor)
        self.model = model.copy()
        for number, stream in enumerate(self.model.worlds, start=1):
            assert stream.phase == number
            schema = PLAIN if stream.task == "plain" else IMAGES
            self.replay.open_stream(stream, schema, self.model.worlds[stream])
        self.check()
        self.check_contents()

    def oldest(self):
        return max(0, len(self.model.rows) - self.capacity)

    def held(self):
        """(stream, world) -> numbers of its held rows, oldest first."""
        held = {}
        for step in range(self.oldest(), len(self.model.rows)):
            held.setdefault(self.model.rows[step], []).append(step)
        return held

    def check(self):
        assert self.replay.rows == len(self.model.rows)
        expected = {stream.task: 0 for stream in self.model.worlds}
        for (stream, _), rows in self.held().items():
            expected[stream.task] += len(rows)
        assert self.replay.held_rows() == expected

    def teardown(self):
        if self.replay is not None:
            self.replay.close()
        self.folder.cleanup()
        self.patch.undo()


def settled(examples):
    return settings(
        max_examples=examples,
        stateful_step_count=25,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )


class TestReplayMachine(ReplayMachine.TestCase):
    settings = settled(40)


@pytest.mark.slow
class TestReplayMachineAtLength(ReplayMachine.TestCase):
    settings = settled(500)
