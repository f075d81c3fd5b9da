"""Published tables are what the published files say."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import sys
from pathlib import Path

import pytest

from continual.errors import UserError
from continual.opening import kept_settings
from continual.request import parse_request
from eval.findings import find
from eval.run_folder import load_run
from tests.synthetic_run import SyntheticRun

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def results():
    """benchmarks/results.py, which is a script."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    spec = importlib.util.spec_from_file_location("results", ROOT / "benchmarks" / "results.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(ROOT / "benchmarks"))


def test_the_tables_are_made_from_the_files_beside_them(results):
    page = ROOT / "docs" / "results" / "README.md"
    assert page.read_text(encoding="utf-8") == results.tables()


def test_every_published_file_belongs_to_a_piece_of_a_study(results):
    pieces = [p for study in results.STUDIES for p in study.pieces()]
    assert set((ROOT / "docs" / "results").glob("*/*.json")) <= set(map(results.file_of, pieces))
    folders = set(map(results.records_of, pieces))
    assert set((ROOT / "docs" / "results").glob("*/runs/*")) <= folders


def test_a_published_piece_is_what_its_study_asks_for_today(results):
    pieces = [p for study in results.STUDIES for p in study.pieces()]
    for piece in pieces:
        if (file := results.file_of(piece)).exists():
            found = json.loads(file.read_text())
            assert found["piece"] == json.loads(json.dumps(piece.__dict__)), file
            assert all(f" {shlex.quote(o)} " in found["command"] for o in piece.overrides), file


def test_a_published_piece_learnt_as_the_same_command_would_today(results, tmp_path):
    for piece in (p for study in results.STUDIES for p in study.pieces()):
        if (file := results.file_of(piece)).exists():
            plan = tmp_path / "piece.yaml"
            plan.write_text(results.curriculum_of(piece))
            today, _ = kept_settings(parse_request(results.command_of(piece, plan)[1:]))
            learnt = json.loads(file.read_text())["config"]
            assert learnt == {section: today[section] for section in learnt}, file
            assert set(learnt) == {"agent", "replay", "collect"}


def test_a_table_shows_means_over_seeds_and_every_seed(results, tmp_path):
    study = results.STUDIES[0]
    first = [p for p in study.pieces() if (p.task, p.label) == study.pairs[0]][:2]
    for piece, score in zip(first, (100.0, 300.0), strict=True):
        found = {
            "training_return": score,
            "random_return": 7.0,
            "judged": {"gated mode": score / 2},
            "gate_choice": 0.25,
            "effective_samples": None,
        }
        file = results.file_of(piece, tmp_path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(found))
    (row,) = [line for line in results.table_of(study, tmp_path) if line.startswith("| dmc/")]
    assert [cell.strip() for cell in row.split("|")[3:-1]] == [
        *("2", "200", "100, 300", "7", "100", "", "", "0.25", ""),
    ]


def test_lives_through_several_tasks_are_shown_by_what_they_forget(results, tmp_path):
    (study,) = [study for study in results.STUDIES if study.has_plans]
    first = [p for p in study.pieces() if (p.task, p.label) == study.pairs[1]]
    found = ((0.5, 0.1, 0.7), (0.25, None, 0.5))
    for piece, values in zip(first, found, strict=False):
        metrics = dict(zip(results.JUDGED, values, strict=True))
        found = {"metrics": {k: v for k, v in metrics.items() if v}, "gate_choice": None}
        file = results.file_of(piece, tmp_path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(found))
    *_, row = results.table_of(study, tmp_path)
    assert [cell.strip() for cell in row.split("|")[1:-1]] == [
        *(study.pairs[1]),
        *("2", "0.38", "0.50, 0.25", "0.10", "0.10, –", "0.60", "0.70, 0.50", ""),
    ]


def test_published_records_say_what_the_run_said(results, tmp_path):
    run = SyntheticRun(tmp_path / "life").write()
    (run / "replay").mkdir()
    results.publish_records(run, tmp_path / "published" / "life")
    published = tmp_path / "published" / "life"
    assert {file.name for file in published.iterdir()} == {
        *("config.yaml", "curriculum.yaml", "versions.json", "records")
    }
    there, here = (find(load_run(folder)) for folder in (published, run))
    assert [(m.name, m.value) for m in there.metrics] == [(m.name, m.value) for m in here.metrics]
    assert there.returns.tolist() == here.returns.tolist()


def test_published_numbers_of_lives_are_what_their_published_records_say(results):
    pieces = [p for study in results.STUDIES if study.has_plans for p in study.pieces()]
    for piece in pieces:
        if (file := results.file_of(piece)).exists():
            said = results.judged_over_phases(load_run(results.records_of(piece)))
            found = json.loads(file.read_text())
            assert {key: found[key] for key in said} == said, piece.name


def test_no_two_pieces_share_a_name(results):
    names = [p.name for study in results.STUDIES for p in study.pieces()]
    assert len(names) == len(set(names))


def test_every_piece_lives_as_long_as_its_study_says(results, tmp_path):
    for piece in (p for study in results.STUDIES for p in study.pieces()):
        file = tmp_path / "piece.yaml"
        file.write_text(results.curriculum_of(piece))
        asked = parse_request(results.command_of(piece, file)[1:])
        assert tuple((p.task, p.steps) for p in asked.curriculum.plan) == piece.phases
        assert sum(steps for _, steps in piece.phases) == piece.env_steps


def test_pieces_are_lived_a_core_each_and_one_that_fails_stops_no_other(results, monkeypatch):
    pieces = list(results.STUDIES[0].pieces())[:5]
    lived = {}

    def live(piece, seconds):
        lived[piece.name] = os.sched_getaffinity(0)
        if piece is pieces[1]:
            raise UserError("ended with exit code 1")
        return True

    monkeypatch.setattr(results, "live", live)
    with pytest.raises(UserError, match="exit code 1"):
        results.live_all(pieces, minutes=1)
    assert lived.keys() == {piece.name for piece in pieces}
    assert all(len(cores) == 1 for cores in lived.values())


def test_no_piece_begins_when_the_time_is_over(results, monkeypatch):
    monkeypatch.setattr(results, "live", lambda piece, seconds: pytest.fail("began"))
    assert results.live_all(list(results.STUDIES[0].pieces()), minutes=-1) == 15


def test_a_piece_that_is_not_done_in_time_is_stopped_and_leaves_nothing(
    results, tmp_path, monkeypatch
):
    (tmp_path / "endless.py").write_text(
        "import pathlib, signal, sys, time\n"
        "def stop(*_):\n    pathlib.Path('asked').touch()\n    sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, stop)\ntime.sleep(60)\n"
    )
    for name in ("ROOT", "RUNS", "RESULTS"):
        monkeypatch.setattr(results, name, tmp_path)
    monkeypatch.setattr(results, "command_of", lambda piece, curriculum: ["endless", "piece.yaml"])
    piece = next(results.STUDIES[0].pieces())
    assert results.live(piece, seconds=4) is False
    assert (tmp_path / "asked").exists()
    assert not results.file_of(piece, tmp_path).exists()
