"""Damage and nonsense of all kinds: one printable line each, and nothing lost or left behind.

A few of each kind in every run of the suite; twenty thousand with `make slow`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from continual.checkpoint import find_checkpoint, load_agent, save_checkpoint
from continual.config import resolve_config
from continual.errors import UserError
from continual.life import Life
from continual.request import parse_request
from continual.scheduler import Clock
from curricula.loader import parse_curriculum
from eval.page import write_report
from storage import inspect
from tests.storage_cases import UNION, WALKER, WALKER_SCHEMA, fill, open_at
from tests.synthetic_run import SyntheticRun

FEW, MANY = 25, 2800  # of each kind
MANY_REPORTS = 400  # of damaged run folders, each of which is drawn if it can be: 20,000 in all
WORDS = [
    *(
        "seed",
        "name",
        "runs",
        "fresh",
        "phases",
        "task",
        "steps",
        "cycles",
        "judged",
        "until_return",
    ),
    *("replay.capacity", "agent.gate.kind", "agent.riders", "collect.budgets", "dmc/walker_walk"),
    *(
        "=",
        ":",
        "-",
        "[",
        "]",
        "{",
        "}",
        ",",
        '"',
        "'",
        "#",
        "&",
        "*",
        "!",
        "|",
        ">",
        "%",
        "@",
        "`",
    ),
    *("null", "true", "1e400", "-1", "0x10", "1_000", "nan", "../x", "/etc/passwd", "toy", "é"),
    *("\n", "", "\t", "\x00", "\x1b", "\u202e", "\U0001d518"),
]


def nonsense(rng: np.random.Generator) -> str:
    """Words that mean something, in an order that does not."""
    joints = ("", " ", "=", ": ", "\n", "\n  ", ", ")
    words = [WORDS[i] for i in rng.integers(len(WORDS), size=rng.integers(1, 12))]
    return "".join(f"{word}{joints[rng.integers(len(joints))]}" for word in words)


def damage(folder: Path, rng: np.random.Generator) -> None:
    """Do to one of the files what a disk or a person might."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    path = files[rng.integers(len(files))]
    content = bytearray(path.read_bytes())
    at = int(rng.integers(len(content) + 1))
    match int(rng.integers(7)):
        case 0:
            path.unlink()
        case 1:
            os.truncate(path, at)
        case 2 if content:
            content[min(at, len(content) - 1)] ^= 1 << int(rng.integers(8))
            path.write_bytes(content)
        case 3:
            path.write_bytes(content[:at] + rng.bytes(9) + content[at:])
        case 4:
            path.write_bytes(bytes(len(content)))
        case 5:
            path.write_text(nonsense(rng), encoding="utf-8")
        case _:
            path.unlink()
            path.mkdir()


def taken_or_refused_in_one_line(act: Callable[[], object]) -> None:
    said = "taken"
    try:
        act()
    except UserError as error:
        said = str(error)
    assert said
    assert said.isprintable(), said


def command_lines(folder: Path, rng: np.random.Generator) -> None:
    arguments = [nonsense(rng) for _ in range(rng.integers(1, 4))]
    known = ["smoke", *arguments] if rng.random() < 0.7 else arguments
    taken_or_refused_in_one_line(lambda: parse_request(known))
    assert not list(folder.iterdir())


def curricula(folder: Path, rng: np.random.Generator) -> None:
    del folder
    head = "phases:\n  - {task: toy/reach, steps: 10}\n" if rng.random() < 0.5 else ""
    taken_or_refused_in_one_line(lambda: parse_curriculum(head + nonsense(rng), "fuzz.yaml"))


