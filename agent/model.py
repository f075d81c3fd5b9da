"""The networks of one agent, built for a union of interfaces, and their parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from agent.codecs import (
    IMAGE_BRANCH,
    VECTOR_BRANCH,
    Decoder,
    Encoder,
    image_token_width,
    init_decoder,
)
from agent.config import ModelConfig
from agent.heads import PolicyHead, ScalarHead, continue_head, critic_head, reward_head
from agent.networks import Part
from agent.rssm import RSSM, initial_latent
from continual.envs.interface import Interface, Union


@dataclass(frozen=True)
class Model:
    """Parameter factories; every parameter lives in the dictionary that `init_params` returns."""

    config: ModelConfig
    union: Union
    encoder: Encoder
    rssm: RSSM
    decoder: Decoder
    reward: ScalarHead
    continues: ScalarHead
    critic: ScalarHead
    actor: PolicyHead


def token_width(config: ModelConfig, interface: Interface) -> int:
    """Numbers in the tokens of one world's observation."""
    vector = config.units if interface.vectors else 0
    return vector + (image_token_width(config) if interface.image else 0)


def make_model(config: ModelConfig, union: Union) -> Model:
    """Build the networks for a union of interfaces.

    Fan-ins are those of the first world that has a part: with one task the distribution of initial
    parameters is DreamerV3's, and a task that is added changes no leaf of the others.
    """
    actions = {
        f"head:{head.name}": Part(head.size, union.first_with(head).action_width)
        for head in union.heads
    }
    first = next(iter(union.tasks.values()))
    tokens = {"deter": Part(config.deter, config.deter + token_width(config, first))}
    if union.vectors:
        world = union.first_with(union.vectors[0])
        tokens[VECTOR_BRANCH] = Part(config.units, config.deter + token_width(config, world))
    if union.image:
        world = union.first_with(union.image)
        width = image_token_width(config)
        tokens[IMAGE_BRANCH] = Part(width, config.deter + token_width(config, world))
    return Model(
        config,
        union,
        Encoder(config, union),
        RSSM(config, actions, tokens),
        Decoder(config, union),
        reward_head(config),
        continue_head(config),
        critic_head(config),
        PolicyHead(config, union.heads),
    )


def init_params(model: Model, key: PRNGKeyArray) -> dict[str, Any]:
    """All trained parameters but the riders': enc, dec, dyn, rew, con, val, pol.

    A leaf's value depends on the key and on its own path and shape, not on which tasks come later:
    an agent for one task and the same agent for two share the leaves they have in common.
    """
    return jax.jit(lambda key: _init_params(model, key))(key)


def _init_params(model: Model, key: PRNGKeyArray) -> dict[str, Any]:
    latent = initial_latent(model.config, 1)
    keys = dict(
        zip(
            ("enc", "dec", "dyn", "rew", "con", "val", "pol"),
            jax.random.split(key, 7),
            strict=True,
        )
    )
    vectors = {s.name: jnp.zeros((1, s.width)) for s in model.union.vectors}
    frames = jnp.zeros((1, *model.union.image.shape), jnp.uint8) if model.union.image else None
    params = {
        "enc": model.encoder.init(keys["enc"], vectors, frames)["params"],
        "dec": init_decoder(model.decoder, keys["dec"], latent),
        "dyn": _init_rssm(model, keys["dyn"]),
    }
    heads: dict[str, ScalarHead | PolicyHead] = {
        "rew": model.reward,
        "con": model.continues,
        "val": model.critic,
        "pol": model.actor,
    }
    for name, head in heads.items():
        params[name] = head.init(keys[name], latent.feature)["params"]
    return params


def init_actor(model: Model, key: PRNGKeyArray) -> Any:
    """Parameters of one more policy."""
    feature = initial_latent(model.config, 1).feature
    return jax.jit(lambda key: model.actor.init(key, feature)["params"])(key)


def _init_rssm(model: Model, key: PRNGKeyArray) -> dict[str, Any]:
    latent = initial_latent(model.config, 1)
    parts = model.rssm.action_parts
    actions = {name.removeprefix("head:"): jnp.zeros((1, p.width)) for name, p in parts.items()}
    tokens = {
        name: jnp.zeros((1, part.width))
        for name, part in model.rssm.token_parts.items()
        if name != "deter"
    }

    def touch_all(rssm: RSSM) -> None:
        deter = rssm.step(latent, rssm.embed_actions(actions))
        rssm.posterior_of(deter, rssm.embed_tokens(tokens))
        rssm.prior_of(deter)

    return model.rssm.init(key, method=touch_all)["params"]


def parameter_count(params: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))
