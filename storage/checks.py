"""What does not fit, or is damaged, is said with what was found, where, and what was expected."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from continual.errors import UserError
from storage import files
from storage.block import Block, Layout, checksum


def check_rows(
    rows: Mapping[str, np.ndarray], given: Mapping[str, tuple[tuple[int, ...], np.dtype]]
) -> None:
    """Raises ValueError: a column is missing, is not of the stream, or does not fit.

    Args:
      given: name -> shape and dtype of what is to be appended.
    """
    if rows.keys() != given.keys():
        missing, surplus = sorted(given.keys() - rows.keys()), sorted(rows.keys() - given.keys())
        raise ValueError(f"row has columns missing: {missing}, or not of its stream: {surplus}")
    for name, (shape, dtype) in given.items():
        found = rows[name]
        if found.shape != shape or found.dtype != dtype:
            raise ValueError(
                f"column {name!r} is {found.shape} {found.dtype}, expected {shape} {dtype}"
            )


def check_same(where: Path, what: str, found: object, expected: object) -> None:
    """Raises UserError: a stream on disk is not what this run asks for."""
    if found == expected:
        return
    if isinstance(found, dict) and isinstance(expected, dict):
        name = min(n for n in found | expected if found.get(n) != expected.get(n))
        what, found, expected = f"column {name!r}", found.get(name), expected.get(name)
    raise UserError(f"{where}: has {what} {found}, expected {expected}")


@contextlib.contextmanager
def located(layout: Layout, name: str, block: Block) -> Iterator[None]:
    """Say of an error in a chunk which rows it concerns."""
    try:
        yield
    except UserError as error:
        first = block.index * layout.length
        raise UserError(
            f"{layout.folder.name}: array {name!r}, block {block.index} (rows {first} to "
            f"{first + block.rows}): {error}"
        ) from error


def check_files(layout: Layout, block: Block) -> None:
    """Raises UserError: a file of a block is missing or not whole."""
    for name in layout.schema:
        with located(layout, name, block):
            files.check_file(layout.path(name, block.index), layout.nbytes(name))


def read_checked(layout: Layout, name: str, block: Block) -> np.ndarray:
    """[N, rows, …] what a block has of a column.

    Raises:
      UserError: the file cannot be read, or its checksum, if it has one, is another.
    """
    with located(layout, name, block):
        values = layout.read(name, block.index)[:, : block.rows]
        if name in block.sums and checksum(values) != block.sums[name]:
            path = layout.path(name, block.index)
            raise UserError(f"{path} is damaged: its checksum is not the one of the commit")
    return values
