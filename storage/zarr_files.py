"""What stock readers see: a zarr v3 group for each stream, whose chunk files are raw memory.

    <folder>/zarr.json                     group; attributes: format, version, capacity
    <folder>/phase_0002_dmc_walker_walk/   group of one stream, consolidated metadata
        zarr.json                          attributes: format, version, phase, task, rows, first_row
        obs.dmc.walker.height/zarr.json    array [world, row, …], flat name, dimension names
        obs.dmc.walker.height/c.0.<k>      chunk: block k, all worlds

Zarr makes the metadata, in memory; here it is put on the disk. It can all be made again from a
commit, so none of it is needed to go on, and whatever happened to it is mended by a rewind.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zarr

from continual.errors import UserError
from continual.files import LOCK, PARTIAL, named, put_file
from storage.batch import STEP, Schema

FORMAT = "continual.replay"
VERSION = 2
METADATA = "zarr.json"
COMMITS = "commits"  # folder of our own records, which readers do not need

Document = dict[str, Any]


def has_store(folder: Path) -> bool:
    """Whether the metadata of a replay is in `folder`; False where it was lost or never was.

    Raises:
      UserError: there is something else, or a replay of another format version.
    """
    if (folder / METADATA).exists():
        try:
            _attributes(folder)
        except ValueError as error:
            if not (folder / COMMITS).is_dir():
                raise UserError(f"{folder}: expected a replay folder, found {error}") from error
            return False
        return True
    if (folder / COMMITS).is_dir():
        return False
    entries = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
    strange = [name for name in entries if name != LOCK and not name.endswith(PARTIAL)]
    if strange or (folder.exists() and not folder.is_dir()):
        raise UserError(
            f"{folder}: not a replay folder (found {strange[0] if strange else 'a file'!r}), "
            "expected an empty folder or one made by this program"
        )
    return False


def create_store(folder: Path, capacity: Mapping[str, Any]) -> None:
    """Make an empty replay."""
    attributes: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "capacity": dict(capacity),
    }
    kept: dict[str, Any] = {}
    zarr.open_group(kept, mode="w", zarr_format=3, attributes=attributes)
    put_file(folder / METADATA, kept[METADATA].to_bytes(), durable=True)


def check_capacity(folder: Path, capacity: Mapping[str, Any]) -> None:
    """Raises UserError: the replay was made for another capacity, which its blocks depend on."""
    made_for = _attributes(folder)["capacity"]
    if made_for != capacity:
        found, expected = (f"{c['size']} {c['unit']}" for c in (made_for, capacity))
        raise UserError(f"{folder}: made for a capacity of {found}, expected {expected}")


@dataclass(frozen=True)
class StreamId:
    """Names a stream: one task as lived in one phase, with one schema and one set of worlds."""

    phase: int
    task: str

    @property
    def name(self) -> str:
        """Of its zarr group, such as `phase_0002_dmc_walker_walk`."""
        words = re.sub(r"\W+", "_", self.task)
        return f"phase_{self.phase:04d}_{words}"


def chunk_name(dimensions: int, block: int) -> str:
    """File of a block below its array's folder; `dimensions` beyond world and row."""
    return f"c.0.{block}" + ".0" * dimensions


def fill_value(name: str) -> int:
    """What stands where no row was written."""
    return -1 if name == STEP else 0


class StreamMetadata:
    """The metadata of one stream, as published."""

    def __init__(
        self,
        folder: Path,
        schema: Schema,
        worlds: int,
        length: int,
        attributes: Mapping[str, Any],
    ) -> None:
        self._folder = folder
        self._arrays, self._group = _documents(schema, worlds, length, attributes)
        self._published: tuple[int, int] | None = None

    def publish(self, rows: int, first_row: int) -> None:
        """Tell readers how many rows there are and which is the first one held.

        Arrays first, then the consolidated copy that stock readers take: they never see columns of
        different lengths. Not durable: after a loss of power it is made again from the commit.
        """
        if self._published == (rows, first_row):
            return
        for document in self._arrays.values():
            document["shape"][1] = rows
        self._group["attributes"].update(rows=rows, first_row=first_row)
        for name, document in self._arrays.items():
            put_file(self._folder / name / METADATA, _encoded(document), durable=False)
        put_file(self._folder / METADATA, _encoded(self._group), durable=False)
        self._published = (rows, first_row)


def _documents(
    schema: Schema, worlds: int, length: int, attributes: Mapping[str, Any]
) -> tuple[dict[str, Document], Document]:
    """(array name -> metadata, metadata of the group, which holds the former as well)."""
    kept: dict[str, Any] = {}
    group = zarr.open_group(
        kept,
        mode="w",
        zarr_format=3,
        attributes={"format": FORMAT, "version": VERSION, **attributes},
    )
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
    with warnings.catch_warnings():
        # Said of the consolidated copy, which readers may ignore: every array has its own metadata.
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
        zarr.consolidate_metadata(kept)
    document: Document = json.loads(kept[METADATA].to_bytes())
    return document["consolidated_metadata"]["metadata"], document


def _encoded(document: Document) -> bytes:
    return json.dumps(document).encode()


def _attributes(folder: Path) -> dict[str, Any]:
    """Of the replay. Raises ValueError: they are damaged; UserError: unreadable, or another's."""
    try:
        with named(folder / METADATA, "read"):
            content = (folder / METADATA).read_bytes()
        attributes = dict(json.loads(content)["attributes"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{METADATA} that cannot be read: {error!r}") from error
    found = attributes.get("format"), attributes.get("version")
    if found != (FORMAT, VERSION):
        raise UserError(f"{folder}: found format {found}, expected {(FORMAT, VERSION)}")
    capacity = attributes.get("capacity")
    if not isinstance(capacity, dict) or capacity.keys() != {"size", "unit"}:
        raise ValueError(f"{METADATA} whose capacity cannot be read: {capacity!r}")
    return attributes
