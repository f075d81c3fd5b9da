"""The agent's equations once more: slow loops in float64, written from the paper's page.

Nothing of `agent` is imported. Parameters come as the nested dictionaries of arrays that the agent
keeps them in; vectors are single ones, so that every loop over batch and time is in sight.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Params = Mapping[str, Any]

BINS = 255


def array(x: Any) -> Vector:
    return np.array(x, np.float64)


# Layers


def silu(x: Vector) -> Vector:
    return x / (1 + np.exp(-x))


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def norm(x: Vector, p: Params) -> Vector:
    """x / sqrt(mean(x^2) + 1e-4) * scale, over the last axis."""
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-4) * array(p["scale"])


def linear(x: Vector, p: Params) -> Vector:
    return x @ array(p["kernel"]) + array(p["bias"])


def sum_linear(inputs: Mapping[str, Vector], p: Params) -> Vector:
    """A linear layer on the inputs that are there, each with its own kernel."""
    out = array(p["bias"])
    for name, x in inputs.items():
        out = out + x @ array(p["kernel"][name])
    return out


def layer(x: Vector, p: Params) -> Vector:
    return silu(norm(linear(x, p["linear"]), p["norm"]))


def mlp(x: Vector, p: Params) -> Vector:
    for index in range(len(p)):
        x = layer(x, p[f"layer{index}"])
    return x


def block_linear(x: Vector, p: Params, blocks: int, shared: Vector | None = None) -> Vector:
    """Block b sees slice b of x and all of `shared`; outputs stand side by side."""
    kernel, bias = array(p["kernel"]), array(p["bias"])
    own, out = len(x) // blocks, kernel.shape[1] // blocks
    parts = []
    for b in range(blocks):
        seen = x[b * own : (b + 1) * own]
        matrix = kernel[:, b * out : (b + 1) * out]
        if shared is not None:
            seen = np.concatenate([seen, shared])
        parts.append(seen @ matrix)
    return np.concatenate(parts) + bias


def conv(x: Vector, p: Params) -> Vector:
    """5x5, stride 1, zeros around: [H, W, I] -> [H, W, O]."""
    kernel, bias = array(p["kernel"]), array(p["bias"])
    height, width, _ = x.shape
    padded = np.pad(x, ((2, 2), (2, 2), (0, 0)))
    out = np.zeros((height, width, kernel.shape[-1]))
    for row in range(height):
        for column in range(width):
            patch = padded[row : row + 5, column : column + 5]
            out[row, column] = np.einsum("hwi,hwio->o", patch, kernel) + bias
    return out


def max_pool(x: Vector) -> Vector:
    """The largest of each 2x2 square."""
    corners = [x[i::2, j::2] for i in range(2) for j in range(2)]
    return np.max(corners, 0)


def upsample(x: Vector) -> Vector:
    """Every pixel four times."""
    return np.kron(x, np.ones((2, 2, 1)))


# Encoder, recurrence, decoder


def symlog(x: Any) -> Any:
    return np.sign(x) * np.log1p(np.abs(np.asarray(x, np.float64)))


def encode_vectors(vectors: Mapping[str, Vector], p: Params) -> Vector:
    x = sum_linear({f"slot:{name}": symlog(x) for name, x in vectors.items()}, p["project"])
    return mlp(silu(norm(x, p["norm"])), p["mlp"]) if "mlp" in p else silu(norm(x, p["norm"]))


def encode_image(frame: NDArray[np.uint8], p: Params) -> Vector:
    x = frame / 255 - 0.5
    for stage in range(4):
        x = silu(norm(max_pool(conv(x, p[f"conv{stage}"])), p[f"norm{stage}"]))
    return x.ravel()


def recurrence(
    deter: Vector, stoch: Vector, actions: Mapping[str, Vector], p: Params, blocks: int
) -> Vector:
    """h_t from h_{t-1}, z_{t-1} and the previous action's heads."""
    limited = {f"head:{name}": a / np.maximum(1, np.abs(a)) for name, a in actions.items()}
    x0 = layer(deter, p["deter_in"])
    x1 = layer(stoch.ravel(), p["stoch_in"])
    x2 = silu(norm(sum_linear(limited, p["action_in"]), p["action_norm"]))
    shared = np.concatenate([x0, x1, x2])
    y = silu(norm(block_linear(deter, p["dyn_0"], blocks, shared), p["dyn_norm_0"]))
    gates = block_linear(y, p["gates"], blocks)
    size, new = len(deter) // blocks, np.zeros(len(deter))
    for b in range(blocks):
        own = gates[3 * b * size : 3 * (b + 1) * size]
        reset, candidate, update = own[:size], own[size : 2 * size], own[2 * size :]
        old = deter[b * size : (b + 1) * size]
        candidate = np.tanh(sigmoid(reset) * candidate)
        update = sigmoid(update - 1)
        new[b * size : (b + 1) * size] = update * candidate + (1 - update) * old
    return new


