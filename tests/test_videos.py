"""Films that a life keeps of itself, and that change nothing of it."""

from __future__ import annotations

import sys

import av
import pytest

from continual import run
from continual.errors import UserError
from continual.fingerprint import fingerprint

pytestmark = pytest.mark.usefixtures("one_compilation")

LIFE = """
description: Toys without looks, one with, and one without again.
scale: smoke
phases:
  - {task: toy/reach, steps: 20}
  - {task: toy/match, steps: 20}
  - {task: toy/picture, steps: 40}
  - {task: toy/reach, steps: 20}
"""
SMALL = ["collect.start=60", "replay.length=8", "evaluate.inside_every=1", "evaluate.episodes=1"]


def test_a_filmed_life_is_the_life_that_was_not_filmed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "life.yaml").write_text(LIFE)
    monkeypatch.setenv("MUJOCO_GL", "disable")
    assert run.main(["life.yaml", "name=plain", *SMALL]) == 0
    assert run.main(["life.yaml", "name=filmed", "video=true", *SMALL]) == 0
    plain, filmed = tmp_path / "runs" / "plain", tmp_path / "runs" / "filmed"
    assert fingerprint(filmed) == fingerprint(plain)
    # What has no looks is not filmed; what was trained before is, again.
    films = sorted(path.name for path in (filmed / "videos").iterdir())
    assert films == ["phase0003-toy_picture.mp4", "phase0004-toy_picture.mp4"]
    with av.open(str(filmed / "videos" / films[0])) as film:
        assert sum(1 for _ in film.decode(video=0)) == 20
    page = (filmed / "report" / "index.html").read_text()
    assert "../videos/phase0004-toy_picture.mp4" in page
    assert not (plain / "videos").exists()


def test_what_cannot_be_filmed_is_said_at_the_start(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "life.yaml").write_text(LIFE)
    with pytest.raises(UserError, match="expected true or false"):
        run.main(["life.yaml", "video=out.mp4"])
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match="needs the package av"):
        run.main(["life.yaml", "video=true"])
    assert not (tmp_path / "runs").exists()
