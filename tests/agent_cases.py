"""A tiny agent for three worlds that share nothing, and batches for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from agent.config import AgentConfig
from agent.owners import path_names
from agent.rssm import Latent
from agent.world_model import TrainBatch
from continual.envs.interface import Head, Interface, Slot, Union, union

WALKER = Interface(
    (
        Slot("dmc.walker.orientations", (14,)),
        Slot("dmc.walker.height", ()),
        Slot("dmc.walker.velocity", (9,)),
    ),
    (Head("dmc.walker", "continuous", 6),),
)
CUP = Interface(
    (Slot("dmc.ball_in_cup.position", (4,)), Slot("dmc.ball_in_cup.velocity", (4,))),
    (Head("dmc.ball_in_cup", "continuous", 2),),
)
CRAFTER = Interface((Slot("image", (64, 64, 3), "uint8"),), (Head("crafter", "categorical", 17),))
ALL = union({"cup": CUP, "walker": WALKER, "crafter": CRAFTER})

# AWAC as the report on the gate has it (docs/adr/0006-awac-default.md).
REPORT = {"kind": "awac", "weight": "positive", "advantage": "percentile", "lambda": None}
TINY = {
    "model": {
        "deter": 16,
        "hidden": 8,
        "stoch": 3,
        "classes": 4,
        "blocks": 2,
        "units": 8,
        "vector_layers": 1,
        "policy_layers": 1,
        "prior_layers": 1,
        "image_code": "patch",
        "depth": 1,
        "patch": 16,
    },
    "imagination": {"horizon": 3, "last": 2},
    "optim": {"lr": 1e-3, "warmup": 5},
}


def tiny(**changes: object) -> AgentConfig:
    return AgentConfig.model_validate({**TINY, **changes})


def blank(make: Callable[[], Any]) -> Any:
    """What `make` would return, but all zeros: nothing is compiled for it."""
    return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), jax.eval_shape(make))


def drawn(params: Any, rng: np.random.Generator, scale: float = 0.2) -> Any:
    """Parameters of the same shapes: none starts at 0, and two-hot heads say a few units."""

    def draw(path: tuple[Any, ...], leaf: Any) -> np.ndarray:
        x = rng.normal(scale=scale, size=leaf.shape)
        if path_names(path)[-1] == "scale":
            x += 1
        if leaf.shape == (255,):  # far bins are worth millions, and would drown all others
            x -= np.linspace(-8, 8, 255) ** 2 / 2
        return x.astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, params)


def random_batch(
    rng: np.random.Generator,
    config: AgentConfig,
    tasks: list[int],
    interfaces: Union = ALL,
    length: int = 5,
    frames: int | None = None,
) -> TrainBatch:
    """Random rows of the given tasks, images first; absent slots and heads hold zeros."""
    size, model = len(tasks), config.model
    kinds = list(interfaces.tasks.values())
    has = lambda part: np.array([part in kinds[t].slots or part in kinds[t].heads for t in tasks])
    keep = lambda x, part: x * has(part).reshape(-1, *[1] * (x.ndim - 1)).astype(np.float32)
    normal = lambda *shape: rng.normal(size=shape).astype(np.float32)

    def act(head: Head, *lead: int) -> np.ndarray:
        if head.kind == "continuous":
            return keep(normal(*lead, head.size), head)
        return keep(np.eye(head.size, dtype=np.float32)[rng.integers(head.size, size=lead)], head)

    images = sum(kinds[t].image is not None for t in tasks)
    assert all(kinds[t].image is not None for t in tasks[:images]), "images come first"
    count = images if frames is None else frames
    is_last = rng.random((size, length)) < 0.15
    is_first = np.concatenate([rng.random((size, 1)) < 0.3, is_last[:, :-1]], 1)
    stoch = np.eye(model.classes, dtype=np.float32)[
        rng.integers(model.classes, size=(size, model.stoch))
    ]
    return TrainBatch(
        vectors={s.name: keep(normal(size, length, s.width), s) for s in interfaces.vectors},
        frames=rng.integers(0, 256, (count, length, 64, 64, 3), dtype=np.uint8),
        actions={h.name: act(h, size, length) for h in interfaces.heads},
        previous={h.name: act(h, size) for h in interfaces.heads},
        reward=normal(size, length),
        is_first=is_first,
        is_last=is_last,
        is_terminal=is_last & (rng.random((size, length)) < 0.5),
        task=np.array(tasks, np.int32),
        context=Latent(normal(size, model.deter), stoch),
        draw=np.arange(size, dtype=np.int32),
    )
