"""`key.path=value`: one value of a config set from outside, known to its model by a dotted name."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pydantic

from continual.errors import UserError, nearest
from continual.strict_yaml import Document, Path, Place, merge, one_line, without
from continual.validation import dotted_names, known_keys


def apply_overrides(
    base: Document | Mapping[str, Any],
    overrides: Mapping[str, Any],
    model: type[pydantic.BaseModel],
) -> Document:
    """Lay dotted overrides on a config; `continual.validation.validate` then judges the values.

    A section is added to, key by key. A table, whose keys are anybody's, is replaced, as there is
    no other way to be rid of its entries; `collect.budgets.dmc=900` adds one.

    Args:
      base: not modified.
      overrides: dotted key -> value.
      model: knows the keys; tables take any.
    Raises:
      UserError: a key that the model does not know, with the nearest dotted name.
    """
    document = base if isinstance(base, Document) else Document.of(dict(base), "config")
    for key, value in overrides.items():
        path: Path = tuple(key.split("."))
        written = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        source = named(f"{key}={written}")
        _refuse_unknown(path, source, model)
        for table in _tables(value, path, model):
            document = without(document, table)
        nested = value
        for part in reversed(path):
            nested = {str(part): nested}
        document = merge(document, Document(nested, {(): Place(source), path: Place(source)}))
    return document


def named(argument: str, limit: int = 80) -> str:
    """What messages call the override `argument`: one line, not at length."""
    text = one_line(argument)
    return f"override {text if len(text) <= limit else text[:limit] + '…'}"


def _tables(value: Any, path: Path, model: type[pydantic.BaseModel]) -> Iterator[Path]:
    """Where in a value at `path` the tables are."""
    if isinstance(value, Mapping):
        if known_keys(model, path) is None:
            yield path
        else:
            for key, below in value.items():
                yield from _tables(below, (*path, key), model)


def _refuse_unknown(path: Path, source: str, model: type[pydantic.BaseModel]) -> None:
    for depth, key in enumerate(path):
        keys = known_keys(model, path[:depth])
        if keys is None:
            return
        if key in keys:
            continue
        held = ".".join(str(part) for part in path[:depth])
        if not keys:
            raise UserError(f"{source}: {held} holds a value, not keys")
        full = ".".join(str(part) for part in path)
        raise UserError(f"{source}: unknown key, {nearest(full, dotted_names(model))}")
