"""Every kind of rider, after one update on one batch of three worlds."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agent import noise
from agent.agent import make_agent
from agent.config import AwacConfig
from agent.learner import Handout, update_key
from agent.normaliser import ReturnScale
from agent.riders.awac import MeanSquare, advantage_weight, awac_loss, replayed_advantages
from agent.rssm import Latent
from tests import reference as ref
from tests.agent_cases import ALL, REPORT, drawn, random_batch, tiny
from tests.reference_dreams import WORLDS, dream

RTOL = 1e-4
RIDERS = {
    "report": REPORT | {"beta": 1.0, "w_max": 5.0},
    "one_step": REPORT | {"beta": 1.0, "w_max": 5.0, "lambda": 0.0},
    "default": {"kind": "awac"},
    "imagined": REPORT | {"bootstrap": "imagined", "normalise": "task", "beta": 1.0, "w_max": 5.0},
    "bc": {"kind": "awac", "weight": "uniform"},
    "slow": {"kind": "ema", "rate": 0.25},
    "twin": {"kind": "twin"},
}
TASKS = [2, 0, 1, 0]
LENGTH, LAST = 6, 3
FIRST_BATCH = dict.fromkeys(range(3))  # of interfaces whose deviation is not known yet
SCALE = {0: (-1.0, 0.5), 1: (0.0, 3.0), 2: (-0.5, 0.2)}


@pytest.fixture(scope="module")
def carried():
    """An agent with one rider of every kind, and its state."""
    config = tiny(
        riders=RIDERS,
        acting="dreamer",
        imagination={"horizon": 3, "last": LAST},
        optim={"lr": 1e-3, "warmup": 0},  # else a first update changes nothing
    )
    agent = make_agent(config, ALL)
    return agent, agent.init(jax.random.key(0))


@pytest.fixture(scope="module")
def learnt(carried):
    """One update of each rider, and what it was made from.

    Attributes:
      before, after: name -> state; metrics: name -> those of its update.
      again: (name, batch, latent, state) -> state and metrics of the same update on other data.
      value, log_pi: v_slow(s_t) and name -> ln pi(a_t | s_t), [B, T] in float64.
    """
    agent, state = carried
    rng = np.random.default_rng(3)
    learner = state.learner.replace(
        params=drawn(state.learner.params, rng), slow=drawn(state.learner.slow, rng)
    )
    low, high = np.array(list(SCALE.values()), np.float32).T
    before = {
        name: rider.replace(params=drawn(rider.params, rng)) for name, rider in state.riders.items()
    }
    for name in ("report", "one_step", "imagined", "twin"):
        before[name] = before[name].replace(scale=ReturnScale(low, high))
    before = jax.tree.map(np.array, before)
    batch = random_batch(rng, agent.config, TASKS, length=LENGTH, frames=0)
    is_last, is_terminal = np.zeros((2, len(TASKS), LENGTH), bool)
    is_last[[0, 1, 2, 3], [4, 1, 3, 2]] = True
    is_terminal[[0, 3], [4, 2]] = True
    is_first = np.roll(is_last, 1, 1)
    batch = batch.replace(is_first=is_first, is_last=is_last, is_terminal=is_terminal)
    classes = rng.integers(agent.config.model.classes, size=(len(TASKS), LENGTH, 3))
    deter = rng.normal(size=(len(TASKS), LENGTH, agent.config.model.deter)).astype(np.float32)
    latent = Latent(deter, np.eye(agent.config.model.classes, dtype=np.float32)[classes])
    imagined_return = rng.normal(size=(len(TASKS), LAST)).astype(np.float32)

    def again(name, batch=batch, latent=latent, state=None):
        own = jax.tree.map(jnp.array, before[name] if state is None else state)  # consumed
        handout = Handout(latent, {}, imagined_return)
        return agent.riders[name].update(own, learner, batch, handout, update_key(0, 0))

    untouched = jax.tree.map(np.array, learner)
    found = {name: again(name) for name in RIDERS}
    feature = np.array(latent.feature, np.float64)
    value = np.zeros((len(TASKS), LENGTH))
    log_pi = {
        name: np.zeros((len(TASKS), LENGTH))
        for name in ("report", "one_step", "default", "imagined", "bc")
    }
    for b, t in np.ndindex(value.shape):
        value[b, t] = ref.twohot_mean(ref.head(feature[b, t], learner.slow))
        kinds = {head.name: head.kind for head in WORLDS[TASKS[b]].heads}
        for name, into in log_pi.items():
            pi = ref.policy(feature[b, t], before[name].params, kinds)
            into[b, t] = sum(ref.log_prob(pi[h], batch.actions[h][b, t]) for h in kinds)
    return SimpleNamespace(
        before=before,
        after={name: rider for name, (rider, _) in found.items()},
        metrics={name: metrics for name, (_, metrics) in found.items()},
        again=again,
        learner=learner,
        untouched=untouched,
        batch=batch,
        latent=latent,
        imagined_return=imagined_return,
        value=value,
        log_pi=log_pi,
        config=agent.config,
    )


def float64_awac(learnt, name, bootstrap, rows=slice(None), square=FIRST_BATCH):
    """What one rider's update should come to on some rows of the batch."""
    batch, imagination = learnt.batch, learnt.config.imagination
    config = AwacConfig.model_validate(RIDERS[name])
    lambda_ = imagination.lambda_ if config.lambda_ is None else config.lambda_
    return ref.awac(
        *(ref.array(batch.reward[:, rows]), batch.is_last[:, rows], batch.is_terminal[:, rows]),
        *(learnt.value[:, rows], bootstrap, learnt.log_pi[name][:, rows]),
        TASKS,
        SCALE,
        lambda_=lambda_,
        gamma=imagination.gamma,
        rate=imagination.return_rate,
        beta=config.beta,
        w_max=config.w_max,
        positive=config.weight == "positive",
        square=square if config.advantage == "rms" else None,
    )


