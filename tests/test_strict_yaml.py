"""Strict YAML: one reading of every value; one line, with its place, for every mistake."""

import math
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from continual import resources
from continual.errors import UserError
from continual.strict_yaml import Document, dump, load, merge, one_line, parse_value, shown
from continual.validation import dotted_names, known_keys, validate


class Fifo(pydantic.BaseModel, extra="forbid", frozen=True):
    kind: Literal["fifo"] = "fifo"
    rows: Annotated[int, pydantic.Field(gt=0)] = 10


class Quota(pydantic.BaseModel, extra="forbid", frozen=True):
    kind: Literal["quota"]
    share: float = 0.5


class Settings(pydantic.BaseModel, extra="forbid", frozen=True):
    seed: int
    rate: float = 1e-3
    fast: bool = False
    name: str | None = None
    size: int | Literal["auto"] = "auto"
    budgets: dict[str, int] = {}
    layers: tuple[Fifo, ...] = ()
    retention: Annotated[Fifo | Quota, pydantic.Field(discriminator="kind")] = Fifo()


def complaint(text: str, model: type[pydantic.BaseModel] = Settings) -> str:
    with pytest.raises(UserError) as caught:
        validate(model, load(text, "a.yaml"))
    return str(caught.value)


def outcome(text: str) -> str:
    """What is said of a text; nothing where it is right."""
    try:
        validate(Settings, load(text, "a.yaml"))
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1.5", 1.5),
        (".5", 0.5),
        ("5e5", 500_000),
        ("2.5e6", 2_500_000),
        ("1e-0", 1.0),
        ("1.5e0", 1.5),
        ("1_000_000", 1_000_000),
        ("-3", -3),
        ("+3", 3),
        (".inf", math.inf),
        ("-.inf", -math.inf),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("[1, a]", [1, "a"]),
        ("{a: {b: 1}}", {"a": {"b": 1}}),
        ("'1'", "1"),
    ],
)
def test_a_value_is_read_as_people_mean_it(text: str, value: Any) -> None:
    read = parse_value(text, "here")
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "no",
        "yes",
        "on",
        "off",
        "NO",
        "010",
        "0x10",
        "1:30",
        "2026-01-02",
        "1_",
        "_1",
        "=",
        "e5",
        ".",
    ],
)
def test_what_only_yaml_1_1_takes_for_something_else_is_text(text: str) -> None:
    assert parse_value(text, "here") == text


def test_a_merge_key_is_a_key_like_any_other() -> None:
    assert parse_value("<<: {a: 1}", "here") == {"<<": {"a": 1}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2", "a.yaml:4:3: key 'c' again, first given in line 3"),
        ("a: &x 1\nb: *x", "a.yaml:1:4: anchor &x, write the value out instead"),
        ("a: *x", "a.yaml:1:4: alias *x, write the value out instead"),
        ("a: !!int 3", "a.yaml:1:4: tag tag:yaml.org,2002:int, expected a plain value"),
        ("1: a", "a.yaml:1:1: key 1 is not text, put it in quotes"),
        ("true: a", "a.yaml:1:1: key true is not text, put it in quotes"),
        ("[a]: b", "a.yaml:1:1: key a list or mapping is not text, put it in quotes"),
        ("a: 1e999", "a.yaml:1:4: number '1e999' is too large"),
        ("a: 9223372036854775808", "a.yaml:1:4: number '9223372036854775808' is too large"),
        ("a: " + "9" * 5000, f"a.yaml:1:4: number '{'9' * 60}…' is too large"),
        ('a: "\\ud800"', "a.yaml:1:4: '\\ud800' is not valid Unicode"),
        ("a\n b\0", "a.yaml:2:3: character U+0000, expected text"),
        ("a: b: c", "a.yaml:1:5: not valid YAML: mapping values are not allowed here"),
        ("[" * 100_000, "a.yaml:1:51: nested more than 50 deep"),
    ],
)
def test_what_is_refused_is_named_with_its_place(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load(text, "a.yaml")
    assert str(caught.value) == message


@pytest.mark.parametrize("text", ['"\\UFFFFFFFF"', "a: [", "\tx", "--- 1\n--- 2", "%YAML 9\n--- 1"])
def test_a_syntax_error_takes_one_line_with_its_place(text: str) -> None:
    with pytest.raises(UserError, match=r"^a\.yaml:\d+:\d+: not valid YAML: [^\n]+$"):
        load(text, "a.yaml")


def test_positions_are_those_of_keys_and_items_or_of_what_holds_them() -> None:
    document = load("a: 1\nb:\n  - {c: 2}\n", "a.yaml")
    assert document.position(()) == (1, 1)
    assert document.position(("b",)) == (2, 1)
    assert document.position(("b", 0)) == (3, 5)
    assert document.position(("b", 0, "c")) == (3, 6)
    assert document.position(("b", 0, "missing")) == (3, 5)
    assert str(document.place(("b", 0, "c"))) == "a.yaml:3:6"


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.sampled_from(["no", "1e-4", "1e5", "null", "=", "<<", "2026-01-01", "010", "~", "1:30"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), plain, max_size=4))
def test_what_is_dumped_is_read_back_with_its_types_and_order(value: dict[str, Any]) -> None:
    read = load(dump(value), "dumped").value
    assert repr(read) == repr(value)


