"""The agent against slow float64 loops of the same equations (`tests/reference.py`)."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agent import distributions as dist
from agent import noise
from agent.learner import compute_losses, init_learner, make_update, update_key
from agent.model import make_model
from agent.normaliser import ReturnScale, update_return_scale
from agent.returns import replay_returns
from continual.envs.interface import union
from tests import reference as ref
from tests.agent_cases import ALL, CUP, blank, drawn, random_batch, tiny
from tests.reference_dreams import WORLDS, dream

RTOL = 1e-4
LENGTH, LAST, HORIZON = 5, 3, 3
TASKS = [2, 0, 1]  # crafter, cup, walker
FREE = 1.4
CONV = {"image_code": "conv", "depth": 1, "vector_layers": 2, "prior_layers": 2}


@pytest.fixture(scope="module")
def case():
    """Parameters away from their zero starts, one mixed batch, and both sides' losses."""
    rng = np.random.default_rng(1)
    # With an entropy bonus as large as the advantages, else nobody would miss it.
    # Free nats that cut some divergences and leave others, in which the encoders are seen.
    config = tiny(
        imagination={"horizon": HORIZON, "last": LAST, "entropy": 0.3}, loss={"free_nats": FREE}
    )
    config = config.model_copy(update={"model": config.model.model_copy(update=CONV)})
    model = make_model(config.model, ALL)
    state = blank(lambda: init_learner(model, jax.random.key(0)))
    params, slow = drawn((state.params, state.slow), rng, 0.4)
    scale = ReturnScale(jnp.array([-1.0, 0.0, -0.5]), jnp.array([0.5, 3.0, 0.2]))
    batch = random_batch(rng, config, TASKS, length=LENGTH)
    # Among the last K columns one sequence runs through a truncation, and one through a death.
    is_last = np.array([[0, 0, 0, 0, 1], [0, 1, 0, 1, 0], [1, 0, 0, 1, 0]], bool)
    is_terminal = np.array([[0, 0, 0, 0, 1], [0, 0, 0, 0, 0], [1, 0, 0, 1, 0]], bool)
    is_first = np.roll(is_last, 1, 1)
    batch = batch.replace(is_first=is_first, is_last=is_last, is_terminal=is_terminal)
    key = jax.random.key(5)
    state = state.replace(slow=slow, scale=scale)
    losses, aside = jax.jit(
        lambda p, s, b: compute_losses(model, config, p, s, b, jax.random.key(5))
    )(params, state, batch)
    expected = float64_losses(config, params, slow, scale, batch, key)
    return SimpleNamespace(losses=losses, aside=aside, expected=expected)


