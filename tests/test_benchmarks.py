"""Counted operations, against products counted one by one in a tiny agent."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from agent.config import AgentConfig
from agent.sizes import model_of_size
from tests.agent_cases import CRAFTER, CUP, WALKER, tiny

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from operations import of_update


def test_an_update_of_size1m_on_walker_is_about_thirty_gflop():
    config = AgentConfig(model=model_of_size("size1m"), riders={}, acting="dreamer")
    assert of_update(config, WALKER, 16, 64) == pytest.approx(30e9, rel=0.1)


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
    dreams = 2 * (actor + recurrence + prior) + 2 * 2 * (reward + going_on + reward)
    actor_critic = 2 * (3 * actor - first) + 2 * (3 * reward - first + reward)
    replay = 2 * (3 * reward + reward)
    expected = model + dreams + actor_critic + replay
    assert of_update(config, CUP, 1, 2) == expected
