"""Diagnostic worlds: their best returns are known, and every kind of agent gets near them."""

from __future__ import annotations

import pytest

from continual import run
from eval.run_folder import load_run

BEST = {"reach": 20.0, "match": 20.0, "delay": 17.0, "survive": 20.0, "picture": 20.0}
SETTINGS = [
    "scale=laptop",
    "agent.model={deter: 64, hidden: 64, units: 64, stoch: 8, classes: 8}",
    "agent.imagination.horizon=8",
    "agent.optim.lr=1e-3",
    "replay.length=16",
    "replay.batch=16",
    "collect.start=200",
    "collect.train_ratio=64",
    "evaluate.inside_every=1",
    "log.diagnose_every=0",
]


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["dreamer", "awac", "gated"])
@pytest.mark.parametrize("world", ["reach", "match", "delay", "survive"])
def test_an_agent_gets_near_the_best_return_of_a_world_that_asks_for_one_skill(
    tmp_path, monkeypatch, world, variant
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy.yaml").write_text(
        f"description: One skill.\nphases: [{{task: toy/{world}, steps: 1}}]\n"
    )
    budget = f"collect.budgets={{toy: {STEPS[world]}}}"
    assert run.main(["toy.yaml", "name=toy", f"variant={variant}", budget, *SETTINGS]) == 0
    episodes = load_run(tmp_path / "runs" / "toy").episodes
    lives = {"dreamer": "dreamer_actor"}.get(variant, "gated")
    found = [
        e.return_
        for e in episodes
        if e.when == "end" and e.policy == lives and e.action_mode == "mode"
    ]
    assert sum(found) / len(found) >= SHARE[world, variant] * BEST[world]


STEPS = dict.fromkeys(BEST, 6000)
SHARE = {(world, variant): 0.9 for world in BEST for variant in ("dreamer", "awac", "gated")}
