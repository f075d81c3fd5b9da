"""LaProp with adaptive gradient clipping, its state kept per owner.

Per tensor, with all its parts (`owners.tensors_of`), and with the constants of DreamerV3's code:
    g   <- g * min(1, agc * max(pmin, |w|) / |g|)                    adaptive clipping (AGC)
    nu  <- b2 nu + (1 - b2) g^2 ;   u = g / (sqrt(nu / (1 - b2^n)) + eps)      RMS scaling
    mu  <- b1 mu + (1 - b1) u                                        momentum of the SCALED gradient
    w   <- w - lr * min(1, (n - 1) / warmup) * mu / (1 - b1^n)
where n counts the updates of the tensor's owner, this one included: the very first one is a no-op.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from agent.config import OptimiserConfig
from agent.owners import Presence, owners_of, tensors_of


@struct.dataclass
class OptimiserState:
    """Attributes:
    count: owner -> updates it took part in, [] int32.
    nu, mu: trees like the parameters.
    """

    count: dict[str, Int[Array, ""]]
    nu: Any
    mu: Any


def init_optimiser(params: Any) -> OptimiserState:
    zeros = lambda: jax.tree.map(jnp.zeros_like, params)
    count = {owner: jnp.zeros((), jnp.int32) for owner in sorted(set(owners_of(params)))}
    return OptimiserState(count, zeros(), zeros())


def clip_factor(
    weight_norm: Float[Array, ""], grad_norm: Float[Array, ""], *, agc: float, pmin: float
) -> Float[Array, ""]:
    """min(1, agc max(pmin, |w|) / |g|), |.| over one tensor; 1 for a gradient of 0."""
    return jnp.minimum(1.0, agc * jnp.maximum(pmin, weight_norm) / jnp.maximum(grad_norm, 1e-38))


def laprop_step(
    w: Float[Array, "*n"],
    g: Float[Array, "*n"],
    nu: Float[Array, "*n"],
    mu: Float[Array, "*n"],
    n: Int[Array, ""],
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    warmup: int,
) -> tuple[Float[Array, "*n"], Float[Array, "*n"], Float[Array, "*n"]]:
    """One step of a tensor along a clipped gradient -> (w, nu, mu); the equations above.

    Source: LaProp (arXiv:2002.04839), in the order of DreamerV3's code.

    Args:
      nu, mu: second moment of the gradient, momentum of the scaled gradient; 0 before the first.
      n: updates of this tensor, this one included.
      warmup: updates over which the rate rises from 0; 0: none.
    """
    count = n.astype(jnp.float32)
    nu = beta2 * nu + (1 - beta2) * jnp.square(g)
    scaled = g / (jnp.sqrt(nu / (1 - beta2**count)) + eps)
    mu = beta1 * mu + (1 - beta1) * scaled
    warm = jnp.minimum(1.0, (count - 1) / warmup) if warmup else 1.0
    return w - lr * warm * mu / (1 - beta1**count), nu, mu


def clip_factors(
    config: OptimiserConfig, params: Any, grads: Any, takes_part: Presence
) -> list[Float[Array, ""]]:
    """The factor of every leaf, in the order of `jax.tree.leaves`.

    Parts of one tensor are clipped together. A part whose owner is absent has no share in it, so
    that a world alone in a batch is learnt as if it were alone in the agent.
    """

    def norm(parts: list[Array]) -> Float[Array, ""]:
        return jnp.sqrt(sum((jnp.square(leaf).sum() for leaf in parts), jnp.zeros(())))

    weights: dict[str, list[Array]] = {}
    gradients: dict[str, list[Array]] = {}
    tensors, owners = tensors_of(params), owners_of(params)
    for tensor, owner, w, g in zip(
        tensors, owners, jax.tree.leaves(params), jax.tree.leaves(grads), strict=True
    ):
        on = takes_part[owner]
        if on is not False:
            weights.setdefault(tensor, []).append(w if on is True else jnp.where(on, w, 0.0))
            gradients.setdefault(tensor, []).append(g)
    factor = {
        tensor: clip_factor(norm(w), norm(gradients[tensor]), agc=config.agc, pmin=config.pmin)
        for tensor, w in weights.items()
    }
    return [factor.get(tensor, jnp.ones(())) for tensor in tensors]


def apply_gradients(
    config: OptimiserConfig,
    state: OptimiserState,
    params: Any,
    grads: Any,
    present: Presence,
) -> tuple[OptimiserState, Any]:
    """One step. With `idle=keep`, leaves of absent owners come back bit for bit.

    An owner whose absence is known when tracing (`False`, not an array) costs nothing.
    """
    decay = config.idle == "decay"
    takes_part = {owner: decay or present[owner] for owner in state.count}
    count = {
        owner: n + jnp.asarray(takes_part[owner], jnp.int32) for owner, n in state.count.items()
    }

    def step(
        owner: str, factor: Array, w: Array, g: Array, nu: Array, mu: Array
    ) -> tuple[Array, Array, Array]:
        on = takes_part[owner]
        if on is False:
            return w, nu, mu
        new_w, new_nu, new_mu = laprop_step(
            w,
            factor * g,
            nu,
            mu,
            count[owner],
            lr=config.lr,
            beta1=config.beta1,
            beta2=config.beta2,
            eps=config.eps,
            warmup=config.warmup,
        )
        if on is True:
            return new_w, new_nu, new_mu
        return (
            jnp.where(on, new_w, w),
            jnp.where(on, new_nu, nu),
            jnp.where(on, new_mu, mu),
        )

    leaves, tree = jax.tree.flatten(params)
    stepped = [
        step(*leaf)
        for leaf in zip(
            owners_of(params),
            clip_factors(config, params, grads, takes_part),
            leaves,
            jax.tree.leaves(grads),
            jax.tree.leaves(state.nu),
            jax.tree.leaves(state.mu),
            strict=True,
        )
    ]
    new_params, nu, mu = (jax.tree.unflatten(tree, column) for column in zip(*stepped, strict=True))
    return OptimiserState(count, nu, mu), new_params
