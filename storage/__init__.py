"""Replay on disk: append rows, sample sequences, survive a kill. Knows nothing of learning."""

from storage import retention, sampling
from storage.batch import FRAMES, Batch, Column, Schema, Where
from storage.copying import fork_replay
from storage.held import Capacity
from storage.opening import open_replay
from storage.replay import Replay
from storage.staging import has_commit
from storage.zarr_files import StreamId

__all__ = [
    "FRAMES",
    "Batch",
    "Capacity",
    "Column",
    "Replay",
    "Schema",
    "StreamId",
    "Where",
    "fork_replay",
    "has_commit",
    "open_replay",
    "retention",
    "sampling",
]
