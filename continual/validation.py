"""From plain data to a frozen pydantic model, or one line that says what is wrong, and where.

cur.yaml:4:5: phases[0].step: unknown key, did you mean 'steps'? (+2 more)
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import pydantic
from pydantic.fields import FieldInfo

from continual.errors import UserError, nearest
from continual.strict_yaml import Document, Path, one_line, shown

M = TypeVar("M", bound=pydantic.BaseModel)

_EXPECTED_TYPE = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "path": "text",
    "list": "a list",
    "tuple": "a list",
    "set": "a list",
    "dict": "a mapping",
    "mapping": "a mapping",
    "model": "a mapping",
    "dataclass": "a mapping",
    "none": "null",
}
_EXPECTED_BOUND = {
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "too_short": "{min_length} or more entries",
    "too_long": "at most {max_length} entries",
    "string_too_short": "at least {min_length} characters",
    "string_too_long": "at most {max_length} characters",
    "finite_number": "a finite number",
}


def validate(model: type[M], document: Document) -> M:
    """Build `model` from a document, with JSON's strictness: no text is taken for a number.

    Raises:
      UserError: the first thing that is wrong, and how many more there are. Unknown keys come
        first, for they explain the missing ones beside them; then in the order of the text.
    """
    try:
        return model.model_validate_json(json.dumps(document.value), strict=True)
    except pydantic.ValidationError as error:
        problems = _problems(model, document, error)
    first = problems[0]
    text = first.text
    if first.expected:
        found = "" if _is_override(document, first.path) else f", found {first.found}"
        text = f"expected {first.expected}{found}"
    more = f" (+{len(problems) - 1} more)" if len(problems) > 1 else ""
    raise UserError(f"{locate(document, first.path)}: {text}{more}")


def locate(document: Document, path: Path) -> str:
    """`file:line:column: dotted.path`; an override that set the very path names it already."""
    place = str(document.place(path))
    return place if _is_override(document, path) or not path else f"{place}: {dotted(path)}"


def _is_override(document: Document, path: Path) -> bool:
    return bool(path) and path in document.places and not document.places[path].line


def dotted(path: Path) -> str:
    """A path as people write it: `phases[0].steps`."""
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)
    return one_line(text.removeprefix("."))


def checked(resolve: Callable[[str], str]) -> Callable[[str], str]:
    """A validator of pydantic's that says what a resolver of names does, which raises UserError."""

    def validator(name: str) -> str:
        try:
            return resolve(name)
        except UserError as error:
            raise ValueError(str(error)) from None

    return validator


def known_keys(model: type[pydantic.BaseModel], path: Path) -> set[str] | None:
    """Keys the mapping at `path` may have; None: any will do; empty: it is no mapping."""
    keys: set[str] = set()
    for kind in kinds_at(model, path):
        if typing.get_origin(kind) in _MAPPINGS or kind in (dict, Any):
            return None
        if _is_model(kind):
            keys |= _fields(kind).keys()
    return keys


def kinds_at(model: type[pydantic.BaseModel], path: Path) -> list[Any]:
    """The types a value at `path` may have, unions taken apart; [] for no such path."""
    kinds: list[Any] = [model]
    for key in path:
        kinds = [below for kind in kinds for below in _below(kind, key)]
    return kinds


def dotted_names(model: type[pydantic.BaseModel], prefix: str = "") -> Iterator[str]:
    """Every dotted name that can be set in a model, nested models included."""
    for name, field in _fields(model).items():
        yield prefix + name
        for kind in _arms(field.annotation):
            if _is_model(kind) and kind is not model:
                yield from dotted_names(kind, f"{prefix}{name}.")


_MAPPINGS = (dict, Mapping)
_SEQUENCES = (list, tuple, set, frozenset, Sequence)


