"""The contract of a world, for every task; then what each family promises beyond it."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from continual.envs import crafter, dmc, registry, toy
from continual.envs.interact import Seen
from continual.envs.interface import Interface, Slot, union
from continual.envs.random_policy import RandomPolicy
from continual.envs.registry import (
    interface_of,
    make_world,
    most_specific,
    resolve_key,
    resolve_task,
    return_range,
    task_names,
)
from continual.envs.world import Action, Observation, TimeStep, World, restart, transition
from continual.errors import UserError

ROOT = Path(__file__).parents[1]

every_task = pytest.mark.parametrize("task", task_names())


@functools.cache
def used_world(task: str) -> World:
    """One instance for the whole module, in whatever state the last test left it."""
    return make_world(task)


def random_actions(interface: Interface, n: int, seed: int = 0) -> list[Action]:
    policy = RandomPolicy(interface, seed)
    draws = np.array([[0, i] for i in range(n)], np.uint32)
    _, actions, _ = policy.act(None, Seen({}, np.zeros(n, bool), draws))
    return [{head: a[i] for head, a in actions.items()} for i in range(n)]


def play(world: World, seed: int, actions: Sequence[Action]) -> list[TimeStep]:
    """Time steps of an episode, until the actions are used up or it is over."""
    timesteps = [world.reset(seed)]
    for action in actions:
        if timesteps[-1].is_last:
            break
        timesteps.append(world.step(action))
    return timesteps


def same(left: Sequence[TimeStep], right: Sequence[TimeStep]) -> bool:
    return len(left) == len(right) and all(
        (a.reward, a.env_steps, a.is_first, a.is_last, a.is_terminal, a.extras)
        == (b.reward, b.env_steps, b.is_first, b.is_last, b.is_terminal, b.extras)
        and a.observation.keys() == b.observation.keys()
        and all(np.array_equal(a.observation[k], b.observation[k]) for k in a.observation)
        for a, b in zip(left, right, strict=True)
    )


def constant(world: World, value: float) -> Action:
    """The value in every dimension of continuous heads, class 0 of the others."""
    return {
        h.name: np.full(h.shape, value if h.kind == "continuous" else 0, h.dtype)
        for h in world.interface.heads
    }


def run_python(code: str, **environment: str | None) -> str:
    """What a fresh process prints; None removes a variable from its environment."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={k: v for k, v in env.items() if v is not None},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# --- The contract ---------------------------------------------------------------------------------


@every_task
def test_time_steps_fit_the_interface(task: str) -> None:
    world = used_world(task)
    assert world.interface == interface_of(task)
    for timestep in play(world, 3, random_actions(world.interface, 10)):
        assert list(timestep.observation) == [slot.name for slot in world.interface.slots]
        for slot in world.interface.slots:
            value = timestep.observation[slot.name]
            assert (value.shape, value.dtype.name) == (slot.shape, slot.dtype)
            assert np.isfinite(value).all()
        assert type(timestep.reward) is float
        assert np.isfinite(timestep.reward)


@every_task
def test_only_the_first_time_step_is_first_and_it_costs_and_pays_nothing(task: str) -> None:
    world = used_world(task)
    first, *others = play(world, 3, random_actions(world.interface, 10))
    assert (first.is_first, first.reward, first.env_steps) == (True, 0.0, 0)
    assert (first.is_last, first.is_terminal) == (False, False)
    assert others
    assert all(not t.is_first and t.env_steps == 1 for t in others)


@every_task
def test_used_and_fresh_instances_agree_on_seed_and_actions(task: str) -> None:
    used = used_world(task)
    assert used.deterministic
    actions = random_actions(used.interface, 10)
    play(used, 8, random_actions(used.interface, 5, seed=1))
    assert same(play(used, 7, actions), play(make_world(task), 7, actions))


@every_task
def test_observations_handed_out_never_change_afterwards(task: str) -> None:
    world = used_world(task)
    timesteps = [world.reset(4)]
    copies = [{k: v.copy() for k, v in timesteps[0].observation.items()}]
    for action in random_actions(world.interface, 3):
        if not timesteps[-1].is_last:
            timesteps.append(world.step(action))
            copies.append({k: v.copy() for k, v in timesteps[-1].observation.items()})
    for timestep, copy in zip(timesteps, copies, strict=True):
        assert all(np.array_equal(timestep.observation[k], v) for k, v in copy.items())


