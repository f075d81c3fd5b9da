"""Files a person names on the command line: a path of theirs, or the name of a shipped one."""

from __future__ import annotations

import importlib.resources
from importlib.resources.abc import Traversable
from pathlib import Path

from continual.errors import UserError, nearest
from continual.strict_yaml import one_line, shown

_SUFFIX = ".yaml"
MAX_BYTES = 1_000_000  # far above anything written by hand


def find(argument: str, package: str) -> Traversable:
    """The file that `argument` names: as a path first, then among those shipped in `package`.

    Args:
      argument: `./mine.yaml`, or a shipped file as `curricula/smoke.yaml`, `smoke.yaml` or `smoke`.
      package: dotted; a folder of a package (`configs.scales`) will do.
    Raises:
      UserError: neither; names the nearest shipped file.
    """
    label = shown(argument)
    try:
        path = Path(argument)
        if argument and path.is_file():
            return path
        is_directory, exists = bool(argument) and path.is_dir(), bool(argument) and path.exists()
    except OSError as error:
        raise UserError(f"{label}: cannot be read: {error.strerror}") from None
    names = packaged_names(package)
    folder = package.replace(".", "/")
    name = argument.removeprefix(f"{folder}/").removesuffix(_SUFFIX)
    if name in names:
        return _folder(package) / f"{name}{_SUFFIX}"
    if is_directory:
        raise UserError(f"{label} is a directory, expected a {_SUFFIX} file")
    if exists:
        raise UserError(f"{label} is not a regular file, expected a {_SUFFIX} file")
    hint = nearest(name, names)
    raise UserError(f"{label}: no such file, nor one shipped in {folder}/, {hint}")


def packaged_names(package: str) -> list[str]:
    """Names, without suffix, of the files shipped in a package, sorted."""
    names = (entry.name for entry in _folder(package).iterdir() if entry.is_file())
    return sorted(name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX))


def read_text(file: Traversable) -> str:
    """The text of a small UTF-8 file.

    Raises:
      UserError: unreadable, too large, empty, or not text.
    """
    label = one_line(file)
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"{label}: cannot be read: {error.strerror}") from None
    if len(content) > MAX_BYTES:
        raise UserError(
            f"{label}: larger than {MAX_BYTES:_} bytes, expected a file written by hand"
        )
    if not content.strip():
        raise UserError(f"{label}: the file is empty")
    if b"\0" in content:
        raise UserError(f"{label}: a binary file, expected text")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{label}:{line}: not UTF-8 text") from None


def _folder(package: str) -> Traversable:
    root, *folders = package.split(".")
    return importlib.resources.files(root).joinpath(*folders)
