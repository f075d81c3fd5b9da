"""Lives long enough to learn in: what is learnt, what changes nothing, and that nothing is NaN."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import jax
import numpy as np
import pytest

from continual import run
from continual.envs.toy import optimal_return
from continual.trained import load_trained
from eval.findings import find
from eval.records import TrainRecord, load_records
from eval.run_folder import load_run

pytestmark = pytest.mark.slow

# A small, eager agent: one skill is learnt in 1500 to 2500 updates. Toys last 20 decisions, so it
# looks no further: with DreamerV3's horizon of 333 the critic would climb for most of the life, and
# AWAC take every action for better than expected. Thirty times the scale's entropy bonus: at
# first there is nothing to learn from but noise, and an actor that settles then never tries a
# class again.
EAGER = [
    "scale=laptop",
    "agent.model.deter=64",
    "agent.model.hidden=64",
    "agent.model.units=64",
    "agent.model.stoch=8",
    "agent.model.classes=8",
    "agent.imagination.horizon=8",
    "agent.imagination.discount_horizon=20",
    "agent.imagination.entropy=3e-2",
    "agent.optim.lr=1e-3",
    "replay.length=16",
    "replay.batch=16",
    "collect.start=200",
    "collect.train_ratio=64",
    "evaluate.inside_every=1",
]
SKILLS = {"reach": 10_000, "match": 6000, "delay": 9000, "survive": 6000}  # environment steps
MARGIN = 0.9  # of the best return, judged with the modes of the living policy


def live(folder, monkeypatch, name, phases, *settings):
    """Live a curriculum of (task, budget) and give the run's folder."""
    monkeypatch.chdir(folder)
    text = "".join(f"  - {{task: {task}, steps: {steps}}}\n" for task, steps in phases)
    (folder / f"{name}.yaml").write_text(f"description: {name}\nphases:\n{text}")
    assert run.main([f"{name}.yaml", f"name={name}", *settings]) == 0
    return folder / "runs" / name


@pytest.mark.parametrize("variant", ["dreamer", "awac", "gated"])
@pytest.mark.parametrize("skill", SKILLS)
def test_a_skill_is_learnt_to_its_best_return(tmp_path, monkeypatch, skill, variant):
    budget = f"collect.budgets={{toy: {SKILLS[skill]}}}"
    phases = [(f"toy/{skill}", 1)]
    folder = live(tmp_path, monkeypatch, skill, phases, f"variant={variant}", budget, *EAGER)
    lived = "dreamer_actor" if variant == "dreamer" else "gated"
    found = [
        e.return_
        for e in load_run(folder).episodes
        if (e.when, e.action_mode, e.policy) == ("end", "mode", lived)
    ]
    assert np.mean(found) >= MARGIN * optimal_return(skill)


def test_a_rider_that_never_acts_leaves_a_life_of_500_updates_bit_for_bit(tmp_path, monkeypatch):
    settings = ["scale=smoke", "collect.budgets={toy: 700}", "collect.train_ratio=64"]
    lives = {}
    for variant in ("dreamer", "passive"):
        phases = [("toy/reach", 700)]
        folder = live(tmp_path, monkeypatch, variant, phases, f"variant={variant}", *settings)
        lives[variant] = load_trained(folder)
    dreamer, passive = lives.values()
    assert dreamer.clock == passive.clock
    assert dreamer.clock.updates >= 500
    old, new = (jax.tree.leaves(life.state.learner) for life in (dreamer, passive))
    for a, b in zip(old, new, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("seed", range(3))
def test_a_life_that_comes_back_to_its_first_world_holds_finite_numbers_only(
    tmp_path, monkeypatch, seed
):
    walker, cup, crafter = "dmc/walker_walk", "dmc/ball_in_cup_catch", "crafter/reward"
    phases = [(walker, 4800), (cup, 4800), (crafter, 1000), (walker, 4800)]
    settings = [
        "scale=laptop",
        f"seed={seed}",
        "collect.budgets={dmc: 4800, crafter: 1000}",
        "evaluate.episodes=1",
        "evaluate.episodes_of={crafter: 1}",
        "log.diagnose_every=200",
    ]
    folder = live(tmp_path, monkeypatch, f"life{seed}", phases, *settings)
    records = load_records(folder / "records", TrainRecord)
    assert records[-1].phase == 4
    for record in records:
        assert_finite(record)
        # The gate is asked in the world at hand only, so of that world's heads.
        assert set(record.gate) == {record.task}
        means = record.gate[record.task]
        for name in ("p", "chosen", "entropy", "entropy_partner", "penalty", "disagrees"):
            assert 0 <= means[name] <= 1, name
    assert all(
        np.isfinite(leaf).all()
        for leaf in jax.tree.leaves(load_trained(folder).state)
        if np.issubdtype(leaf.dtype, np.floating)
    )


def test_eight_lives_in_which_nothing_changes_forget_nothing(tmp_path):
    """The stationary control: one toy, which is learnt in the first phase and goes on."""
    (tmp_path / "control.yaml").write_text(
        "description: Nothing changes but the phase.\nphases:\n"
        "  - {task: toy/match, steps: 6000}\n  - {task: toy/match, steps: 1500}\n"
    )
    settings = [*EAGER, "collect.budgets={}", "evaluate.sampled=false"]

    def live(seed):
        command = [sys.executable, "-m", "continual.run", "control.yaml", f"name=life{seed}"]
        environment = {**os.environ, "PYTHONPATH": str(Path(run.__file__).parents[1])}
        subprocess.run(
            [*command, f"seed={seed}", *settings], cwd=tmp_path, env=environment, check=True
        )
        return find(load_run(tmp_path / "runs" / f"life{seed}"))

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        lives = list(pool.map(live, range(8)))
    assert all(life.learned[0] for life in lives)
    assert abs(np.mean([life.drops[0, 2] for life in lives])) <= 0.02
    forgotten = [next(m.value for m in life.metrics if m.name == "forgetting") for life in lives]
    assert abs(np.mean(forgotten)) <= 0.02
    assert all(switch.changed == "nothing" for life in lives for switch in life.switches)


def assert_finite(record):
    """A record is read back with NaN where it was written without a number."""
    numbers = numbers_in(asdict(record))
    assert all(map(math.isfinite, numbers)), record


def numbers_in(value):
    """Every number below mappings."""
    if isinstance(value, dict):
        return [n for below in value.values() for n in numbers_in(below)]
    return [] if isinstance(value, str) else [value]
