"""The store on disk: a zarr v3 group for each stream, whose chunk files are raw memory.

    <folder>/zarr.json                     group; attributes: format, version, capacity
    <folder>/phase_0002_dmc_walker_walk/   group of one stream, consolidated metadata
        zarr.json                          attributes: format, version, phase, task, rows, first_row
        obs.dmc.walker.height/zarr.json    array [world, row, …], flat name, dimension names
        obs.dmc.walker.height/c.0.<k>      chunk: block k, all worlds

Zarr makes and reads the metadata. Chunks are not compressed, so that a chunk file is a block's
array in C order and is written here directly: one file operation, which says when it is durable.
"""

from __future__ import annotations

import re
import shutil
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr

from continual.errors import UserError
from continual.files import LOCK, PARTIAL, replace_file, sync_path
from storage.batch import Column, Schema
from storage.window import fill_value

FORMAT = "continual.replay"
VERSION = 1


def has_store(folder: Path) -> bool:
    """Whether a replay was made in `folder`; False where there is nothing yet.

    Raises:
      UserError: there is something else, or a replay of another format version.
    """
    if (folder / "zarr.json").exists():
        _attributes(folder)
        return True
    entries = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
    strange = [name for name in entries if name != LOCK and not name.endswith(PARTIAL)]
    if strange or (folder.exists() and not folder.is_dir()):
        raise UserError(
            f"{folder}: not a replay folder (found {strange[0] if strange else 'a file'!r}), "
            "expected an empty folder or one made by this program"
        )
    return False


def create_store(folder: Path, capacity: int) -> None:
    """Make an empty replay."""
    attributes = {"format": FORMAT, "version": VERSION, "capacity": capacity}
    zarr.create_group(folder, zarr_format=3, attributes=attributes)


def check_capacity(folder: Path, capacity: int) -> None:
    """Raises UserError: the replay was made for another capacity, which its blocks depend on."""
    made_for = _attributes(folder).get("capacity")
    if made_for != capacity:
        raise UserError(f"{folder}: made for a capacity of {made_for} rows, expected {capacity}")


def drop_other_streams(folder: Path, names: Iterable[str]) -> None:
    """Delete the groups of all streams but those named, and all files that are half written."""
    for path in sorted(folder.glob("phase_*")):
        if path.name not in set(names):
            shutil.rmtree(path)
    for path in folder.rglob(f"*{PARTIAL}"):
        path.unlink()


def stream_name(phase: int, task: str) -> str:
    """Group name, such as `phase_0002_dmc_walker_walk`."""
    words = re.sub(r"\W+", "_", task)
    return f"phase_{phase:04d}_{words}"


@dataclass
class StreamFiles:
    """The group of one stream.

    Attributes:
      folder: of the group.
      schema: every column, `step` and latents among them.
      worlds, length: shape of a chunk.
      published: (rows, first_row) as readers see them.
      oldest: index of the oldest block that may have files.
      unsynced: written since the last `sync`.
    """

    folder: Path
    schema: Schema
    worlds: int
    length: int
    published: tuple[int, int] = (0, 0)
    oldest: int = 0
    unsynced: set[Path] = field(default_factory=set)

    def write(self, block: int, columns: Mapping[str, np.ndarray]) -> None:
        """Write chunk `block` of some columns, [N, L, …] each.

        A chunk that exists may be what the last commit relies on, so it is replaced only by one
        that is durable; a new chunk may wait for `sync`.

        Raises:
          OSError: such as a full disk; the chunk is as it was.
        """
        for name, values in columns.items():
            path = self._chunk(name, block)
            replaces = path.exists()
            content = values.reshape(-1).view(np.uint8).data
            replace_file(path, content, durable=replaces)
            self.unsynced |= {path.parent} if replaces else {path, path.parent}

    def read(self, block: int) -> dict[str, np.ndarray]:
        """Chunk `block` of every column.

        Raises:
          UserError: a chunk file is missing or not whole.
        """
        return {name: self._read_chunk(name, block) for name in self.schema}

    def delete_before(self, block: int) -> None:
        """Delete the chunks of all blocks before `block`."""
        for old in range(self.oldest, block):
            for name in self.schema:
                self._chunk(name, old).unlink(missing_ok=True)
        self.oldest = max(self.oldest, block)

    def delete_from(self, block: int) -> None:
        """Delete the chunks of `block` and all later ones."""
        for path in self._chunks():
            if _block_of(path) >= block:
                path.unlink()

    def publish(self, rows: int, first_row: int) -> None:
        """Tell readers how many rows there are and which is the first one held.

        Arrays first, then the consolidated copy that stock readers take: they never see columns of
        different lengths.
        """
        if self.published == (rows, first_row):
            return
        group = zarr.open_group(self.folder, mode="r+", use_consolidated=False)
        for name, array in _arrays(self.folder, "r+").items():
            if array.shape[1] != rows:
                array.resize((self.worlds, rows, *array.shape[2:]))
                self.unsynced.add(self.folder / name / "zarr.json")
        group.attrs.update({"rows": rows, "first_row": first_row})
        _consolidate(self.folder)
        self.unsynced.add(self.folder / "zarr.json")
        self.published = (rows, first_row)

    def sync(self) -> None:
        """Make all that was written durable: files before the folders that name them."""
        for path in sorted(self.unsynced, key=lambda p: (p.is_dir(), p)):
            if path.exists():
                sync_path(path)
        self.unsynced.clear()

    def _read_chunk(self, name: str, block: int) -> np.ndarray:
        column, path = self.schema[name], self._chunk(name, block)
        expected = self.worlds * self.length * column.nbytes
        where = f"{self.folder.name}: array {name!r}, block {block}"
        if not path.exists():
            raise UserError(f"{where}: {path} is missing, expected {expected} bytes")
        values = np.fromfile(path, np.uint8)
        if values.size != expected:
            raise UserError(f"{where}: {path} has {values.size} bytes, expected {expected}")
        return values.view(column.dtype).reshape(self.worlds, self.length, *column.shape)

    def _chunk(self, name: str, block: int) -> Path:
        zeros = ".0" * len(self.schema[name].shape)
        return self.folder / name / f"c.0.{block}{zeros}"

    def _chunks(self) -> list[Path]:
        return [path for name in self.schema for path in (self.folder / name).glob("c.*")]


