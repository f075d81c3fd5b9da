"""Whether the gate is right: forks of worlds, and what is concluded from them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from agent.config import RandomGate
from continual import calibrate, run
from continual.calibrate import Asked, forks_of_episode, skill_of
from continual.errors import UserError
from continual.trained import load_trained
from eval.calibration import Fork, Skill, auroc, brier, judge_forks, load_calibration
from eval.gate_sums import GATE_SUMS

pytestmark = pytest.mark.usefixtures("one_compilation")

LIFE = """
description: A toy.
scale: smoke
phases:
  - {task: toy/match, steps: 40}
"""
SMALL = ["collect.start=60", "replay.length=8", "evaluate.inside_every=1", "evaluate.episodes=1"]


@pytest.fixture(scope="module")
def lived(tmp_path_factory, one_compilation):
    folder = tmp_path_factory.mktemp("calibration")
    (folder / "life.yaml").write_text(LIFE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run.main(["life.yaml", "name=lived", *SMALL]) == 0
        assert run.main(["life.yaml", "name=plain", "variant=random", *SMALL]) == 0
    return folder / "runs"


def test_auroc_and_brier_score_are_those_worked_by_hand():
    # Pairs (positive, negative): .9>.4, .9>.6, .6>.4, .6=.6: 3.5 of 4.
    assert auroc([0.9, 0.6, 0.4, 0.6], [1, 1, 0, 0]) == pytest.approx(3.5 / 4)
    assert brier([0.9, 0.4], [1, 0]) == pytest.approx((0.01 + 0.16) / 2)
    assert math.isnan(auroc([0.5], [1]))
    assert math.isnan(brier([], []))


def test_ties_are_counted_and_say_nothing():
    forks = [
        Fork(seed=0, decision=t, p=p, actor=a, partner=b)
        for t, (p, a, b) in enumerate([(0.9, 1, 3), (0.2, 4, 1), (0.5, 2, 2)])
    ]
    found = judge_forks(forks)
    assert (found.forks, found.ties, found.partner_share) == (3, 1, 0.5)
    assert (found.auroc, found.gain) == (1.0, pytest.approx(-1 / 3))
    assert found.brier == pytest.approx((0.01 + 0.04) / 2)
    assert found.reason == ""


def test_a_verdict_that_cannot_be_given_says_why():
    fork = lambda actor, partner: Fork(seed=0, decision=0, p=0.5, actor=actor, partner=partner)
    for forks, why in (
        ([], "nothing was forked"),
        ([fork(1, 1)], "no two branches returned differently"),
        ([fork(1, 2), fork(1, 3)], "the partner returned more in every fork"),
        ([fork(1, 1), fork(2, 1)], "the actor returned more in every fork"),
    ):
        found = judge_forks(forks)
        assert math.isnan(found.auroc)
        assert found.reason == why


class Sure:
    """Always right, or always wrong, in the world where the class shown is to be named."""

    def __init__(self, is_right):
        self.is_right = is_right

    def initial(self, n):
        return None

    def act(self, state, seen):
        (cue,) = seen.observation.values()
        actions = (cue.argmax(-1) + (0 if self.is_right else 1)) % 4
        return state, {"toy.match": actions.astype(np.int32)}, {"gate.p": np.array([0.25])}


def test_a_branch_returns_what_its_policy_earns_and_then_what_both_do(lived, monkeypatch):
    policies = {"gated": Sure(False), "dreamer_actor": Sure(False), "awac_actor": Sure(True)}
    monkeypatch.setattr(calibrate, "_policy", lambda trained, task, name, gate=None: policies[name])
    trained = load_trained(lived / "lived")
    asked = Asked(moments=20, hold=5, follow=50)
    forks = forks_of_episode(trained, "toy/match", 0, asked)
    assert [fork.decision for fork in forks] == list(range(20))
    for fork in forks:
        assert fork.actor == 0
        assert fork.partner == min(5, 20 - fork.decision)  # one for each decision that it holds
        assert fork.p == 0.25


def test_skill_is_what_a_coin_of_the_same_rate_does_not_have(lived, monkeypatch):
    trained = load_trained(lived / "lived")

    class Spoken(Sure):
        """Gives the partner every fourth decision."""

        def act(self, state, seen):
            state, actions, _ = super().act(state, seen)
            info = {f"gate.{name}": np.zeros(1) for name in GATE_SUMS}
            info["gate.chosen"][0] = seen.draw[0, 1] % 4 == 0
            return state, actions, info

    coins = []

    def policy(trained, task, name, gate=None):
        coins.append(gate)
        return Spoken(is_right=gate is None)

    monkeypatch.setattr(calibrate, "_policy", policy)
    found = skill_of(trained, "toy/match", Asked(episodes=3))
    best = len(found.gated) * [20.0]
    assert coins == [None, RandomGate(p=0.25)]
    assert (found.rate, found.gated, found.coin) == (0.25, tuple(best), (0.0, 0.0, 0.0))
    assert (found.mean, found.error) == (20, 0)


def test_the_error_of_a_skill_is_that_of_pairs():
    # Differences 3, 1, 2: mean 2, standard deviation 1, over the square root of 3.
    skill = Skill(rate=0.5, gated=(9, 5, 7), coin=(6, 4, 5))
    assert (skill.mean, skill.error) == (2, pytest.approx(1 / math.sqrt(3)))
    assert math.isnan(Skill(rate=0.5, gated=(1,), coin=(0,)).error)


def test_forks_are_the_same_every_time_and_stand_in_the_report(lived, capsys):
    asked = ["episodes=2", "moments=3", "hold=2", "follow=4"]
    contents = []
    for _ in range(2):
        assert calibrate.main([str(lived / "lived"), *asked]) == 0
        contents.append((lived / "lived" / "calibration.json").read_text())
    assert contents[0] == contents[1]
    found = load_calibration(lived / "lived")
    (task,) = found.tasks
    assert (task.task, len(task.forks), len(task.skill.coin)) == ("toy/match", 6, 2)
    assert "toy/match" in json.loads(contents[0])["verdicts"]
    page = (lived / "lived" / "report" / "index.html").read_text()
    assert "Is the gate right?" in page
    assert "the report: " in capsys.readouterr().out


def test_what_cannot_be_calibrated_is_refused(lived):
    with pytest.raises(UserError, match="has no gate"):
        calibrate.main([str(lived / "plain")])
    with pytest.raises(UserError, match="not one of this run"):
        calibrate.main([str(lived / "lived"), "task=toy/reach"])
