"""Diagnostics: hand-worked numbers, and that looking changes nothing."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agent.diagnostics import (
    dormant_share,
    effective_rank,
    make_diagnose,
    norms_by_owner,
    srank,
)
from agent.learner import init_learner, make_update, update_key
from agent.model import make_model
from agent.owners import path_names
from agent.rssm import initial_latent
from agent.world_model import Observed, latent_diagnostics
from continual.envs.interface import Head, Interface, union
from eval import plasticity
from tests.agent_cases import ALL, CUP, blank, drawn, random_batch, tiny

NETWORKS = {  # as a diagnosis names them -> their part of the parameters
    "actor": "pol",
    "critic": "val",
    "reward": "rew",
    "continue": "con",
    "rssm": "dyn",
    "decoder": "dec",
}


def test_dormant_units_by_hand():
    """Mean magnitudes 1, 1, 0.01 and 0; a fortieth of their mean is 0.0126."""
    activations = jnp.array([[1.0, -1.0, 0.01, 0.0], [-1.0, 1.0, -0.01, 0.0]])
    assert float(dormant_share(activations)) == 0.5
    assert float(dormant_share(activations, tau=0.0)) == 0.25


def singular(features):
    return jnp.linalg.svd(features, compute_uv=False)


@pytest.fixture
def features(rng):
    """Singular values 10, 1 and 0.05: two of them are 99.5 % of the sum."""
    left, _ = np.linalg.qr(rng.normal(size=(8, 3)))
    right, _ = np.linalg.qr(rng.normal(size=(5, 3)))
    return jnp.asarray(left @ np.diag([10.0, 1.0, 0.05]) @ right.T, jnp.float32)


def test_effective_rank_by_hand(features):
    share = np.array([10.0, 1.0, 0.05]) / 11.05
    expected = math.exp(-sum(p * math.log(p) for p in share))
    assert float(effective_rank(singular(features))) == pytest.approx(expected, rel=1e-4)
    assert float(effective_rank(singular(jnp.eye(4)))) == pytest.approx(4, rel=1e-5)
    assert float(effective_rank(singular(jnp.ones((4, 3))))) == pytest.approx(1, abs=1e-3)
    assert float(effective_rank(singular(jnp.zeros((4, 3))))) == 0


def test_srank_by_hand(features):
    assert int(srank(singular(features))) == 2
    assert int(srank(singular(features), share=0.9)) == 1
    assert int(srank(singular(features), share=0.999)) == 3
    assert int(srank(singular(jnp.zeros((4, 3))))) == 0


def test_the_learners_own_signs_are_those_of_anybodys_arrays(rng, features):
    activations = rng.normal(size=(50, 8)) * [1, 1, 1, 1, 1, 1, 0.01, 0]
    for found, expected in (
        (dormant_share(jnp.asarray(activations)), plasticity.dormant_share(activations)),
        (effective_rank(singular(features)), plasticity.effective_rank(features)),
        (srank(singular(features)), plasticity.srank(features)),
        (effective_rank(singular(jnp.zeros((4, 3)))), plasticity.effective_rank(np.zeros((4, 3)))),
        (srank(singular(jnp.zeros((4, 3)))), plasticity.srank(np.zeros((4, 3)))),
    ):
        assert float(found) == pytest.approx(expected, rel=1e-4)
    assert plasticity.dormant_share(activations) == 0.25


def test_latents_that_say_nothing_are_told_from_a_model_that_has_learnt_all():
    """Both have a dynamics loss of 1, the free nats."""
    uniform = np.full((1, 1, 3, 4), -np.log(4), np.float32)
    sure = np.log(np.array([0.97, 0.01, 0.01, 0.01], np.float32)) * np.ones((1, 1, 3, 1))
    look = lambda q, p: {
        name: float(x[0, 0])
        for name, x in latent_diagnostics(
            Observed(initial_latent(tiny().model, 1, 1), q, p)
        ).items()
    }
    silent, learnt = look(uniform, uniform), look(sure, sure)
    assert silent["kl"] == learnt["kl"] == 0
    assert silent["posterior_entropy"] == pytest.approx(3 * np.log(4))
    assert learnt["prior_entropy"] == pytest.approx(
        -3 * (0.97 * np.log(0.97) + 0.03 * np.log(0.01))
    )
    apart = look(sure, uniform)
    assert apart["prior_entropy"] == pytest.approx(3 * np.log(4))
    assert apart["kl"] == pytest.approx(3 * np.log(4) - apart["posterior_entropy"], rel=1e-5)


def test_norms_are_of_all_leaves_of_an_owner_together():
    tree = {
        "a": {"kernel": {"slot:x": jnp.array([3.0])}, "slot:x": jnp.array([4.0])},
        "b": jnp.ones(4),
    }
    found = {owner: float(norm) for owner, norm in norms_by_owner(tree).items()}
    assert found == {"slot:x": 5.0, "shared": 2.0}


@pytest.fixture(scope="module")
def diagnosed():
    """tasks -> diagnosis of a batch; of the two worlds the second shows nothing.

    In each hidden layer of eight units some sleep: one in the first of NETWORKS, two in the second.
    """
    rng = np.random.default_rng(3)
    # Nothing is imagined: that leaves less to compile.
    config = tiny(critic="replay", gate={"kind": "fixed", "p": 1})
    worlds = union({"cup": CUP, "blind": Interface((), (Head("blind", "continuous", 1),))})
    model = make_model(config.model, worlds)
    state = blank(lambda: init_learner(model, jax.random.key(0)))
    asleep = {part: number for number, part in enumerate(NETWORKS.values(), start=1)}

    def put_to_sleep(path, leaf):
        part, *_, name = path_names(path)
        if name == "scale":
            leaf[: asleep.get(part, 0)] = 0
        return leaf

    params = jax.tree_util.tree_map_with_path(put_to_sleep, drawn(state.params, rng))
    diagnose = make_diagnose(model, config)

    def diagnosed(*tasks):
        batch = random_batch(rng, config, list(tasks), worlds)
        return diagnose(state.replace(params=params), batch, update_key(0, 0))

    return diagnosed


def test_dormant_units_are_those_of_the_network_that_is_named(diagnosed):
    found = diagnosed(0, 1).means
    for number, network in enumerate(NETWORKS, start=1):
        assert float(found[f"dormant/{network}"]) == number / 8, network


def test_a_batch_of_a_world_that_shows_nothing_says_nothing_of_vectors(diagnosed):
    found = diagnosed(1, 1)
    np.testing.assert_array_equal(np.isnan(found.by_task["trunk_gradient_norm"]), [True, False])
    own = ("branch:vector", "head:dmc.ball_in_cup", *(f"slot:{slot.name}" for slot in CUP.slots))
    assert {name for name, x in found.means.items() if np.isnan(x)} == {
        "dormant/decoder",
        *(f"norm/{kind}/{owner}" for kind in ("weight", "gradient", "update") for owner in own),
    }


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(3)
    config = tiny()
    model = make_model(config.model, ALL)
    state = init_learner(model, jax.random.key(0))
    batch = random_batch(rng, config, [0, 0, 1, 0])
    found = make_diagnose(model, config)(state, batch, update_key(0, 0))
    return config, model, state, batch, found


@pytest.mark.slow
def test_the_gradient_of_a_batch_is_that_of_its_update(case):
    config, model, state, batch, found = case
    _, _, metrics = make_update(model, config)(
        jax.tree.map(jnp.array, state), batch, update_key(0, 0)
    )
    squares = [
        float(norm) ** 2
        for name, norm in found.means.items()
        if name.startswith("norm/gradient/") and np.isfinite(norm)
    ]
    assert np.sqrt(sum(squares)) == pytest.approx(float(metrics.means["gradient_norm"]), rel=1e-3)


@pytest.mark.slow
def test_tasks_and_owners_that_a_batch_lacks_have_no_numbers(case):
    *_, found = case
    pull = np.array(found.by_task["trunk_gradient_norm"])
    np.testing.assert_array_equal(np.isfinite(pull), [True, True, False])
    missing = {name for name, x in found.means.items() if np.isnan(x)}
    assert missing == {
        f"norm/{kind}/{owner}"
        for kind in ("weight", "gradient", "update")
        for owner in ("head:crafter", "slot:image")
    }


@pytest.mark.slow
def test_a_young_network_is_awake_and_its_features_span_something(case):
    *_, found = case
    assert all(0 <= found.means[f"dormant/{name}"] < 0.5 for name in NETWORKS)
    assert 1 <= float(found.means["effective_rank"]) <= 20
    assert 1 <= float(found.means["srank"]) <= 20