def create_stream_files(
    folder: Path, schema: Schema, worlds: int, length: int, attributes: Mapping[str, Any]
) -> StreamFiles:
    """Make the group of a new stream, without rows, in place of any half-made one."""
    attributes = {"format": FORMAT, "version": VERSION, **attributes, "rows": 0, "first_row": 0}
    group = zarr.open_group(folder, mode="w", zarr_format=3, attributes=attributes)
    for name, column in schema.items():
        group.create_array(
            name,
            shape=(worlds, 0, *column.shape),
            chunks=(worlds, length, *column.shape),
            dtype=column.dtype,
            compressors=None,
            filters=None,
            fill_value=fill_value(name),
            dimension_names=("world", "row", *(f"{name}_dim{i}" for i in range(len(column.shape)))),
            # One folder an array instead of one a dimension and block.
            chunk_key_encoding={"name": "default", "separator": "."},
        )
    _consolidate(folder)
    files = StreamFiles(folder, dict(schema), worlds, length)
    files.unsynced |= {folder.parent, folder, *folder.iterdir(), *folder.glob("*/zarr.json")}
    return files


def open_stream_files(folder: Path) -> StreamFiles:
    """Open the group of a stream; its arrays say what the schema is.

    Raises:
      UserError: the group is missing or unreadable.
    """
    try:
        group = zarr.open_group(folder, mode="r", use_consolidated=False)
        arrays = _arrays(folder, "r")
        rows, first_row = int(group.attrs["rows"]), int(group.attrs["first_row"])  # type: ignore[arg-type]
        worlds, length = next(iter(arrays.values())).chunks[:2]
    except (OSError, KeyError, ValueError, StopIteration) as error:
        raise UserError(
            f"{folder}: expected the zarr group of a stream, found none to read ({error!r})"
        ) from error
    schema = {name: Column(a.shape[2:], str(a.dtype)) for name, a in arrays.items()}
    files = StreamFiles(folder, schema, worlds, length)
    # A commit that was cut short may have left arrays of different lengths: publish anew.
    consistent = {a.shape[1] for a in arrays.values()} == {rows}
    files.published = (rows, first_row) if consistent else (-1, -1)
    files.oldest = min((_block_of(p) for p in files._chunks()), default=0)
    return files


def _arrays(folder: Path, mode: Literal["r", "r+"]) -> dict[str, zarr.Array[Any]]:
    """The arrays of a group, sorted by name.

    Zarr's own listing fails on the half-written file that a kill leaves in the group's folder.
    """
    found = sorted(path.parent for path in folder.glob("*/zarr.json"))
    return {path.name: zarr.open_array(path, mode=mode) for path in found}


def _block_of(chunk: Path) -> int:
    return int(chunk.name.split(".")[2])


def _consolidate(folder: Path) -> None:
    with warnings.catch_warnings():
        # Said of the consolidated copy, which readers may ignore: every array has its own metadata.
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
        zarr.consolidate_metadata(folder)


def _attributes(folder: Path) -> dict[str, Any]:
    try:
        attributes = dict(zarr.open_group(folder, mode="r").attrs)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder}: expected a replay folder, found {error!r}") from error
    if attributes.get("format") != FORMAT or attributes.get("version") != VERSION:
        found = attributes.get("format"), attributes.get("version")
        raise UserError(f"{folder}: found format {found}, expected {(FORMAT, VERSION)}")
    return attributes