def overrides(folder: Path, rng: np.random.Generator) -> None:
    del folder
    values = [None, True, -1, 1.5, "x", [], {}, [1], {"a": 1}, 10**30, float("nan"), "toy/reach"]
    keys = ["seed", "replay.capacity", "agent.gate.kind", "agent.riders.x.kind", "collect.budgets"]
    keys += ["agent.riders", "evaluate.episodes_of.toy", "agent.gate.p", "replay.retention.kind"]
    chosen = rng.choice(len(keys), size=rng.integers(1, 4), replace=False)
    given = {keys[i]: values[rng.integers(len(values))] for i in chosen}
    taken_or_refused_in_one_line(lambda: resolve_config(given, "smoke"))


def run_names(folder: Path, rng: np.random.Generator) -> None:
    def named() -> None:
        path = parse_request(["smoke", f"name={nonsense(rng)}", "runs=here"]).path
        assert path.parent == Path("here")
        assert path.resolve().parent == folder / "here"

    taken_or_refused_in_one_line(named)


def run_folders(folder: Path, rng: np.random.Generator) -> None:
    damage(folder / "run", rng)
    taken_or_refused_in_one_line(lambda: write_report(folder / "run"))


def checkpoints(folder: Path, rng: np.random.Generator) -> None:
    damage(folder / "checkpoints", rng)

    def load() -> None:
        saved = find_checkpoint(folder / "checkpoints")
        assert saved is not None
        learnt = int(load_agent(saved, {"learnt": np.array(0)})["learnt"])
        # The newest, or the one before where the newest is damaged, and never anything else.
        assert learnt == (1 if saved.passed_over else 2)

    taken_or_refused_in_one_line(load)


def replays(folder: Path, rng: np.random.Generator) -> None:
    damage(folder / "replay", rng)

    def go_on() -> None:
        replay = open_at(folder / "replay", capacity=400)
        try:
            replay.rewind(json.loads((folder / "cursor").read_text()))
            assert replay.held_rows() == {WALKER.task: 300}
            batch = replay.sample(np.random.default_rng(0), 20, 5, UNION)
            steps = batch.columns["reward"].astype(int)
            np.testing.assert_array_equal(batch.columns["env_step"], steps)
        finally:
            replay.close()

    taken_or_refused_in_one_line(go_on)


def inspected(folder: Path, rng: np.random.Generator) -> None:
    damage(folder / "replay", rng)
    taken_or_refused_in_one_line(lambda: inspect.main([str(folder / "replay"), "--verify"]))


def a_run(folder: Path) -> None:
    SyntheticRun(folder / "run", episodes=1).write()


def two_checkpoints(folder: Path) -> None:
    for learnt in (1, 2):
        life = Life(Clock(env_steps=40), {"learnt": np.array(learnt)})
        save_checkpoint(folder / "checkpoints", life, replay={}, records={}, keep=2)


def a_replay(folder: Path) -> None:
    replay = open_at(folder / "replay", capacity=400)
    fill(replay, WALKER, WALKER_SCHEMA, 300)
    (folder / "cursor").write_text(json.dumps(replay.commit()))
    replay.close()


def nothing(folder: Path) -> None:
    del folder


KINDS = {
    command_lines: nothing,
    curricula: nothing,
    overrides: nothing,
    run_names: nothing,
    run_folders: a_run,
    checkpoints: two_checkpoints,
    replays: a_replay,
    inspected: a_replay,
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_some_of_it_is_taken_or_refused_in_one_line(tmp_path, monkeypatch, kind):
    fuzz(tmp_path, monkeypatch, kind, FEW)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_much_of_it_is_taken_or_refused_in_one_line(tmp_path, monkeypatch, kind):
    fuzz(tmp_path, monkeypatch, kind, MANY_REPORTS if kind is run_folders else MANY)


def fuzz(tmp_path, monkeypatch, kind, count):
    whole, place = tmp_path / "whole", tmp_path / "place"
    whole.mkdir()
    KINDS[kind](whole)
    for number in range(count):
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(whole, place)
        monkeypatch.chdir(place)
        try:
            kind(place, np.random.default_rng(number))
        except Exception as error:
            raise AssertionError(f"number {number}") from error
    assert {path.name for path in tmp_path.iterdir()} == {"whole", "place"}
