"""Films of episodes, for people. Needs the package av, which nothing else does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np

from continual.errors import UserError
from continual.files import PARTIAL

LEAST = 240  # pixels of an edge; smaller pictures are enlarged
CODECS = {".mp4": "h264", ".gif": "gif"}


def refuse_without_videos(path: Path) -> None:
    """Raises UserError: no film can be made there, for want of a package or of a known suffix."""
    if path.suffix not in CODECS:
        raise UserError(f"video={path}: expected a name that ends in {' or '.join(CODECS)}")
    if not path.parent.is_dir():
        raise UserError(f"video={path}: {path.parent} is no folder")
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
