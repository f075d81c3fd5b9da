"""A life on disk: found again whatever broke while it was written."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError

from continual import checkpoint
from continual.checkpoint import (
    ended_phases,
    find_checkpoint,
    load_agent,
    load_stage,
    save_checkpoint,
    set_aside,
)
from continual.envs.interact import begin
from continual.envs.registry import make_world
from continual.envs.toy import ToyWorld
from continual.errors import UserError
from continual.life import Life, Stage
from continual.rundir import KINDS, RecordBook
from continual.scheduler import Clock
from eval.gate_sums import GateSums

CLOCK = Clock(env_steps=40, agent_steps=42, updates=3, phase=2, phase_start=(30, 31, 1))


class Killed(BaseException):
    """Stands for the end of the process: nothing below catches it."""


def save(folder: Path, learnt: int, clock: Clock = CLOCK) -> Path:
    life = Life(clock, {"learnt": np.array(learnt)})
    return save_checkpoint(folder, life, replay={"rows": 42}, records={"a": 7}, keep=2)


def learnt_in(folder: Path) -> int:
    saved = find_checkpoint(folder)
    assert saved is not None
    assert saved.clock == CLOCK
    return int(load_agent(saved, {"learnt": np.array(0)})["learnt"])


def test_the_newest_is_found_by_its_folder_alone(tmp_path):
    assert find_checkpoint(tmp_path / "none yet") is None
    for learnt in range(12):
        path = save(tmp_path, learnt)
        assert learnt_in(tmp_path) == learnt
    assert path.name == "000012-p2-40-3"
    kept = ["000001-p2-40-3", "000011-p2-40-3", path.name]
    assert sorted(p.name for p in tmp_path.iterdir()) == kept
    saved = find_checkpoint(tmp_path)
    assert (saved.replay, saved.records) == ({"rows": 42}, {"a": 7})


@pytest.mark.parametrize("call", range(1, 8))
@pytest.mark.parametrize(
    ("owner", "step"),
    [(checkpoint, "save_file"), (checkpoint, "sync_path"), (shutil, "rmtree"), (Path, "rename")],
)
def test_a_kill_while_saving_at_an_unchanged_clock_never_loses_the_life(
    tmp_path, monkeypatch, owner, step, call
):
    """Each step that touches the disk breaks at each of its turns, before it is done."""
    for learnt in (1, 2, 3):
        save(tmp_path, learnt)
    calls = []
    works = getattr(owner, step)

    def breaking(*arguments, **named):
        calls.append(step)
        if len(calls) == call:
            raise Killed
        return works(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(owner, step, breaking)
        try:
            save(tmp_path, 4)
        except Killed:
            assert learnt_in(tmp_path) in (3, 4)
        else:
            assert learnt_in(tmp_path) == 4
    save(tmp_path, 5)
    assert learnt_in(tmp_path) == 5
    assert len(list(tmp_path.iterdir())) == 3  # the first of the phase, and the newest


def test_what_is_no_checkpoint_is_not_taken_for_a_new_life(tmp_path):
    (tmp_path / "0001-000000000040-0000000003").mkdir()
    with pytest.raises(UserError, match="0001-000000000040-0000000003: not a checkpoint of ours"):
        find_checkpoint(tmp_path)


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_damaged_checkpoints_alone_are_refused_by_the_name_of_a_file(tmp_path):
    for learnt in (1, 2):
        flip_a_bit(save(tmp_path, learnt) / "agent.safetensors")
    with pytest.raises(UserError, match=r"000002-p2-40-3/agent\.safetensors: damaged"):
        find_checkpoint(tmp_path)


@pytest.mark.parametrize("how", ["flipped", "cut manifest", "missing file"])
def test_a_damaged_newest_checkpoint_is_passed_over_and_set_aside(tmp_path, how):
    save(tmp_path, 1)
    newest = save(tmp_path, 2)
    if how == "flipped":
        flip_a_bit(newest / "agent.safetensors")
    elif how == "cut manifest":
        (newest / "manifest.json").write_text((newest / "manifest.json").read_text()[:50])
    else:
        (newest / "stage.safetensors").unlink()
    assert learnt_in(tmp_path) == 1
    saved = find_checkpoint(tmp_path)
    assert list(saved.passed_over) == [newest]
    set_aside(saved)
    assert learnt_in(tmp_path) == 1
    assert not find_checkpoint(tmp_path).passed_over
    for learnt in (3, 4, 5):
        save(tmp_path, learnt)
        assert learnt_in(tmp_path) == learnt
    assert newest.with_name(f"{newest.name}.damaged").is_dir()


def test_what_every_phase_came_to_is_kept(tmp_path):
    for learnt in range(12):
        save(tmp_path, learnt, replace(CLOCK, phase=1 + learnt // 4))
    kept = [int(path.name[:6]) for path in sorted(tmp_path.iterdir())]
    assert kept == [1, 5, 9, 11, 12]
    # The first of the next phase, or the newest of the running one.
    for phase, learnt in ((1, 4), (2, 8), (3, 11)):
        saved = find_checkpoint(tmp_path, phase)
        assert load_agent(saved, {"learnt": np.array(0)})["learnt"] == learnt
    assert ended_phases(tmp_path) == [1, 2]
    with pytest.raises(UserError, match="no checkpoint of phase 4, there are those of 1, 2"):
        find_checkpoint(tmp_path, 4)


def test_a_full_disk_is_said_in_one_line_and_the_checkpoints_there_are_stay(tmp_path, monkeypatch):
    save(tmp_path, 1)

    def full(arrays, path):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", full)
        with pytest.raises(UserError, match=r"No space left on device, [0-9,]+ bytes free"):
            save(tmp_path, 2)
    assert learnt_in(tmp_path) == 1
    save(tmp_path, 3)
    assert learnt_in(tmp_path) == 3


def test_a_world_that_does_not_come_back_is_refused(tmp_path, monkeypatch):
    episodes = begin([make_world("toy/reach")], lambda world: (0, 5))
    policy = lambda n: {"carried": np.zeros((n, 2), np.float32)}
    life = Life(CLOCK, {"learnt": np.array(1)}, Stage(policy(1), episodes, 1, GateSums(1)))
    save_checkpoint(tmp_path, life, replay={}, records={}, keep=2)
    saved = find_checkpoint(tmp_path)
    (again,) = load_stage(saved, [make_world("toy/reach")], policy, ("toy.reach",)).episodes
    for name, shown in episodes[0].timestep.observation.items():
        np.testing.assert_array_equal(again.timestep.observation[name], shown)
    observe = ToyWorld._observe
    monkeypatch.setattr(
        ToyWorld, "_observe", lambda self: {n: v / 2 for n, v in observe(self).items()}
    )
    with pytest.raises(UserError, match=r"world 0 \(seed 5, 0 actions\) did not come back"):
        load_stage(saved, [make_world("toy/reach")], policy, ("toy.reach",))


def test_records_that_are_missing_are_refused(tmp_path):
    book = RecordBook(tmp_path)
    for kind in KINDS:
        (tmp_path / kind.file).write_text("{}\n" * 5)
    cursors = book.commit()
    path = tmp_path / KINDS[0].file
    os.truncate(path, 7)
    with pytest.raises(UserError, match=f"{path}: 7 bytes, but the checkpoint counted 15"):
        book.rewind(cursors)