@every_task
def test_different_seeds_give_different_episodes(task: str) -> None:
    world = used_world(task)
    actions = random_actions(world.interface, 5)
    assert not same(play(world, 1, actions), play(world, 2, actions))


@every_task
@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_continuous_actions_are_clipped(task: str, side: float) -> None:
    world = used_world(task)
    if not any(head.kind == "continuous" for head in world.interface.heads):
        pytest.skip("no continuous action")
    within = play(world, 1, [constant(world, side)] * 3)
    beyond = play(world, 1, [constant(world, 5 * side)] * 3)
    assert same(within, beyond)
    assert not same(within, play(world, 1, [constant(world, 0.5 * side)] * 3))


@pytest.mark.parametrize(
    "task", ["dmc/cartpole_swingup", "dmc/ball_in_cup_catch", "dmc/walker_walk"]
)
@pytest.mark.parametrize(("repeat", "decisions"), [(1, 1000), (2, 500), (3, 334)])
def test_suite_episodes_last_1000_control_steps_and_are_truncated(
    task: str, repeat: int, decisions: int
) -> None:
    world = make_world(task, repeat=repeat)
    actions = random_actions(world.interface, 5) * 250
    timesteps = play(world, 0, actions)
    assert len(timesteps) == decisions + 1
    assert sum(t.env_steps for t in timesteps) == 1000
    assert timesteps[-1].is_last
    assert not any(t.is_terminal for t in timesteps)
    low, high = return_range(task)
    assert low <= sum(t.reward for t in timesteps) <= high


@pytest.mark.parametrize("task", ["dmc/hopper_hop", "toy/reach"])
def test_a_whole_used_episode_leaves_no_trace_in_the_next(task: str) -> None:
    used = make_world(task)
    actions = random_actions(used.interface, 1000)
    assert play(used, 5, actions)[-1].is_last
    assert same(play(used, 6, actions), play(make_world(task), 6, actions))


@pytest.mark.parametrize("task", ["dmc/pendulum_swingup", "crafter/reward", "toy/match"])
def test_stepping_beyond_the_last_step_is_refused(task: str) -> None:
    world = make_world(task)
    world.reset(0)
    world._over = True
    with pytest.raises(AssertionError, match="after the last"):
        world.step(random_actions(world.interface, 1)[0])


# --- Action repeat --------------------------------------------------------------------------------


class Scripted:
    """Rewards 1, 2, 3, … and an end after a given number of control steps."""

    interface = Interface((Slot("x", ()),), ())
    deterministic = False

    def __init__(self, rewards: Sequence[float]) -> None:
        self._rewards = rewards

    def reset(self, seed: int) -> TimeStep:
        self._pending: Iterator[float] = iter(self._rewards)
        return restart(self._observe(0.0))

    def step(self, action: Action) -> TimeStep:
        reward = next(self._pending)
        if reward == self._rewards[-1]:
            return TimeStep(
                self._observe(reward), reward, 1, is_last=True, is_terminal=True, extras={"n": 1}
            )
        return transition(self._observe(reward), reward)

    def close(self) -> None: ...

    def _observe(self, value: float) -> Observation:
        return {"x": np.float32(value)}


def test_action_repeat_sums_rewards_and_stops_at_the_last_step() -> None:
    world = registry.ActionRepeat(Scripted([1.0, 2.0, 3.0, 4.0, 5.0]), 3)
    assert not world.deterministic
    world.reset(0)
    middle, last = world.step({}), world.step({})
    assert (middle.reward, middle.env_steps, middle.is_last) == (6.0, 3, False)
    assert middle.observation["x"] == 3.0
    assert (last.reward, last.env_steps, last.is_last, last.is_terminal) == (9.0, 2, True, True)
    assert last.extras == {"n": 1}


