"""Tasks lived alone, for a life to be measured against."""

from __future__ import annotations

import json
import math

import pytest

from continual import run
from eval.findings import find
from eval.run_folder import load_references, load_run

pytestmark = pytest.mark.usefixtures("one_compilation")

LIFE = """
description: One task, and then the same again.
scale: smoke
phases:
  - {task: toy/reach, steps: 100}
  - {task: toy/reach, steps: 60}
"""
SMALL = ["collect.start=80", "replay.length=8", "evaluate.inside_every=0.5", "evaluate.episodes=1"]


def test_every_task_is_lived_alone_and_transfer_is_measured_against_it(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "life.yaml").write_text(LIFE)
    arguments = ["life.yaml", "name=life", *SMALL]
    assert run.main(arguments) == 0
    folder = tmp_path / "runs" / "life"
    assert load_references(load_run(folder)) == {}
    records = (folder / "records" / "episodes.jsonl").read_bytes()

    # Asked for later, only what is missing is lived; asked again, nothing is.
    assert run.main([*arguments, "reference=true"]) == 0
    assert (folder / "records" / "episodes.jsonl").read_bytes() == records
    (alone,) = load_references(load_run(folder)).values()
    assert [(phase.task, phase.env_steps) for phase in alone.phases] == [("toy/reach", (0, 100))]
    capsys.readouterr()
    assert run.main([*arguments, "reference=true"]) == 0
    assert capsys.readouterr().out.count("has been lived to its end") == 2

    # A first phase is what the reference is, bit for bit: nothing was transferred.
    found = find(load_run(folder))
    (metric,) = [m for m in found.metrics if m.name == "forward transfer, single-task"]
    assert metric.value == 0
    assert "denominators" in metric.formula
    # Alone it ended where this life's first phase did.
    (share,) = [m for m in found.metrics if m.name == "average performance, of single-task"]
    own, again = found.normalised[1:, 0]
    if found.learned[0]:
        assert share.value == again / own
    else:
        assert math.isnan(share.value)
    summary = json.loads((folder / "report" / "summary.json").read_text())
    assert metric.value in [m["value"] for m in summary["metrics"] if m["name"] == metric.name]
