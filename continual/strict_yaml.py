"""YAML as people mean it: one reading of every value, and errors that name file, line and column.

Differs from PyYAML's safe loader, which reads YAML 1.1, in what it takes and what it refuses:

- `1e-4` is a number. A number with an exponent that comes out whole (`5e5`, `2.5e6`) is a whole
  number, the way budgets are written; `1_000_000` is one too.
- `yes`, `no`, `on`, `off` are text, as in YAML 1.2; only `true` and `false` are truth values.
  Dates, `1:30`, `010` and `0x10` are text too: whoever needs a number there is told so.
- Duplicate keys, keys that are not text, anchors, aliases and tags are refused.

Whether the values are the right ones is for `continual.validation` to say.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import yaml

from continual.errors import UserError

Path = tuple[str | int, ...]  # keys and list indices from the root, such as ("phases", 0, "steps")

_DEPTH = 50  # nested deeper than anybody writes by hand; keeps recursion bounded
_WHOLE = 2**63  # what every reader of JSON and YAML agrees on
_TAG = "tag:yaml.org,2002:"


@dataclass(frozen=True)
class Place:
    """Where a value was written.

    Attributes:
      source: a file name, or the whole of a command-line override.
      line, column: count from 1; 0 where `source` says it all.
    """

    source: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        source = one_line(self.source)
        return f"{source}:{self.line}:{self.column}" if self.line else source


@dataclass(frozen=True)
class Document:
    """Plain data (dict, list, str, int, float, bool, None) and where each key of it was written.

    Attributes:
      places: of keys and list items; values without one lie where their nearest ancestor does.
    """

    value: Any
    places: Mapping[Path, Place]

    @classmethod
    def of(cls, value: Any, source: str) -> Document:
        """Data that was not read from text, said to come from `source`."""
        return cls(value, {(): Place(source)})

    def place(self, path: Path) -> Place:
        """Where the key (or list item) at `path` was written, or its nearest ancestor that was."""
        while path not in self.places:
            path = path[:-1]
        return self.places[path]

    def position(self, path: Path) -> tuple[int, int]:
        """Line and column of `place(path)`, both from 1."""
        place = self.place(path)
        return place.line, place.column


def load(text: str, source: str) -> Document:
    """Read one YAML document; `source` is what errors call it. Nothing but comments is None.

    Raises:
      UserError: not YAML, or YAML with a feature that is refused; says where.
    """
    try:
        loader = _Loader(text)
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n"), len(before) - before.rfind("\n") - 1
        code = ord(text[error.position])
        _refuse(source, line, column, f"character U+{code:04X}, expected text")
    try:
        node = loader.get_single_node()
    except _RefusedError as error:
        _refuse(source, error.line, error.column, one_line(error))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line, mark.column) if mark else (0, 0)
        problem = one_line(error.problem or error.context)
        _refuse(source, line, column, f"not valid YAML: {problem}")
    except (ValueError, OverflowError) as error:  # PyYAML lets these through, from "\UFFFFFFFF"
        _refuse(source, loader.line, loader.column, one_line(f"not valid YAML: {error}"))
    places: dict[Path, Place] = {(): Place(source, 1, 1)}
    value = None if node is None else _construct(node, (), source, places)
    return Document(value, places)


def parse_value(text: str, source: str) -> Any:
    """The value of a command-line override, read as if it stood in a file."""
    return load(text, source).value


def dump(value: Mapping[str, Any]) -> str:
    """YAML text of plain data, keys in the order of the mapping; `load` reads back the same."""
    return yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False
    )


def merge(base: Document, over: Document) -> Document:
    """`over` laid on `base`: mappings merge key by key, anything else replaces."""
    replaced: list[Path] = []
    value = _merge(base.value, over.value, (), replaced)
    places = {p: place for p, place in base.places.items() if not _is_under(p, replaced)}
    places |= {p: place for p, place in over.places.items() if p or p not in places}
    return Document(value, places)


def without(document: Document, path: Path) -> Document:
    """A copy in which nothing stands at `path`."""

    def pruned(value: Any, keys: Path) -> Any:
        if not (isinstance(value, dict) and keys[0] in value):
            return value
        rest = {key: below for key, below in value.items() if key != keys[0]}
        return rest if len(keys) == 1 else rest | {keys[0]: pruned(value[keys[0]], keys[1:])}

    places = {p: place for p, place in document.places.items() if not _is_under(p, [path])}
    return Document(pruned(document.value, path), places)


def one_line(text: object) -> str:
    """`text` with everything that is not printable escaped, so that it stays on its line."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode()
        for c in str(text)
    )


class _RefusedError(Exception):
    """YAML, but with a feature that is refused; line and column count from 0."""

    def __init__(self, problem: str, mark: yaml.Mark) -> None:
        super().__init__(problem)
        self.line, self.column = mark.line, mark.column


