"""A foreign package of one of our names is noticed on import, and said in one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import continual

ROOT = Path(__file__).resolve().parent.parent


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def shadow(folder: Path, name: str, as_package: bool) -> Path:
    file = folder / name / "__init__.py" if as_package else folder / f"{name}.py"
    file.parent.mkdir(exist_ok=True)
    file.write_text("raise RuntimeError('foreign code must not run')\n")
    return file


@pytest.mark.parametrize(
    ("name", "as_package"),
    [("agent", False), ("agent", True), ("eval", False), ("storage", True), ("configs", False)],
)
def test_a_door_says_which_file_shadows_ours_and_exits_with_2(
    name: str, as_package: bool, tmp_path: Path
) -> None:
    file = shadow(tmp_path, name, as_package)
    done = run("-m", "continual.run", "smoke", folder=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: {file} hides the package {name!r}")
    assert done.stderr.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == [file.relative_to(tmp_path).parts[0]]


def test_a_program_that_imports_us_gets_an_import_error(tmp_path: Path) -> None:
    file = shadow(tmp_path, "curricula", as_package=True)
    program = (
        "try:\n    import continual\nexcept ImportError as error:\n    print('caught:', error)\n"
    )
    done = run("-c", program, folder=tmp_path)
    assert done.stdout.startswith(f"caught: {file} hides the package 'curricula'")
    assert done.returncode == 0


def test_a_foreign_module_imported_before_us_is_noticed_too(tmp_path: Path) -> None:
    program = (
        "import sys, types\nsys.modules['agent'] = types.ModuleType('agent')\nimport continual\n"
    )
    done = run("-c", program, folder=tmp_path)
    assert "module 'agent' is not ours" in done.stderr.splitlines()[-1]


def test_a_folder_without_code_shadows_nothing(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "agent_notes.py").write_text("")
    assert run("-c", "import continual", folder=tmp_path).stderr == ""


def test_importing_us_imports_neither_jax_nor_a_simulator(tmp_path: Path) -> None:
    program = (
        "import sys, continual, continual.cli, curricula.loader\n"
        "print({'jax', 'dm_control', 'mujoco', 'crafter', 'wandb', 'zarr'} & set(sys.modules))\n"
    )
    done = run("-c", program, folder=tmp_path)
    assert done.stdout == "set()\n", done.stderr


def test_the_version_is_told() -> None:
    assert continual.__version__