def _fields(model: type[pydantic.BaseModel]) -> dict[str, FieldInfo]:
    """By the names that people write, which are not Python's where those are reserved words."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, pydantic.BaseModel)


def _arms(annotation: Any) -> Iterator[Any]:
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        yield from _arms(typing.get_args(annotation)[0])
    elif origin in (typing.Union, types.UnionType):
        for arm in typing.get_args(annotation):
            yield from _arms(arm)
    else:
        yield annotation


def _below(kind: Any, key: str | int) -> Iterator[Any]:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if _is_model(kind) and isinstance(key, str) and key in _fields(kind):
        yield from _arms(_fields(kind)[key].annotation)
    elif origin in _MAPPINGS:
        yield from _arms(arguments[1])
    elif origin in _SEQUENCES and isinstance(key, int):
        yield from _arms(arguments[0])


@dataclass(frozen=True)
class _Problem:
    """One thing that is wrong; `expected` and `found`, or else `text`, say what."""

    path: Path
    text: str = ""
    expected: str = ""
    found: str = ""
    is_unknown_key: bool = False
    is_missing_key: bool = False


def _problems(
    model: type[pydantic.BaseModel], document: Document, error: pydantic.ValidationError
) -> list[_Problem]:
    """Pydantic's errors in our words, at most one for each path, the most telling first."""
    problems: dict[Path, _Problem] = {}
    for details in error.errors(include_url=False):
        if details["type"] == "too_short" and len(details["input"]) >= details["ctx"]["min_length"]:
            continue  # pydantic does not count the entries that are wrong themselves
        problem = _problem(model, document.value, details)
        held = problems.setdefault(problem.path, problem)
        if held.expected and problem.expected and problem.expected not in held.expected:
            # Every arm of a union that did not fit reports the same value.
            either = f"{held.expected} or {problem.expected}"
            problems[problem.path] = replace(held, expected=either)
    unknown_in = {p.path[:-1] for p in problems.values() if p.is_unknown_key}
    telling = [p for p in problems.values() if not (p.is_missing_key and p.path[:-1] in unknown_in)]
    return sorted(telling, key=lambda p: (not p.is_unknown_key, document.position(p.path)))


def _problem(model: type[pydantic.BaseModel], value: Any, details: Mapping[str, Any]) -> _Problem:
    kind, context = details["type"], details.get("ctx", {})
    path = _existing(value, details["loc"])
    found = shown(details["input"])
    if kind == "missing":
        return _Problem((*path, details["loc"][-1]), "missing", is_missing_key=True)
    if kind == "extra_forbidden":
        hint = nearest(str(path[-1]), _keys_of_arm(model, value, path[:-1]))
        return _Problem(path, f"unknown key, {hint}", is_unknown_key=True)
    if kind == "union_tag_not_found":
        return _Problem((*path, context["discriminator"].strip("'")), "missing")
    if kind == "union_tag_invalid":
        path = (*path, context["discriminator"].strip("'"))
        return _Problem(
            path, expected=_one_of(context["expected_tags"]), found=repr(context["tag"])
        )
    if kind in ("literal_error", "enum"):
        return _Problem(path, expected=_one_of(context["expected"]), found=found)
    if kind in ("value_error", "assertion_error"):
        return _Problem(path, one_line(context["error"]))
    if kind in _EXPECTED_BOUND:
        bounds = {k: f"{v:_}" if isinstance(v, int) else v for k, v in context.items()}
        return _Problem(path, expected=_EXPECTED_BOUND[kind].format(**bounds), found=found)
    if expected := _EXPECTED_TYPE.get(kind.split("_")[0]):
        return _Problem(path, expected=expected, found=found)
    return _Problem(path, f"{one_line(details['msg'])}, found {found}")


def _existing(value: Any, location: tuple[str | int, ...]) -> Path:
    """Pydantic's location without the names of union arms it puts between the keys."""
    path: Path = ()
    for key in location:
        is_item = isinstance(value, list) and isinstance(key, int) and key < len(value)
        if is_item or (isinstance(value, dict) and key in value):
            value = value[key]
            path = (*path, key)
    return path


def _one_of(quoted: str) -> str:
    return f"one of {quoted}" if "," in quoted or " or " in quoted else quoted


def _keys_of_arm(model: type[pydantic.BaseModel], value: Any, path: Path) -> set[str]:
    """Keys known at `path`, of those arms of a union only that the value's own tags leave."""
    for key in path:
        value = value[key]
    arms = [kind for kind in kinds_at(model, path) if _is_model(kind)]
    fitting = [arm for arm in arms if _tags_fit(arm, value)]
    return {name for arm in fitting or arms for name in _fields(arm)}


def _tags_fit(arm: type[pydantic.BaseModel], value: Mapping[str, Any]) -> bool:
    return all(
        value[name] in typing.get_args(field.annotation)
        for name, field in _fields(arm).items()
        if name in value and typing.get_origin(field.annotation) is typing.Literal
    )