def test_action_repeat_equals_giving_each_action_twice() -> None:
    task = "dmc/reacher_easy"
    actions = random_actions(interface_of(task), 6)
    once = play(make_world(task), 1, [a for a in actions for _ in range(2)])
    twice = play(make_world(task, repeat=2), 1, actions)
    for i, timestep in enumerate(twice[1:], start=1):
        assert timestep.reward == once[2 * i - 1].reward + once[2 * i].reward
        for slot, value in timestep.observation.items():
            np.testing.assert_array_equal(value, once[2 * i].observation[slot])


# --- Names ----------------------------------------------------------------------------------------


def test_one_agent_can_live_in_all_tasks() -> None:
    everything = union((task, interface_of(task)) for task in task_names())
    assert len(everything.tasks) == len(task_names())
    sizes = {slot.name: slot.shape for slot in everything.slots}
    assert sizes["dmc.cartpole.position"] == (3,)
    assert sizes["dmc.cartpole.position_5"] == (5,)
    assert sizes["dmc.walker.height"] == ()
    assert sizes["dmc.manipulator.arm_pos"] == (16,)


def test_the_table_of_suite_tasks_is_complete() -> None:
    from dm_control import suite

    expected = {(d, t) for d, t in suite.ALL_TASKS if d not in dmc.EXCLUDED}
    assert set(dmc.TASKS.values()) == expected
    assert set(dmc.EXCLUDED) <= {d for d, _ in suite.ALL_TASKS}


def test_alias_stands_for_its_task() -> None:
    assert resolve_task("dmc/cup_catch") == "dmc/ball_in_cup_catch"
    assert resolve_task("dmc/walker_walk") == "dmc/walker_walk"
    assert interface_of("dmc/cup_catch") == interface_of("dmc/ball_in_cup_catch")
    assert set(registry.ALIASES.values()) <= set(task_names())


def test_a_key_of_a_table_names_a_task_a_whole_domain_or_a_provider() -> None:
    table = {"dmc": 1, "dmc/humanoid": 2, "dmc/humanoid_run": 3}
    found = {t: most_specific(table, t, 0) for t in task_names()}
    assert found["dmc/humanoid_run"] == 3
    assert found["dmc/humanoid_walk"] == 2
    assert found["dmc/humanoid_CMU_run"] == found["dmc/walker_walk"] == 1
    assert found["crafter/reward"] == found["toy/reach"] == 0


@pytest.mark.parametrize(
    ("key", "canonical"),
    [
        ("dmc", "dmc"),
        ("dmc/ball_in_cup", "dmc/ball_in_cup"),
        ("dmc/cup_catch", "dmc/ball_in_cup_catch"),
        ("crafter", "crafter"),
    ],
)
def test_a_key_of_a_table_has_one_form(key: str, canonical: str) -> None:
    assert resolve_key(key) == canonical


@pytest.mark.parametrize(
    ("key", "hint"), [("dcm", "dmc"), ("dmc/humanod", "dmc/humanoid"), ("dmc/cup_cach", "dmc/cup_")]
)
def test_a_key_that_names_no_task_is_answered_with_the_nearest(key: str, hint: str) -> None:
    with pytest.raises(UserError, match=f"{key!r}: no task, .*did you mean '{hint}"):
        resolve_key(key)


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ("dmc/walker_wlak", "dmc/walker_walk"),
        ("walker_walk", "dmc/walker_walk"),
        ("crafter/rewrd", "crafter/reward"),
    ],
)
def test_unknown_task_is_answered_with_the_nearest(wrong: str, hint: str) -> None:
    for ask in (make_world, interface_of, return_range, resolve_task):
        with pytest.raises(UserError, match=f"{wrong!r}.*did you mean '{hint}'"):
            ask(wrong)


def test_action_repeat_below_one_is_refused() -> None:
    with pytest.raises(UserError, match="action repeat 0, expected at least 1"):
        make_world("toy/match", repeat=0)


def test_return_ranges() -> None:
    assert return_range("dmc/cup_catch") == (0.0, 1000.0)
    assert return_range("crafter/reward") == (0.0, 22.0)
    assert return_range("crafter/noreward") is None
    assert return_range("toy/delay") == (0.0, 17.0)


def test_asking_for_names_imports_no_simulator() -> None:
    code = """
        import sys
        from continual.envs.registry import interface_of, task_names
        task_names(), interface_of("crafter/reward"), interface_of("toy/reach")
        print({"dm_control", "mujoco", "crafter", "jax"} & set(sys.modules))
    """
    assert run_python(code) == "set()"


