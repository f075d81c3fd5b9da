"""Where each loss's gradient goes, and where it stops."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agent.imagination import policy_loss, value_loss
from agent.learner import compute_losses, init_learner, rows_of
from agent.model import make_model
from agent.owners import path_names
from agent.world_model import kl_losses
from tests.agent_cases import ALL, random_batch, tiny

# What a loss may teach. `dyn` is the recurrence with the posterior, `prior` the prior's own layers.
TAUGHT = {
    "reconstruction": {"enc", "dyn", "dec"},
    "reward": {"enc", "dyn", "rew"},
    "continue": {"enc", "dyn", "con"},
    "dynamics": {"enc", "dyn", "prior"},
    "representation": {"enc", "dyn"},
    "policy": {"pol"},
    "value": {"val"},
    "replay_value": {"enc", "dyn", "val"},
}


def part_of(path):
    names = path_names(path)
    return "prior" if names[0] == "dyn" and names[1].startswith("prior") else names[0]


@pytest.fixture(scope="module")
def gradients():
    """loss -> part -> norm of the gradient, away from the zero starts and on all worlds."""
    rng = np.random.default_rng(2)
    config = tiny(loss={"free_nats": 0.0})  # else the KL of a new model teaches nothing
    model = make_model(config.model, ALL)
    shake = lambda x: x + rng.normal(scale=0.1, size=x.shape).astype(np.float32)
    state = init_learner(model, jax.random.key(0))
    params = jax.tree.map(shake, state.params)
    batch = random_batch(rng, config, [2, 0, 1], length=6)
    batch = batch.replace(is_last=np.zeros((3, 6), bool), is_first=np.zeros((3, 6), bool))

    @jax.jit
    def jacobian(params, state, batch):
        def means(params):
            losses, _ = compute_losses(model, config, params, state, batch, jax.random.key(1))
            return {name: x.mean() for name, x in rows_of(losses, 3).items()}

        return jax.jacrev(means)(params)

    found = {}
    for name, tree in jacobian(params, state, batch).items():
        parts = found.setdefault(name, {})
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            parts[part_of(path)] = parts.get(part_of(path), 0.0) + float(jnp.square(leaf).sum())
    return found


@pytest.mark.parametrize("loss", TAUGHT)
def test_a_loss_teaches_what_it_should_and_nothing_else(gradients, loss):
    assert {part for part, norm in gradients[loss].items() if norm > 0} == TAUGHT[loss]


def test_every_loss_is_listed(gradients):
    assert gradients.keys() == TAUGHT.keys()


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
