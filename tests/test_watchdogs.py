"""What stops a life before it is spoilt, and what is kept to find out why."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from agent.agent import Agent
from agent.learner import Metrics
from continual import reproduce, run
from continual.envs.toy import ToyWorld
from continual.errors import UserError

pytestmark = pytest.mark.usefixtures("one_compilation")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy.yaml").write_text("phases: [{task: toy/reach, steps: 60}]\nscale: smoke\n")
    return tmp_path


def live(name: str, *more: str) -> int:
    """A life of one phase and few updates."""
    settings = ["collect.budgets={toy: 60}", "collect.start=40", "replay.length=8"]
    judged = ["evaluate.inside_every=1", "evaluate.episodes=1", "evaluate.sampled=false"]
    return run.main(["toy.yaml", f"name={name}", *settings, *judged, *more])


def test_a_loss_that_is_no_number_stops_the_life_before_it_is_saved(folder, monkeypatch):
    learn = Agent.learn

    def poisoned(self, state, batch, *rest):
        state, learnt = learn(self, state, batch, *rest)
        means = learnt.metrics.means | {"loss/reward": np.float32("nan")}
        by_task = learnt.metrics.by_task
        by_task = by_task | {"loss/reward": np.where(np.arange(1) == 0, np.nan, 0.0)}
        return state, replace(learnt, metrics=Metrics(means, by_task))

    with monkeypatch.context() as patch:
        patch.setattr(Agent, "learn", poisoned)
        with pytest.raises(
            UserError, match=r"update 0, on toy/reach: loss/reward = nan; "
        ) as caught:
            live("poisoned")
    (kept,) = (folder / "runs" / "poisoned" / "faults").iterdir()
    assert f"The batch is in {kept.relative_to(folder)}" in str(caught.value)
    assert load_file(kept)["columns/reward"].ndim == 2
    assert live("poisoned") == 0


def test_a_world_that_breaks_is_named_with_what_led_there_and_breaks_again(folder, monkeypatch):
    step = ToyWorld.step

    def breaking(self: ToyWorld, action):
        timestep = step(self, action)
        if breaking.left == 0:
            raise RuntimeError("the ground\nopened")
        breaking.left -= 1
        return timestep

    breaking.left = 25
    with monkeypatch.context() as patch:
        patch.setattr(ToyWorld, "step", breaking)
        said = r"seed \d+ broke after \d+ actions with RuntimeError: the ground opened; python"
        with pytest.raises(UserError, match=said) as caught:
            live("broken")
        kept = Path(str(caught.value).rpartition(" ")[2])
        actions = int(re.search(r"after (\d+) actions", str(caught.value))[1])
        breaking.left = actions - 1
        with pytest.raises(RuntimeError, match="the ground"):
            reproduce.main([str(kept)])
    assert kept.parent == Path("runs/broken/faults")
    assert reproduce.main([str(kept)]) == 0
    assert live("broken") == 0


@pytest.mark.parametrize("content", [b"", b"nothing of ours"])
def test_what_no_world_left_is_refused_in_one_line(folder, content):
    (folder / "file").write_bytes(content)
    with pytest.raises(UserError, match="file: expected what a broken world left in faults/"):
        reproduce.main(["file"])


def test_a_run_stops_in_good_order_before_the_disk_is_full(folder, monkeypatch, capsys):
    real = shutil.disk_usage(folder)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: real._replace(free=10_000))
        with pytest.raises(UserError, match=r"runs/full: 0 MB are free, expected \d+ MB for what"):
            live("full", "variant=random")
    assert "it will stop in good order before the disk is full" in capsys.readouterr().out
    assert live("full", "variant=random") == 0
    assert "may come to" not in capsys.readouterr().out