# --- The suite ------------------------------------------------------------------------------------


def test_actions_are_scaled_to_what_the_actuators_accept() -> None:
    world = dmc.make("quadruped_walk")
    spec = world._env.action_spec()
    assert spec.maximum.max() > 1
    world.reset(0)
    for value, expected in [(1, spec.maximum), (-1, spec.minimum), (9, spec.maximum)]:
        world.step(constant(world, value))
        np.testing.assert_array_equal(world._env.physics.control(), expected)


def test_discount_zero_is_termination() -> None:
    world = dmc.make("pendulum_swingup")
    world.reset(0)
    world._env.task.get_termination = lambda physics: 0.0
    last = world.step(constant(world, 0))
    assert last.is_last
    assert last.is_terminal


def test_diverged_simulation_is_truncated_and_leaves_no_trace() -> None:
    world = dmc.make("cheetah_run")
    first = world.reset(0)
    world._env.physics.data.qpos[:] = np.nan
    last = world.step(constant(world, 0))
    assert (last.is_last, last.is_terminal, last.reward) == (True, False, 0.0)
    assert last.extras == {"physics_error": True}
    np.testing.assert_array_equal(
        last.observation["dmc.cheetah.position"], first.observation["dmc.cheetah.position"]
    )
    actions = random_actions(world.interface, 10)
    assert same(play(world, 1, actions), play(dmc.make("cheetah_run"), 1, actions))


@pytest.mark.parametrize(("given", "expected"), [(None, "disable"), ("disabled", "disabled")])
def test_rendering_is_disabled_unless_the_user_chose(given: str | None, expected: str) -> None:
    code = """
        import os
        from continual.envs.registry import make_world
        make_world("dmc/pendulum_swingup").reset(0)
        print(os.environ["MUJOCO_GL"])
    """
    assert run_python(code, MUJOCO_GL=given) == expected


def test_unusable_rendering_library_is_explained_in_one_line() -> None:
    code = """
        from continual.envs.registry import make_world
        from continual.errors import UserError
        try:
            make_world("dmc/pendulum_swingup")
        except UserError as error:
            print(error)
    """
    said = run_python(code, MUJOCO_GL="vulkan")
    assert said.startswith("MUJOCO_GL=vulkan: ")
    assert "libegl1" in said
    assert len(said.splitlines()) == 1


def test_missing_simulator_is_not_blamed_on_rendering(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "disable")
    monkeypatch.setitem(sys.modules, "dm_control", None)
    with pytest.raises(ImportError):
        dmc.make("pendulum_swingup")


# --- Crafter --------------------------------------------------------------------------------------


LIVE_IN_CRAFTER = """
    import hashlib, random, sys
    import numpy as np
    from continual.envs.registry import make_world

    junk = []
    def disturb():  # objects come to lie at other addresses than in a quiet process
        if {junk}:
            junk.extend(bytearray(random.randrange(16, 512)) for _ in range(50))
            del junk[:: random.randrange(2, 5)]

    disturb()
    world = make_world("crafter/reward")
    actions = np.random.RandomState(0).randint(0, 17, {steps})
    digest, episode, timestep = hashlib.sha256(), 0, world.reset(0)
    for action in actions:
        disturb()
        digest.update(timestep.observation["image"].tobytes())
        digest.update(repr((timestep.reward, timestep.is_last, timestep.extras)).encode())
        if timestep.is_last:
            episode += 1
            timestep = world.reset(episode)
        else:
            timestep = world.step({{"crafter": np.int32(action)}})
    state = world._env._world.random.get_state()
    digest.update(state[1].tobytes() + bytes([state[2] % 256]))
    print(digest.hexdigest())
"""


def crafter_digest(steps: int, *, junk: bool, **environment: str) -> str:
    return run_python(LIVE_IN_CRAFTER.format(steps=steps, junk=junk), **environment)


def test_crafter_is_the_same_in_every_process() -> None:
    reference = crafter_digest(300, junk=False, PYTHONHASHSEED="0")
    assert crafter_digest(300, junk=True, PYTHONHASHSEED="1") == reference


