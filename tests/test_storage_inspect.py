"""What is said of a replay from outside, and what its checksums find."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

from continual.errors import UserError
from storage import Column, StreamId
from storage.inspect import main
from tests.storage_cases import (
    CRAFTER,
    CRAFTER_SCHEMA,
    WALKER,
    WALKER_SCHEMA,
    fill,
    open_at,
    rows_at,
)

README = Path(__file__).parents[1] / "README.md"


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "replay"
    replay = open_at(folder, capacity=150)
    fill(replay, WALKER, WALKER_SCHEMA, 200)
    fill(replay, CRAFTER, CRAFTER_SCHEMA, 30)
    replay.commit()
    fill(replay, CRAFTER, CRAFTER_SCHEMA, 30)  # not committed
    replay.close()
    return folder


def words(line):
    return line.replace(",", "").split()


def test_streams_rows_ages_and_shares_are_told(folder, capsys):
    assert main([str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    (walker,) = [words(line) for line in lines if line.startswith(WALKER.name)]
    assert walker[1:] == ["1", "200", "120", "80", str(120 * 60)]
    (crafter,) = [words(line) for line in lines if line.startswith(CRAFTER.name)]
    assert crafter[1:5] == ["1", "30", "30", "0"]
    (share,) = [words(line) for line in lines if line.startswith(CRAFTER.task)]
    assert share[1] == "20.0%"
    ages = [words(line) for line in lines if " to " in line]
    assert sum(int(line[3]) for line in ages) == 150
    assert ages[0][0] == "0"
    assert ages[-1][2] == "150"


@pytest.mark.parametrize("array", ["reward", "obs.dmc.walker.speed", "is_last"])
def test_verifying_names_the_array_and_block_that_is_damaged(folder, capsys, array):
    assert main([str(folder), "--verify"]) == 0
    assert "every committed row is as it was written" in capsys.readouterr().out
    (path,) = (folder / WALKER.name / array).glob("c.0.1*")
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    path.write_bytes(content)
    assert main([str(folder), "--verify"]) == 1
    assert f"array '{array}', block 1 (rows 128 to 200)" in capsys.readouterr().out


def test_what_is_no_replay_is_said_in_one_line(tmp_path):
    with pytest.raises(UserError, match="found no commit of a replay"):
        main([str(tmp_path)])
    with pytest.raises(UserError, match="unknown flag '--verfy', did you mean '--verify'"):
        main([str(tmp_path), "--verfy"])


def test_the_lines_of_the_readme_open_a_replay_and_plot_an_episode(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (lines,) = re.findall(r"```python\n(import xarray.*?)```", README.read_text(), re.DOTALL)
    assert len([line for line in lines.splitlines() if line]) == 5
    (path,) = re.findall(r'"(runs/.*?)"', lines)
    replay = open_at(Path(path).parent)
    flags = {"is_first": Column((), "bool")}
    stream = StreamId(3, CRAFTER.task)
    replay.open_stream(stream, CRAFTER_SCHEMA | flags, 1)
    for k in range(60):
        rows = rows_at(CRAFTER_SCHEMA, k)
        replay.append(stream, rows | {"is_first": np.array([k % 20 == 0])})
    replay.commit()
    replay.close()
    with plt.ioff():
        exec(lines)
    (shown,) = plt.gca().lines
    np.testing.assert_array_equal(shown.get_ydata(), np.arange(20, 40))
    plt.close()
