"""Acting and judging: the policies of one agent, compiled per interface.

Only the slots and heads of the world at hand are computed: a vector world never pays for the image
code, and a world that the agent has not met costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt32

from agent import distributions as dist
from agent import gate as gates
from agent import noise
from agent.config import GateConfig, ScoredGate
from agent.device_batch import pack_latent
from agent.heads import PolicyDist, mode_actions, sample_actions
from agent.model import Model
from agent.rssm import Latent, initial_latent, sample
from continual.envs.interact import Seen
from continual.envs.interface import IMAGE, Interface

ActionMode = Literal["mode", "sampled"]


@struct.dataclass
class PolicyState:
    """What a policy carries from decision to decision.

    Attributes:
      latent: [N, …].
      action: head -> [N, A], the previous action as numbers.
      chosen: whether the partner acted, [N].
      age: decisions made under that choice, [N].
    """

    latent: Latent
    action: dict[str, Float[Array, "N A"]]
    chosen: Bool[Array, " N"]
    age: Int[Array, " N"]


Act = Callable[..., tuple[PolicyState, dict[str, Array], dict[str, Array]]]


def make_act(
    model: Model,
    interface: Interface,
    gate: GateConfig | None,
    action_mode: ActionMode,
    *,
    draws_as_partner: bool = False,
) -> Act:
    """The jitted decision: (params, actor, partner, state, observation, is_first, draw, key) ->
    (state, stored actions, what to record).

    `actor` and `partner` are the parameters of two policies; without a gate `partner` is None and
    the actor acts alone, with the very draws that it would have with a gate: those of the first
    policy or, with `draws_as_partner`, of the second.

    In mode `mode` actions are the distributions' modes and the partner acts where p > 1/2. The
    latent is sampled in both modes, for samples are what the policies were trained on; its draw is
    keyed by the episode.
    """
    names = tuple(h.name for h in interface.heads)

    def act(
        params: Mapping[str, Any],
        actor: Any,
        partner: Any,
        state: PolicyState,
        observation: Mapping[str, Array],
        is_first: Bool[Array, " N"],
        draw: UInt32[Array, "N 2"],
        key: PRNGKeyArray,
    ) -> tuple[PolicyState, dict[str, Array], dict[str, Array]]:
        rssm = lambda method, *args: model.rssm.apply(
            {"params": params["dyn"]}, *args, method=method
        )
        keys = jax.vmap(lambda d: jax.random.fold_in(jax.random.fold_in(key, d[0]), d[1]))(draw)
        latent_keys, action_keys, partner_keys, gate_keys = noise.split(keys, 4)

        previous = {n: jnp.where(is_first[:, None], 0.0, a) for n, a in state.action.items()}
        deter = rssm("step", state.latent.reset(is_first), rssm("embed_actions", previous))
        tokens = rssm("embed_tokens", _encode(model, params, interface, observation))
        posterior = rssm("posterior_of", deter, tokens)
        latent = Latent(deter, sample(posterior, noise.uniform(latent_keys, (model.config.stoch,))))

        decide = partial(_decide, interface, action_mode)
        policy_of = lambda p: model.actor.apply({"params": p}, latent.feature, names)
        pi = policy_of(actor)
        actions, info = decide(pi, partner_keys if draws_as_partner else action_keys), {}
        chosen, age = state.chosen, state.age
        if gate is not None:
            pi_partner = policy_of(partner)
            evidence = _evidence(model, gate, pi, pi_partner)
            if gate.kind == "surprise":
                nats = dist.categorical_kl(posterior, rssm("prior_of", deter)).sum(-1)
                evidence = replace(evidence, surprise=nats)
            verdict = gates.judge(evidence, gate)
            draws = action_mode == "sampled" or gate.kind == "random"
            uniform = noise.uniform(gate_keys, ()) if draws else None
            drawn = gates.choose(verdict.p, uniform)
            chosen, age = gates.hold(drawn, chosen, age, is_first, gate.hold)
            theirs = decide(pi_partner, partner_keys)
            actions = {n: jnp.where(chosen[:, None], theirs[n], a) for n, a in actions.items()}
            info = {
                "gate.p": verdict.p,
                "gate.p_raw": verdict.p_raw,
                "gate.chosen": chosen.astype(jnp.float32),
                "gate.entropy": evidence.entropy,
                "gate.entropy_partner": evidence.entropy_partner,
                "gate.entropy_gap": verdict.entropy_gap,
                "gate.divergence": evidence.divergence,
                "gate.penalty": verdict.penalty,
                "gate.disagrees": verdict.disagrees.astype(jnp.float32),
            }
        stored = {
            h.name: actions[h.name]
            if h.kind == "continuous"
            else actions[h.name].argmax(-1).astype(jnp.int32)
            for h in interface.heads
        }
        return PolicyState(latent, actions, chosen, age), stored, info | pack_latent(latent)

    return jax.jit(act)


def _evidence(
    model: Model, gate: GateConfig, pi: PolicyDist, partner: PolicyDist
) -> gates.Evidence:
    unimix = model.config.actor_unimix
    if not isinstance(gate, ScoredGate):
        return gates.compare(pi, partner, unimix=unimix)
    return gates.compare(
        pi, partner, divergence=gate.divergence, entropy=gate.entropy, unimix=unimix
    )


def _encode(
    model: Model,
    params: Mapping[str, Any],
    interface: Interface,
    observation: Mapping[str, Array],
) -> dict[str, Array]:
    vectors = {s.name: observation[s.name].reshape(-1, s.width) for s in interface.vectors}
    frames = observation[IMAGE] if interface.image else None
    return model.encoder.apply({"params": params["enc"]}, vectors or None, frames)


def _decide(
    interface: Interface,
    action_mode: ActionMode,
    policy: PolicyDist,
    keys: PRNGKeyArray,
) -> dict[str, Float[Array, "N A"]]:
    if action_mode == "mode":
        return mode_actions(policy)
    own = dict(
        zip(
            (h.name for h in interface.heads),
            noise.split(keys, len(interface.heads)),
            strict=True,
        )
    )
    normal = {
        h.name: noise.normal(own[h.name], (h.size,))
        for h in interface.heads
        if h.kind == "continuous"
    }
    uniform = {
        h.name: noise.uniform(own[h.name], ()) for h in interface.heads if h.kind == "categorical"
    }
    return sample_actions(policy, normal, uniform)


class AgentPolicy:
    """Fulfils `continual.envs.interact.Policy` for one task.

    Attributes:
      parameters: () -> (params, actor, partner), asked at every decision, so that a living policy
        acts with what was learnt a moment ago and a judged one with a fixed set.
    """

    def __init__(
        self,
        model: Model,
        interface: Interface,
        act: Act,
        parameters: Callable[[], tuple[Mapping[str, Any], Any, Any]],
        seed: int,
    ) -> None:
        self._model, self._interface, self._act = model, interface, act
        self._parameters = parameters
        self._key = jax.random.key(seed)

    def initial(self, n: int) -> PolicyState:
        return PolicyState(
            initial_latent(self._model.config, n),
            {h.name: jnp.zeros((n, h.size)) for h in self._interface.heads},
            jnp.zeros(n, bool),
            jnp.zeros(n, jnp.int32),
        )

    def act(
        self, state: PolicyState, seen: Seen
    ) -> tuple[PolicyState, dict[str, np.ndarray], dict[str, np.ndarray]]:
        params, actor, partner = self._parameters()
        state, actions, info = self._act(
            params,
            actor,
            partner,
            state,
            dict(seen.observation),
            seen.is_first,
            seen.draw,
            self._key,
        )
        return state, jax.tree.map(np.asarray, actions), jax.tree.map(np.asarray, info)
