"""Films of episodes, for people. Needs the package av, which nothing else does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from continual.envs.gym import Actor, GymWorld
from continual.errors import UserError
from continual.files import PARTIAL

LEAST = 240  # pixels of an edge; smaller pictures are enlarged
CODECS = {".mp4": "h264", ".gif": "gif"}


@dataclass
class Played:
    """An episode that was watched.

    Attributes:
      frames: [H, W, 3] each, none if they were not asked for.
    """

    episode_return: float
    decisions: int
    frames: list[np.ndarray]


def play(env: GymWorld, act: Actor, seed: int, *, draw: bool) -> Played:
    """Play one episode.

    Raises:
      UserError: it shall be drawn, and cannot be.
    """
    observation, _ = env.reset(seed=seed)
    act.reset(seed)
    played, ended = Played(0.0, 0, []), False
    while not ended:
        if draw:
            played.frames.append(_picture(env))
        observation, reward, terminated, truncated, _ = env.step(act(observation))
        played.episode_return += reward
        played.decisions += 1
        ended = terminated or truncated
    return played


def refuse_another_suffix(path: Path) -> None:
    """Raises UserError: no film can be written there."""
    if path.suffix not in CODECS:
        raise UserError(f"video={path}: expected a name that ends in {' or '.join(CODECS)}")
    if not path.parent.is_dir():
        raise UserError(f"video={path}: {path.parent} is no folder")


def refuse_without_av() -> None:
    """Raises UserError: the package that writes films is not installed."""
    try:
        import av  # noqa: F401 - only whether it is there
    except ImportError:
        raise UserError("video=…: needs the package av: pip install 'continual[video]'") from None


def write_video(path: Path, frames: Sequence[np.ndarray], rate: int) -> None:
    """Write a film, all of it or nothing.

    Args:
      path: its suffix chooses the format, see CODECS.
      frames: [H, W, 3] uint8 each, of one size.
      rate: frames a second.
    """
    import av

    edge = max(1, -(-LEAST // min(frames[0].shape[:2])))
    half = path.with_name(f"{path.stem}{PARTIAL}{path.suffix}")
    try:
        with av.open(str(half), "w") as film:
            stream = cast("av.VideoStream", film.add_stream(CODECS[path.suffix], rate=rate))
            height, width = (edge * n // 2 * 2 for n in frames[0].shape[:2])  # codecs want even
            stream.width, stream.height = width, height
            stream.pix_fmt = "rgb8" if path.suffix == ".gif" else "yuv420p"
            for picture in frames:
                large = picture.repeat(edge, 0).repeat(edge, 1)[:height, :width]
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(large), format="rgb24")
                film.mux(stream.encode(frame))
            film.mux(stream.encode())
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)


def _picture(env: GymWorld) -> np.ndarray:
    frame = env.render()
    if frame is None:
        raise UserError("this world has no looks, so no film of it can be made")
    return np.asarray(frame)