class _Loader(yaml.SafeLoader):
    """Composes nodes; the values are ours to construct."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        problem = ""
        if isinstance(event, yaml.AliasEvent):
            problem = f"alias *{event.anchor}, write the value out instead"
        elif event.anchor is not None:
            problem = f"anchor &{event.anchor}, write the value out instead"
        elif event.tag is not None:
            problem = f"tag {event.tag}, expected a plain value"
        elif self.depth >= _DEPTH:
            problem = f"nested more than {_DEPTH} deep"
        if problem:
            raise _RefusedError(problem, event.start_mark)
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        style = None
        if not data.isprintable():
            style = '"'  # the only style that escapes; the others lose U+0085
        elif any(pattern.match(data) for pattern in _PATTERNS.values()):
            style = "'"  # PyYAML itself quotes only what YAML 1.1 would not read as text
        return self.represent_scalar(_TAG + "str", data, style=style)


_PATTERNS = {
    kind: re.compile(rf"(?:{pattern})\Z")
    for kind, pattern in {
        "null": r"~|null|Null|NULL|",
        "bool": r"true|True|TRUE|false|False|FALSE",
        "int": r"[-+]?(0|[1-9][0-9]*(_[0-9]+)*)",
        "float": r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
    }.items()
}

_Loader.yaml_implicit_resolvers = {}  # none of YAML 1.1's
for _kind, _pattern in _PATTERNS.items():
    _Loader.add_implicit_resolver(_TAG + _kind, _pattern, None)
_Dumper.add_representer(str, _Dumper.represent_str)


def _construct(node: yaml.Node, path: Path, source: str, places: dict[Path, Place]) -> Any:
    if isinstance(node, yaml.MappingNode):
        return _construct_mapping(node, path, source, places)
    if isinstance(node, yaml.SequenceNode):
        items = []
        for i, item in enumerate(node.value):
            places[*path, i] = Place(source, item.start_mark.line + 1, item.start_mark.column + 1)
            items.append(_construct(item, (*path, i), source, places))
        return items
    return _construct_scalar(node, source)


def _construct_mapping(
    node: yaml.MappingNode, path: Path, source: str, places: dict[Path, Place]
) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line, column = key_node.start_mark.line, key_node.start_mark.column
        key = _construct(key_node, (), source, {})
        if not isinstance(key, str):
            kind = "a list or mapping" if isinstance(key, (list, dict)) else str(key_node.value)
            _refuse(source, line, column, f"key {kind} is not text, put it in quotes")
        if key in mapping:
            first = places[*path, key].line
            _refuse(source, line, column, f"key {shown(key)} again, first given in line {first}")
        places[*path, key] = Place(source, line + 1, column + 1)
        mapping[key] = _construct(value_node, (*path, key), source, places)
    return mapping


def _construct_scalar(node: yaml.Node, source: str) -> str | int | float | bool | None:
    text = str(node.value)
    line, column = node.start_mark.line, node.start_mark.column
    match node.tag.removeprefix(_TAG):
        case "null":
            return None
        case "bool":
            return text.lower() == "true"
        case "float" if text.lower().endswith(("inf", "nan")):
            return float(text.replace(".", ""))
        case "int":
            # Length first: int() refuses thousands of digits with an error of its own.
            if len(text) > 40 or abs(int(text)) >= _WHOLE:
                _refuse(source, line, column, f"number {shown(text)} is too large")
            return int(text)
        case "float":
            number = float(text)
            if math.isinf(number):
                _refuse(source, line, column, f"number {shown(text)} is too large")
            return int(number) if _is_whole_with_exponent(text, number) else number
    if not _is_encodable(text):
        _refuse(source, line, column, f"{shown(text)} is not valid Unicode")
    return text


def _is_whole_with_exponent(text: str, number: float) -> bool:
    # Up to 1e15 only: from 1e16 on `repr` writes floats with an exponent, and they must read back.
    exponent = text.lower().partition("e")[2]
    return bool(exponent) and exponent[0] != "-" and number.is_integer() and abs(number) <= 1e15


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(value: Any, limit: int = 60) -> str:
    """A user's value as a message quotes it: one line, not long, in YAML's words."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, (list, tuple)):
        return "a list" if value else "an empty list"
    if isinstance(value, str) and len(value) > limit:
        value = value[:limit] + "…"
    return repr(value)


def _refuse(source: str, line: int, column: int, problem: str) -> NoReturn:
    raise UserError(f"{Place(source, line + 1, column + 1)}: {problem}") from None


def _merge(base: Any, over: Any, path: Path, replaced: list[Path]) -> Any:
    if not (isinstance(base, dict) and isinstance(over, dict)):
        replaced.append(path)
        return over
    merged = dict(base)
    for key, value in over.items():
        if key in base:
            value = _merge(base[key], value, (*path, key), replaced)
        merged[key] = value
    return merged


def _is_under(path: Path, ancestors: list[Path]) -> bool:
    return any(path[: len(a)] == a for a in ancestors)
