"""Acting and judging: the policies of one agent, compiled per interface.

Only the slots and heads of the world at hand are computed: a vector world never pays for the image
code, and a world that the agent has not met costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Literal, get_args

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
from agent.rssm import Actions, Latent, initial_latent, sample
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


@struct.dataclass
class Perceived:
    """Where a decision starts from.

    Attributes:
      latent: after this observation, [N, …].
      posterior: log-probabilities that `latent.stoch` was drawn from, [N, S, K].
      actor_keys, partner_keys, gate_keys: of the draws to come, [N].
      columns: the latent as replay stores it.
    """

    latent: Latent
    posterior: Float[Array, "N S K"]
    actor_keys: PRNGKeyArray
    partner_keys: PRNGKeyArray
    gate_keys: PRNGKeyArray
    columns: dict[str, Array]


class Acting:
    """The compiled steps of acting in one interface, shared by all policies that act there.

    A gate only adds steps. What a policy does is one program, with a gate and without one, so that
    its actions are the same bit for bit, whatever a compiler fuses.
    """

    def __init__(self, model: Model, interface: Interface) -> None:
        self.model, self.interface = model, interface
        self.perceive = jax.jit(partial(_perceive, model, interface))
        modes: tuple[ActionMode, ...] = get_args(ActionMode)
        self.decide = {mode: jax.jit(partial(_decide, model, interface, mode)) for mode in modes}
        self._choose: dict[tuple[str, ActionMode], Callable[..., Any]] = {}

    def choose(self, gate: GateConfig, mode: ActionMode) -> Callable[..., Any]:
        """`_choose` for a gate."""
        key = (repr(gate), mode)
        if key not in self._choose:
            self._choose[key] = jax.jit(partial(_choose, self.model, gate, mode))
        return self._choose[key]


def _perceive(
    model: Model,
    interface: Interface,
    params: Mapping[str, Any],
    state: PolicyState,
    observation: Mapping[str, Array],
    is_first: Bool[Array, " N"],
    draw: UInt32[Array, "N 2"],
    key: PRNGKeyArray,
) -> Perceived:
    """The latent after an observation. It is sampled whatever the mode of the actions, for samples
    are what the policies were trained on; its draw is keyed by the episode.
    """
    rssm = lambda method, *args: model.rssm.apply({"params": params["dyn"]}, *args, method=method)
    keys = jax.vmap(lambda d: jax.random.fold_in(jax.random.fold_in(key, d[0]), d[1]))(draw)
    latent_keys, actor_keys, partner_keys, gate_keys = noise.split(keys, 4)
    previous = {n: jnp.where(is_first[:, None], 0.0, a) for n, a in state.action.items()}
    deter = rssm("step", state.latent.reset(is_first), rssm("embed_actions", previous))
    vectors = {s.name: observation[s.name].reshape(-1, s.width) for s in interface.vectors}
    frames = observation[IMAGE] if interface.image else None
    tokens = model.encoder.apply({"params": params["enc"]}, vectors or None, frames)
    posterior = rssm("posterior_of", deter, rssm("embed_tokens", tokens))
    latent = Latent(deter, sample(posterior, noise.uniform(latent_keys, (model.config.stoch,))))
    return Perceived(latent, posterior, actor_keys, partner_keys, gate_keys, pack_latent(latent))


def _decide(
    model: Model,
    interface: Interface,
    mode: ActionMode,
    policy: Any,
    latent: Latent,
    keys: PRNGKeyArray,
) -> tuple[PolicyDist, Actions]:
    """One policy's distributions and the action that it would take.

    Args:
      policy: its parameters.
      keys: [N], of its draws; not looked at in mode `mode`.
    """
    heads = interface.heads
    pi = model.actor.apply({"params": policy}, latent.feature, tuple(h.name for h in heads))
    if mode == "mode":
        return pi, mode_actions(pi)
    own = dict(zip((h.name for h in heads), noise.split(keys, len(heads)), strict=True))
    normal = {h.name: noise.normal(own[h.name], (h.size,)) for h in heads if h.kind == "continuous"}
    uniform = {h.name: noise.uniform(own[h.name], ()) for h in heads if h.kind == "categorical"}
    return pi, sample_actions(pi, normal, uniform)


def _choose(
    model: Model,
    gate: GateConfig,
    mode: ActionMode,
    dynamics: Any,
    perceived: Perceived,
    actor: tuple[PolicyDist, Actions],
    partner: tuple[PolicyDist, Actions],
    state: PolicyState,
    is_first: Bool[Array, " N"],
) -> tuple[Actions, Bool[Array, " N"], Int[Array, " N"], dict[str, Array]]:
    """Whose action it is: (actions, chosen, age, what to record).

    In mode `mode` the partner acts where p > 1/2, but for the gate that is a coin.

    Args:
      dynamics: parameters of the RSSM.
      actor, partner: what `_decide` said of each.
    """
    (pi, ours), (pi_partner, theirs) = actor, partner
    compare = partial(gates.compare, pi, pi_partner, unimix=model.config.actor_unimix)
    if isinstance(gate, ScoredGate):
        evidence = compare(divergence=gate.divergence, entropy=gate.entropy)
    else:
        evidence = compare()
    if gate.kind == "surprise":
        prior = model.rssm.apply({"params": dynamics}, perceived.latent.deter, method="prior_of")
        nats = dist.categorical_kl(perceived.posterior, prior).sum(-1)
        evidence = replace(evidence, surprise=nats)
    verdict = gates.judge(evidence, gate)
    draws = mode == "sampled" or gate.kind == "random"
    drawn = gates.choose(verdict.p, noise.uniform(perceived.gate_keys, ()) if draws else None)
    chosen, age = gates.hold(drawn, state.chosen, state.age, is_first, gate.hold)
    actions = {n: jnp.where(chosen[:, None], theirs[n], a) for n, a in ours.items()}
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
    return actions, chosen, age, info


class AgentPolicy:
    """Fulfils `continual.envs.interact.Policy` for one task.

    Attributes:
      gate: between two policies; None: the actor acts alone.
      parameters: () -> (params, actor, partner), asked at every decision, so that a living policy
        acts with what was learnt a moment ago and a judged one with a fixed set. `actor` and
        `partner` are the parameters of two policies, `partner` None without a gate.
      draws_as_partner: whether an actor without a gate has the very draws that it would have as
        the second of two.
    """

    def __init__(
        self,
        acting: Acting,
        gate: GateConfig | None,
        mode: ActionMode,
        parameters: Callable[[], tuple[Mapping[str, Any], Any, Any]],
        seed: int,
        *,
        draws_as_partner: bool = False,
    ) -> None:
        self._acting, self._gate, self._mode = acting, gate, mode
        self._parameters, self._draws_as_partner = parameters, draws_as_partner
        self._key = jax.random.key(seed)

    def initial(self, n: int) -> PolicyState:
        return PolicyState(
            initial_latent(self._acting.model.config, n),
            {h.name: jnp.zeros((n, h.size)) for h in self._acting.interface.heads},
            jnp.zeros(n, bool),
            jnp.zeros(n, jnp.int32),
        )

    def act(
        self, state: PolicyState, seen: Seen
    ) -> tuple[PolicyState, dict[str, np.ndarray], dict[str, np.ndarray]]:
        params, actor, partner = self._parameters()
        acting, decide = self._acting, self._acting.decide[self._mode]
        perceived = acting.perceive(
            {part: params[part] for part in ("enc", "dyn")},
            state,
            dict(seen.observation),
            seen.is_first,
            seen.draw,
            self._key,
        )
        keys = perceived.partner_keys if self._draws_as_partner else perceived.actor_keys
        ours = decide(actor, perceived.latent, keys)
        actions, chosen, age, info = ours[1], state.chosen, state.age, {}
        if self._gate is not None:
            theirs = decide(partner, perceived.latent, perceived.partner_keys)
            actions, chosen, age, info = acting.choose(self._gate, self._mode)(
                params["dyn"], perceived, ours, theirs, state, seen.is_first
            )
        state = PolicyState(perceived.latent, actions, chosen, age)
        recorded = jax.tree.map(np.asarray, info | perceived.columns)
        return state, self._stored(actions), recorded

    def _stored(self, actions: Actions) -> dict[str, np.ndarray]:
        """Actions as worlds take them and replay stores them: a class by its index."""
        return {
            h.name: np.asarray(actions[h.name])
            if h.kind == "continuous"
            else np.asarray(actions[h.name]).argmax(-1).astype(np.int32)
            for h in self._acting.interface.heads
        }
