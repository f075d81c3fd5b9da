"""A run's agent outside its run: what the README promises, and what it refuses.

The run is too short to learn anything in, which none of this depends on.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import av
import gymnasium
import jax
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from continual import rollout, run
from continual.collect import batch_schema
from continual.envs.gym import GymWorld
from continual.envs.registry import make_world
from continual.errors import UserError
from continual.trained import life_at, load_trained

ROOT = Path(__file__).parents[1]
CURRICULUM = """
description: One toy of each kind.
scale: smoke
phases:
  - {task: toy/picture, steps: 40}
judged: [toy/reach]
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory, one_compilation):
    folder = tmp_path_factory.mktemp("trained")
    (folder / "toys.yaml").write_text(CURRICULUM)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        options = ["collect.start=80", "evaluate.inside_every=1", "evaluate.episodes=1"]
        assert run.main(["toys.yaml", "name=done", *options]) == 0
    return folder / "runs" / "done"


def files(folder):
    return {p: p.stat().st_mtime_ns for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_lines_of_the_readme_run_as_they_stand(finished, capsys):
    (block,) = re.findall(
        r"```python\n(from continual.trained.*?)```", (ROOT / "README.md").read_text(), re.DOTALL
    )
    code = block.replace("runs/dmc_then_crafter-laptop-gated-s0", str(finished))
    before = files(finished)
    exec(code.replace("dmc/ball_in_cup_catch", "toy/reach"), {})
    assert 0 <= float(capsys.readouterr().out) <= 20
    assert files(finished) == before


def test_a_checkpoint_is_read_by_ten_lines_that_know_nothing_of_us(finished, tmp_path):
    (code,) = re.findall(
        r"```python\n(import json, sys.*?)```", (ROOT / "README.md").read_text(), re.DOTALL
    )
    command = [sys.executable, "-I", "-c", code, str(finished)]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    first, *others = said.splitlines()
    assert first.endswith("40 environment steps, 0 updates")
    assert any(re.match(r"learner/params/dyn/\S+  \(.*\)  \d+\.\d{3}$", line) for line in others)


def play(trained, task, **policy):
    env, act = trained.make_env(task), trained.policy(task, **policy)
    observation, _ = env.reset(seed=3)
    act.reset(seed=3)
    actions, ended = [], False
    while not ended:
        actions.append(act(observation))
        observation, _, terminated, truncated, _ = env.step(actions[-1])
        ended = terminated or truncated
    return np.array(actions)


@pytest.mark.parametrize("task", ["toy/reach", "toy/picture"])
def test_an_episode_is_the_same_when_it_is_played_again(finished, task):
    trained = load_trained(finished)
    first = play(trained, task, action_mode="sampled")
    np.testing.assert_array_equal(first, play(trained, task, action_mode="sampled"))
    assert len(np.unique(first, axis=0)) > 1


def test_the_policy_that_lived_and_each_of_its_two_can_be_had(finished):
    trained = load_trained(finished)
    actions = {
        name: play(trained, "toy/reach", name=name)
        for name in (None, "gated", "dreamer_actor", "awac_actor")
    }
    np.testing.assert_array_equal(actions[None], actions["gated"])
    assert not np.array_equal(actions["dreamer_actor"], actions["awac_actor"])


def test_what_the_run_does_not_have_is_named(finished, tmp_path):
    trained = load_trained(finished)
    with pytest.raises(UserError, match="did you mean 'dreamer_actor'"):
        trained.policy("toy/reach", name="dreamer_acter")
    with pytest.raises(UserError, match="not one of this run"):
        trained.make_env("toy/match")
    with pytest.raises(UserError, match=str(tmp_path)):
        load_trained(tmp_path)


def test_the_agent_of_a_phase_can_be_had(finished):
    then = load_trained(finished, phase=1)
    assert (then.clock.phase, then.clock.phase_start[0], then.clock.phase_step) == (2, 40, 0)
    assert then.lived == ("toy/picture",)
    with pytest.raises(UserError, match="no checkpoint of phase 7, there are those of 1"):
        load_trained(finished, phase=7)


def test_a_life_is_had_with_its_memory_and_lives_on_without_touching_the_run(finished, tmp_path):
    before = files(finished)
    life = life_at(finished, phase=1, scratch=tmp_path)
    assert life.clock.env_steps == 40
    assert life.replay.held_rows() == {"toy/picture": 42}
    union = batch_schema(life.agent.union)
    batch = life.replay.sample(np.random.default_rng(0), 2, 8, union)
    _, learnt = life.agent.learn(life.state, batch, jax.random.key(0))
    life.replay.write_latents(batch.where, learnt.latents)
    life.replay.commit()
    assert np.isfinite(learnt.metrics.means["loss/reward"])
    life.close()
    assert files(finished) == before
    assert not list(tmp_path.iterdir())


def test_an_agent_is_watched_from_the_command_line(finished, tmp_path, capsys):
    film = tmp_path / "out.mp4"
    asked = ["phase=1", "task=toy/picture", "episodes=2", f"video={film}"]
    assert rollout.main([str(finished), *asked]) == 0
    first, second, last = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"toy/picture seed 0: return \d+\.\d, 20 decisions", first)
    assert second.startswith("toy/picture seed 1: ")
    assert last == f"the film: {film}"
    with av.open(str(film)) as opened:
        shown = [f.to_ndarray(format="rgb24") for f in opened.decode(video=0)]
    assert len(shown) == 40
    assert shown[0].shape == (256, 256, 3)
    bright = [frame.reshape(2, 128, 2, 128, 3).mean((1, 3, 4)) > 128 for frame in shown]
    assert {int(b.sum()) for b in bright} == {1}  # one quadrant is lit
    assert rollout.main([str(finished), "policy=dreamer_actor", "action_mode=sampled"]) == 0
    assert capsys.readouterr().out.startswith("toy/picture seed 0: ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["task=toy/reach", "video=a.mp4"], "has no looks"),
        (["video=a.avi"], "ends in .mp4 or .gif"),
        (["video=nowhere/a.mp4"], "is no folder"),
        (["phase=0"], "phase=0: expected"),
        (["taks=toy/reach"], "did you mean 'task'"),
        (["task=toy/match"], "not one of this run"),
        (["--video"], "unknown flag"),
        (["more"], "expected one run"),
    ],
)
def test_what_cannot_be_watched_is_refused(finished, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=re.escape(said)):
        rollout.main([str(finished), *arguments])
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore:.*Box observation space m.*infinity")  # it has no bounds
@pytest.mark.parametrize("task", ["toy/reach", "toy/match", "toy/picture", "crafter/reward"])
def test_worlds_pass_gymnasiums_own_check(task):
    env = GymWorld(make_world(task))
    assert isinstance(env, gymnasium.Env)
    check_env(env, skip_render_check=True)
    env.close()
