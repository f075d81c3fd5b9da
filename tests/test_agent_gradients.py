"""Where each loss's gradient goes, and where it stops."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agent import distributions as dist
from agent.agent import make_agent
from agent.imagination import policy_loss, value_loss
from agent.learner import Handout, compute_losses, rows_of, update_key
from agent.owners import owner_of, path_names
from agent.rssm import sample
from agent.world_model import kl_losses
from tests.agent_cases import ALL, blank, drawn, random_batch, tiny

SLOTS = {f"slot:{slot.name}" for slot in ALL.vectors}
HEADS = {f"head:{head.name}" for head in ALL.heads}
SIGHTS = {"branch:vector", "slot:image"}
# Whose parameters each part holds. `dyn` is the recurrence with the posterior, `prior` the prior's
# own layers; `awac` and `twin` are riders.
OWNERS = {
    "enc": SLOTS | SIGHTS,
    "dec": SLOTS | SIGHTS,
    "dyn": HEADS | SIGHTS | {"shared"},
    **{part: {"shared"} for part in ("prior", "rew", "con", "val")},
    **{part: HEADS | {"shared"} for part in ("pol", "awac", "twin")},
}
# The parts that a loss teaches, all their owners, and no others.
TAUGHT = {
    "reconstruction": {"enc", "dyn", "dec"},
    "reward": {"enc", "dyn", "rew"},
    "continue": {"enc", "dyn", "con"},
    "dynamics": {"enc", "dyn", "prior"},
    "representation": {"enc", "dyn"},
    "policy": {"pol"},
    "value": {"val"},
    "replay_value": {"enc", "dyn", "val"},
    "awac": {"awac"},
    "twin": {"twin"},
}


def part_of(path):
    names = path_names(path)
    return "prior" if names[0] == "dyn" and names[1].startswith("prior") else names[0]


@pytest.fixture(scope="module")
def gradients():
    """loss -> (part, owner) -> norm of the gradient, on all worlds and away from the zero starts.

    Riders are handed what an update hands out, so that a way back into the learner would be seen.
    """
    rng = np.random.default_rng(2)
    config = tiny(
        loss={"free_nats": 0.0},  # else the KL of a new model teaches nothing
        riders={"awac": {"kind": "awac"}, "twin": {"kind": "twin"}},
    )
    agent = make_agent(config, ALL)
    made = blank(lambda: agent.init(jax.random.key(0)))
    actors = {name: rider.params for name, rider in made.riders.items()}
    params = drawn(dict(made.learner.params) | actors, rng)
    batch = random_batch(rng, config, [2, 0, 1], length=6)
    batch = batch.replace(is_last=np.zeros((3, 6), bool), is_first=np.zeros((3, 6), bool))

    @jax.jit
    def jacobian(params, state, riders, batch):
        def means(params):
            losses, aside = compute_losses(
                agent.model, config, params, state, batch, update_key(1, 0)
            )
            found = {name: x.mean() for name, x in rows_of(losses, 3).items()}
            learner = state.replace(params=params, slow=params["val"])
            handout = Handout(aside.latent, {}, aside.imagined_return)
            for number, name in enumerate(actors):
                rider = riders[name].replace(params=params[name])
                key = update_key(2, number)
                _, metrics = agent.riders[name].update(rider, learner, batch, handout, key)
                found[name] = metrics.means["loss"]
            return found

        return jax.jacrev(means)(params)

    found = {}
    for name, tree in jacobian(params, made.learner, made.riders, batch).items():
        parts = found.setdefault(name, {})
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            who = part_of(path), owner_of(path)
            parts[who] = parts.get(who, 0.0) + float(jnp.square(leaf).sum())
    return found


@pytest.mark.parametrize("loss", TAUGHT)
def test_a_loss_teaches_what_it_should_and_nothing_else(gradients, loss):
    taught = {(part, owner) for part in TAUGHT[loss] for owner in OWNERS[part]}
    assert {who for who, norm in gradients[loss].items() if norm > 0} == taught


def test_every_loss_and_every_owner_is_listed(gradients):
    assert gradients.keys() == TAUGHT.keys()
    assert gradients["reward"].keys() == {(part, o) for part in OWNERS for o in OWNERS[part]}


def test_a_latents_gradient_is_that_of_its_mixed_probabilities_straight_through(rng):
    logits = jnp.asarray(3 * rng.normal(size=(4, 3, 5)), jnp.float32)
    uniform = jnp.asarray(rng.random((4, 3)), jnp.float32)
    drawn_from = lambda x: sample(dist.unimix_log_probs(x, 0.01), uniform)
    mixed = lambda x: 0.99 * jax.nn.softmax(x) + 0.01 / 5
    np.testing.assert_allclose(
        jax.jacrev(drawn_from)(logits), jax.jacrev(mixed)(logits), rtol=0, atol=1e-6
    )
    index = dist.categorical_sample(dist.unimix_log_probs(logits, 0.01), uniform)
    np.testing.assert_array_equal(drawn_from(logits), np.eye(5)[np.array(index)])


@pytest.mark.parametrize(
    ("name", "taught"), [("dynamics", "prior"), ("representation", "posterior")]
)
def test_each_kl_loss_teaches_one_side(rng, name, taught):
    logits = {
        side: jnp.asarray(rng.normal(size=(3, 4)), jnp.float32) for side in ("posterior", "prior")
    }

    def loss(logits):
        both = [jax.nn.log_softmax(logits[side])[None] for side in ("posterior", "prior")]
        return kl_losses(*both, 0.0)[0 if name == "dynamics" else 1].sum()

    gradient = jax.grad(loss)(logits)
    assert {side for side, g in gradient.items() if np.abs(g).max() > 0} == {taught}


def test_free_nats_silence_the_kl_of_a_step_and_not_of_its_neighbours():
    """One step below a nat, one above: the mean of both is above, and still only one counts."""
    posterior = jnp.log(jnp.array([[[0.6, 0.4]], [[0.999, 0.001]]]))
    prior = jnp.log(jnp.array([[[0.5, 0.5]], [[0.005, 0.995]]]))
    dyn, _ = kl_losses(posterior, prior, 1.0)
    assert float(dyn[0]) == 1.0
    assert float(dyn[1]) > 1.0
    gradient = jax.grad(lambda q: kl_losses(posterior, q, 1.0)[0].mean())(prior)
    assert float(jnp.abs(gradient[0]).max()) == 0.0
    assert float(jnp.abs(gradient[1]).max()) > 0.0


def test_the_entropy_bonus_is_inside_the_minus():
    """More entropy is less loss, whatever the advantage."""
    one = jnp.ones((1, 1))
    by_entropy = jax.grad(lambda h: policy_loss(one, h, -5 * one, one, 0.1).sum())(one)
    assert float(by_entropy[0, 0]) == pytest.approx(-0.1)


def test_advantage_and_weight_are_not_taught_by_the_policy_loss():
    one = jnp.ones((1, 2))
    gradient = jax.grad(lambda a, w: policy_loss(one, one, a, w, 0.1).sum(), argnums=(0, 1))(
        one, one
    )
    np.testing.assert_array_equal(np.array(gradient), 0)


def test_targets_are_not_taught_by_the_value_loss(rng):
    logits = jnp.asarray(rng.normal(size=(2, 255)), jnp.float32)
    target = jnp.array([1.0, -2.0])
    gradient = jax.grad(lambda r, s: value_loss(logits, r, s, 1.0).sum(), argnums=(0, 1))(
        target, target
    )
    np.testing.assert_array_equal(np.array(gradient), 0)
