"""What the doctor says of a machine, and of one on which something is wrong."""

from __future__ import annotations

import numpy as np
import pytest

from continual import doctor
from continual.envs.toy import ToyWorld
from continual.errors import UserError


def test_what_fails_is_named_and_the_rest_is_tried_all_the_same(tmp_path, monkeypatch, capsys):
    def broken(folder):
        (folder / "left").write_text("behind")
        raise OSError("the needle is bent")

    checks = {"needle": broken, "disk": doctor.check_disk}
    monkeypatch.setattr(doctor, "CHECKS", checks)
    assert doctor.main([str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "FAILED  needle: OSError: the needle is bent (0 s)" in said
    assert "ok      disk: " in said
    assert "jax runs on" in said
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_said_in_one_line(tmp_path):
    with pytest.raises(UserError, match="none: expected a folder that is there"):
        doctor.main([str(tmp_path / "none")])


def test_a_world_that_is_not_the_same_twice_is_found(tmp_path, monkeypatch):
    observe, rng = ToyWorld._observe, np.random.default_rng(0)
    monkeypatch.setattr(
        ToyWorld,
        "_observe",
        lambda self: {n: v + rng.normal(size=v.shape) for n, v in observe(self).items()},
    )
    with pytest.raises(UserError, match="toy/reach: the same seed and actions gave other"):
        doctor.check_worlds(tmp_path)


@pytest.mark.slow
def test_a_life_works_here(tmp_path):
    assert "10 updates, the replay brought back" in doctor.check_life(tmp_path)
