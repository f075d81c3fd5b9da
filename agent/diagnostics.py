"""What the health of a learner shows in: norms by owner, pull of each task, dormant units, rank.

Costs about as much as an update a task, so it is asked for at a cadence. Reads and changes nothing
that is learnt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from agent.codecs import VECTOR_BRANCH
from agent.config import AgentConfig
from agent.learner import (
    LearnerState,
    Metrics,
    compute_losses,
    loss_scales,
    mean_by_task,
    rows_of,
)
from agent.model import Model
from agent.networks import Layer
from agent.optimiser import apply_gradients
from agent.owners import SHARED, masks_of, owners_of, presence
from agent.rssm import RSSM, Latent
from agent.world_model import TrainBatch

DORMANT = 0.025  # tau of Sokar et al. (arXiv:2302.12902)
RANK_SHARE = 0.99  # 1 - delta of Kumar et al. (arXiv:2010.14498)
TINY = 1e-30  # below any sum of singular values that is not 0

Diagnose = Callable[[LearnerState, TrainBatch, PRNGKeyArray], Metrics]


def norms_by_owner(tree: Any) -> dict[str, Float[Array, ""]]:
    """owner -> Euclidean norm of all its leaves together."""
    squares: dict[str, Float[Array, ""]] = {}
    for owner, leaf in zip(owners_of(tree), jax.tree.leaves(tree), strict=True):
        squares[owner] = squares.get(owner, jnp.zeros(())) + jnp.square(leaf).sum()
    return {owner: jnp.sqrt(total) for owner, total in squares.items()}


def dormant_share(activations: Float[Array, "n U"], tau: float = DORMANT) -> Float[Array, ""]:
    """Share of a layer's units whose mean |activation| is at most tau times that of all its units.

    Source: Sokar et al. 2023 (arXiv:2302.12902), Definition of a tau-dormant neuron.
    """
    score = jnp.abs(activations).mean(0)
    return (score <= tau * score.mean()).mean()


def effective_rank(values: Float[Array, " k"]) -> Float[Array, ""]:
    """exp of the entropy, in nats, of singular values over their sum; 0 where all are 0.

    Source: Roy & Vetterli 2007, Definition 1.
    """
    share = values / jnp.maximum(values.sum(), TINY)
    return jnp.where(values.sum() > 0, jnp.exp(jax.scipy.special.entr(share).sum()), 0.0)


def srank(values: Float[Array, " k"], share: float = RANK_SHARE) -> Float[Array, ""]:
    """The fewest singular values, the largest first, whose sum is at least `share` of that of all.

    Source: Kumar et al. 2021 (arXiv:2010.14498), who call it effective rank too.
    """
    total = values.sum()
    return jnp.where(total > 0, 1 + (jnp.cumsum(values) < share * total).sum(), 0)


def layer_activations(
    apply: Callable[..., Any], params: Any, *inputs: Any
) -> list[Float[Array, "n U"]]:
    """What every hidden layer of a network puts out, rows flattened."""
    is_layer = lambda module, _: isinstance(module, Layer)
    _, held = apply(
        {"params": params}, *inputs, capture_intermediates=is_layer, mutable=["intermediates"]
    )
    return [x.reshape(-1, x.shape[-1]) for x in jax.tree.leaves(held["intermediates"])]


def _from_latents(rssm: RSSM, latent: Latent) -> None:
    """Through those hidden layers that see nothing but a latent."""
    rssm.deter_in(latent.deter)
    rssm.stoch_in(latent.flat_stoch)
    rssm.prior_of(latent.deter)


def make_diagnose(model: Model, config: AgentConfig) -> Diagnose:
    """The jitted diagnosis of one batch: what an update on it would do.

    Returns `means`: `norm/{weight,gradient,update}/<owner>` (NaN for owners that the batch lacks),
    `dormant/<network>` (`rssm`: layers that see a latent alone; `decoder`: of vectors, NaN for a
    batch without any), `effective_rank` and `srank` of the features; `by_task`:
    `trunk_gradient_norm`, how hard each task alone pulls at what all tasks share.
    """
    scales, tasks = loss_scales(config), len(model.union.tasks)

    def diagnose(state: LearnerState, batch: TrainBatch, key: PRNGKeyArray) -> Metrics:
        def loss_of(params: Mapping[str, Any], task: Array) -> tuple[Array, Latent]:
            # Cloned: every task is looked at under the same noise, that of one update.
            losses, aside = compute_losses(
                model, config, params, state, batch, jax.random.clone(key)
            )
            rows = rows_of(losses, len(batch.task))
            total = sum(
                (
                    scales[name] * jnp.nan_to_num(mean_by_task(x, batch.task, tasks))[task]
                    for name, x in rows.items()
                ),
                jnp.zeros(()),
            )
            return total, aside.latent

        per_task, latents = jax.lax.map(
            lambda task: jax.grad(loss_of, has_aux=True)(state.params, task), jnp.arange(tasks)
        )
        share = (batch.task[None] == jnp.arange(tasks)[:, None]).mean(1)  # [tasks]
        weigh = lambda g: jnp.tensordot(share, g, 1)
        gradient = jax.tree.map(weigh, per_task)
        present = presence(masks_of(model.union, batch.task), bool(batch.frames.shape[0]))
        _, params = apply_gradients(config.optim, state.optimiser, state.params, gradient, present)
        step = jax.tree.map(jnp.subtract, params, state.params)

        means: dict[str, Array] = {}
        for kind, tree in (("weight", state.params), ("gradient", gradient), ("update", step)):
            for owner, norm in norms_by_owner(tree).items():
                means[f"norm/{kind}/{owner}"] = jnp.where(present[owner], norm, jnp.nan)
        latent = jax.tree.map(lambda x: x[0], latents)
        feature = latent.feature.reshape(-1, latent.feature.shape[-1])
        singular = jnp.linalg.svd(feature, compute_uv=False)
        means["effective_rank"] = effective_rank(singular)
        means["srank"] = srank(singular).astype(jnp.float32)
        # Name -> network, its parameters' part, the owner without whom it has nothing to do, input.
        networks: dict[str, tuple[Callable[..., Any], str, str, Any]] = {
            "actor": (model.actor.apply, "pol", SHARED, feature),
            "critic": (model.critic.apply, "val", SHARED, feature),
            "reward": (model.reward.apply, "rew", SHARED, feature),
            "continue": (model.continues.apply, "con", SHARED, feature),
            "rssm": (partial(model.rssm.apply, method=_from_latents), "dyn", SHARED, latent),
        }
        if model.union.vectors:
            vectors = partial(model.decoder.apply, branch=VECTOR_BRANCH)
            networks["decoder"] = vectors, "dec", VECTOR_BRANCH, latent
        for name, (apply, part, owner, x) in networks.items():
            layers = layer_activations(apply, state.params[part], x)
            asleep = jnp.stack([dormant_share(layer) for layer in layers]).mean()
            means[f"dormant/{name}"] = jnp.where(present[owner], asleep, jnp.nan)
        trunk = jax.vmap(lambda g: norms_by_owner(g)[SHARED])(per_task)
        pull = jnp.where(share > 0, trunk, jnp.nan)
        return Metrics(means, {"trunk_gradient_norm": pull})

    return jax.jit(diagnose)
