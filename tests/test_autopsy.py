"""Where was it lost? What an autopsy measures, what it leaves alone, and whom it tells apart."""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
import shutil
from dataclasses import replace

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from agent.learner import init_learner, make_update, update_key
from agent.model import make_model
from agent.owners import path_names
from agent.recovery import HEADS, heads_of, make_recovery, transplant, with_heads
from continual import autopsy, countdown, run
from continual.checkpoint import AGENT, find_checkpoint, flatten
from continual.collect import batch_schema
from continual.countdown import Countdown
from continual.envs.interface import union
from continual.envs.toy import optimal_return
from continual.errors import UserError
from continual.trained import life_at, load_trained
from eval import wording
from eval.autopsy import load_autopsy, where_lost
from eval.matrix import cell
from eval.page import write_report
from eval.run_folder import load_run
from storage.sampling import OneTask, make_runs
from tests.agent_cases import CUP, WALKER, random_batch, tiny
from tests.test_learning import EAGER, MARGIN
from tests.test_report import Page

MODEL = ("con", "dec", "dyn", "enc", "rew")
BOTH = union({"cup": CUP, "walker": WALKER})
CUP_TASK = 0


def leaves(tree):
    return {
        "/".join(path_names(path)): np.array(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def moved(old, new):
    """Names of the leaves that are not the same bit for bit."""
    old, new = leaves(old), leaves(new)
    assert old.keys() == new.keys()
    return {name for name in old if not np.array_equal(old[name], new[name])}


# The update


@pytest.fixture(scope="module")
def config():
    return tiny(loss={"replay_value": 0.0})


@pytest.fixture(scope="module")
def model(config):
    return make_model(config.model, BOTH)


@pytest.fixture(scope="module")
def begun(model):
    """A learner that expects something, whose every owner has had ten updates."""
    state, rng = init_learner(model, jax.random.key(0)), np.random.default_rng(1)
    params = jax.tree.map(
        lambda leaf: leaf + rng.normal(0, 0.1, leaf.shape).astype(np.float32), state.params
    )
    count = {owner: n + 10 for owner, n in state.optimiser.count.items()}
    return replace(state, params=params, optimiser=replace(state.optimiser, count=count))


@pytest.fixture(scope="module")
def recovered(model, config, begun):
    batch = random_batch(np.random.default_rng(0), config, [CUP_TASK] * 2, BOTH)
    return make_recovery(model, config)(begun, batch, update_key(0, 0))


def test_recovery_moves_actor_critic_and_what_goes_with_them_and_nothing_else(begun, recovered):
    after, latents, _ = recovered
    assert latents["latent.deter"].shape == (2, 5, 16)
    found = moved(begun, after)
    parts = {re.sub(r"^(params|optimiser/[a-z]+)/(\w+).*", r"\1/\2", name) for name in found}
    parts = {name.split("/")[0] if name[:5] in ("slow/", "scale") else name for name in parts}
    counts = {"optimiser/count/shared", "optimiser/count/head"}
    moments = {f"optimiser/{kind}/{part}" for kind in ("mu", "nu") for part in HEADS}
    assert parts == {"params/pol", "params/val", "slow", "scale", *counts, *moments}
    others = [name for name in found if "head:" in name and "head:dmc.ball_in_cup" not in name]
    assert not others
    assert set(np.flatnonzero(after.scale.high != begun.scale.high)) == {CUP_TASK}


def test_recovery_moves_actor_and_critic_as_an_update_of_a_life_does(
    model, config, begun, recovered
):
    """Without `replay_value`, which alone teaches the critic besides, up to rounding."""
    batch = random_batch(np.random.default_rng(0), config, [CUP_TASK] * 2, BOTH)
    lived, _, metrics = make_update(model, config)(
        jax.tree.map(np.array, begun), batch, update_key(0, 0)
    )
    after, _, means = recovered
    ours, theirs = leaves(heads_of(after)), leaves(heads_of(lived))
    assert ours.keys() == theirs.keys()
    for name, leaf in ours.items():
        np.testing.assert_allclose(leaf, theirs[name], rtol=1e-4, atol=1e-6, err_msg=name)
    for name, mean in means.means.items():
        np.testing.assert_allclose(mean, metrics.means[name], rtol=1e-5, err_msg=name)


def test_a_transplant_takes_the_world_model_of_one_and_the_heads_of_another(begun):
    one, other = begun, jax.tree.map(lambda leaf: leaf + 1, begun)
    found = leaves(transplant(one.params, other.params))
    for name, leaf in found.items():
        giver = other if name.split("/")[0] in HEADS else one
        np.testing.assert_array_equal(leaf, leaves(giver.params)[name], err_msg=name)
    assert {name.split("/")[0] for name in found} == {*HEADS, *MODEL}
    assert not moved(with_heads(one, heads_of(other)).params, transplant(one.params, other.params))


# What is made of numbers


def test_a_loss_is_parted_by_hand():
    own, final = cell([10.0, 12.0]), cell([1.0, 3.0])
    loss = where_lost(own, final, cell([8.0, 9.0]))
    assert (loss.lost, loss.by_policy, loss.by_model) == (9.0, 6.5, 2.5)
    assert loss.policy_share == pytest.approx(6.5 / 9)
    assert loss.model_share == pytest.approx(2.5 / 9)
    # 9 is not above twice the standard error of a difference of such spread.
    loss = where_lost(cell([2.0, 20.0]), final, cell([8.0, 9.0]))
    assert (loss.lost, loss.by_policy) == (9.0, 6.5)
    assert math.isnan(loss.policy_share)
    assert math.isnan(loss.model_share)
    assert loss.reason == "nothing was lost beyond chance"
    assert where_lost(own, final, cell([])).reason == "not recovered"
    assert where_lost(cell([]), final, own).reason == "not judged at both ends"


def test_one_task_alone_is_drawn_and_every_start_of_it():
    runs = make_runs([(s, np.zeros(1, int), 12) for s in range(3)])
    rng, tasks = np.random.default_rng(0), [1, 0, 1]
    where = OneTask(1).draw(rng, runs, tasks, 500, 8)
    assert {*zip(where.stream.tolist(), where.row.tolist(), strict=True)} == {
        (s, row) for s in (0, 2) for row in range(1, 5)
    }
    with pytest.raises(ValueError, match="no world holds 9 rows of the task"):
        OneTask(2).draw(rng, runs, tasks, 4, 8)


def test_a_file_is_told_every_half_minute_how_long_it_will_take(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(countdown.time, "monotonic", lambda: now[0])
    out = io.StringIO()
    with Countdown({"updates": 50, "judgements": 2}, out) as shown:
        shown.begin("looking")
        for _ in range(50):
            now[0] += 1
            shown.done("updates")
        for _ in range(2):
            now[0] += 40
            shown.done("judgements")
    first, second, third = out.getvalue().splitlines()
    assert first == "looking | 30 of 50 updates | 0 of 2 judgements"
    assert second == "looking | 50 of 50 updates | 1 of 2 judgements"
    assert third == "looking | 50 of 50 updates | 2 of 2 judgements | about 0 s left"


# A run, too short to learn anything in


LIFE = """
description: Two toys.
scale: smoke
phases:
  - {task: toy/reach, steps: 100}
  - {task: toy/match, steps: 60}
"""
SMALL = [
    "variant=dreamer",
    "collect.start=80",
    "replay.length=8",
    "checkpoint.every=50",
    "evaluate.inside_every=1",
]
QUICK = ["updates=3", "episodes=2"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, one_compilation):
    folder = tmp_path_factory.mktemp("autopsies")
    (folder / "life.yaml").write_text(LIFE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run.main(["life.yaml", "name=done", *SMALL]) == 0
    return folder / "runs" / "done"


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "done")


def files(folder):
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def test_an_autopsy_adds_its_file_and_a_table_in_the_report_and_changes_nothing(copy, capsys):
    before = files(copy)
    assert autopsy.main([str(copy), *QUICK]) == 0
    line, last = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"toy/reach: \S+ at the end of phase 1, \S+ now, \S+ recovered: .*", line)
    assert last == f"the report: {copy / 'report' / 'index.html'}"
    after = files(copy)
    assert {name for name in after if after[name] != before.get(name)} == {
        "autopsy.json",
        "report/index.html",
    }
    page = Page((copy / "report" / "index.html").read_text(encoding="utf-8")).text
    assert "Where was it lost?" in page
    assert "3 updates in dreams" in page
    assert "R_recovered - R_final" in page
    found = load_autopsy(copy)
    (reach,) = found.tasks
    assert wording.number(reach.loss.lost) in page
    # The life itself was judged so.
    lived = {
        e.phase: [r.return_ for r in load_run(copy).episodes if judged_alike(r, e.phase)]
        for e in load_run(copy).episodes
        if e.when == "end"
    }
    assert lived == {1: list(reach.own.returns), 2: list(reach.final.returns)}
    assert [(t.world_model, t.heads) for t in reach.transplants] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert all(len(t.returns) == 2 for t in reach.transplants)
    assert (reach.own_phase, reach.replay_phase, len(reach.recovered.returns)) == (1, 1, 2)

    content = json.loads((copy / "autopsy.json").read_text())
    assert content["schema"] == 1
    assert content["definitions"]["lost"] == "R_own - R_final"
    assert content["episode_seeds"] == [0, 1]
    saved = find_checkpoint(copy / "checkpoints", 1)
    assert content["agents"][0]["checkpoint"] == saved.path.name
    assert content["agents"][0]["agent_sha256"] == saved.manifest["sha256"][AGENT]
    loss = content["tasks"][0]["loss"]
    assert loss["lost"] == pytest.approx(np.mean(reach.own.returns) - np.mean(reach.final.returns))
    # Again, the very same.
    text = (copy / "autopsy.json").read_bytes()
    assert autopsy.main([str(copy), "tasks=toy/reach", *QUICK]) == 0
    assert (copy / "autopsy.json").read_bytes() == text


def judged_alike(record, phase):
    asked = ("end", phase, "toy/reach", "dreamer_actor", "mode")
    return asked == (record.when, record.phase, record.task, record.policy, record.action_mode)


def test_without_a_kept_replay_dreams_start_from_what_the_newest_still_holds(copy):
    for kept in (copy / "checkpoints").glob("*/replay"):
        shutil.rmtree(kept)
    assert autopsy.main([str(copy), *QUICK]) == 0
    (reach,) = load_autopsy(copy).tasks
    assert reach.replay_phase == 2
    assert len(reach.recovered.returns) == 2


def test_what_is_missing_is_said_and_the_rest_is_measured(copy):
    gone = find_checkpoint(copy / "checkpoints", 1).path
    shutil.rmtree(gone)
    for older in (copy / "checkpoints").glob("*-p1-*"):
        shutil.rmtree(older)
    for newer in (copy / "checkpoints").glob("*-p2-*"):
        shutil.rmtree(newer)
    assert autopsy.main([str(copy), *QUICK]) == 0
    (reach,) = load_autopsy(copy).tasks
    assert "no checkpoint of phase 1" in reach.own.reason
    assert [bool(t.returns) for t in reach.transplants] == [False, False, False, True]
    assert len(reach.final.returns) == len(reach.recovered.returns) == 2
    loss = json.loads((copy / "autopsy.json").read_text())["tasks"][0]["loss"]
    assert loss["policy_share"] is None
    assert "no checkpoint of phase 1" in loss["reason"]
    page = Page((copy / "report" / "index.html").read_text(encoding="utf-8")).text
    assert "No agent of the end of phase 1" in page
    assert not re.search(r"\bnan\b", page, re.IGNORECASE)


def test_batches_of_a_past_life_can_be_of_one_task_alone(finished, tmp_path):
    tasks = set()
    for only in ("toy/reach", "toy/match"):
        life = life_at(finished, scratch=tmp_path, only=only)
        schema = batch_schema(life.agent.union)
        batch = life.replay.sample(np.random.default_rng(0), 16, 8, schema)
        tasks.add((only, *{life.tasks[t] for t in batch.task}))
        life.close()
    assert tasks == {("toy/reach", "toy/reach"), ("toy/match", "toy/match")}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tasks=toy/match"], "'toy/match' was not trained in a phase before the last"),
        (["tasks=[toy/raech]"], "did you mean 'toy/reach'"),
        (["update=3"], "did you mean 'updates'"),
        (["updates=0"], "updates=0: expected more than 0"),
        (["--fast"], "unknown flag"),
        (["more"], "expected one run"),
    ],
)
def test_what_cannot_be_looked_at_is_refused(finished, arguments, said):
    before = files(finished)
    with pytest.raises(UserError, match=re.escape(said)):
        autopsy.main([str(finished), *arguments])
    assert files(finished) == before