def float64_losses(config, params, slow, scale, batch, key):
    """Every loss of one update, and what it hands out."""
    observe_key, imagine_key = jax.random.split(key)
    model, size = config.model, len(TASKS)
    uniform = np.array(
        noise.uniform(noise.row_keys(observe_key, batch.draw), (LENGTH, model.stoch)), np.float64
    )
    gamma, lambda_ = config.imagination.gamma, config.imagination.lambda_

    names = ("reconstruction", "reward", "continue", "dynamics", "representation")
    out = {name: np.zeros((size, LENGTH)) for name in names}
    features = np.zeros((size, LENGTH, model.deter + model.stoch * model.classes))
    states = {}
    for b, task in enumerate(TASKS):
        world = WORLDS[task]
        deter = ref.array(batch.context.deter[b])
        stoch = ref.array(batch.context.stoch[b])
        action = {h.name: ref.array(batch.previous[h.name][b]) for h in world.heads}
        for t in range(LENGTH):
            if batch.is_first[b, t]:
                deter, stoch = np.zeros_like(deter), np.zeros_like(stoch)
                action = {name: np.zeros_like(a) for name, a in action.items()}
            deter = ref.recurrence(deter, stoch, action, params["dyn"], model.blocks)
            tokens, vectors = (
                {},
                {s.name: ref.array(batch.vectors[s.name][b, t]) for s in world.vectors},
            )
            if vectors:
                tokens["branch:vector"] = ref.encode_vectors(
                    vectors, params["enc"]["branch:vector"]
                )
            if world.image:
                tokens["slot:image"] = ref.encode_image(
                    batch.frames[b, t], params["enc"]["slot:image"]
                )
            posterior = ref.posterior(deter, tokens, params["dyn"], model.stoch)
            prior = ref.prior(deter, params["dyn"], model.stoch)
            stoch = ref.draw_latent(posterior, uniform[b, t])
            states[b, t] = deter, stoch
            feature = features[b, t] = np.concatenate([deter, stoch.ravel()])
            action = {h.name: ref.array(batch.actions[h.name][b, t]) for h in world.heads}

            divergence = max(config.loss.free_nats, ref.kl(posterior, prior))
            out["dynamics"][b, t] = out["representation"][b, t] = divergence
            out["reward"][b, t] = ref.twohot_loss(
                ref.head(feature, params["rew"]), float(batch.reward[b, t])
            )
            out["continue"][b, t] = ref.bernoulli_loss(
                ref.head(feature, params["con"])[0], gamma * (1 - batch.is_terminal[b, t])
            )
            if vectors:
                decoded = ref.decode_vectors(deter, stoch, params["dec"]["branch:vector"])
                for name, x in vectors.items():
                    out["reconstruction"][b, t] += ((decoded[name] - ref.symlog(x)) ** 2).sum()
            if world.image:
                picture = ref.decode_image(deter, stoch, params["dec"]["slot:image"], model.blocks)
                error = picture - batch.frames[b, t] / 255
                out["reconstruction"][b, t] += (error**2).sum()

    starts = [states[b, t] for b in range(size) for t in range(LENGTH - LAST, LENGTH)]
    rows = noise.row_keys(imagine_key, batch.draw)
    dreamt = dream(config, params, slow, scale, TASKS, starts, rows)
    out |= {"policy": dreamt.policy, "value": dreamt.value}

    bootstrap = dreamt.returns[:, 0].reshape(size, LAST)
    out["replay_value"] = np.zeros((size, LAST))
    for b in range(size):
        columns = slice(LENGTH - LAST, LENGTH)
        replayed = ref.replay_returns(
            batch.reward[b, columns],
            batch.is_last[b, columns],
            batch.is_terminal[b, columns],
            bootstrap[b],
            lambda_,
            gamma,
        )
        for k in range(LAST - 1):
            t = LENGTH - LAST + k
            if not batch.is_last[b, t]:
                logits = ref.head(features[b, t], params["val"])
                near = ref.twohot_mean(ref.head(features[b, t], slow))
                out["replay_value"][b, k] = ref.twohot_loss(logits, replayed[k])
                out["replay_value"][b, k] += ref.twohot_loss(logits, near)
    return SimpleNamespace(
        losses=out, features=features, imagined_return=bootstrap, scale=dreamt.scale
    )


LOSSES = (
    "reconstruction",
    "reward",
    "continue",
    "dynamics",
    "representation",
    "policy",
    "value",
    "replay_value",
)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_of_an_update_equals_a_float64_loop(case, name):
    found, expected = case.losses[name], case.expected.losses[name]
    np.testing.assert_allclose(found, expected, rtol=RTOL, atol=1e-4 * np.abs(expected).max())
    assert np.ptp(expected) > 1e-3


