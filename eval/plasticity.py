"""Signs of what a network can still learn, from its activations: pure functions of arrays.

The learner computes the same of itself as it lives (`agent.diagnostics`) and records it; these are
for anybody's activations.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def dormant_share(activations: ArrayLike, tau: float = 0.025) -> float:
    """Share of a layer's units whose mean |activation| is at most tau times the mean of all units'.

    Source: Sokar et al. 2023 (arXiv:2302.12902), the tau-dormant neurons of ReDo; tau = 0 counts
    the dead ones alone.

    Args:
      activations: [n, U], a row an input.
    """
    score = np.abs(np.asarray(activations, np.float64)).mean(axis=0)
    return float((score <= tau * score.mean()).mean())


def effective_rank(features: ArrayLike) -> float:
    """exp(-sum_k p_k ln p_k), p_k the singular values over their sum; 0 where all are 0.

    Between 1, all inputs on one line, and min(n, F), all directions used alike.

    Source: Roy & Vetterli 2007 (EUSIPCO), Definition 1.

    Args:
      features: [n, F], a row an input; not centred.
    """
    values = np.linalg.svd(np.asarray(features, np.float64), compute_uv=False)
    share = values[values > 0] / values.sum() if values.sum() > 0 else values[:0]
    return float(np.exp(-(share * np.log(share)).sum())) if len(share) else 0.0


def srank(features: ArrayLike, share: float = 0.99) -> int:
    """The fewest singular values whose sum is at least `share` of the sum of all.

    Source: Kumar et al. 2021 (arXiv:2010.14498), srank_delta with delta = 1 - share; the
    loss-of-plasticity code (Dohare et al. 2024) calls it stable rank.

    Args:
      features: [n, F], a row an input; not centred.
    """
    values = np.linalg.svd(np.asarray(features, np.float64), compute_uv=False)
    total = values.sum()
    return int(1 + (np.cumsum(values) < share * total).sum()) if total > 0 else 0