def test_crafter_is_the_same_without_compiled_noise() -> None:
    reference = crafter_digest(60, junk=False, PYTHONHASHSEED="0")
    assert crafter_digest(60, junk=True, NUMBA_DISABLE_JIT="1") == reference


@pytest.mark.slow
def test_crafter_is_the_same_in_every_process_over_many_episodes() -> None:
    digests = {crafter_digest(2000, junk=seed > 0, PYTHONHASHSEED=str(seed)) for seed in range(4)}
    assert len(digests) == 1


def test_crafter_ignores_an_installed_gym(tmp_path: Path) -> None:
    (tmp_path / "gym.py").write_text("raise RuntimeError('an old gym')\n")
    code = """
        import sys
        from continual.envs.registry import make_world
        make_world("crafter/reward").reset(0)
        print("gym" in sys.modules)
    """
    assert run_python(code, PYTHONPATH=f"{ROOT}{os.pathsep}{tmp_path}") == "False"


@functools.cache
def published_crafter() -> Any:
    """Crafter as its authors left it, but for the order of objects in a chunk."""
    env = crafter._import_crafter().Env(seed=0)
    crafter._keep_objects_in_order(env._world)
    return env


def test_crafter_shows_and_pays_what_the_published_one_does() -> None:
    """300 steps reach the night; every third action is to sleep, which darkens the picture."""
    theirs, ours = published_crafter(), make_world("crafter/reward")
    theirs._seed, theirs._episode = 11, 0
    timestep = ours.reset(11)
    np.testing.assert_array_equal(timestep.observation["image"], theirs.reset())
    asleep = dark = 0
    rng = np.random.default_rng(0)
    for step in range(300):
        action = 6 if step % 3 == 0 else int(rng.integers(17))
        frame, reward, done, info = theirs.step(action)
        timestep = ours.step({"crafter": np.int32(action)})
        np.testing.assert_array_equal(timestep.observation["image"], frame)
        assert (timestep.reward, timestep.is_last) == (reward, done)
        asleep += theirs._player.sleeping
        dark += theirs._world.daylight < 0.5
        if done:
            assert timestep.extras["achievements"] == info["achievements"]
            break
    assert asleep
    assert dark


@pytest.mark.parametrize("daylight", [1.0, 0.3])
@pytest.mark.parametrize("sleeping", [False, True])
@pytest.mark.parametrize("position", [(0, 0), (63, 63), (2, 40), (40, 61), (32, 32), (20, 45)])
def test_every_place_looks_as_in_the_published_crafter(
    position: tuple[int, int], sleeping: bool, daylight: float
) -> None:
    world = used_world("crafter/reward")
    world.reset(5)
    view, engine_world = world._env._local_view, world._env._world
    engine_world.daylight = daylight
    player = SimpleNamespace(pos=np.array(position), sleeping=sleeping)
    unit = np.array((7, 7))
    state = engine_world.random.get_state()
    expected = view._original(player, unit)
    after = engine_world.random.get_state()
    engine_world.random.set_state(state)
    np.testing.assert_array_equal(view(player, unit), expected)
    np.testing.assert_array_equal(engine_world.random.get_state()[1], after[1])


def test_death_in_crafter_is_termination() -> None:
    world = used_world("crafter/reward")
    world.reset(0)
    world._env._player.health = 0
    last = world.step({"crafter": np.int32(0)})
    assert last.is_last
    assert last.is_terminal
    assert len(last.extras["achievements"]) == 22


def test_the_time_limit_of_crafter_is_truncation() -> None:
    world = used_world("crafter/reward")
    assert world._env._length == 10000
    world.reset(0)
    world._env._step = 9998
    middle = world.step({"crafter": np.int32(0)})
    last = world.step({"crafter": np.int32(0)})
    assert not middle.is_last
    assert last.is_last
    assert not last.is_terminal
    assert set(last.extras) == {"achievements"}


def test_crafter_without_rewards_is_the_same_world() -> None:
    actions = random_actions(crafter.INTERFACE, 150)
    paid = play(used_world("crafter/reward"), 2, actions)
    unpaid = play(used_world("crafter/noreward"), 2, actions)
    assert any(t.reward for t in paid)
    assert not any(t.reward for t in unpaid)
    for a, b in zip(paid, unpaid, strict=True):
        np.testing.assert_array_equal(a.observation["image"], b.observation["image"])