def test_a_life_with_nothing_to_lose_is_refused(copy):
    for path in (copy / "checkpoints").glob("*-p3-*"):
        shutil.rmtree(path)
    with pytest.raises(UserError, match="phase 1 is the newest that has ended"):
        autopsy.main([str(copy), *QUICK])
    for path in (copy / "checkpoints").glob("*-p2-*"):
        shutil.rmtree(path)
    with pytest.raises(UserError, match="no phase of it has ended yet"):
        autopsy.main([str(copy), *QUICK])


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": 7}', '{"schema": 1, "run": "a"}'])
def test_a_file_that_is_no_autopsy_is_refused_with_a_remedy(copy, text):
    (copy / "autopsy.json").write_text(text)
    with pytest.raises(UserError, match=r"autopsy\.json: .*python -m continual\.autopsy .* anew"):
        write_report(copy)


# A run that has learnt


def damage(path, parts):
    """Put parts of a newborn agent into the newest checkpoint."""
    trained = load_trained(path)
    born = flatten(trained.agent.init(jax.random.key(99)))
    folder = find_checkpoint(path / "checkpoints").path
    arrays = load_file(folder / AGENT)
    for name in arrays:
        if name.startswith(tuple(f"learner/params/{part}/" for part in parts)):
            arrays[name] = born[name]
    save_file(arrays, folder / AGENT)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["sha256"][AGENT] = hashlib.sha256((folder / AGENT).read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    """A life that has learnt to match, and then reached for a short while."""
    folder = tmp_path_factory.mktemp("learnt")
    phases = ["  - {task: toy/match, steps: 6000}\n", "  - {task: toy/reach, steps: 400}\n"]
    (folder / "two.yaml").write_text("description: Two toys.\nphases:\n" + "".join(phases))
    budgets = "collect.budgets={toy/match: 6000, toy/reach: 400}"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run.main(["two.yaml", "name=two", "variant=dreamer", budgets, *EAGER]) == 0
    return folder / "runs" / "two"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parts", "policy_share"), [(("pol",), 1.0), (MODEL, 0.0), (("enc",), 0.0)]
)
def test_a_damaged_policy_and_a_damaged_model_are_told_apart(learnt, tmp_path, parts, policy_share):
    path = shutil.copytree(learnt, tmp_path / "two")
    damage(path, parts)
    assert autopsy.main([str(path), "updates=500", "episodes=10"]) == 0
    (task,) = load_autopsy(path).tasks
    assert task.own.cell.mean >= MARGIN * optimal_return("match")
    assert task.final.cell.mean <= 0.6 * optimal_return("match")
    assert not task.why
    assert task.loss.policy_share == pytest.approx(policy_share, abs=0.25)
    assert task.loss.model_share == pytest.approx(1 - policy_share, abs=0.25)