def test_dumped_text_means_the_same_to_other_yaml_readers() -> None:
    value = {
        "answer": "no",
        "rate": 1e-5,
        "date": "2026-01-01",
        "number": "1e5",
        "twice": [[1], [1]],
    }
    assert yaml.safe_load(dump(value)) == value
    shared = [1]
    assert "&" not in dump({"a": shared, "b": shared})


def test_merging_goes_key_by_key_and_remembers_who_said_what() -> None:
    base = load("a: {x: 1, y: 2}\nb: [1, 2]\nc: {z: 1}", "base.yaml")
    over = load("\na: {y: 3, w: 4}\nb: [5]\nc: 6", "over.yaml")
    merged = merge(base, over)
    assert merged.value == {"a": {"x": 1, "y": 3, "w": 4}, "b": [5], "c": 6}
    assert str(merged.place(("a", "x"))) == "base.yaml:1:5"
    assert str(merged.place(("a", "y"))) == "over.yaml:2:5"
    assert merged.place(("b", 1)).source == "over.yaml"
    assert merged.place(("c", "z")).source == "over.yaml"
    assert base.value["a"] == {"x": 1, "y": 2}


def test_a_valid_document_becomes_the_frozen_model() -> None:
    text = "seed: 1\nrate: 1\nlayers: [{rows: 5e3}]\nretention: {kind: quota}\nsize: auto"
    built = validate(Settings, load(text, "a.yaml"))
    assert built.layers == (Fifo(rows=5000),)
    assert built.retention == Quota(kind="quota")
    assert built.rate == 1.0
    with pytest.raises(pydantic.ValidationError):
        built.seed = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sed: 1", "a.yaml:1:1: sed: unknown key, did you mean 'seed'?"),
        ("rate: 2", "a.yaml:1:1: seed: missing"),
        ("seed: ten", "a.yaml:1:1: seed: expected a whole number, found 'ten'"),
        ("seed: 1.5", "a.yaml:1:1: seed: expected a whole number, found 1.5"),
        ("seed: true", "a.yaml:1:1: seed: expected a whole number, found true"),
        ("seed: '1'", "a.yaml:1:1: seed: expected a whole number, found '1'"),
        ("seed:", "a.yaml:1:1: seed: expected a whole number, found nothing"),
        ("seed: 1\nfast: no", "a.yaml:2:1: fast: expected true or false, found 'no'"),
        ("seed: 1\nfast: 1", "a.yaml:2:1: fast: expected true or false, found 1"),
        ("seed: 1\nname: 7", "a.yaml:2:1: name: expected text, found 7"),
        ("seed: 1\nrate: [1]", "a.yaml:2:1: rate: expected a number, found a list"),
        ("seed: 1\nsize: 1.5", "a.yaml:2:1: size: expected a whole number or 'auto', found 1.5"),
        ("seed: 1\nbudgets: 3", "a.yaml:2:1: budgets: expected a mapping, found 3"),
        (
            "seed: 1\nbudgets: {a/b: x}",
            "a.yaml:2:11: budgets.a/b: expected a whole number, found 'x'",
        ),
        ("seed: 1\nlayers: x", "a.yaml:2:1: layers: expected a list, found 'x'"),
        (
            "seed: 1\nlayers:\n  - rows: 1\n  - rows: 0",
            "a.yaml:4:5: layers[1].rows: expected more than 0, found 0",
        ),
        (
            "seed: 1\nretention: {kind: quot}",
            "a.yaml:2:13: retention.kind: expected one of 'fifo', 'quota', found 'quot'",
        ),
        ("seed: 1\nretention: {rows: 1}", "a.yaml:2:1: retention.kind: missing"),
        (
            "seed: 1\nretention: {kind: fifo, share: 1}",
            "a.yaml:2:25: retention.share: unknown key, valid: kind, rows",
        ),
        ("- 1", "a.yaml:1:1: expected a mapping, found a list"),
        ("# empty", "a.yaml:1:1: expected a mapping, found nothing"),
        ('"s\\ned": 1', "a.yaml:1:1: s\\ned: unknown key, did you mean 'seed'?"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(text: str, message: str) -> None:
    assert complaint(text) == message


def test_an_unknown_key_is_told_before_what_is_missing_beside_it_and_the_rest_is_counted() -> None:
    text = "rate: x\nlayers:\n  - {rows: 0}\nsed: 1"
    assert complaint(text) == "a.yaml:4:1: sed: unknown key, did you mean 'seed'? (+2 more)"


def test_a_validator_of_the_model_speaks_for_itself() -> None:
    class Even(pydantic.BaseModel):
        n: int

        @pydantic.field_validator("n")
        @classmethod
        def check(cls, n: int) -> int:
            if n % 2:
                raise ValueError(f"expected an even number,\nfound {n}")
            return n

    assert complaint("n: 3", Even) == "a.yaml:1:1: n: expected an even number,\\nfound 3"


def test_data_without_text_are_placed_at_their_source() -> None:
    with pytest.raises(UserError, match=r"^config: seed: expected a whole number, found 'x'$"):
        validate(Settings, Document.of({"seed": "x"}, "config"))


def test_known_keys_see_through_unions_and_containers() -> None:
    assert known_keys(Settings, ("retention",)) == {"kind", "rows", "share"}
    assert known_keys(Settings, ("layers", 0)) == {"kind", "rows"}
    assert known_keys(Settings, ("budgets",)) is None
    assert known_keys(Settings, ("seed",)) == set()
    assert "retention.share" in set(dotted_names(Settings))


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(categories=["L", "N", "P", "S", "Z", "C"])))
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    assert outcome(text).isprintable()


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(Settings.model_fields)) | st.text(), plain))
def test_any_data_are_valid_or_refused_in_one_line(value: dict[str, Any]) -> None:
    assert outcome(dump(value)).isprintable()


