"""Floating-point operations of an update, counted by hand.

Products only: 2 m n k for [m, k] x [k, n]; what is elementwise is left out. XLA's own count takes
the body of a scan once, so it cannot be used. A backward pass is two products a layer, one where
nobody asks for the gradient of the input.
"""

from __future__ import annotations

from agent.codecs import STAGES, image_token_width
from agent.config import AgentConfig, ModelConfig
from continual.envs.interface import Interface

BINS = 255
IMAGE_EDGE = 64


def mlp(width: int, layers: int, units: int, out: int) -> tuple[int, int]:
    """(all products, those of the first layer) of one row through an MLP and its output."""
    first = 2 * width * units
    return first + (layers - 1) * 2 * units**2 + 2 * units * out, first


def trained(products: tuple[int, int], *, into_input: bool) -> int:
    """Forward and backward."""
    total, first = products
    return 3 * total - (0 if into_input else first)


def encoder(c: ModelConfig, world: Interface) -> tuple[int, int]:
    """(all products, those of the first layers) of one row."""
    total = first = 0
    if world.vectors:
        first += 2 * world.vector_width * c.units
        total += first + (c.vector_layers - 1) * 2 * c.units**2
    if world.image and c.image_code == "conv":
        edge, channels = IMAGE_EDGE, 3
        first += 2 * edge**2 * 25 * channels * STAGES[0] * c.depth
        for multiple in STAGES:
            total += 2 * edge**2 * 25 * channels * multiple * c.depth
            edge, channels = edge // 2, multiple * c.depth
    elif world.image:
        patches = (IMAGE_EDGE // c.patch) ** 2
        patch = patches * 2 * 3 * c.patch**2 * 4 * c.depth
        first += patch
        total += patch + 2 * patches * 4 * c.depth * 16 * c.depth
    return total, first


def decoder(c: ModelConfig, world: Interface) -> int:
    feature, total = c.deter + c.stoch * c.classes, 0
    if world.vectors:
        total += mlp(feature, c.vector_layers, c.units, world.vector_width)[0]
    if world.image and c.image_code == "conv":
        channels = STAGES[-1] * c.depth
        total += 2 * c.deter // c.blocks * 16 * channels
        total += 2 * c.stoch * c.classes * 2 * c.units + 2 * 2 * c.units * 16 * channels
        edge = 4
        for out in (*(multiple * c.depth for multiple in reversed(STAGES[:-1])), 3):
            edge *= 2
            total += 2 * edge**2 * 25 * channels * out
            channels = out
    elif world.image:
        patches = (IMAGE_EDGE // c.patch) ** 2
        total += 2 * feature * 16 * c.depth + 2 * 16 * c.depth * patches * 4 * c.depth
        total += patches * 2 * 4 * c.depth * 3 * c.patch**2
    return total


def recurrence(c: ModelConfig, world: Interface) -> int:
    inputs = 2 * c.hidden * (c.deter + c.stoch * c.classes + world.action_width)
    own = c.deter // c.blocks
    first = 2 * (own + 3 * c.hidden) * c.deter
    rest = (c.dyn_layers - 1) * 2 * own * c.deter
    return inputs + first + rest + 2 * own * 3 * c.deter


def latent(c: ModelConfig, width: int, layers: int) -> int:
    """Prior or posterior from an input of `width`."""
    return mlp(width, layers, c.hidden, c.stoch * c.classes)[0]


def of_update(config: AgentConfig, world: Interface, batch: int, length: int) -> int:
    """One update on a batch of one world's rows, AWAC riders with slow bootstrap included."""
    c, horizon = config.model, config.imagination.horizon
    feature = c.deter + c.stoch * c.classes
    tokens = (c.units if world.vectors else 0) + (image_token_width(c) if world.image else 0)
    rows = batch * length
    last = min(config.imagination.last or length, length)
    dreams = batch * last
    reward = mlp(feature, c.reward_layers, c.units, BINS)
    going_on = mlp(feature, c.reward_layers, c.units, 1)
    critic = mlp(feature, c.policy_layers, c.units, BINS)
    width = sum(2 * h.size if h.kind == "continuous" else h.size for h in world.heads)
    actor = mlp(feature, c.policy_layers, c.units, width)

    step, prior = recurrence(c, world), latent(c, c.deter, c.prior_layers)
    model = decoder(c, world) + step + prior + latent(c, c.deter + tokens, c.posterior_layers)
    total = rows * (3 * model + trained(encoder(c, world), into_input=False))
    total += rows * (trained(reward, into_input=True) + trained(going_on, into_input=True))
    if config.critic == "imagined":
        total += dreams * horizon * (actor[0] + step + prior)
        # Both critics look at every state; the last one is in no loss.
        total += dreams * (horizon + 1) * (reward[0] + going_on[0] + 2 * critic[0])
        total += dreams * horizon * trained(actor, into_input=False)
        total += dreams * horizon * (trained(critic, into_input=False) - critic[0])
    else:
        dreams = rows
    total += dreams * (trained(critic, into_input=True) + critic[0])
    total += sum(
        rows * (critic[0] + trained(actor, into_input=False))
        for rider in config.riders.values()
        if rider.kind == "awac"
    )
    return total
