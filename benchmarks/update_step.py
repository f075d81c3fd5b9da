"""What an update and a decision cost, beside what this machine's products cost.

    python benchmarks/update_step.py --size size1m --interface walker --batch 16 --riders 0

All figures come from one process. `share_of_matmul_rate` is the update's rate of counted operations
over the rate of a 2048-cube float32 product; seconds differ between machines, that share hardly.
Prints a table, or with --json one JSON object. Like `make`, it asks for huge pages where the user
has not decided otherwise (GLIBC_TUNABLES).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from batches import random_batch
from operations import of_update

from agent.agent import Agent, AgentState, make_agent
from agent.config import AgentConfig, AwacConfig, ModelConfig
from agent.learner import update_key
from agent.model import parameter_count
from agent.sizes import SIZES, model_of_size
from continual.backend import set_compiler_flags
from continual.cli import run_door
from continual.config import resolve_config
from continual.envs.interact import Seen
from continual.envs.interface import union
from continual.envs.registry import interface_of
from storage.batch import Batch

TASKS = {"walker": "dmc/walker_walk", "cup": "dmc/ball_in_cup_catch", "crafter": "crafter/reward"}


def rate_of_products(edge: int = 2048, repeats: int = 8) -> float:
    """Float32 operations a second of the best of some square products."""
    x = jnp.ones((edge, edge), jnp.float32)
    product = jax.jit(lambda x: x @ x)
    product(x).block_until_ready()
    return 2 * edge**3 / min(timed(lambda: product(x).block_until_ready()) for _ in range(repeats))


def timed(act: Callable[[], object]) -> float:
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def agent_of(arguments: argparse.Namespace) -> Agent:
    if arguments.size in SIZES:
        config = AgentConfig(model=model_of_size(arguments.size))
    else:
        config = resolve_config({}, arguments.size).agent
    if arguments.image_code:
        model = config.model.model_dump() | {"image_code": arguments.image_code}
        config = config.model_copy(update={"model": ModelConfig.model_validate(model)})
    riders = {f"awac{i}": AwacConfig() for i in range(arguments.riders)}
    partner = {"acting": "gated", "partner": "awac0"} if riders else {"acting": "dreamer"}
    config = AgentConfig.model_validate(
        config.model_dump(by_alias=True) | {"riders": riders} | partner
    )
    task = TASKS[arguments.interface]
    return make_agent(config, union({task: interface_of(task)}))


def calls_a_second(agent: Agent, state: AgentState, worlds: int, seconds: float = 2.0) -> float:
    """Decisions of the living policy in N worlds at once, a second."""
    (task, world), rng = next(iter(agent.union.tasks.items())), np.random.default_rng(0)
    policy = agent.living_policy(lambda: state, task, 0)
    seen = Seen(
        {s.name: np.asarray(rng.random((worlds, *s.shape)) * 255, s.dtype) for s in world.slots},
        np.zeros(worlds, bool),
        np.zeros((worlds, 2), np.uint32),
    )
    carried, calls = policy.initial(worlds), 0
    for _ in range(3):
        carried, _, _ = policy.act(carried, seen)
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        carried, _, _ = policy.act(carried, seen)
        calls += 1
    return calls / (time.perf_counter() - start)


def rider_share(agent: Agent, state: AgentState, batch: Batch, repeats: int) -> float:
    """CPU seconds of the riders' updates over those of DreamerV3's, taking turns."""
    seconds = {"learner": 0.0, "riders": 0.0}

    def count(name: str, update: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any) -> Any:
            start = time.process_time()
            found = jax.block_until_ready(update(*arguments))
            seconds[name] += time.process_time() - start
            return found

        return counted

    counted = dataclasses.replace(
        agent,
        _update=count("learner", agent._update),
        riders={
            name: dataclasses.replace(rider, update=count("riders", rider.update))
            for name, rider in agent.riders.items()
        },
    )
    for _ in range(repeats):
        state, _ = counted.learn(state, batch, update_key(0, 0))
    return seconds["riders"] / seconds["learner"]


def measure(arguments: argparse.Namespace) -> dict[str, float | int | str]:
    agent, rng = agent_of(arguments), np.random.default_rng(0)
    batch = random_batch(agent, [0] * arguments.batch, arguments.length, rng)
    state = agent.init(jax.random.key(0))

    def update() -> None:
        nonlocal state
        state, _ = agent.learn(state, batch, update_key(0, 0))
        jax.block_until_ready(state)

    compile_seconds = timed(update)
    update()
    walls, cpu = [], time.process_time()
    for _ in range(arguments.repeats):
        walls.append(timed(update))
    cpu = (time.process_time() - cpu) / arguments.repeats
    products = rate_of_products()
    world = agent.union.tasks[TASKS[arguments.interface]]
    operations = of_update(agent.config, world, arguments.batch, arguments.length)
    seconds = float(np.median(walls))
    return {
        "size": arguments.size,
        "interface": arguments.interface,
        "batch": arguments.batch,
        "length": arguments.length,
        "riders": arguments.riders,
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "updates_per_second": 1 / seconds,
        "seconds_per_update": seconds,
        "cpu_seconds_per_update": cpu,
        # The first call less a later one: tracing and compiling, with no cache.
        "compile_seconds": compile_seconds - seconds,
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "gflop_per_update": operations / 1e9,
        "matmul_gflops": products / 1e9,
        "share_of_matmul_rate": operations / seconds / products,
        "params_without_riders": parameter_count(state.learner.params),
        "rider_cpu_share": rider_share(
            agent, jax.tree.map(jnp.copy, state), batch, arguments.repeats
        ),
        "policy_calls_per_second_1": calls_a_second(agent, state, 1),
        "policy_calls_per_second_16": calls_a_second(agent, state, 16),
    }


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog=Path(__file__).name,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--size", default="size1m", help=f"{', '.join(SIZES)}, or a scale's name")
    parser.add_argument("--interface", default="walker", choices=sorted(TASKS))
    parser.add_argument("--image-code", choices=["conv", "patch"], help="else the size's own")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--riders", type=int, default=0, help="AWAC riders")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    arguments = parser.parse_args(argv)
    set_compiler_flags()
    found = measure(arguments)
    if arguments.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:28} {value:,.3f}" if isinstance(value, float) else f"{name:28} {value}")
    return 0


if __name__ == "__main__":
    if "GLIBC_TUNABLES" not in os.environ:  # the C library reads it at a start only
        os.environ["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
        os.execv(sys.executable, sys.orig_argv)
    run_door(main)
