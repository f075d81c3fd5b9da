"""A context latent that is worked out, where none is stored (R2D2, Kapturowski et al. 2019)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax
from jaxtyping import PRNGKeyArray

from agent.distributions import sg
from agent.model import Model
from agent.owners import masks_of
from agent.world_model import TrainBatch, observe

BurnIn = Callable[[Mapping[str, Any], TrainBatch, PRNGKeyArray, int], TrainBatch]


def make_burn_in(model: Model) -> BurnIn:
    """(params, batch of K + T rows, key, K) -> its last T rows, and the latent that K rows lead to.

    The posterior runs along the first K rows from the batch's own context; no gradient flows
    through them. Compiled once per shape of a batch and K.
    """

    def burn_in(
        params: Mapping[str, Any], batch: TrainBatch, key: PRNGKeyArray, rows: int
    ) -> TrainBatch:
        masks = masks_of(model.union, batch.task)
        seen = observe(model, params, batch.rows(slice(rows)), masks, key)
        return replace(
            batch.rows(slice(rows, None)),
            previous={name: action[:, rows - 1] for name, action in batch.actions.items()},
            context=sg(jax.tree.map(lambda x: x[:, -1], seen.latent)),
        )

    return jax.jit(burn_in, static_argnums=3)