# --- Toys -----------------------------------------------------------------------------------------


def best_action(name: str, observation: Observation) -> np.ndarray:
    (shown,) = observation.values()
    if name == "reach":
        return shown
    if name == "picture":
        return np.int32(shown[::32, ::32, 0].argmax())
    return np.int32(shown.argmax())


@pytest.mark.parametrize("name", toy.TASKS)
def test_the_best_policy_of_a_toy_earns_the_stated_optimum(name: str) -> None:
    world = toy.make(name)
    (head,) = world.interface.heads
    timestep, total, decisions = world.reset(9), 0.0, 0
    while not timestep.is_last:
        timestep = world.step({head.name: best_action(name, timestep.observation)})
        total += timestep.reward
        decisions += 1
    assert total == toy.optimal_return(name)
    assert decisions == 20
    assert not timestep.is_terminal


@pytest.mark.parametrize("name", toy.TASKS)
def test_acting_at_random_in_a_toy_earns_less_than_the_optimum(name: str) -> None:
    world = toy.make(name)
    timesteps = play(world, 9, random_actions(world.interface, 20))
    assert sum(t.reward for t in timesteps) < 0.8 * toy.optimal_return(name)


def test_reach_pays_by_distance() -> None:
    world = toy.make("reach")
    target = world.reset(0).observation["toy.reach.target"].astype(np.float64)
    reward = world.step({"toy.reach": np.zeros(2, np.float32)}).reward
    assert reward == pytest.approx(1 - np.abs(target).mean() / 2, rel=1e-12)


def test_delayed_reward_comes_three_steps_after_its_action() -> None:
    world = toy.make("delay")
    timestep = world.reset(3)
    rewards = []
    for decision in range(8):
        right = best_action("delay", timestep.observation)
        wrong = np.int32((right + 1) % 4)
        timestep = world.step({"toy.delay": right if decision == 2 else wrong})
        rewards.append(timestep.reward)
    assert rewards == [0, 0, 0, 0, 0, 1, 0, 0]


def test_a_mistake_in_survive_is_termination() -> None:
    world = toy.make("survive")
    right = best_action("survive", world.reset(3).observation)
    last = world.step({"toy.survive": np.int32((right + 1) % 4)})
    assert (last.is_last, last.is_terminal, last.reward) == (True, True, 0.0)


# --- The random policy ----------------------------------------------------------------------------


def draw(interface: Interface, seed: int, *rows: tuple[int, int]) -> dict[str, np.ndarray]:
    seen = Seen({}, np.zeros(len(rows), bool), np.array(rows, np.uint32))
    return RandomPolicy(interface, seed).act(None, seen)[1]


def test_random_actions_fill_their_spaces() -> None:
    rows = [(0, i) for i in range(400)]
    point = draw(interface_of("toy/reach"), 0, *rows)["toy.reach"]
    index = draw(interface_of("toy/match"), 0, *rows)["toy.match"]
    assert (point.shape, point.dtype) == ((400, 2), np.float32)
    assert (index.shape, index.dtype) == ((400,), np.int32)
    assert -1 <= point.min() < -0.95
    assert 0.95 < point.max() <= 1
    assert abs(point.mean()) < 0.1
    assert np.bincount(index, minlength=4).min() > 70
    assert set(index) == {0, 1, 2, 3}


def test_a_random_action_depends_on_its_row_and_seed_only() -> None:
    interface = interface_of("toy/reach")
    both = union({"a": interface_of("toy/match"), "b": interface})
    alone = draw(interface, 1, (5, 2))["toy.reach"][0]
    np.testing.assert_array_equal(draw(interface, 1, (4, 9), (5, 2))["toy.reach"][1], alone)
    np.testing.assert_array_equal(draw(both, 1, (5, 2))["toy.reach"][0], alone)
    assert not np.array_equal(draw(interface, 2, (5, 2))["toy.reach"][0], alone)
    assert not np.array_equal(draw(interface, 1, (5, 3))["toy.reach"][0], alone)
    assert not np.array_equal(draw(interface, 1, (6, 2))["toy.reach"][0], alone)