def test_user_text_is_shown_on_one_line_and_not_at_length() -> None:
    assert one_line("a\nb\x1b[0m\u2028\udc80é") == "a\\nb\\x1b[0m\\u2028\\udc80é"
    assert shown("x" * 100) == f"'{'x' * 60}…'"


def test_a_path_comes_before_a_shipped_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("smoke.yaml").write_text("mine")
    assert resources.read_text(resources.find("smoke.yaml", "curricula")) == "mine"
    assert resources.read_text(resources.find("smoke", "curricula")) != "mine"


@pytest.mark.parametrize(
    "argument", ["curricula/smoke.yaml", "smoke.yaml", "smoke", "curricula/smoke"]
)
def test_a_shipped_file_is_found_by_its_name(
    argument: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "smoke").mkdir()
    assert resources.find(argument, "curricula").name == "smoke.yaml"
    assert "smoke" in resources.packaged_names("curricula")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("smoek", "no such file, nor one shipped in curricula/, did you mean 'smoke'"),
        ("folder", "is a directory, expected a .yaml file"),
        ("", "no such file"),
        ("x" * 5000, "too long"),
        ("a\0b", "no such file"),
        ("a\nb", "no such file"),
        ("../curricula/smoke", "no such file"),
    ],
)
def test_what_is_not_there_is_refused_in_one_line(
    argument: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=message) as caught:
        resources.find(argument, "curricula")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b" \n", "the file is empty"),
        (b"\x7fELF\0\0", "a binary file, expected text"),
        (b"a: 1\nb: \xff", "file.yaml:2: not UTF-8 text"),
        (b"#" * 1_000_001, "larger than 1_000_000 bytes"),
    ],
)
def test_a_file_that_is_not_readable_text_is_refused(
    content: bytes, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "file.yaml"
    file.write_bytes(content)
    with pytest.raises(UserError, match=message):
        resources.read_text(file)


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    file = tmp_path / "file.yaml"
    file.write_bytes(b"\xef\xbb\xbfa: 1")
    assert resources.read_text(file) == "a: 1"
