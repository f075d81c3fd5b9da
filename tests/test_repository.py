"""The repository itself: what may lie where, what is promised to whoever installs it."""

from __future__ import annotations

import ast
import itertools
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.synthetic_run import SyntheticRun

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("continual", "curricula", "agent", "storage", "eval", "configs")
TOP_LEVEL = {
    *PACKAGES,
    *("tests", "benchmarks", "docs", ".ci"),
    *("README.md", "ARCHITECTURE.md", "CHANGELOG.md", "LICENSE"),
    *("pyproject.toml", "constraints.txt", "Makefile", ".gitignore", ".pre-commit-config.yaml"),
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
# Import name -> distribution, where they differ.
DISTRIBUTIONS = {"yaml": "pyyaml", "dm_control": "dm-control"}
COMES_WITH = {"markupsafe": "jinja2"}
# For another package's sake: opensimplex runs on numba, and mujoco is dm_control's physics.
NOT_IMPORTED = {"numba", "mujoco"}

# In pieces, so that this file may hold them.
FOREIGN = {
    "a path of somebody's machine": "|".join(
        "/" + place for place in ("work/", "root/", "tmp/proto", "home/[a-z]", "Users/[A-Za-z]")
    ),
    "the address of a package registry": "|".join(
        (
            r"pypi\.org/" + "simple",
            "files.python" + "hosted",
            "(extra-)?index" + "-url",
            "find" + "-links",
        )
    ),
    "a to-do without the number of its issue": "TO" + r"DO(?!\(?#\d)",
}


def repository_files() -> list[Path]:
    """Files that git tracks or would track."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    files = (ROOT / name for name in listed.stdout.split("\0") if name)
    return [file for file in files if file.is_file()]


def text_files() -> Iterator[tuple[str, str]]:
    """(name, text) of every file that is text."""
    for file in repository_files():
        content = file.read_bytes()
        if b"\0" not in content:
            yield file.relative_to(ROOT).as_posix(), content.decode()


def modules() -> list[Path]:
    return sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))


def requirements() -> list[Requirement]:
    lines = itertools.chain(PROJECT["project"]["dependencies"], *EXTRAS.values())
    return [Requirement(line) for line in lines]


def pins() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return {name: Version(version) for name, version in (line.split("==") for line in lines)}


def imported_by(file: Path) -> set[str]:
    """Top-level names of everything a module imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


def test_the_top_level_holds_nothing_but_what_belongs_there() -> None:
    found = {file.relative_to(ROOT).parts[0] for file in repository_files()}
    assert found <= TOP_LEVEL


@pytest.mark.parametrize("what", FOREIGN)
def test_no_file_holds(what: str) -> None:
    found = [
        f"{name}:{number}: {line.strip()}"
        for name, text in text_files()
        for number, line in enumerate(text.splitlines(), start=1)
        if re.search(FOREIGN[what], line)
    ]
    assert found == []


def test_every_module_says_what_it_is_for_and_is_short_enough_to_be_read() -> None:
    silent = [str(m) for m in modules() if not ast.get_docstring(ast.parse(m.read_text()))]
    long = [str(m) for m in modules() if len(m.read_text().splitlines()) > 400]
    assert (silent, long) == ([], [])


def test_every_module_of_continual_has_a_floor() -> None:
    floors = PROJECT["tool"]["importlinter"]["contracts"][0]["layers"]
    named = set(re.findall(r"[a-z_.]+", " ".join(floors)))
    found = {f"continual.{p.stem}" for p in (ROOT / "continual").glob("*.py")}
    assert found - {"continual.__init__"} <= named


def test_what_promises_to_work_without_jax_never_loads_it() -> None:
    free = ["continual.envs", "continual.scheduler", "continual.pacing", "curricula.loader"]
    free += ["storage", "eval.judge", "eval.report", "eval.compare", "eval.export_l2"]
    program = f"import sys, {', '.join(free)}; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


def test_reports_and_comparisons_are_made_where_there_is_no_jax(tmp_path: Path) -> None:
    runs = [SyntheticRun(tmp_path / f"life-s{k}", seed=k, episodes=2).write() for k in range(2)]
    program = (
        "import sys\n"
        "sys.modules |= dict.fromkeys(('jax', 'jaxlib', 'flax', 'optax'))  # cannot be imported\n"
        "from eval import compare, report\n"
        "report.main(sys.argv[1:2])\ncompare.main(sys.argv[1:])\n"
    )
    done = subprocess.run([sys.executable, "-c", program, *map(str, runs)], cwd=ROOT, check=False)
    assert done.returncode == 0
    for page in (runs[0] / "report", tmp_path / "comparison"):
        assert (page / "index.html").is_file()


def test_every_dependency_has_a_floor() -> None:
    for requirement in requirements():
        operators = {specifier.operator for specifier in requirement.specifier}
        assert operators & {">=", "=="}, f"{requirement} has no floor"


def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    imported = set().union(*(imported_by(module) for module in modules()))
    foreign = imported - sys.stdlib_module_names - {*PACKAGES, "__future__"}
    used = {COMES_WITH.get(name, DISTRIBUTIONS.get(name, name)) for name in foreign}
    lines = PROJECT["project"]["dependencies"] + EXTRAS["video"] + EXTRAS["wandb"]
    declared = {canonicalize_name(Requirement(line).name) for line in lines}
    assert used == declared - NOT_IMPORTED


def test_every_fault_names_a_test_that_is_there() -> None:
    lines = (ROOT / "docs" / "faults.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("| ") and "| fault |" not in line]
    assert len(rows) > 20
    for row in rows:
        named = re.findall(r"`(test_\w+)::(test_\w+)`", row)
        assert named, row
        for file, test in named:
            assert f"def {test}(" in (ROOT / "tests" / f"{file}.py").read_text(), test


def test_constraints_are_exact_versions_and_nothing_else() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    odd = [
        line for line in lines if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*==[0-9][a-z0-9.]*", line)
    ]
    assert odd == []
    assert lines == sorted(set(lines))
    assert "continual" not in pins()


def test_constraints_pin_every_dependency_within_its_bounds() -> None:
    pinned = pins()
    for requirement in requirements():
        name = canonicalize_name(requirement.name)
        assert name in pinned, f"{name} is not in constraints.txt: run make constraints"
        assert pinned[name] in requirement.specifier, f"{name}: {pinned[name]} breaks {requirement}"


def test_the_wheel_holds_the_packages_with_their_data_and_nothing_else(tmp_path: Path) -> None:
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert {name.partition("/")[0] for name in held} == set(PACKAGES)
    files = {file for p in PACKAGES for file in (ROOT / p).rglob("*") if file.is_file()}
    expected = {f.relative_to(ROOT).as_posix() for f in files if "__pycache__" not in f.parts}
    assert held == expected
    assert {"curricula/smoke.yaml", "configs/scales/laptop.yaml"} <= held
