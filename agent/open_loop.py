"""What the model believes will happen: some frames seen, then only the actions known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from agent import noise
from agent.codecs import IMAGE_BRANCH
from agent.distributions import masked
from agent.model import Model
from agent.owners import masks_of
from agent.rssm import Latent, sample
from agent.world_model import TrainBatch, observe
from continual.envs.interface import IMAGE

SEEN = 5  # frames shown

OpenLoop = Callable[[Mapping[str, Any], TrainBatch, PRNGKeyArray], Float[Array, "T 64 64 3"]]


def make_open_loop(model: Model, seen: int = SEEN) -> OpenLoop:
    """(params, one sequence of an image world, key) -> predicted frames [T, 64, 64, 3] in [0, 1].

    The first `seen` are reconstructions of what the posterior was shown; for the rest the prior
    goes on alone, told the actions.
    """

    def predict(
        params: Mapping[str, Any], batch: TrainBatch, key: PRNGKeyArray
    ) -> Float[Array, "T 64 64 3"]:
        rssm = lambda method, *args: model.rssm.apply(
            {"params": params["dyn"]}, *args, method=method
        )
        observe_key, prior_key = jax.random.split(key)
        masks = masks_of(model.union, batch.task)
        shown = observe(model, params, batch, masks, observe_key).latent
        start = jax.tree.map(lambda x: x[:, seen - 1], shown)
        length = batch.reward.shape[1]
        uniform = noise.uniform(
            noise.row_keys(prior_key, batch.draw), (length - seen, model.config.stoch)
        )
        done = {
            name: masked(action[:, seen - 1 : -1], masks[f"head:{name}"])
            for name, action in batch.actions.items()
        }

        def step(latent: Latent, x: tuple[Array, Array]) -> tuple[Latent, Latent]:
            action, u = x
            deter = rssm("step", latent, action)
            latent = Latent(deter, sample(rssm("prior_of", deter), u))
            return latent, latent

        by_time = jax.tree.map(
            lambda x: jnp.swapaxes(x, 0, 1), (rssm("embed_actions", done), uniform)
        )
        _, imagined = jax.lax.scan(step, start, by_time)
        whole = jax.tree.map(lambda a, b: jnp.concatenate([a[0, :seen], b[:, 0]]), shown, imagined)
        return model.decoder.apply({"params": params["dec"]}, whole, IMAGE_BRANCH)[IMAGE]

    return jax.jit(predict)
