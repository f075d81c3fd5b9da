"""The update: what it leaves alone, what it does not depend on, and what it is compiled for."""

from __future__ import annotations

import functools
from dataclasses import replace

import jax
import numpy as np
import pytest

from agent.agent import make_agent
from agent.burn_in import make_burn_in
from agent.config import AgentConfig, AwacConfig
from agent.learner import init_learner, make_update, update_key
from agent.model import init_params, make_model, parameter_count
from agent.owners import owners_of, path_names
from agent.riders.awac import make_awac
from agent.sizes import model_of_size
from continual.envs.interface import union
from tests.agent_cases import ALL, CRAFTER, CUP, WALKER, random_batch, tiny

CUP_TASK, WALKER_TASK, CRAFTER_TASK = 0, 1, 2
COUNTS = {  # size -> parameters in walker_walk, in Crafter
    "size1m": (640_867, 687_875),
    "size12m": (9_738_019, 10_498_259),
    "size25m": (21_782_947, 23_495_475),
    "size50m": (38_612_003, 41_658_259),
    "size100m": (86_622_499, 93_480_531),
    "size200m": (153_769_507, 165_965_075),
    "size400m": (345_473_059, 372_920_979),
}
PARTS = {  # part -> its parameters at size1m in walker_walk, in Crafter
    "enc": (10_112, 14_304),
    "dec": (51_096, 80_595),
    "dyn": (364_416, 377_408),
    "rew": (57_663, 57_663),
    "con": (41_153, 41_153),
    "val": (66_111, 66_111),
    "pol": (50_316, 50_641),
}


@pytest.fixture(scope="module")
def config() -> AgentConfig:
    return tiny()


@pytest.fixture(scope="module")
def model(config):
    return make_model(config.model, ALL)


@pytest.fixture(scope="module")
def update(model, config):
    return make_update(model, config)


def learner(model, seed=0):
    return init_learner(model, jax.random.key(seed))


