"""The door `python -m continual.doctor`: what this machine has, and whether a life works on it."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np

from agent.agent import Agent, make_agent
from continual.backend import set_compiler_flags
from continual.cli import Parser, run_door
from continual.collect import begin_living
from continual.config import Config, resolve_config
from continual.envs.interact import begin, interact
from continual.envs.interface import union
from continual.envs.random_policy import RandomPolicy
from continual.envs.registry import PROVIDERS, interface_of, make_world
from continual.errors import UserError
from continual.life import Life
from continual.rundir import versions
from continual.scheduler import Clock
from continual.tracking import Trackers
from curricula.loader import PlannedPhase
from storage import Replay, open_replay
from storage.files import filesystem_of, refuse_network

LIVED = "crafter/reward"  # pictures and classes; to compile for each world would take minutes
STEPS = 60  # environment steps that are lived
SETTINGS = {"collect.start": 40, "replay.length": 8, "replay.batch": 2}

Check = Callable[[Path], str]


def machine(folder: Path) -> Iterator[tuple[str, str]]:
    """(what, how it is here); nothing of it is right or wrong."""
    yield from versions().items()
    devices = ", ".join(f"{d.platform} ({d.device_kind})" for d in jax.devices())
    yield "jax runs on", devices
    yield "cores", f"{len(os.sched_getaffinity(0))}"
    yield "pictures", f"MUJOCO_GL={os.environ.get('MUJOCO_GL', '')} (needed by videos alone)"
    free = shutil.disk_usage(folder).free
    yield "disk", f"{free / 1e9:,.1f} GB free in {folder.resolve()} ({filesystem_of(folder)})"


def check_disk(folder: Path) -> str:
    """Runs may lie here. Raises UserError: they may not."""
    refuse_network(folder)
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        os.posix_fallocate(file.fileno(), 0, 2**20)
    return "files can be made, and room be taken for them"


def check_worlds(folder: Path) -> str:
    """One of each family does the same twice. Raises UserError: it does not."""
    del folder
    for task in (f"{name}/{next(iter(p.TASKS))}" for name, p in PROVIDERS.items()):
        first, second = _shown(task), _shown(task)
        if not all(np.array_equal(a, b) for a, b in zip(first, second, strict=True)):
            raise UserError(f"{task}: the same seed and actions gave other observations")
    return f"{', '.join(PROVIDERS)}: the same seed and actions, the same observations"


def check_life(folder: Path) -> str:
    """An agent lives, learns and is brought back. Raises UserError: something broke."""
    config = resolve_config(SETTINGS, "smoke")
    agent = make_agent(config.agent, union({LIVED: interface_of(LIVED)}))
    replay = open_replay(
        folder / "replay",
        capacity=config.replay.capacity,
        latents=agent.latents,
        tasks=[LIVED],
        context="stored",
    )
    try:
        life = Life(Clock(), agent.init(jax.random.key(0)))
        _live(life, agent, replay, config, folder)
        cursor, held = replay.commit(), replay.held_rows()
        replay.rewind(cursor)
        if replay.held_rows() != held:
            raise UserError(f"the replay came back with {replay.held_rows()}, expected {held}")
    finally:
        replay.close()
    clock = life.clock
    return f"{clock.agent_steps} rows, {clock.updates} updates, the replay brought back"


def _shown(task: str) -> list[np.ndarray]:
    """Everything that a world shows during twenty random actions."""
    world, same = make_world(task), lambda world: (0, 0)
    policy = RandomPolicy(world.interface, 0)
    moments = interact([world], policy, None, begin([world], same), same)
    timesteps = [t for moment in itertools.islice(moments, 20) for t in moment.timesteps if t]
    world.close()
    return [values for t in timesteps for values in t.observation.values()]


def _live(life: Life, agent: Agent, replay: Replay, config: Config, folder: Path) -> None:
    living = begin_living(
        life,
        PlannedPhase(1, 1, LIVED, STEPS),
        [make_world(LIVED)],
        agent.living_policy(lambda: life.agent, LIVED, 0),
        agent=agent,
        replay=replay,
        config=config,
        tracker=Trackers([]),
        faults=folder,
    )
    living.until(STEPS, stop=lambda: False)
    living.end()


CHECKS: dict[str, Check] = {"disk": check_disk, "worlds": check_worlds, "life": check_life}


def main(argv: list[str]) -> int:
    parser = Parser(
        prog="python -m continual.doctor",
        description="Say what this machine has, and try worlds, replay and updates for about a "
        "minute. Packages that hide ours have been looked for when this text can be read.",
    )
    parser.add_argument(
        "folder", type=Path, nargs="?", default=Path(), help="where runs would lie; else here"
    )
    folder = parser.parse_args(argv).folder
    if not folder.is_dir():
        raise UserError(f"{folder}: expected a folder that is there")
    set_compiler_flags(0)  # it is tried whether an update compiles, not how fast it is
    for what, how in machine(folder):
        print(f"  {what:<12} {how}")
    failed = 0
    for name, check in CHECKS.items():
        start = time.monotonic()
        try:
            with tempfile.TemporaryDirectory(dir=folder, prefix="doctor-") as place:
                said = f"ok      {name}: {check(Path(place))}"
        except Exception as error:  # noqa: BLE001 - whatever it is, the other checks say more
            failed += 1
            said = f"FAILED  {name}: {type(error).__name__}: {error}"
        print(f"{said} ({time.monotonic() - start:.0f} s)", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    run_door(main)
