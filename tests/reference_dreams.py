"""Imagination and the losses it feeds, as slow float64 loops over `tests/reference.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from agent import noise
from agent.config import AgentConfig
from agent.normaliser import ReturnScale
from tests import reference as ref
from tests.agent_cases import ALL, CRAFTER, CUP, WALKER

WORLDS = (CUP, WALKER, CRAFTER)  # by task


class Dreamt(NamedTuple):
    """What dreams from the last K states of B sequences come to; M = B K, those of one sequence
    side by side.

    Attributes:
      policy, value, entropy: losses of the H steps of each dream, and the actor's entropy, [M, H].
      returns: of its H + 1 states, [M, H + 1].
      scale: task -> the moved percentiles of its returns.
    """

    policy: ref.Vector
    value: ref.Vector
    entropy: ref.Vector
    returns: ref.Vector
    scale: dict[int, tuple[float, float]]


def dream(
    config: AgentConfig,
    params: Mapping[str, Any],
    slow: Any,
    scale: ReturnScale,
    tasks: Sequence[int],
    starts: Sequence[tuple[ref.Vector, ref.Vector]],
    row_keys: Any,
) -> Dreamt:
    """Args:
    params: of world model, critic, and the actor that dreams.
    scale: percentiles before these dreams.
    tasks: of the B sequences.
    starts: deter and stoch of the M states.
    row_keys: [B], from which every draw of a sequence's dreams follows.
    """
    model, horizon = config.model, config.imagination.horizon
    dreams, last = len(starts), len(starts) // len(tasks)
    prior_noise, head_noise = _draws(config, row_keys, last)
    returns, values, weights, log_pi, entropies = (
        np.zeros((dreams, horizon + 1)) for _ in range(5)
    )
    imagined = []
    for m, (deter, stoch) in enumerate(starts):
        kinds = {head.name: head.kind for head in WORLDS[tasks[m // last]].heads}
        seen = []
        for step in range(horizon + 1):
            feature = np.concatenate([deter, stoch.ravel()])
            seen.append(feature)
            if step == horizon:
                break
            pi, action = ref.policy(feature, params["pol"], kinds), {}
            for name, p in pi.items():
                drawn = head_noise[name][m, step]
                if "prob" in p:
                    action[name] = np.eye(len(p["prob"]))[ref.draw(p["prob"], drawn)]
                else:
                    action[name] = p["mean"] + p["std"] * drawn
                log_pi[m, step] += ref.log_prob(p, action[name])
                entropies[m, step] += ref.entropy(p)
            deter = ref.recurrence(deter, stoch, action, params["dyn"], model.blocks)
            stoch = ref.draw_latent(
                ref.prior(deter, params["dyn"], model.stoch), prior_noise[m, step]
            )
        imagined.append(seen)
        reward = [ref.twohot_mean(ref.head(f, params["rew"])) for f in seen]
        going_on = [float(ref.sigmoid(ref.head(f, params["con"])[0])) for f in seen]
        values[m] = [ref.twohot_mean(ref.head(f, params["val"])) for f in seen]
        returns[m] = ref.lambda_returns(reward, going_on, values[m], config.imagination.lambda_)
        weights[m] = np.cumprod(going_on)

    moved, policy, value = {}, np.zeros((dreams, horizon)), np.zeros((dreams, horizon))
    task_of = np.repeat(tasks, last)
    for task in set(tasks):
        # Every task has an interface of its own here.
        mine = np.flatnonzero(task_of == task)
        rate = config.imagination.return_rate * len(mine) / dreams
        before = float(scale.low[task]), float(scale.high[task])
        moved[task] = low, high = ref.moved_scale(*before, returns[mine, :-1], rate)
        spread = max(config.imagination.return_floor, high - low)
        for m in mine:
            for step in range(horizon):
                advantage = (returns[m, step] - values[m, step]) / spread
                bonus = config.imagination.entropy * entropies[m, step]
                policy[m, step] = -weights[m, step] * (log_pi[m, step] * advantage + bonus)
                feature = imagined[m][step]
                logits = ref.head(feature, params["val"])
                near = ref.twohot_mean(ref.head(feature, slow))
                value[m, step] = weights[m, step] * (
                    ref.twohot_loss(logits, returns[m, step]) + ref.twohot_loss(logits, near)
                )
    return Dreamt(policy, value, entropies[:, :-1], returns, moved)


def _draws(
    config: AgentConfig, row_keys: Any, last: int
) -> tuple[ref.Vector, dict[str, ref.Vector]]:
    """The uniforms of the prior, and of every head what its actions are drawn with."""
    horizon = config.imagination.horizon
    keys = noise.split(row_keys, last).T.reshape(-1)
    prior_keys, *head_keys = noise.split(keys, 1 + len(ALL.heads))
    of_heads = {
        head.name: np.array(
            noise.normal(keys, (horizon, head.size))
            if head.kind == "continuous"
            else noise.uniform(keys, (horizon,)),
            np.float64,
        )
        for head, keys in zip(ALL.heads, head_keys, strict=True)
    }
    return np.array(noise.uniform(prior_keys, (horizon, config.model.stoch)), np.float64), of_heads