def leaves(tree):
    return {
        "/".join(path_names(path)): np.array(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def assert_same(a, b, where=""):
    a, b = leaves(a), leaves(b)
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=f"{where}{name}")


def params_alone(size, world):
    """Shapes of the parameters for a single task."""
    interface = {"walker": WALKER, "crafter": CRAFTER}[world]
    built = make_model(model_of_size(size), union({world: interface}))
    return jax.eval_shape(lambda key: init_params(built, key), jax.random.key(0))


@pytest.mark.parametrize("size", COUNTS)
@pytest.mark.parametrize("world", ["walker", "crafter"])
def test_with_one_task_the_parameter_count_is_dreamerv3s(size, world):
    assert parameter_count(params_alone(size, world)) == COUNTS[size][world == "crafter"]


@pytest.mark.parametrize("world", ["walker", "crafter"])
def test_with_one_task_every_part_is_as_large_as_dreamerv3s(world):
    found = {part: parameter_count(tree) for part, tree in params_alone("size1m", world).items()}
    assert found == {part: counts[world == "crafter"] for part, counts in PARTS.items()}


@pytest.mark.parametrize(("old", "new"), [("cup walker", "crafter"), ("crafter", "walker cup")])
def test_a_task_that_is_added_adds_leaves_and_changes_none(config, old, new):
    known = {"crafter": CRAFTER, "walker": WALKER, "cup": CUP}
    fewer, more = (
        leaves(init_params(make_model(config.model, union(tasks)), jax.random.key(3)))
        for tasks in (
            {name: known[name] for name in names.split()} for names in (old, f"{old} {new}")
        )
    )
    assert fewer.keys() < more.keys()
    for name, leaf in fewer.items():
        np.testing.assert_array_equal(leaf, more[name], err_msg=name)
    slots = [slot.name for name in new.split() for slot in known[name].slots]
    heads = [head.name for name in new.split() for head in known[name].heads]
    added = (*slots, *heads, *(["branch:vector"] if "cup" in new else []))
    assert all(any(part in name for part in added) for name in more.keys() - fewer.keys())


def test_dreams_start_from_all_states_where_there_are_fewer_than_asked_for(model, rng):
    config = tiny(imagination={"horizon": 3, "last": 50})
    batch = random_batch(rng, config, [CUP_TASK, WALKER_TASK])
    start = jax.eval_shape(lambda: learner(model))
    _, handout, _ = jax.eval_shape(make_update(model, config), start, batch, update_key(0, 0))
    assert handout.imagined_return.shape == batch.reward.shape


def test_burn_in_leads_from_the_first_rows_to_the_context_of_the_others(model, config, rng):
    params, key = init_params(model, jax.random.key(0)), jax.random.key(1)
    batch = random_batch(rng, config, [2, 0, 1], length=7)
    batch = replace(batch, is_first=np.zeros((3, 7), bool))
    batch.is_first[1, 1] = True
    burn_in = make_burn_in(model)
    rest = burn_in(params, batch, key, 3)
    np.testing.assert_array_equal(rest.reward, batch.reward[:, 3:])
    np.testing.assert_array_equal(rest.frames, batch.frames[:, 3:])
    for name, action in batch.actions.items():
        np.testing.assert_array_equal(rest.previous[name], action[:, 2])
        np.testing.assert_array_equal(rest.actions[name], action[:, 3:])

    def same(row):
        """Whether a context stays when the vectors of one row change, by sequence."""
        vectors = {name: x.copy() for name, x in batch.vectors.items()}
        for x in vectors.values():
            x[:, row] += 3
        changed = burn_in(params, replace(batch, vectors=vectors), key, 3)
        return (changed.context.deter == rest.context.deter).all(-1).tolist()

    # The first sequence is of pictures; the second has a reset in row 1.
    assert same(3) == [True, True, True]  # a row that is trained on
    assert same(1) == [True, False, False]
    assert same(0) == [True, True, False]


def test_heads_of_equal_shape_start_differently(model):
    params = init_params(model, jax.random.key(0))
    first = lambda part: params[part]["mlp"]["layer0"]["linear"]["kernel"]
    kernels = [np.array(first(part)) for part in ("rew", "con", "val", "pol")]
    for i, a in enumerate(kernels):
        assert all(not np.array_equal(a, b) for b in kernels[:i])


def test_an_owner_absent_from_a_thousand_updates_keeps_everything_bit_for_bit(
    model, config, update, rng
):
    state = learner(model)
    for number in range(10):
        tasks = [CRAFTER_TASK, CRAFTER_TASK, CUP_TASK, WALKER_TASK]
        state, _, _ = update(state, random_batch(rng, config, tasks), update_key(0, number))
    before = jax.tree.map(np.array, state)
    absent = {"head:dmc.walker", *(f"slot:{s.name}" for s in WALKER.slots)}
    batches = [random_batch(rng, config, [CRAFTER_TASK] * 2 + [CUP_TASK] * 2) for _ in range(4)]
    for number in range(1000):
        state, _, _ = update(state, batches[number % 4], update_key(0, 10 + number))
    owners = owners_of(before.params)
    for tree in ("params", "nu", "mu"):
        get = lambda s, tree=tree: s.params if tree == "params" else getattr(s.optimiser, tree)
        old, new = jax.tree.leaves(get(before)), jax.tree.leaves(get(state))
        for owner, a, b in zip(owners, old, new, strict=True):
            if owner in absent:
                np.testing.assert_array_equal(a, b, err_msg=f"{tree} of {owner}")
    for owner in absent:
        assert int(state.optimiser.count[owner]) == int(before.optimiser.count[owner]) == 10
    assert int(state.optimiser.count["shared"]) == 1010

    # The first updates after the absence are no larger than if nothing had happened in between.
    batch = random_batch(rng, config, [CRAFTER_TASK] * 2 + [WALKER_TASK] * 2)
    step = lambda s: _largest_step(update, s, batch, absent)
    assert step(state) <= 1.5 * step(jax.tree.map(jax.numpy.array, before))


def _largest_step(update, state, batch, owners):
    before = jax.tree.map(np.array, state.params)
    after, _, _ = update(state, batch, update_key(1, 0))
    moved = [
        float(np.abs(np.array(b) - a).max())
        for owner, a, b in zip(
            owners_of(before),
            jax.tree.leaves(before),
            jax.tree.leaves(after.params),
            strict=True,
        )
        if owner in owners
    ]
    return max(moved)


def test_images_absent_by_structure_leave_the_image_code_alone(model, config, update, rng):
    # Moments that are 0, or a first update, would show nothing: it has seen images before.
    state, _, _ = update(learner(model), random_batch(rng, config, [2, 2, 0, 1]), update_key(0, 0))
    before = leaves(state)
    batch = random_batch(rng, config, [CUP_TASK] * 2 + [WALKER_TASK] * 2)
    assert batch.frames.shape[0] == 0
    after = leaves(update(state, batch, update_key(0, 1))[0])
    for tree in ("params/", "optimiser/nu/", "optimiser/mu/", "optimiser/count/"):
        image = [name for name in before if name.startswith(tree) and "slot:image" in name]
        assert image
        for name in image:
            np.testing.assert_array_equal(before[name], after[name], err_msg=name)


def test_what_absent_slots_and_heads_hold_changes_no_number(model, config, update, rng):
    tasks = [CRAFTER_TASK, CRAFTER_TASK, CUP_TASK, WALKER_TASK]
    batch = random_batch(rng, config, tasks, frames=4)  # two surplus rows of frames
    kinds = list(ALL.tasks.values())
    vectors, actions, previous = dict(batch.vectors), dict(batch.actions), dict(batch.previous)
    for row, task in enumerate(tasks):
        for slot in ALL.vectors:
            if slot not in kinds[task].slots:
                vectors[slot.name] = vectors[slot.name].copy()
                vectors[slot.name][row] = np.nan
        for head in ALL.heads:
            if head not in kinds[task].heads:
                actions[head.name] = actions[head.name].copy()
                previous[head.name] = previous[head.name].copy()
                actions[head.name][row] = previous[head.name][row] = np.nan
    poisoned = batch.replace(vectors=vectors, actions=actions, previous=previous)
    clean = update(learner(model), batch, update_key(0, 1))
    dirty = update(learner(model), poisoned, update_key(0, 1))
    assert_same(clean, dirty)


def test_an_action_in_the_last_step_of_an_episode_changes_no_number(model, config, update, rng):
    batch = random_batch(rng, config, [CRAFTER_TASK, CRAFTER_TASK, CUP_TASK, WALKER_TASK])
    is_last = np.zeros_like(batch.is_last)
    is_last[:, 2] = True
    batch = batch.replace(is_last=is_last, is_first=np.roll(is_last, 1, 1))
    nothing = lambda x: np.where(is_last[..., None], np.nan, x)
    poisoned = batch.replace(actions={name: nothing(x) for name, x in batch.actions.items()})
    clean = update(learner(model), batch, update_key(0, 1))
    assert_same(clean, update(learner(model), poisoned, update_key(0, 1)))


def test_permuting_the_sequences_permutes_the_result(model, config, update, rng):
    batch = random_batch(rng, config, [CUP_TASK, WALKER_TASK, CUP_TASK, WALKER_TASK])
    order = np.array([2, 0, 3, 1])
    shuffled = jax.tree.map(lambda x: x[order] if len(x) else x, batch)
    state, handout, metrics = update(learner(model), batch, update_key(0, 2))
    state2, handout2, metrics2 = update(learner(model), shuffled, update_key(0, 2))
    np.testing.assert_array_equal(
        np.array(handout.stored["latent.stoch"])[order], handout2.stored["latent.stoch"]
    )
    np.testing.assert_allclose(
        np.array(handout.latent.deter)[order], handout2.latent.deter, rtol=1e-5, atol=1e-6
    )
    for one, other in ((metrics.means, metrics2.means), (metrics.by_task, metrics2.by_task)):
        for name in one:
            np.testing.assert_allclose(one[name], other[name], rtol=2e-4, err_msg=name)
    # Not the parameters: a first update leaves them as they are.
    for tree in ("nu", "mu"):
        one, other = (leaves(getattr(s.optimiser, tree)) for s in (state, state2))
        for name, moment in one.items():
            largest = np.abs(moment).max()
            np.testing.assert_allclose(moment, other[name], atol=1e-5 * largest, err_msg=name)


def test_nothing_after_a_reset_depends_on_anything_before_it(model, config, update, rng):
    tasks = [CRAFTER_TASK, CRAFTER_TASK, CUP_TASK, WALKER_TASK]
    batch, other = (random_batch(rng, config, tasks) for _ in range(2))
    is_first = np.zeros_like(batch.is_first)
    is_first[:, 2] = True
    is_last = np.roll(is_first, -1, 1)
    batch = batch.replace(is_first=is_first, is_last=is_last)
    early = lambda a, b: np.concatenate([b[:, :2], a[:, 2:]], 1)
    changed = batch.replace(
        vectors={k: early(v, other.vectors[k]) for k, v in batch.vectors.items()},
        frames=early(batch.frames, other.frames),
        actions={k: early(v, other.actions[k]) for k, v in batch.actions.items()},
        previous=other.previous,
        context=other.context,
    )
    one, two = (update(learner(model), b, update_key(0, 3))[1].latent for b in (batch, changed))
    for a, b in ((one.deter, two.deter), (one.stoch, two.stoch)):
        np.testing.assert_array_equal(a[:, 2:], b[:, 2:])
        for row in range(len(tasks)):
            assert not np.array_equal(a[row, :2], b[row, :2])


def test_there_is_one_compilation_for_each_number_of_frames(model, config, update, rng):
    state = learner(model)
    mixes = ([0, 1, 0, 1], [1, 1, 1, 0], [2, 2, 0, 1], [2, 2, 1, 1], [0, 0, 0, 0])
    known = set()
    for tasks in mixes:
        before = update._cache_size()
        frames = tasks.count(CRAFTER_TASK)
        state, _, _ = update(state, random_batch(rng, config, tasks), update_key(0, 0))
        assert update._cache_size() == before or frames not in known
        known.add(frames)


def test_riders_that_never_act_leave_dreamerv3_bit_for_bit(rng):
    dreamer = make_agent(tiny(acting="dreamer", riders={}), ALL)
    passive = make_agent(tiny(acting="dreamer"), ALL)
    states = [agent.init(jax.random.key(7)) for agent in (dreamer, passive)]
    assert_same(states[0].learner, states[1].learner)
    updates = [make_update(agent.model, agent.config) for agent in (dreamer, passive)]
    learners = [state.learner for state in states]
    rider, advance = states[1].riders["awac"], passive.riders["awac"].update
    for number in range(20):
        batch = random_batch(rng, passive.config, [2, 2, 0, 1])
        learners[0], _, _ = updates[0](learners[0], batch, update_key(0, number))
        learners[1], handout, _ = updates[1](learners[1], batch, update_key(0, number))
        rider, _ = advance(rider, learners[1], batch, handout, update_key(1, number))
    assert_same(learners[0], learners[1])


def test_the_same_key_gives_the_same_update(model, config, update, rng):
    batch = random_batch(rng, config, [2, 2, 0, 1])
    first = update(learner(model), batch, update_key(0, 4))
    assert_same(first, update(learner(model), batch, update_key(0, 4)))
    other = update(learner(model), batch, update_key(0, 5))
    assert not np.array_equal(first[1].latent.stoch, other[1].latent.stoch)


def test_surplus_frames_are_as_if_they_were_not_there(model, config, update, rng):
    batch = random_batch(rng, config, [2, 0, 1, 0], frames=2)
    noisy = batch.replace(frames=np.concatenate([batch.frames[:1], 255 - batch.frames[1:]]))
    clean = update(learner(model), batch, update_key(0, 6))
    assert_same(clean, update(learner(model), noisy, update_key(0, 6)))


IMAGE = ("slot:image",)
SPREAD = {  # path of a kernel -> its fan-in, of walker and Crafter at size1m
    # A block-linear kernel's fan-in is its whole input, not a block's.
    ("dyn", "dyn_0", "kernel"): 512 + 8 * 3 * 64,
    ("dyn", "gates", "kernel"): 512,
    ("dyn", "deter_in", "linear", "kernel"): 512,
    ("dyn", "prior_logits", "kernel"): 64,
    ("dyn", "obs_in", "kernel", "deter"): 512 + 64,
    ("dyn", "obs_in", "kernel", "branch:vector"): 512 + 64,
    ("dyn", "action_in", "kernel", "head:dmc.walker"): 6,
    ("enc", "branch:vector", "project", "kernel", "slot:dmc.walker.orientations"): 24,
    ("con", "out", "kernel"): 64,
    ("pol", "out", "head:dmc.walker:mean", "kernel"): 64 * 1e4,
    # What the second task adds is born as if it were alone.
    ("dyn", "obs_in", "kernel", *IMAGE): 512 + 16 * 4 * 4,
    ("dyn", "action_in", "kernel", "head:crafter"): 17,
    ("pol", "out", "head:crafter:logits", "kernel"): 64 * 1e4,
    ("enc", *IMAGE, "conv0", "kernel"): 25 * 3,
    ("enc", *IMAGE, "conv1", "kernel"): 25 * 2 * 4,
    ("enc", *IMAGE, "conv3", "kernel"): 25 * 4 * 4,
    ("dec", *IMAGE, "deter", "kernel"): 512,
    ("dec", *IMAGE, "stoch0", "kernel"): 32 * 4,
    ("dec", *IMAGE, "stoch1", "kernel"): 2 * 64,
    ("dec", *IMAGE, "conv0", "kernel"): 25 * 4 * 4,
    ("dec", *IMAGE, "picture", "kernel"): 25 * 2 * 4,
}


def test_initial_weights_have_the_spread_of_their_fan_in():
    tasks = union({"walker": WALKER, "crafter": CRAFTER})
    params = init_params(make_model(model_of_size("size1m"), tasks), jax.random.key(0))
    for path, inputs in SPREAD.items():
        leaf = np.array(functools.reduce(lambda tree, name: tree[name], path, params))
        noise = 4 / np.sqrt(2 * leaf.size)  # four standard errors of a standard deviation
        assert leaf.std() * np.sqrt(inputs) == pytest.approx(1, abs=noise), path
        assert np.abs(leaf).max() * np.sqrt(inputs) <= 2 * 1.1369
    for part in ("rew", "val"):
        assert not np.array(params[part]["out"]["kernel"]).any()
    flat = leaves(params)
    assert all(not leaf.any() for name, leaf in flat.items() if name.endswith("/bias"))
    assert all((leaf == 1).all() for name, leaf in flat.items() if name.endswith("/scale"))


def test_the_slow_critic_starts_as_a_copy_and_follows_after_the_update(model, config, update, rng):
    state = learner(model)
    assert_same(state.slow, state.params["val"])
    state, _, _ = update(state, random_batch(rng, config, [2, 2, 0, 1]), update_key(0, 0))
    before = leaves(state.slow)
    after, _, _ = update(state, random_batch(rng, config, [2, 2, 0, 1]), update_key(0, 1))
    for name, new in leaves(after.params["val"]).items():
        expected = 0.98 * before[name] + 0.02 * new
        np.testing.assert_allclose(leaves(after.slow)[name], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_a_compiled_update_equals_one_computed_step_by_step(model, config, update, rng):
    """By its gradients' second moments: where a gradient is near 0, LaProp steps by its sign."""
    batch = random_batch(rng, config, [CRAFTER_TASK, CUP_TASK], length=2)
    batch = jax.tree.map(jax.numpy.asarray, batch)
    # At the default temperature the weight of the one action that counts would be clipped.
    rider = make_awac(model, config, AwacConfig(beta=1.0))
    started, state = rider.init(jax.random.key(1), None), learner(model)

    def updated():
        own, consumed = jax.tree.map(jax.numpy.copy, (started, state))
        learnt, handout, metrics = update(consumed, batch, update_key(0, 0))
        follower, noted = rider.update(own, state, batch, handout, update_key(1, 0))
        moments = learnt.optimiser.nu, follower.optimiser.nu
        scales = learnt.scale, follower.scale, follower.mean_square
        return leaves((moments, scales, handout, metrics, noted))

    compiled = updated()
    with jax.disable_jit():
        plain = updated()
    for name, value in compiled.items():
        largest = np.nanmax(np.abs(value), initial=0)
        np.testing.assert_allclose(value, plain[name], rtol=1e-3, atol=1e-5 * largest, err_msg=name)
