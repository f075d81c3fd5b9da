"""Counted operations, against products counted one by one in a tiny agent."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from agent.config import AgentConfig
from agent.sizes import model_of_size
from tests.agent_cases import CRAFTER, CUP, WALKER, tiny

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from operations import encoder, of_update


def test_an_update_of_size1m_on_walker_is_about_thirty_gflop():
    config = AgentConfig(model=model_of_size("size1m"), riders={}, acting="dreamer")
    assert of_update(config, WALKER, 16, 64) == pytest.approx(30e9, rel=0.1)


def test_the_gradient_of_what_was_seen_is_asked_of_no_encoder():
    once = encoder(tiny().model, CRAFTER)
    assert once[1] == 2 * 3 * 8**2 * 64 * 4 * tiny().model.depth  # 64 patches of 8 x 8
    assert once[0] > once[1]


@pytest.mark.parametrize("world", [CUP, CRAFTER], ids=["cup", "crafter"])
def test_operations_grow_in_proportion_to_the_batch(world):
    once, twice = (of_update(tiny(), world, batch, 5) for batch in (3, 6))
    assert twice == 2 * once


def test_a_rider_costs_a_critic_and_an_actor_on_the_replayed_states():
    """28 features, 8 units, 255 bins, 4 actor outputs; the actor needs no gradient of its input."""
    bare = of_update(tiny(riders={}, acting="dreamer"), CUP, 2, 5)
    critic = 2 * 28 * 8 + 2 * 8 * 255
    actor = 3 * (2 * 28 * 8 + 2 * 8 * 4) - 2 * 28 * 8
    assert of_update(tiny(), CUP, 2, 5) - bare == 2 * 5 * (critic + actor)


def test_a_tiny_agents_operations_by_hand():
    """Two rows, two dreams of one step; critic and reward head are of one size. On paper."""
    config = tiny(riders={}, acting="dreamer", imagination={"horizon": 1, "last": 2})
    feature = 16 + 12
    encoder = 2 * 8 * 8
    inputs = 2 * 8 * (16 + 12 + 2)
    recurrence = inputs + 2 * (8 + 24) * 16 + 2 * 8 * 48
    prior = 2 * 16 * 8 + 2 * 8 * 12
    posterior = 2 * (16 + 8) * 8 + 2 * 8 * 12
    decoder = 2 * feature * 8 + 2 * 8 * 8
    reward = 2 * feature * 8 + 2 * 8 * 255
    going_on = 2 * feature * 8 + 2 * 8 * 1
    actor = 2 * feature * 8 + 2 * 8 * 4
    first = 2 * feature * 8
    model = 2 * 3 * (encoder + recurrence + prior + posterior + decoder + reward + going_on)
    model -= 2 * encoder  # one layer, and nobody asks for the gradient of what was seen
    # Reward and continue heads, the critic and the slow one look at both states of a dream.
    dreams = 2 * (actor + recurrence + prior) + 2 * 2 * (reward + going_on + 2 * reward)
    # Backward alone for the critic, on the first state.
    actor_critic = 2 * (3 * actor - first) + 2 * (2 * reward - first)
    replay = 2 * (3 * reward + reward)
    expected = model + dreams + actor_critic + replay
    assert of_update(config, CUP, 1, 2) == expected


@pytest.mark.slow
def test_the_benchmark_of_an_update_prints_one_object_for_other_programs():
    script = Path(__file__).parents[1] / "benchmarks" / "update_step.py"
    small = ["--size", "smoke", "--interface", "cup", "--batch", "2", "--length", "4"]
    said = subprocess.run(
        [sys.executable, str(script), *small, "--repeats", "1", "--riders", "1", "--json"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = json.loads(said)
    asked = {
        "updates_per_second",
        "cpu_seconds_per_update",
        "compile_seconds",
        "peak_rss_mib",
        "gflop_per_update",
        "matmul_gflops",
        "share_of_matmul_rate",
        "params_without_riders",
        "policy_calls_per_second_1",
        "policy_calls_per_second_16",
    }
    assert found.keys() >= asked
    assert all(found[name] > 0 for name in asked)
