"""The model sizes of DreamerV3's released configuration, by name."""

from __future__ import annotations

from collections.abc import Mapping

from agent.config import ModelConfig
from continual.errors import UserError, nearest

# deter, hidden, classes, depth, units; 32 latents and 8 blocks in all of them.
_SIZES: Mapping[str, tuple[int, int, int, int, int]] = {
    "size1m": (512, 64, 4, 4, 64),
    "size12m": (2048, 256, 16, 16, 256),
    "size25m": (3072, 384, 24, 24, 384),
    "size50m": (4096, 512, 32, 32, 512),
    "size100m": (6144, 768, 48, 48, 768),
    "size200m": (8192, 1024, 64, 64, 1024),
    "size400m": (12288, 1536, 96, 96, 1536),
}
SIZES = tuple(_SIZES)


def model_of_size(name: str) -> ModelConfig:
    """DreamerV3's model of a size.

    Raises:
      UserError: no such size.
    """
    if name not in _SIZES:
        raise UserError(f"size {name!r}: {nearest(name, SIZES)}")
    deter, hidden, classes, depth, units = _SIZES[name]
    return ModelConfig(deter=deter, hidden=hidden, classes=classes, depth=depth, units=units)
