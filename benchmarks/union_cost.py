"""What worlds with pictures cost while the agent lives in one without.

    python benchmarks/union_cost.py [--scale laptop] [--repeats 200]

Two agents of one configuration, one built for two DMC tasks, one for the same two and Crafter,
update on the same kind of batch (rows of both DMC tasks) and act in walker_walk. Their turns
alternate in one process, so that whatever else the machine does meets both. Prints one JSON
object; the ratios are what matters.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import jax
import numpy as np
from batches import random_batch

from agent.agent import make_agent
from agent.learner import update_key
from continual.backend import keep_compiled_programs, set_compiler_flags
from continual.config import Config, resolve_config
from continual.envs.interact import Seen
from continual.envs.interface import union
from continual.envs.registry import interface_of

CUP, WALKER, CRAFTER = "dmc/ball_in_cup_catch", "dmc/walker_walk", "crafter/reward"


def make_turns(config: Config, tasks: list[str]) -> dict[str, Callable[[], None]]:
    """One update, and one decision in walker_walk, each as a function to be timed."""
    agent = make_agent(config.agent, union({task: interface_of(task) for task in tasks}))
    rng = np.random.default_rng(0)
    state = agent.init(jax.random.key(0))
    turns = [number % 2 for number in range(config.replay.batch)]  # both DMC tasks, no frames
    batch = random_batch(agent, turns, config.replay.length, rng)
    policy = agent.living_policy(lambda: state, WALKER, 0)
    carried = policy.initial(1)
    seen = Seen(
        {
            s.name: rng.normal(size=(1, *s.shape)).astype(np.float32)
            for s in agent.union.tasks[WALKER].slots
        },
        np.array([False]),
        np.zeros((1, 2), np.uint32),
    )

    def update() -> None:
        nonlocal state
        state, _ = agent.learn(state, batch, update_key(0, 0))
        jax.block_until_ready(state)

    def act() -> None:
        nonlocal carried
        carried, _, _ = policy.act(carried, seen)

    return {"update": update, "act": act}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", default="laptop")
    parser.add_argument("--repeats", type=int, default=200)
    arguments = parser.parse_args()
    set_compiler_flags()
    keep_compiled_programs()
    config = resolve_config({}, arguments.scale)
    agents = {
        "union": make_turns(config, [CUP, WALKER, CRAFTER]),
        "dmc": make_turns(config, [CUP, WALKER]),
    }
    seconds: dict[tuple[str, str], list[float]] = {}
    for repeat in range(arguments.repeats + 5):
        for name, turns in agents.items():
            for kind, turn in turns.items():
                start = time.perf_counter()
                turn()
                if repeat >= 5:  # the first ones compile and warm up
                    seconds.setdefault((kind, name), []).append(time.perf_counter() - start)
    medians = {key: float(np.median(values)) for key, values in seconds.items()}
    result = {f"{kind}_ms_{name}": 1e3 * value for (kind, name), value in medians.items()}
    for kind in ("update", "act"):
        result[f"{kind}_ratio"] = medians[kind, "union"] / medians[kind, "dmc"]
    print(json.dumps({name: round(value, 4) for name, value in result.items()}))


if __name__ == "__main__":
    main()
