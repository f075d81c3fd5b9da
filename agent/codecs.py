"""Encoder and decoder: observations to tokens, model states back to observations.

Vectors and images are separate branches. A world without vector slots gets exactly nothing from the
vector branch and the other way round, and frames are encoded only for the sequences that have them.
"""

from __future__ import annotations

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from agent.config import ModelConfig
from agent.distributions import lined_up, symlog
from agent.networks import MLP, BlockLinear, Linear, Norm, Part, Sum, scaled_normal
from agent.rssm import Latent
from continual.envs.interface import IMAGE, Union

VECTOR_BRANCH = "branch:vector"  # owner of what all vector slots share
IMAGE_BRANCH = f"slot:{IMAGE}"  # all of the image code belongs to its one slot
STAGES = (2, 3, 4, 4)  # channels of the conv stages, in multiples of depth


def patchify(frames: Float[Array, "*n H W C"], edge: int) -> Float[Array, "*n P E"]:
    """Cut into P = (H/edge)(W/edge) squares of E = edge * edge * C numbers, row by row."""
    *n, height, width, channels = frames.shape
    x = frames.reshape(*n, height // edge, edge, width // edge, edge, channels)
    x = jnp.swapaxes(x, -4, -3)
    return x.reshape(*n, (height // edge) * (width // edge), edge * edge * channels)


def unpatchify(
    patches: Float[Array, "*n P E"], edge: int, size: int = 64
) -> Float[Array, "*n H W C"]:
    """Inverse of `patchify` for square pictures."""
    *n, _, numbers = patches.shape
    grid, channels = size // edge, numbers // edge**2
    x = patches.reshape(*n, grid, grid, edge, edge, channels)
    return jnp.swapaxes(x, -4, -3).reshape(*n, size, size, channels)


class VectorEncoder(nn.Module):
    """symlog, a projection a slot, summed with one bias; norm, silu; further layers."""

    config: ModelConfig
    parts: Mapping[str, Part]

    @nn.compact
    def __call__(self, vectors: Mapping[str, Float[Array, "*n _"]]) -> Float[Array, "*n U"]:
        c = self.config
        x = Sum(c.units, self.parts, c.compute_dtype, name="project")(
            {f"slot:{name}": symlog(x) for name, x in vectors.items()}
        )
        x = jax.nn.silu(Norm(name="norm")(x))
        return MLP(c.vector_layers - 1, c.units, c.compute_dtype, name="mlp")(x)


class ConvEncoder(nn.Module):
    """Four stages of conv 5x5, 2x2 max pool, norm, silu: 64x64x3 -> 4 * 4 * 4 depth."""

    config: ModelConfig

    @nn.compact
    def __call__(self, frames: UInt8[Array, "*n 64 64 3"]) -> Float[Array, "*n E"]:
        lead = frames.shape[:-3]
        x = frames.reshape(-1, *frames.shape[-3:]).astype(jnp.float32) / 255 - 0.5
        for index, multiple in enumerate(STAGES):
            x = Conv(
                self.config.depth * multiple,
                self.config.compute_dtype,
                name=f"conv{index}",
            )(x)
            x = nn.max_pool(x, (2, 2), (2, 2))
            x = jax.nn.silu(Norm(name=f"norm{index}")(x))
        return x.reshape(*lead, -1)


class PatchEncoder(nn.Module):
    """Patches of the frame through one shared layer, then the whole picture through another.

    Not DreamerV3's: matrix products only, many times cheaper on a CPU than convolutions.
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, frames: UInt8[Array, "*n 64 64 3"]) -> Float[Array, "*n E"]:
        c = self.config
        x = patchify(frames.astype(jnp.float32) / 255 - 0.5, c.patch)
        x = MLP(1, 4 * c.depth, c.compute_dtype, name="patch")(x)
        return MLP(1, 16 * c.depth, c.compute_dtype, name="picture")(x.reshape(*x.shape[:-2], -1))


class Conv(nn.Module):
    """5x5 convolution, stride 1, same padding."""

    channels: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "N H W I"]) -> Float[Array, "N H W O"]:
        shape = (5, 5, x.shape[-1], self.channels)
        kernel = self.param("kernel", scaled_normal(5 * 5 * x.shape[-1]), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.channels,))
        y = jax.lax.conv_general_dilated(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return y.astype(jnp.float32) + lined_up(bias, y)


def image_token_width(config: ModelConfig) -> int:
    return 16 * STAGES[-1] * config.depth if config.image_code == "conv" else 16 * config.depth


class Encoder(nn.Module):
    """Tokens of an observation, by branch; a branch whose input is not given is left out.

    Call with `vectors` (slot -> [*n, width], absent slots 0) and/or `frames` [*m, 64, 64, 3].
    """

    config: ModelConfig
    union: Union

    @nn.compact
    def __call__(
        self,
        vectors: Mapping[str, Float[Array, "*n _"]] | None = None,
        frames: UInt8[Array, "*m 64 64 3"] | None = None,
    ) -> dict[str, Array]:
        tokens = {}
        if vectors:
            parts = {
                f"slot:{slot.name}": Part(slot.width, self.union.first_with(slot).vector_width)
                for slot in self.union.vectors
            }
            tokens[VECTOR_BRANCH] = VectorEncoder(self.config, parts, name=VECTOR_BRANCH)(vectors)
        if frames is not None:
            code = ConvEncoder if self.config.image_code == "conv" else PatchEncoder
            tokens[IMAGE_BRANCH] = code(self.config, name=IMAGE_BRANCH)(frames)
        return tokens


class VectorDecoder(nn.Module):
    """Predictions of symlog(slot) by a linear head a slot on a common MLP."""

    config: ModelConfig
    widths: Mapping[str, int]

    @nn.compact
    def __call__(self, latent: Latent) -> dict[str, Float[Array, "*n _"]]:
        c = self.config
        # stoch first: the other way round than for the heads, as in the reference.
        x = jnp.concatenate([latent.flat_stoch, latent.deter], -1)
        x = MLP(c.vector_layers, c.units, c.compute_dtype, name="mlp")(x)
        return {
            name: Linear(width, dtype=c.compute_dtype, name=f"slot:{name}")(x)
            for name, width in self.widths.items()
        }


class ConvDecoder(nn.Module):
    """State to 4x4x(4 depth), then nearest upsampling and conv 5x5 up to 64x64x3 in [0, 1]."""

    config: ModelConfig

    @nn.compact
    def __call__(self, latent: Latent) -> Float[Array, "*n 64 64 3"]:
        c = self.config
        lead = latent.deter.shape[:-1]
        channels = STAGES[-1] * c.depth
        blocks = BlockLinear(16 * channels, c.blocks, dtype=c.compute_dtype, name="deter")
        (x,) = blocks(latent.deter)
        # Each block holds a slice of the channels of the whole 4x4 map.
        x = x.reshape(-1, c.blocks, 4, 4, channels // c.blocks)
        x = jnp.moveaxis(x, 1, 3).reshape(-1, 4, 4, channels)
        y = Linear(2 * c.units, dtype=c.compute_dtype, name="stoch0")(latent.flat_stoch)
        y = jax.nn.silu(Norm(name="stoch_norm")(y))
        y = Linear(16 * channels, dtype=c.compute_dtype, name="stoch1")(y)
        x = jax.nn.silu(Norm(name="norm")(x + y.reshape(-1, 4, 4, channels)))
        for index, multiple in enumerate(reversed(STAGES[:-1])):
            x = Conv(c.depth * multiple, c.compute_dtype, name=f"conv{index}")(upsample(x))
            x = jax.nn.silu(Norm(name=f"norm{index}")(x))
        x = Conv(3, c.compute_dtype, name="picture")(upsample(x))
        return jax.nn.sigmoid(x).reshape(*lead, 64, 64, 3)


def upsample(x: Float[Array, "N H W C"]) -> Float[Array, "N 2H 2W C"]:
    """Nearest neighbour, twice as high and wide."""
    return jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)


class PatchDecoder(nn.Module):
    """State to a few numbers a patch, one shared layer to pixels in [0, 1]."""

    config: ModelConfig

    @nn.compact
    def __call__(self, latent: Latent) -> Float[Array, "*n 64 64 3"]:
        c = self.config
        patches = (64 // c.patch) ** 2
        x = MLP(1, 16 * c.depth, c.compute_dtype, name="picture")(latent.feature)
        x = Linear(patches * 4 * c.depth, dtype=c.compute_dtype, name="spread")(x)
        x = jax.nn.silu(Norm(name="norm")(x.reshape(*x.shape[:-1], patches, 4 * c.depth)))
        x = Linear(3 * c.patch**2, dtype=c.compute_dtype, name="patch")(x)
        return unpatchify(jax.nn.sigmoid(x), c.patch)


class Decoder(nn.Module):
    """Predictions for the vector slots (symlog space) and, apart, for the image."""

    config: ModelConfig
    union: Union

    @nn.compact
    def __call__(self, latent: Latent, branch: str) -> dict[str, Array]:
        if branch == VECTOR_BRANCH:
            widths = {slot.name: slot.width for slot in self.union.vectors}
            return VectorDecoder(self.config, widths, name=VECTOR_BRANCH)(latent)
        code = ConvDecoder if self.config.image_code == "conv" else PatchDecoder
        return {IMAGE: code(self.config, name=IMAGE_BRANCH)(latent)}


def init_decoder(decoder: Decoder, key: Array, latent: Latent) -> dict[str, Array]:
    """Parameters of all branches the union needs."""
    params: dict[str, Array] = {}
    branches = [VECTOR_BRANCH] if decoder.union.vectors else []
    branches += [IMAGE_BRANCH] if decoder.union.image else []
    for branch in branches:
        params |= decoder.init(key, latent, branch)["params"]
    return params
