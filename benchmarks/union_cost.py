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

from agent.agent import Agent, make_agent
from agent.device_batch import latent_schema
from agent.learner import update_key
from continual.backend import keep_compiled_programs
from continual.collect import batch_schema
from continual.config import Config, resolve_config
from continual.envs.interact import Seen
from continual.envs.interface import union
from continual.envs.registry import interface_of
from storage.batch import Batch, Where

CUP, WALKER, CRAFTER = "dmc/ball_in_cup_catch", "dmc/walker_walk", "crafter/reward"


def vector_batch(agent: Agent, config: Config, rng: np.random.Generator) -> Batch:
    """Random rows of the two DMC tasks in turn; no frames."""
    size, length = config.replay.batch, config.replay.length
    schema = batch_schema(agent.union)
    random = lambda column, *lead: rng.normal(size=(*lead, *column.shape)).astype(column.dtype)
    columns = {name: random(column, size, length) for name, column in schema.items()}
    for flag in ("is_first", "is_last", "is_terminal"):
        columns[flag] = np.zeros((size, length), bool)
    index = np.zeros(size, np.int64)
    return Batch(
        columns=columns,
        frames=np.zeros((0, length, 64, 64, 3), np.uint8),
        task=np.arange(size, dtype=np.int32) % 2,
        previous={n: random(c, size) for n, c in schema.items() if n.startswith("action.")},
        context={n: random(c, size) % 2 for n, c in latent_schema(config.agent.model).items()},
        draw=np.arange(size, dtype=np.int32),
        age=index,
        where=Where(index, index, index),
    )


def make_turns(config: Config, tasks: list[str]) -> dict[str, Callable[[], None]]:
    """One update, and one decision in walker_walk, each as a function to be timed."""
    agent = make_agent(config.agent, union({task: interface_of(task) for task in tasks}))
    rng = np.random.default_rng(0)
    state, batch = agent.init(jax.random.key(0)), vector_batch(agent, config, rng)
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