def softmax(logits: Vector) -> Vector:
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def unimix(logits: Vector, share: float) -> Vector:
    """Probabilities, mixed with a uniform share."""
    return (1 - share) * softmax(logits) + share / logits.shape[-1]


def prior(deter: Vector, p: Params, stoch: int) -> Vector:
    x, index = deter, 0
    while f"prior_{index}" in p:
        x = layer(x, p[f"prior_{index}"])
        index += 1
    return unimix(linear(x, p["prior_logits"]).reshape(stoch, -1), 0.01)


def posterior(deter: Vector, tokens: Mapping[str, Vector], p: Params, stoch: int) -> Vector:
    x = silu(norm(sum_linear({"deter": deter, **tokens}, p["obs_in"]), p["obs_norm"]))
    index = 0
    while f"posterior_{index}" in p:
        x = layer(x, p[f"posterior_{index}"])
        index += 1
    return unimix(linear(x, p["posterior_logits"]).reshape(stoch, -1), 0.01)


def draw(prob: Vector, uniform: float) -> int:
    """Inversion: the first class whose cumulative probability passes the number."""
    total = 0.0
    for k, p in enumerate(prob):
        total += p
        if uniform < total:
            return k
    return len(prob) - 1


def draw_latent(prob: Vector, uniform: Vector) -> Vector:
    """One-hot [S, K]."""
    hot = np.zeros_like(prob)
    for s in range(len(prob)):
        hot[s, draw(prob[s], uniform[s])] = 1
    return hot


def decode_vectors(deter: Vector, stoch: Vector, p: Params) -> dict[str, Vector]:
    x = mlp(np.concatenate([stoch.ravel(), deter]), p["mlp"])
    return {name.removeprefix("slot:"): linear(x, q) for name, q in p.items() if name != "mlp"}


def decode_image(deter: Vector, stoch: Vector, p: Params, blocks: int) -> Vector:
    """[64, 64, 3] in (0, 1)."""
    from_deter = block_linear(deter, p["deter"], blocks)
    channels = len(from_deter) // 16
    each = channels // blocks
    x = np.zeros((4, 4, channels))
    for b in range(blocks):
        part = from_deter[b * 16 * each : (b + 1) * 16 * each].reshape(4, 4, each)
        x[:, :, b * each : (b + 1) * each] = part
    y = silu(norm(linear(stoch.ravel(), p["stoch0"]), p["stoch_norm"]))
    x = silu(norm(x + linear(y, p["stoch1"]).reshape(4, 4, channels), p["norm"]))
    for stage in range(3):
        x = silu(norm(conv(upsample(x), p[f"conv{stage}"]), p[f"norm{stage}"]))
    return sigmoid(conv(upsample(x), p["picture"]))


# Heads and distributions


