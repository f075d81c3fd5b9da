"""The table of equations leads to what is there."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs" / "equations.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and not line.startswith("| what")
]
TESTS = set(
    re.findall(
        r"^def (test_\w+)",
        "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob("*.py")),
        re.MULTILINE,
    )
)


def resolved(name: str) -> object:
    """`riders.awac.awac_loss` below `agent`, methods of classes included."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(["agent", *parts[:end]]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            found = getattr(found, part)
        return found
    raise AttributeError(name)


def test_there_is_a_row_for_every_equation_of_the_agent():
    assert len(ROWS) > 40


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_row_names_its_source_its_functions_and_its_tests(row):
    _, equation, source, functions, tests = row
    assert equation
    assert source
    named = re.findall(r"`([\w.]+)`", functions)
    assert named
    for name in named:
        assert callable(resolved(name))
    for name in re.findall(r"`(test_\w+)`", tests):
        assert name in TESTS, name
    assert "test_" in tests or "loop" in tests or "the same" in tests