def by_task(x, counting):
    """Means over what counts of each task, in the order of tasks."""
    return [np.mean([x[b, t] for b, t in counting if TASKS[b] == task]) for task in range(3)]


def assert_by_task(metrics, expected, log_pi):
    """Statistics of an update of AWAC are means over what counts of each task."""
    for what, x in {
        "loss": -expected.weight * log_pi,
        "weight": expected.weight,
        "advantage_magnitude": np.abs(expected.advantage),
        "positive_share": expected.advantage > 0,
    }.items():
        np.testing.assert_allclose(
            metrics.by_task[what], by_task(x, expected.counting), rtol=RTOL, err_msg=what
        )


def assert_same(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_riders_start_apart_from_each_other_and_a_slow_copy_starts_as_the_actor(carried):
    _, state = carried
    first = {
        name: np.array(rider.params["mlp"]["layer0"]["linear"]["kernel"])
        for name, rider in state.riders.items()
    }
    actor = np.array(state.learner.params["pol"]["mlp"]["layer0"]["linear"]["kernel"])
    np.testing.assert_array_equal(first.pop("slow"), actor)
    kernels = [actor, *first.values()]
    assert all(not np.array_equal(a, b) for i, a in enumerate(kernels) for b in kernels[:i])


@pytest.mark.slow
def test_a_rider_starts_the_same_whichever_others_there_are():
    alone = make_agent(tiny(riders={"bc": RIDERS["bc"]}, acting="dreamer"), ALL)
    beside = make_agent(
        tiny(riders={"a": RIDERS["slow"], "bc": RIDERS["bc"]}, acting="dreamer"), ALL
    )
    one, two = (agent.init(jax.random.key(0)).riders["bc"].params for agent in (alone, beside))
    assert_same(one, two)


@pytest.mark.parametrize("name", RIDERS)
def test_an_update_moves_the_rider_and_nothing_of_the_learner(learnt, name):
    old, new = (jax.tree.leaves(s[name].params) for s in (learnt.before, learnt.after))
    moved = [not np.array_equal(a, b) for a, b in zip(old, new, strict=True)]
    assert sum(moved) > 0.9 * len(moved)  # all but those without a gradient
    assert all(np.isfinite(leaf).all() for leaf in new)
    assert_same(learnt.learner, learnt.untouched)


def test_advantages_and_weights_equal_a_float64_loop(learnt):
    batch, before = learnt.batch, learnt.before["report"]
    expected = float64_awac(learnt, "report", learnt.value)
    value, log_pi = (jnp.asarray(x, jnp.float32) for x in (learnt.value, learnt.log_pi["report"]))
    advantages, scale, _ = jax.jit(replayed_advantages, static_argnums=(8, 9))(
        *(batch.reward, batch.is_last, batch.is_terminal, value, value, jnp.array(TASKS)),
        *(before.scale, before.mean_square, "percentile", learnt.config.imagination),
    )
    counts = np.zeros(batch.reward.shape, bool)
    counts[tuple(np.transpose(expected.counting))] = True
    found = np.where(counts, advantages, 0)
    np.testing.assert_allclose(found, expected.advantage, rtol=RTOL, atol=1e-5)
    weight = advantage_weight(advantages, jnp.asarray(counts), "positive", beta=1.0, w_max=5.0)
    np.testing.assert_allclose(weight, expected.weight, rtol=RTOL)
    np.testing.assert_allclose(
        awac_loss(log_pi, weight, jnp.asarray(counts)).sum() / counts.sum(),
        expected.loss,
        rtol=RTOL,
    )
    weights = expected.weight[counts]  # at the floor, at the clip, and between
    assert [(weights == 1).any(), (weights == 5).any(), np.isin(weights, (1, 5)).all()] == [1, 1, 0]
    for task, (low, high) in expected.scale.items():
        assert float(scale.low[task]) == pytest.approx(low, rel=RTOL)
        assert float(scale.high[task]) == pytest.approx(high, rel=RTOL)


@pytest.mark.parametrize("name", ["report", "one_step"])
def test_an_update_of_awac_equals_a_float64_loop_task_by_task(learnt, name):
    expected, metrics = float64_awac(learnt, name, learnt.value), learnt.metrics[name]
    assert float(metrics.means["loss"]) == pytest.approx(expected.loss, rel=RTOL)
    assert float(metrics.means["weight_max"]) == pytest.approx(expected.weight.max(), rel=RTOL)
    assert_by_task(metrics, expected, learnt.log_pi[name])
    scale = learnt.after[name].scale
    np.testing.assert_allclose(
        np.stack([scale.low, scale.high], 1), list(expected.scale.values()), rtol=RTOL
    )


def test_imagined_returns_end_replayed_ones_and_only_the_rows_that_have_them_count(learnt):
    expected = float64_awac(learnt, "imagined", learnt.imagined_return, slice(-LAST, None))
    share = dict(enumerate(by_task(expected.weight, expected.counting)))
    log_pi = learnt.log_pi["imagined"][:, -LAST:]
    terms = [-expected.weight[b, t] / share[TASKS[b]] * log_pi[b, t] for b, t in expected.counting]
    metrics = learnt.metrics["imagined"]
    assert float(metrics.means["loss"]) == pytest.approx(np.mean(terms), rel=RTOL)
    np.testing.assert_allclose(metrics.by_task["weight"], 1, rtol=1e-5)

    early = lambda x: np.concatenate([np.full_like(x[:, :-LAST], np.nan), x[:, -LAST:]], 1)
    batch = learnt.batch
    changed = replace(
        batch,
        actions={name: early(x) for name, x in batch.actions.items()},
        reward=early(batch.reward),
        is_last=np.concatenate([~batch.is_last[:, :-LAST], batch.is_last[:, -LAST:]], 1),
    )
    again = learnt.again("imagined", changed, jax.tree.map(early, learnt.latent))
    assert_same(again, (learnt.after["imagined"], metrics))


def test_the_default_equals_a_float64_loop_on_its_first_batch_and_on_later_ones(learnt):
    def assert_equal(state, metrics, expected):
        assert_by_task(metrics, expected, learnt.log_pi["default"])
        assert float(metrics.means["loss"]) == pytest.approx(expected.loss, rel=RTOL)
        squares = list(expected.square.values())
        np.testing.assert_allclose(state.mean_square.value, squares, rtol=RTOL)
        weights = expected.weight[tuple(np.transpose(expected.counting))]
        total, n = weights.sum(), len(weights)
        samples = total**2 / (n * (weights**2).sum())
        assert float(metrics.means["effective_samples"]) == pytest.approx(samples, rel=RTOL)
        assert weights.min() < 0.2 < 1 < weights.max(), "bad actions are to weigh less than 1"

    expected = float64_awac(learnt, "default", learnt.value)
    assert_equal(learnt.after["default"], learnt.metrics["default"], expected)
    known = {0: 0.5, 1: 20.0, 2: 3.0}
    before = learnt.before["default"]
    square = MeanSquare(np.array([*known.values()], np.float32), np.ones(3, bool))
    again = learnt.again("default", state=before.replace(mean_square=square))
    assert_equal(*again, float64_awac(learnt, "default", learnt.value, square=known))


def test_behaviour_cloning_weighs_all_that_counts_alike(learnt):
    counting = float64_awac(learnt, "bc", learnt.value).counting
    metrics = learnt.metrics["bc"]
    for name in ("weight", "effective_samples"):
        np.testing.assert_allclose(metrics.by_task[name], 1, rtol=1e-6)
    np.testing.assert_array_equal(
        metrics.by_task["weight_sum"],
        [sum(TASKS[b] == task for b, _ in counting) for task in range(3)],
    )
    cloned = np.mean([-learnt.log_pi["bc"][b, t] for b, t in counting])
    assert float(metrics.means["loss"]) == pytest.approx(cloned, rel=RTOL)


def test_a_slow_copy_is_three_parts_itself_and_one_part_actor(learnt):
    leaves = jax.tree.leaves
    old, new = leaves(learnt.before["slow"].params), leaves(learnt.after["slow"].params)
    for a, b, actor in zip(old, new, leaves(learnt.learner.params["pol"]), strict=True):
        np.testing.assert_allclose(b, 0.75 * a + 0.25 * actor, rtol=1e-5, atol=1e-7)


def test_a_twin_learns_the_policy_loss_of_dreams_of_its_own(learnt):
    starts = [
        (ref.array(learnt.latent.deter[b, t]), ref.array(learnt.latent.stoch[b, t]))
        for b in range(len(TASKS))
        for t in range(LENGTH - LAST, LENGTH)
    ]
    twin = learnt.before["twin"]
    expected = dream(
        learnt.config,
        {**learnt.learner.params, "pol": twin.params},
        learnt.learner.slow,
        twin.scale,
        TASKS,
        starts,
        noise.row_keys(update_key(0, 0), learnt.batch.draw),
    )
    found = learnt.metrics["twin"]
    assert float(found.means["loss"]) == pytest.approx(expected.policy.mean(), rel=RTOL)
    assert float(found.means["actor_entropy"]) == pytest.approx(expected.entropy.mean(), rel=RTOL)
    task_of = np.repeat(TASKS, LAST)
    for task, (low, high) in expected.scale.items():
        own = expected.policy[task_of == task].mean()
        assert float(found.by_task["loss"][task]) == pytest.approx(own, rel=RTOL)
        assert float(learnt.after["twin"].scale.low[task]) == pytest.approx(low, rel=RTOL)
        assert float(learnt.after["twin"].scale.high[task]) == pytest.approx(high, rel=RTOL)


def test_a_twins_statistics_are_means_of_all_dreams_and_of_those_of_a_tasks_own_sequences(learnt):
    metrics = learnt.metrics["twin"]
    assert metrics.means.keys() == metrics.by_task.keys()
    other = learnt.latent.deter.copy()
    other[0] += 1  # of the only sequence of the last task
    _, changed = learnt.again("twin", latent=learnt.latent.replace(deter=other))
    for name, mean in metrics.means.items():
        found = metrics.by_task[name]
        weighted = (np.bincount(TASKS) * found).sum() / len(TASKS)
        np.testing.assert_allclose(weighted, mean, rtol=RTOL, err_msg=name)
        np.testing.assert_allclose(found[:2], changed.by_task[name][:2], rtol=1e-6, err_msg=name)
        assert found[2] != changed.by_task[name][2]


@pytest.mark.parametrize("name", ["report", "twin"])
def test_what_absent_heads_hold_changes_no_number_of_a_rider(learnt, name):
    batch = learnt.batch
    actions = {head: x.copy() for head, x in batch.actions.items()}
    for row, task in enumerate(TASKS):
        for head, x in actions.items():
            if head not in [own.name for own in WORLDS[task].heads]:
                x[row] = np.nan
    clean = learnt.after[name], learnt.metrics[name]
    assert_same(learnt.again(name, batch.replace(actions=actions)), clean)


@pytest.mark.parametrize("name", RIDERS)
def test_no_action_is_learnt_from_in_the_last_step_of_an_episode(learnt, name):
    batch = learnt.batch
    actions = {
        head: np.where(batch.is_last[..., None], np.nan, x) for head, x in batch.actions.items()
    }
    clean = learnt.after[name], learnt.metrics[name]
    assert_same(learnt.again(name, batch.replace(actions=actions)), clean)
