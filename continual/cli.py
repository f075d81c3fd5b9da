"""What all doors share: `key.path=value` overrides, flags, and errors that take one line."""

from __future__ import annotations

import argparse
import os
import re
import select
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import pydantic

from continual.errors import UserError, nearest
from continual.overrides import apply_overrides, named
from continual.strict_yaml import one_line, parse_value, shown
from continual.validation import kinds_at, validate

M = TypeVar("M", bound=pydantic.BaseModel)

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells count
EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE

# The first segment is a name, so that `runs/a=b` stays a path; later ones may hold task names.
_OVERRIDE = re.compile(r"([A-Za-z_][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_/-]+)*)=(.*)", re.DOTALL)


def split_arguments(
    argv: Sequence[str], known: type[pydantic.BaseModel] | None = None
) -> tuple[list[str], dict[str, Any], list[str]]:
    """Sort a command line into (positionals, overrides, flags).

    Args:
      argv: without the program's name. A flag's value has to be attached (`--out=file`); after `--`
        everything is a positional.
      known: where a field of this model takes text only, its value is taken as it was written:
        `name=007` needs no quotes.
    Returns:
      positionals; overrides, dotted key -> value read as YAML; flags for argparse, in order.
    Raises:
      UserError: a malformed override, or two that set the same thing.
    """
    positionals: list[str] = []
    overrides: dict[str, Any] = {}
    flags: list[str] = []
    for i, argument in enumerate(argv):
        if argument == "--":
            positionals += argv[i + 1 :]
            break
        if argument.startswith("-") and argument != "-":
            flags.append(argument)
        elif match := _OVERRIDE.fullmatch(argument):
            key, text = match.groups()
            _refuse_clash(key, argument, overrides)
            overrides[key] = _parse(key, text, known)
        elif "=" in argument and "/" not in argument.partition("=")[0]:
            raise UserError(f"{named(argument)}: expected key=value or key.path=value")
        else:
            positionals.append(argument)
    return positionals, overrides, flags


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors take one line and name the nearest flag."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def error(self, message: str) -> NoReturn:
        unknown = re.fullmatch(r"unrecognized arguments: (-[^\s=]+).*", message, re.DOTALL)
        if unknown:
            flag = unknown.group(1)
            message = f"unknown flag {shown(flag)}, {nearest(flag, self._option_string_actions)}"
        raise UserError(one_line(message))


def asked_of_run(
    argv: Sequence[str], model: type[M], *, prog: str, description: str
) -> tuple[Path, M]:
    """The command line of a door that is told of one run, and how: -> (its folder, what is asked).

    Args:
      model: the keys that can be set, each with a description.
    Raises:
      UserError: not one run, an unknown key, or a value that does not fit.
      SystemExit: `--help`.
    """
    positionals, overrides, flags = split_arguments(argv, model)
    keys = [f"  {name}=".ljust(16) + f"{f.description}" for name, f in model.model_fields.items()]
    parser = Parser(
        prog=f"python -m {prog}",
        usage="%(prog)s runs/NAME [key=value ...]",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(keys),
    )
    parser.parse_args(flags)
    if len(positionals) != 1:
        raise UserError(f"expected one run, such as runs/NAME, found {len(positionals)}")
    return Path(positionals[0]), validate(model, apply_overrides({}, overrides, model))


def run_door(main: Callable[[list[str]], int]) -> NoReturn:
    """Run a door's `main(argv)` and leave the process with its exit code.

    A user's mistake prints one line and exits 2; Ctrl-C exits 130; a reader that went away
    (`| head`) ends it quietly. Anything else is a bug of ours and shows its traceback.
    """
    try:
        code = main(sys.argv[1:])
        sys.stdout.flush()
    except UserError as error:
        sys.stderr.write(f"error: {one_line(error)}\n")
        code = EXIT_USER_ERROR
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        code = EXIT_INTERRUPTED
    except BrokenPipeError:
        if not _is_stdout_gone():
            raise
        code = EXIT_BROKEN_PIPE
    sys.exit(code)


def _is_stdout_gone() -> bool:
    """Whether it was our output that nobody reads; silences it for the rest of the process."""
    try:
        descriptor = sys.stdout.fileno()
    except OSError:  # stdout is no file, as in a notebook
        return False
    poll = select.poll()
    poll.register(descriptor, 0)
    if not any(event & select.POLLERR for _, event in poll.poll(0)):
        return False
    # What is still buffered would raise once more when the interpreter shuts down.
    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
    return True


def _parse(key: str, text: str, known: type[pydantic.BaseModel] | None) -> Any:
    source = named(f"{key}={text}")
    if not text.strip():
        raise UserError(f"{source}: no value; 'null' and '\"\"' are values")
    kinds = kinds_at(known, tuple(key.split("."))) if known else []
    takes_text_only = bool(kinds) and set(kinds) <= {str, type(None)}
    try:
        value = parse_value(text, source)
    except UserError:
        if not takes_text_only or not text.isprintable():
            raise
        return text
    if takes_text_only and not isinstance(value, str):
        return None if value is None and type(None) in kinds else text
    return value


def _refuse_clash(key: str, argument: str, held: Iterable[str]) -> None:
    for other in held:
        if key == other:
            raise UserError(f"{named(argument)}: {key} is set twice")
        if f"{other}.".startswith(f"{key}.") or f"{key}.".startswith(f"{other}."):
            raise UserError(f"{named(argument)}: {other} is set as well, one holds the other")
