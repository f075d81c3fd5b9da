"""Building blocks: linear layers, norm, MLP. Flax modules used as parameter factories only.

All parameters are float32. Kernels are multiplied in `dtype` (`compute_dtype` of the model); norms
and all that follows the last layer of a head are computed in float32.

A parameter's owner is read off its path (`agent/owners.py`): a component `slot:…`, `head:…` or
`branch:…` names it, everything else is shared. So the names given to submodules here are part of
the design, not decoration.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from agent.distributions import lined_up

Dtype = str


def scaled_normal(fan_in: int, scale: float = 1.0) -> Callable[..., Array]:
    """Normal truncated at 2 sigma, of variance `scale^2 / fan_in` after the truncation.

    `fan_in` is an argument because it is not always the kernel's own: the kernels of a sum over
    slots are born with the total width of their world's slots, a block-linear kernel with that of
    its whole input.
    """
    # 1.1368 restores the variance that cutting at 2 sigma takes away (as in DreamerV3's code).
    deviation = scale * 1.1368 / max(1, fan_in) ** 0.5

    def init(key: PRNGKeyArray, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> Array:
        return deviation * jax.random.truncated_normal(key, -2, 2, shape, dtype)

    return init


def key_of(key: PRNGKeyArray, name: str) -> PRNGKeyArray:
    """A key for one of many named things, whatever others there are."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def product(
    x: Float[Array, "*n I"], kernel: Float[Array, "I O"], dtype: Dtype
) -> Float[Array, "*n O"]:
    """x times kernel in a dtype; float32 whatever that is."""
    return jnp.matmul(x.astype(dtype), kernel.astype(dtype)).astype(jnp.float32)


class Norm(nn.Module):
    """x / rms(x) over the last axis, times a learned scale; no shift."""

    @nn.compact
    def __call__(self, x: Float[Array, "*n C"]) -> Float[Array, "*n C"]:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        return x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-4) * lined_up(scale, x)


class Linear(nn.Module):
    """x W + b; the bias is there also before a norm, and starts at 0."""

    units: int
    scale: float = 1.0
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "*n I"]) -> Float[Array, "*n O"]:
        width = x.shape[-1]
        kernel = self.param("kernel", scaled_normal(width, self.scale), (width, self.units))
        bias = self.param("bias", nn.initializers.zeros, (self.units,))
        y = product(x, kernel, self.dtype)
        return y + lined_up(bias, y)


class Part(NamedTuple):
    """One term of a `Sum`: width of its input, and the fan-in its kernel is born with."""

    width: int
    fan_in: int


class Sum(nn.Module):
    """One linear layer whose input is spread over named parts: sum of x_k W_k, plus one bias.

    With all parts given it equals a linear layer on their concatenation; a part that is left out
    adds nothing and costs nothing. Adding a part adds a kernel and changes no other.

    Attributes:
      parts: name of the kernel -> its sizes.
    """

    units: int
    parts: Mapping[str, Part]
    dtype: Dtype = "float32"

    def setup(self) -> None:
        def init(key: Array) -> dict[str, Array]:
            return {
                name: scaled_normal(fan_in)(key_of(key, name), (width, self.units))
                for name, (width, fan_in) in self.parts.items()
            }

        # One parameter with a leaf a part: to the optimiser the parts are one tensor.
        self.kernel = self.param("kernel", init)
        self.bias = self.param("bias", nn.initializers.zeros, (self.units,))

    def __call__(self, inputs: Mapping[str, Float[Array, "*n _"]]) -> Float[Array, "*n O"]:
        # One product: a sum of small ones takes longer.
        kernel = jnp.concatenate([self.kernel[name] for name in inputs])
        y = product(jnp.concatenate(list(inputs.values()), -1), kernel, self.dtype)
        return y + lined_up(self.bias, y)

    def term(self, name: str, x: Float[Array, "*n I"]) -> Float[Array, "*n O"]:
        """x W of one part, for a caller that computes the rest elsewhere."""
        return product(x, self.kernel[name], self.dtype)


class Layer(nn.Module):
    """Linear, norm, silu."""

    units: int
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "*n I"]) -> Float[Array, "*n O"]:
        x = Linear(self.units, dtype=self.dtype, name="linear")(x)
        return jax.nn.silu(Norm(name="norm")(x))


class MLP(nn.Module):
    """`layers` of linear, norm, silu."""

    layers: int
    units: int
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "*n I"]) -> Float[Array, "*n O"]:
        for index in range(self.layers):
            x = Layer(self.units, self.dtype, name=f"layer{index}")(x)
        return x


class BlockLinear(nn.Module):
    """Block-diagonal linear layer: slice k of the input gives slice k of the output.

    The blocks' matrices stand side by side in one kernel [width, units], so that what all blocks
    see of a shared input is one dense product on its lower rows.

    Attributes:
      blocks: g; the input is split into g equal contiguous slices.
      parts: each block's output is split into so many equal contiguous slices; the first ones of
        all blocks are the first output, and so on.
    """

    units: int
    blocks: int
    parts: int = 1
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(
        self, x: Float[Array, "*n I"], shared: Float[Array, "*n J"] | None = None
    ) -> tuple[Float[Array, "*n O"], ...]:
        g, own = self.blocks, x.shape[-1] // self.blocks
        width = own + (0 if shared is None else shared.shape[-1])
        # Fan-in is the whole input, not one block's: sqrt(g) smaller weights than one would expect.
        kernel = self.param("kernel", scaled_normal(g * width), (width, self.units))
        bias = self.param("bias", nn.initializers.zeros, (self.units,))
        # The kernel is split, not the output, and blocks lead in the product: on a CPU twice as
        # fast as one product whose output is taken apart.
        kernel = kernel.reshape(width, g, self.parts, -1)
        bias = bias.reshape(g, self.parts, -1)
        lead = x.shape[:-1]
        sliced = jnp.swapaxes(x.reshape(-1, g, own), 0, 1).astype(self.dtype)  # [g, n, own]
        outputs = []
        for part in range(self.parts):
            matrices = jnp.swapaxes(kernel[:own, :, part], 0, 1).astype(self.dtype)
            y = jnp.swapaxes(jnp.matmul(sliced, matrices), 0, 1)  # [n, g, O/g]
            y = y.reshape(*lead, -1).astype(jnp.float32)
            if shared is not None:
                y = y + product(
                    shared, kernel[own:, :, part].reshape(shared.shape[-1], -1), self.dtype
                )
            outputs.append(y + lined_up(bias[:, part].reshape(-1), y))
        return tuple(outputs)
