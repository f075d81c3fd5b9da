"""Lives that go on from another's past: the same if nothing is changed, and never at its cost."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from agent.agent import make_agent
from agent.grafting import graft
from continual import run
from continual.ancestry import inherited, parse_origin
from continual.checkpoint import find_checkpoint, flatten
from continual.config import resolve_config
from continual.envs.interface import union
from continual.envs.registry import interface_of
from continual.errors import UserError
from continual.fingerprint import fingerprint
from continual.strict_yaml import dump
from eval.run_folder import load_run

pytestmark = pytest.mark.usefixtures("one_compilation")

LIFE = """
description: Three toys.
scale: smoke
phases:
  - {task: toy/reach, steps: 100}
  - {task: toy/match, steps: 60}
"""
LONGER = LIFE + "  - {task: toy/picture, steps: 60}\n"
OTHER = LIFE.replace("toy/match, steps: 60", "toy/match, steps: 80")
SMALL = [
    "collect.start=80",
    "replay.length=8",
    "checkpoint.every=50",
    "evaluate.inside_every=1",
    "evaluate.episodes=1",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, one_compilation):
    """Where a run called `old` was lived to its end, with settings of its own."""
    folder = tmp_path_factory.mktemp("branches")
    for name, text in {"life": LIFE, "longer": LONGER, "other": OTHER}.items():
        (folder / f"{name}.yaml").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run.main(["life.yaml", "name=old", "agent.riders.awac.beta=0.7", *SMALL]) == 0
    return folder


@pytest.fixture(autouse=True)
def there(folder, monkeypatch):
    monkeypatch.chdir(folder)


def live(*arguments):
    return run.main(list(arguments))


def hash_of(path: Path) -> str:
    total = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        total.update(f"{file.relative_to(path)} {file.stat().st_mtime_ns}".encode())
        total.update(file.read_bytes())
    return total.hexdigest()


def refused(*arguments) -> str:
    with pytest.raises(UserError) as error:
        live(*arguments)
    return str(error.value)


@pytest.mark.parametrize("phase", [1, 2])
def test_a_branch_with_nothing_changed_is_the_run_itself_bit_for_bit(folder, phase):
    before = hash_of(folder / "runs" / "old")
    assert live("life.yaml", f"from=runs/old@phase{phase}", f"name=same{phase}") == 0
    ours, old = (fingerprint(folder / "runs" / name) for name in (f"same{phase}", "old"))
    assert ours == old
    assert hash_of(folder / "runs" / "old") == before


def test_a_life_is_extended_from_its_end_by_a_world_that_was_not_there(folder, capsys):
    before = hash_of(folder / "runs" / "old")
    assert live("longer.yaml", "from=runs/old") == 0
    name = "longer-smoke-gated-s0-from-end"
    assert "is a branch of old" in capsys.readouterr().out
    new = load_run(folder / "runs" / name)
    assert [p.task for p in new.phases] == ["toy/reach", "toy/match", "toy/picture"]
    assert not new.unfinished
    old = load_run(folder / "runs" / "old")
    assert list(new.episodes[: len(old.episodes)]) == list(old.episodes)
    # What was not known before is judged when it comes to be, which is not before training.
    first = [e for e in new.episodes if e.task == "toy/picture" and e.env_steps == 160]
    found = {(e.policy, e.when, e.phase, e.phase_step) for e in first}
    learnt = {(p, "end", 2, 60) for p in ("gated", "dreamer_actor", "awac_actor")}
    assert found == {("random", "before", 0, 0), *learnt}
    saved = find_checkpoint(folder / "runs" / name / "checkpoints")
    arrays = load_file(saved.path / "agent.safetensors")
    assert arrays["learner/optimiser/count/slot:image"] > 0
    assert hash_of(folder / "runs" / "old") == before


def test_variants_are_branched_from_one_past(folder):
    assert live("life.yaml", "from=runs/old@phase1", "variant=dreamer", "name=plain") == 0
    episodes = load_run(folder / "runs" / "plain").episodes
    assert {e.policy for e in episodes if e.phase == 1 and e.split == "train"} == {"gated"}
    lived = {e.policy for e in episodes if e.phase == 2 and e.split == "train"}
    assert lived == {"dreamer_actor"}


def test_a_branch_of_a_branch_keeps_its_ancestry_and_needs_nobody(folder):
    shutil.copytree("runs/old", "runs/mother")
    assert live("life.yaml", "from=runs/mother@phase1", "name=child") == 0
    assert live("life.yaml", "from=runs/child@phase1", "name=grandchild") == 0
    kept = json.loads(Path("runs/grandchild/ancestry.json").read_text())
    assert [entry["origin"] for entry in kept] == ["mother@phase1", "child@phase1"]
    assert {entry["env_steps"] for entry in kept} == {100}
    shutil.rmtree("runs/mother")
    shutil.rmtree("runs/child")
    assert fingerprint(folder / "runs" / "grandchild") == fingerprint(folder / "runs" / "old")


def test_a_branch_that_was_cut_short_is_made_again(folder, monkeypatch):
    class Killed(BaseException):
        pass

    def killed(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("continual.opening.create_run", killed)
        with pytest.raises(Killed):
            live("life.yaml", "from=runs/old@phase1", "name=again")
    assert not Path("runs/again").exists()
    assert live("life.yaml", "from=runs/old@phase1", "name=again") == 0
    assert fingerprint(folder / "runs" / "again") == fingerprint(folder / "runs" / "old")
    assert not list(Path("runs").glob("*.partial"))


def test_without_kept_replays_a_life_can_still_be_extended(folder):
    shutil.copytree("runs/old", "runs/lean")
    for kept in Path("runs/lean/checkpoints").glob("*/replay"):
        shutil.rmtree(kept)
    assert "keep_replays=false" in refused("life.yaml", "from=runs/lean@phase1", "name=a")
    assert live("life.yaml", "from=runs/lean@phase2", "name=b") == 0
    assert fingerprint(folder / "runs" / "b") == fingerprint(folder / "runs" / "old")


def test_what_contradicts_the_past_is_refused_before_anything_is_made(folder):
    said = refused("other.yaml", "from=runs/old@phase2", "name=bad")
    assert "phase 2 is toy/match for 80 steps in cycle 1, expected what old@phase2 lived" in said
    said = refused("life.yaml", "from=runs/old@phase1", "name=bad", "agent.model.units=64")
    assert "agent.model.units: 32 there, 64 here" in said
    said = refused("life.yaml", "from=runs/old@phase1", "name=bad", "replay.capacity=1000")
    assert "replay.capacity: 2000 there, 1000 here" in said
    assert "no checkpoint of phase 7" in refused("life.yaml", "from=runs/old@phase7", "name=bad")
    assert "expected runs/NAME" in refused("life.yaml", "from=runs/old@2", "name=bad")
    assert "no run of ours" in refused("life.yaml", "from=runs/odl", "name=bad")
    assert not list(Path("runs").glob("bad*"))
    assert "came from no other run" in refused("life.yaml", "from=runs/old@phase1", "name=old")


def test_the_curriculum_may_change_where_it_was_not_lived_yet():
    assert live("other.yaml", "from=runs/old@phase1", "name=other") == 0
    assert [p.env_steps for p in load_run(Path("runs/other")).phases] == [(0, 100), (100, 180)]


def test_a_branch_is_what_its_origin_was_but_for_what_is_said():
    origin = parse_origin("runs/old@phase1")
    plain = inherited(origin, {})
    assert plain["agent.riders.awac.beta"] == 0.7
    assert (plain["scale"], plain["variant"]) == ("smoke", "gated")
    kept = resolve_config(plain, "laptop")
    assert kept.collect.start == 80
    assert inherited(origin, {"collect.start": 90})["collect.start"] == 90
    # What the origin had set of its riders means nothing to a variant without them.
    other = inherited(origin, {"variant": "dreamer"})
    assert "agent.riders.awac.beta" not in other
    assert resolve_config(other, "laptop").agent.riders == {}


def test_a_branch_inherits_what_its_origin_had_taken_out_of_a_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    changed = {"scale": "laptop", "collect.train_ratio": 32, "collect.budgets": {"toy": 60}}
    config = resolve_config(changed, "laptop")
    assert config.collect.train_ratio == {"default": 32}
    folder = Path("runs/odd")
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(dump(config.model_dump(mode="json", by_alias=True)))
    assert resolve_config(inherited(parse_origin("runs/odd"), {}), "smoke") == config


def agent_of(*tasks, variant="gated"):
    config = resolve_config({"variant": variant}, "smoke").agent
    return make_agent(config, union({task: interface_of(task) for task in tasks}))


def test_what_both_agents_have_keeps_its_bits_and_the_rest_is_born():
    old = agent_of("toy/reach", "toy/match")
    rng = np.random.default_rng(0)
    learnt = {
        name: rng.integers(1, 100, leaf.shape).astype(leaf.dtype)
        for name, leaf in flatten(old.init(jax.random.key(1))).items()
    }
    # The order of interfaces is another, and one of them is new.
    new = agent_of("toy/picture", "toy/match", "toy/reach")
    found = flatten(graft(new, jax.random.key(2), old.model, learnt))
    born = flatten(new.init(jax.random.key(2)))
    by_interface = {n for n in found if n.endswith(("/low", "/high", "/value", "/is_set"))}
    assert by_interface
    for name, leaf in found.items():
        if name in by_interface:
            match, reach = learnt[name][1], learnt[name][0]
            np.testing.assert_array_equal(leaf, [born[name][0], match, reach], err_msg=name)
        else:
            np.testing.assert_array_equal(leaf, learnt.get(name, born[name]), err_msg=name)
    assert found["learner/optimiser/count/slot:image"] == 0
    assert any(name not in learnt for name in found)


def test_a_rider_that_joins_later_begins_from_the_actor_that_was_learnt():
    old = agent_of("toy/reach", variant="dreamer")
    learnt = flatten(old.init(jax.random.key(1)))
    config = resolve_config({"agent.riders.slow": {"kind": "ema"}}, "smoke").agent
    new = make_agent(config, union({"toy/reach": interface_of("toy/reach")}))
    state = graft(new, jax.random.key(2), old.model, learnt)
    for name, leaf in flatten(state.riders["slow"].params).items():
        np.testing.assert_array_equal(leaf, learnt[f"learner/params/pol/{name}"])
