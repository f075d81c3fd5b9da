"""Overrides, flags and exit codes: what every door does with a command line."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from continual.cli import Parser, run_door, split_arguments
from continual.errors import UserError
from continual.overrides import apply_overrides
from continual.strict_yaml import load
from continual.validation import validate

ROOT = Path(__file__).resolve().parent.parent


class Strict(pydantic.BaseModel, extra="forbid", frozen=True):
    pass


class Replay(Strict):
    capacity: Annotated[int, pydantic.Field(gt=0)] = 100
    unit: Literal["rows", "bytes"] = "rows"


class Acting(Strict):
    rider: str = "awac"


class Config(Strict):
    seed: int = 0
    name: str | None = None
    replay: Replay = Replay()
    acting: Acting | None = None
    budgets: dict[str, int] = {}
    rates: tuple[float, ...] = ()


def built(*arguments: str, base: dict[str, Any] | None = None) -> Config:
    _, overrides, _ = split_arguments(arguments, Config)
    return validate(Config, apply_overrides(base or {}, overrides, Config))


def complaint(*arguments: str) -> str:
    with pytest.raises(UserError) as caught:
        built(*arguments)
    return str(caught.value)


def test_a_command_line_is_sorted_into_positionals_overrides_and_flags() -> None:
    arguments = "smoke seed=3 --dry-run replay.capacity=1e3 --out=x=y runs/a=b ./c=d - -- e=f -g"
    positionals, overrides, flags = split_arguments(arguments.split())
    assert positionals == ["smoke", "runs/a=b", "./c=d", "-", "e=f", "-g"]
    assert overrides == {"seed": 3, "replay.capacity": 1000}
    assert flags == ["--dry-run", "--out=x=y"]


def test_overrides_reach_nested_models_mappings_and_lists() -> None:
    arguments = [
        "replay.capacity=5",
        "acting.rider=bc",
        "budgets.dmc/walker_walk=7",
        "rates=[1, 2]",
    ]
    assert built(*arguments) == Config(
        replay=Replay(capacity=5),
        acting=Acting(rider="bc"),
        budgets={"dmc/walker_walk": 7},
        rates=(1.0, 2.0),
    )


def test_an_override_leaves_its_base_and_the_neighbours_alone() -> None:
    base = {"replay": {"unit": "bytes", "capacity": 2}}
    assert built("replay.capacity=5", base=base).replay == Replay(capacity=5, unit="bytes")
    assert base == {"replay": {"unit": "bytes", "capacity": 2}}


def test_a_table_is_replaced_and_a_key_of_it_added() -> None:
    base = {"budgets": {"dmc": 5, "crafter": 6}, "replay": {"capacity": 2}}
    assert built("budgets={}", base=base).budgets == {}
    assert built("budgets={toy: 7}", base=base).budgets == {"toy": 7}
    assert built("budgets.toy=7", base=base).budgets == {"dmc": 5, "crafter": 6, "toy": 7}
    assert base["budgets"] == {"dmc": 5, "crafter": 6}


def test_a_whole_model_may_be_given_at_once_or_taken_away() -> None:
    assert built("replay={unit: bytes}").replay == Replay(unit="bytes")
    assert built("acting=null", base={"acting": {"rider": "bc"}}).acting is None


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("007", "007"),
        ("1e5", "1e5"),
        ("true", "true"),
        ("a: b", "a: b"),
        ("[x", "[x"),
        ("@x", "@x"),
    ],
)
def test_a_field_of_text_takes_what_was_written(text: str, name: str) -> None:
    assert built(f"name={text}").name == name


def test_null_and_quotes_keep_their_meaning_in_a_field_of_text() -> None:
    assert built("name=null").name is None
    assert built("name='null'").name == "null"
    assert built("acting.rider=null").acting == Acting(rider="null")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (
            "replay.capcity=5",
            "override replay.capcity=5: unknown key, did you mean 'replay.capacity'?",
        ),
        ("capacity=5", "override capacity=5: unknown key, did you mean 'replay.capacity'?"),
        ("seed.x=5", "override seed.x=5: seed holds a value, not keys"),
        ("rates.0=5", "override rates.0=5: rates holds a value, not keys"),
        ("replay.capacity=ten", "override replay.capacity=ten: expected a whole number"),
        ("replay.capacity=0", "override replay.capacity=0: expected more than 0"),
        ("replay.unit=byte", "override replay.unit=byte: expected one of 'rows' or 'bytes'"),
        (
            "replay={capacity: ten}",
            'override replay={"capacity": "ten"}: replay.capacity: '
            "expected a whole number, found 'ten'",
        ),
        ("seed=", "override seed=: no value; 'null' and '\"\"' are values"),
        ("seed=[", "override seed=[:1:2: not valid YAML"),
        ("=3", "override =3: expected key=value or key.path=value"),
        ("a..b=3", "override a..b=3: expected key=value or key.path=value"),
        ("seed=a\nb", "override seed=a b: expected a whole number"),
        ("seed=a\x1bb", "override seed=a\\x1bb:1:2: character U+001B"),
        ("seed=" + "x" * 500, f"override seed={'x' * 75}…: expected a whole number"),
    ],
)
def test_a_bad_override_is_told_in_one_line(argument: str, message: str) -> None:
    assert complaint(argument).startswith(message)
    assert complaint(argument).isprintable()


def test_overrides_that_set_the_same_thing_are_refused() -> None:
    assert complaint("seed=1", "seed=2") == "override seed=2: seed is set twice"
    assert complaint("replay.unit=rows", "replay={}").startswith("override replay={}: replay.unit ")
    assert built("replay.unit=bytes", "replay.capacity=2").replay.capacity == 2


def test_a_value_of_a_file_and_one_of_an_override_are_told_apart() -> None:
    file = load("replay:\n  capacity: ten\n", "scale.yaml")
    with pytest.raises(UserError, match=r"^scale\.yaml:2:3: replay\.capacity: expected a whole"):
        validate(Config, apply_overrides(file, {"seed": 1}, Config))
    with pytest.raises(UserError, match=r"^override seed=x: expected a whole number"):
        validate(Config, apply_overrides(load("seed: 1", "scale.yaml"), {"seed": "x"}, Config))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.text() | st.from_regex(r"(seed|name|replay\.[a-z]+|budgets\..*)=.*"), max_size=3)
)
def test_any_command_line_is_taken_or_refused_in_one_line(arguments: list[str]) -> None:
    message = ""
    try:
        built(*arguments)
    except UserError as error:
        message = str(error)
    assert message.isprintable()


def test_an_unknown_flag_is_told_in_one_line_with_the_nearest() -> None:
    parser = Parser(prog="x")
    parser.add_argument("--dry-run", action="store_true")
    with pytest.raises(UserError, match=r"^unknown flag '--dryrun', did you mean '--dry-run'\?$"):
        parser.parse_args(["--dryrun"])
    assert parser.parse_args(["--dry-run"]).dry_run


def test_a_door_turns_what_happens_into_exit_codes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(argv: list[str]) -> int:
        raise UserError("bad\nthing\x1b")

    def interrupt(argv: list[str]) -> int:
        raise KeyboardInterrupt

    def succeed(argv: list[str]) -> int:
        return 0

    for main, code, printed in [
        (refuse, 2, "error: bad\\nthing\\x1b\n"),
        (interrupt, 130, "interrupted\n"),
        (succeed, 0, ""),
    ]:
        with pytest.raises(SystemExit) as left:
            run_door(main)
        assert left.value.code == code
        assert capsys.readouterr().err == printed


def test_a_bug_shows_its_traceback() -> None:
    def fail(argv: list[str]) -> int:
        raise RuntimeError("ours")

    def lose_another_pipe(argv: list[str]) -> int:
        raise BrokenPipeError

    with pytest.raises(RuntimeError, match="ours"):
        run_door(fail)
    with pytest.raises(BrokenPipeError):
        run_door(lose_another_pipe)


def test_a_reader_that_goes_away_ends_a_door_quietly() -> None:
    program = textwrap.dedent("""
        from continual.cli import run_door

        def main(argv):
            for i in range(100_000):
                print(i)
            return 0

        run_door(main)
    """)
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-c", program],
        stdout=writing,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        check=False,
    )
    os.close(writing)
    assert done.stderr == ""
    assert done.returncode == 141