def test_divergences_show_the_encoder_of_every_world_and_free_nats(case):
    found = case.expected.losses["dynamics"]
    assert ((found > FREE).sum(1) >= LENGTH // 2).all(), found
    assert (found == FREE).any(), found


def test_there_is_no_loss_without_a_reference(case):
    assert case.losses.keys() == set(LOSSES)


def test_posterior_latents_equal_a_float64_loop(case):
    np.testing.assert_allclose(
        case.aside.latent.feature, case.expected.features, rtol=RTOL, atol=1e-5
    )


def test_imagined_returns_and_their_scale_equal_a_float64_loop(case):
    np.testing.assert_allclose(
        case.aside.imagined_return, case.expected.imagined_return, rtol=RTOL, atol=1e-4
    )
    assert 1 < np.abs(case.expected.imagined_return).max() < 20  # a reward more or less is seen
    for task, (low, high) in case.expected.scale.items():
        assert float(case.aside.scale.low[task]) == pytest.approx(low, rel=RTOL)
        assert float(case.aside.scale.high[task]) == pytest.approx(high, rel=RTOL)


def test_without_imagination_the_critic_learns_replayed_returns_that_end_in_slow_values():
    """And the actor, whom nobody asks, stays as it is."""
    rng, world = np.random.default_rng(4), union({"cup": CUP})
    alone = {"kind": "fixed", "p": 1}
    config = tiny(critic="replay", gate=alone, optim={"lr": 1e-3, "warmup": 0})
    model = make_model(config.model, world)
    before = blank(lambda: init_learner(model, jax.random.key(0)))
    before = before.replace(params=drawn(before.params, rng), slow=drawn(before.slow, rng))
    batch = random_batch(rng, config, [0, 0, 0], world)
    is_last = np.array([[0, 0, 0, 0, 0], [0, 1, 0, 1, 0], [1, 0, 0, 1, 0]], bool)
    is_terminal = np.array([[0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [1, 0, 0, 1, 0]], bool)
    batch = batch.replace(is_last=is_last, is_terminal=is_terminal, is_first=np.roll(is_last, 1, 1))
    state = jax.tree.map(jnp.array, before)  # consumed
    after, handout, metrics = make_update(model, config)(state, batch, update_key(0, 0))

    feature, losses = ref.array(handout.latent.feature), np.zeros((3, 4))
    slow = np.array([[ref.twohot_mean(ref.head(f, before.slow)) for f in row] for row in feature])
    for b in range(3):
        returns = ref.replay_returns(
            *(batch.reward[b], is_last[b], is_terminal[b], slow[b]),
            config.imagination.lambda_,
            config.imagination.gamma,
        )
        for t in range(4):
            if not is_last[b, t]:
                logits = ref.head(feature[b, t], before.params["val"])
                targets = returns[t], slow[b, t]
                losses[b, t] = sum(ref.twohot_loss(logits, target) for target in targets)
    assert float(metrics.means["loss/replay_value"]) == pytest.approx(losses.mean(), rel=RTOL)
    assert handout.imagined_return.shape == (3, 0)
    moved = {
        part: any(
            not np.array_equal(old, new)
            for old, new in zip(
                jax.tree.leaves(params), jax.tree.leaves(after.params[part]), strict=True
            )
        )
        for part, params in before.params.items()
    }
    assert [part for part, has_moved in moved.items() if not has_moved] == ["pol"]


def test_two_hot_equals_a_float64_loop_inside_the_bins_on_them_and_outside(rng):
    edges = ref.bins()
    targets = [0.0, 1.0, -3.7, 1e3, edges[40], edges[-1], edges[0], -1e12, 1e12, 1e-7]
    logits = rng.normal(size=(len(targets), ref.BINS)) * 3
    for target, row in zip(targets, logits, strict=True):
        found = dist.twohot_loss(jnp.asarray(row, jnp.float32), jnp.float32(target))
        assert float(found) == pytest.approx(ref.twohot_loss(row, np.float32(target)), rel=RTOL)
        near = np.where(np.abs(edges) < 100, row, -20.0)
        mean = dist.twohot_mean(jnp.asarray(near, jnp.float32))
        assert float(mean) == pytest.approx(ref.twohot_mean(near), rel=RTOL, abs=1e-2)


@pytest.mark.parametrize("ends", ["none", "truncated", "terminal", "all"])
def test_replayed_returns_equal_a_float64_loop(rng, ends):
    reward, bootstrap = rng.normal(size=(2, 9)).astype(np.float32)
    is_last = {"none": np.zeros(9, bool), "all": np.ones(9, bool)}.get(ends, rng.random(9) < 0.4)
    is_terminal = is_last if ends in ("terminal", "all") else np.zeros(9, bool)
    found = replay_returns(
        *(jnp.asarray(x) for x in (reward, is_last, is_terminal, bootstrap)), 0.95, 0.997
    )
    expected = ref.replay_returns(reward, is_last, is_terminal, bootstrap, 0.95, 0.997)
    np.testing.assert_allclose(found, expected, rtol=RTOL, atol=1e-5)


def test_the_return_scale_equals_a_float64_loop_over_updates(rng):
    state, low, high = ReturnScale(jnp.zeros(1), jnp.zeros(1)), 0.0, 0.0
    for _ in range(5):
        returns = rng.normal(size=(3, 7)).astype(np.float32) * 10
        state = update_return_scale(state, jnp.asarray(returns), jnp.zeros(3, int), 0.1)
        low, high = ref.moved_scale(low, high, returns, 0.1)
    assert float(state.low[0]) == pytest.approx(low, rel=RTOL)
    assert float(state.high[0]) == pytest.approx(high, rel=RTOL)
    assert float(state.spread(1.0)[0]) == pytest.approx(high - low, rel=RTOL)