def head(feature: Vector, p: Params) -> Vector:
    """Logits of reward, continue or critic."""
    return linear(mlp(feature, p["mlp"]), p["out"])


def bins() -> Vector:
    half = -np.expm1(np.linspace(20, 0, BINS // 2 + 1))
    return np.concatenate([half, -half[:-1][::-1]])


def twohot(target: float) -> Vector:
    """Weights of the two bins beside the target, linear in raw space."""
    edges, weights = bins(), np.zeros(BINS)
    target = min(max(target, edges[0]), edges[-1])
    for k in range(BINS - 1):
        if edges[k] <= target <= edges[k + 1]:
            share = (target - edges[k]) / (edges[k + 1] - edges[k])
            weights[k], weights[k + 1] = 1 - share, share
            return weights
    raise AssertionError(target)


def twohot_loss(logits: Vector, target: float) -> float:
    log_p = logits - logits.max()
    log_p = log_p - math.log(np.exp(log_p).sum())
    return -float((twohot(target) * log_p).sum())


def twohot_mean(logits: Vector) -> float:
    """The expected bin, in mirrored pairs so that equal logits give 0."""
    p, edges, total = softmax(logits), bins(), 0.0
    for k in range(BINS // 2):
        total += edges[k] * (p[k] - p[BINS - 1 - k])
    return total


def policy(feature: Vector, p: Params, heads: Mapping[str, str]) -> dict[str, dict[str, Vector]]:
    """head -> {mean, std} or {prob}; `heads` gives the kind of each."""
    x, found = mlp(feature, p["mlp"]), {}
    for name, kind in heads.items():
        if kind == "continuous":
            mean = linear(x, p["out"][f"head:{name}:mean"])
            std = linear(x, p["out"][f"head:{name}:std"])
            found[name] = {"mean": np.tanh(mean), "std": 0.9 * sigmoid(std + 2) + 0.1}
        else:
            found[name] = {"prob": unimix(linear(x, p["out"][f"head:{name}:logits"]), 0.01)}
    return found


def log_prob(pi: Mapping[str, Vector], action: Vector) -> float:
    if "prob" in pi:
        return math.log(pi["prob"][int(np.argmax(action))])
    total = 0.0
    for a, m, s in zip(action, pi["mean"], pi["std"], strict=True):
        total += -(((a - m) / s) ** 2) / 2 - math.log(s) - math.log(2 * math.pi) / 2
    return total


def entropy(pi: Mapping[str, Vector]) -> float:
    if "prob" in pi:
        return -sum(float(p) * math.log(p) for p in pi["prob"])
    return sum(math.log(s) + 0.5 * math.log(2 * math.pi * math.e) for s in pi["std"])


# Returns and normaliser


def lambda_returns(
    reward: Sequence[float], discount: Sequence[float], value: Sequence[float], lambda_: float
) -> list[float]:
    returns = [float(value[-1])]
    for t in reversed(range(len(reward) - 1)):
        mixed = (1 - lambda_) * value[t + 1] + lambda_ * returns[0]
        returns.insert(0, reward[t + 1] + discount[t + 1] * mixed)
    return returns


def replay_returns(
    reward: Sequence[float],
    is_last: Sequence[bool],
    is_terminal: Sequence[bool],
    bootstrap: Sequence[float],
    lambda_: float,
    gamma: float,
) -> list[float]:
    returns = [float(bootstrap[-1])]
    for t in reversed(range(len(reward) - 1)):
        after = float(bootstrap[t + 1])
        if not is_last[t + 1]:
            after = (1 - lambda_) * after + lambda_ * returns[0]
        live = 0.0 if is_terminal[t + 1] else gamma
        returns.insert(0, reward[t + 1] + live * after)
    return returns


def moved_scale(low: float, high: float, returns: Vector, rate: float) -> tuple[float, float]:
    """EMA of the 5th and 95th percentile, one step."""
    return (
        low + rate * (np.percentile(returns, 5) - low),
        high + rate * (np.percentile(returns, 95) - high),
    )


# AWAC


def awac(
    reward: Vector,
    is_last: NDArray[np.bool_],
    is_terminal: NDArray[np.bool_],
    value: Vector,
    bootstrap: Vector,
    log_pi: Vector,
    interface: Sequence[int],
    scale: Mapping[int, tuple[float, float]],
    *,
    lambda_: float,
    gamma: float,
    rate: float,
    floor: float = 1.0,
    beta: float = 0.1,
    w_max: float = 20.0,
    positive: bool = True,
    square: Mapping[int, float | None] | None = None,
) -> SimpleNamespace:
    """The loss of a batch [B, T], and all that leads to it.

    `scale` holds the percentiles of each interface before this batch. `positive`: weights of
    max(A, 0), else of A. `square`: the EMAs of squares before this batch, None where there is none
    yet, if advantages are in their units.
    """
    size, length = reward.shape
    counting = [(b, t) for b in range(size) for t in range(length - 1) if not is_last[b, t]]
    returns = np.array(
        [
            replay_returns(reward[b], is_last[b], is_terminal[b], bootstrap[b], lambda_, gamma)
            for b in range(size)
        ]
    )
    moved = dict(scale)
    for i, percentiles in scale.items():
        mine = [returns[b, t] for b, t in counting if interface[b] == i]
        share = sum(j == i for j in interface) / size
        if mine:
            moved[i] = moved_scale(*percentiles, array(mine), rate * share)
    squares = dict(square or {})
    for i, old in squares.items():
        mine = [(returns[b, t] - value[b, t]) ** 2 for b, t in counting if interface[b] == i]
        share = sum(j == i for j in interface) / size
        if mine:
            now = sum(mine) / len(mine)
            squares[i] = now if old is None else old + rate * share * (now - old)
    advantage, weight, total = np.zeros((size, length)), np.zeros((size, length)), 0.0
    for b, t in counting:
        low, high = moved[interface[b]]
        rms = squares.get(interface[b])
        unit = max(floor, high - low) if rms is None else math.sqrt(rms)
        advantage[b, t] = (returns[b, t] - value[b, t]) / unit
        looked_at = max(advantage[b, t], 0.0) if positive else advantage[b, t]
        weight[b, t] = min(math.exp(looked_at / beta), w_max)
        total -= weight[b, t] * log_pi[b, t]
    return SimpleNamespace(
        loss=total / len(counting),
        gap=returns - value,
        advantage=advantage,
        weight=weight,
        scale=moved,
        square=squares,
        counting=counting,
    )


# World model losses


def kl(p: Vector, q: Vector) -> float:
    """Of S categoricals, summed."""
    total = 0.0
    for s in range(len(p)):
        for k in range(p.shape[1]):
            total += p[s, k] * math.log(p[s, k] / q[s, k])
    return total


def bernoulli_loss(logit: float, target: float) -> float:
    p = float(sigmoid(logit))
    return -(target * math.log(p) + (1 - target) * math.log(1 - p))


# Optimiser


def laprop(
    w: Vector,
    gradients: Sequence[Vector],
    *,
    lr: float,
    warmup: int,
    agc: float = 0.3,
    pmin: float = 1e-3,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-20,
) -> Vector:
    """A tensor after one update a gradient."""
    nu, mu = np.zeros_like(w), np.zeros_like(w)
    for n, g in enumerate(gradients, start=1):
        size = math.sqrt((g**2).sum())
        bound = agc * max(pmin, math.sqrt((w**2).sum()))
        if size > bound:
            g = g * bound / size
        nu = beta2 * nu + (1 - beta2) * g**2
        mu = beta1 * mu + (1 - beta1) * g / (np.sqrt(nu / (1 - beta2**n)) + eps)
        w = w - lr * min(1.0, (n - 1) / warmup) * mu / (1 - beta1**n)
    return w
