"""Several lives side by side: who is in which group, what is said of few, and of enough."""

from __future__ import annotations

import csv
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from continual.errors import UserError
from eval import compare
from eval.compare_page import answer, render, to_csv, to_json, to_latex, write_comparison
from eval.comparison import HEADLINES, Life, compare_lives
from eval.comparison import compare as compare_runs
from eval.findings import find
from eval.gate_sums import GATE_SUMS
from eval.judged import Metric
from eval.run_folder import KeptPhase, load_run
from tests.synthetic_run import CRAFTER, CUP, WALKER, SyntheticRun
from tests.test_report import Page

PLAIN = {"variant": "dreamer"}


def runs(folder: Path, count: int, plan=(CUP, CRAFTER), **groups) -> list[Path]:
    """`count` lives of each group; name -> top-level settings."""
    found = []
    for g, (name, settings) in enumerate(groups.items()):
        for seed in range(count):
            path = folder / f"{name}-s{seed}"
            policies = ("dreamer_actor",) if settings.get("variant") == "dreamer" else ("gated",)
            run = SyntheticRun(
                path, plan=plan, policies=policies, settings=settings | {"seed": seed}, episodes=2
            )
            run.rng = np.random.default_rng([g, seed])
            found.append(run.write())
    return found


@pytest.fixture(scope="module")
def few(tmp_path_factory) -> list[Path]:
    return runs(tmp_path_factory.mktemp("few"), 3, gated={}, dreamer=PLAIN)


def life(label: str, seed: int, performance: float, forgetting: float, **fields) -> Life:
    """Of two phases and tasks; `label` is a setting of its own."""
    values = dict(zip(HEADLINES, (performance, forgetting), strict=True)) | {"recovery": 0.5}
    made = {
        "name": f"{label}-s{seed}",
        "seed": str(seed),
        "variant": "gated",
        "headline": "gated",
        "settings": {"kind": label},
        "plan": (KeptPhase(task=CUP, steps=9, cycle=1), KeptPhase(task=CRAFTER, steps=9, cycle=1)),
        "tasks": (CUP, CRAFTER),
        "unfinished": "",
        "last": 2,
        "metrics": {n: Metric(n, v, "a formula", "a source") for n, v in values.items()},
        "returns": np.zeros((3, 2)),
        "normalised": np.zeros((3, 2)),
        "average": np.zeros(3),
        "gate": {name: np.full(2, seed / 10) for name in GATE_SUMS},
        "areas": np.full(2, math.nan),
        "reference_areas": np.full(2, math.nan),
        "crafter": {CRAFTER: 2.0 + seed},
        "versions": {},
        "command": "python -m continual.run life.yaml",
    }
    return Life(**made | fields)


def lives_of(label: str, seeds, performance: float, **fields) -> list[Life]:
    """That differ a little from seed to seed."""
    return [life(label, s, performance + s / 1000, 0.1 + s / 1000, **fields) for s in seeds]


def test_eight_pairs_that_all_differ_alike_are_told_from_chance():
    found = compare_lives(lives_of("a", range(8), 0.1) + lives_of("b", range(8), 0.9))
    *_, verdict = answer(found)
    # 2 / 2^8, twice for the two headlines; other measures do not count.
    assert "average performance of gated, kind=b by 0.800 (p = 0.016)" in verdict
    assert "forgetting" not in verdict
    many = [one for label in "abcdefg" for one in lives_of(label, range(8), 0.5)]
    *_, verdict = answer(compare_lives(many))
    assert "With 8 pairs and 12 tests no difference could have been told from chance" in verdict


def test_a_number_says_of_how_many_lives_it_is():
    ours, theirs = lives_of("a", range(9), 0.1), lives_of("b", range(9), 0.9)
    theirs[3] = life("b", 3, math.nan, 0.2)
    found = compare_lives(ours + theirs)
    first, *_ = answer(found)
    assert "0.904 for gated, kind=b (8 of 9 lives)" in first
    assert "8 of 9 lives" in Page(render(found)).text
    (difference,) = [d for d in found.differences if d.metric == HEADLINES[0]]
    assert (len(difference.seeds), difference.undefined) == (8, ("3",))
    assert difference.p == pytest.approx(2 * 2 / 256)
    assert "undefined for seed 3" in Page(render(found)).text


def test_lives_without_a_twin_of_their_seed_are_not_called_few():
    found = compare_lives(lives_of("a", range(8), 0.1) + lives_of("b", range(8, 16), 0.9))
    *_, verdict = answer(found)
    assert verdict.startswith("Differences are not tested: 0 of the pairs with equal seeds")


def test_the_verdict_on_a_life_in_progress_is_of_the_phases_that_were_judged():
    both = [life(label, 0, 0.5, 0.1, last=1, unfinished="phase 2 of 2") for label in "ab"]
    assert "after 1 phase, " in next(answer(compare_lives(both)))
    with pytest.raises(
        UserError, match="a-s0 has been judged after phase 2, and b-s0 after phase 1"
    ):
        compare_lives([both[1], life("a", 0, 0.5, 0.1)])


def test_transfer_over_lives_averages_areas_before_the_ratio():
    areas = [(0.2, 0.1), (0.8, 0.7)]  # of two lives: own, and the task alone
    lives = [
        life(
            "a",
            s,
            0.5,
            0.1,
            areas=np.array([own, math.nan]),
            reference_areas=np.array([ref, math.nan]),
        )
        for s, (own, ref) in enumerate(areas)
    ]
    found = compare_lives([*lives, life("b", 0, 0.5, 0.1)])
    # (0.5 - 0.4) / (1 - 0.4), where the mean of both lives' ratios is 0.222.
    np.testing.assert_allclose(found.groups[0].single_task_transfer(), [1 / 6, math.nan])
    assert np.isnan(found.groups[1].single_task_transfer()).all()
    text = Page(render(found)).text
    assert "0.167" in text
    assert "0.600" in text
    numbers = to_json(found)["groups"][0]
    assert numbers["single_task_transfer"] == [pytest.approx(1 / 6), None]
    assert numbers["lives"][1]["reference_areas"] == [0.7, None]


def test_the_pooled_iqm_is_rliables_and_named_so():
    z = np.arange(16).reshape(8, 2) / 16
    lives = [life("a", s, 0.5, 0.1, normalised=np.stack([z[s]] * 3)) for s in range(8)]
    few = [life("b", s, 0.5, 0.1, normalised=np.full((3, 2), [0.5, math.nan])) for s in range(2)]
    found = compare_lives(lives + few)
    ours, theirs = found.pooled
    assert ours.value == pytest.approx(np.arange(4, 12).mean() / 16)
    assert ours.low < ours.value < ours.high
    assert (theirs.tasks, theirs.value) == (1, 0.5)
    assert math.isnan(theirs.low)
    text = " ".join(Page(render(found)).text.split())
    assert "IQM of z over lives and tasks, rliable" in text
    assert "of 1 task" in text
    assert to_json(found)["groups"][1]["pooled"]["low"] is None


def test_crafters_score_over_lives_has_the_population_deviation():
    found = compare_lives([life("a", s, 0.5, 0.1) for s in range(3)])
    text = " ".join(Page(render(found)).text.split())
    # 2, 3 and 4 percent.
    assert "3.000 ± 0.816" in text
    assert to_json(found)["groups"][0]["lives"][2]["crafter_scores"] == {CRAFTER: 4.0}


def test_random_gates_with_the_rates_of_their_seeds_are_one_group(tmp_path):
    def gate(seed: int) -> dict[str, object]:
        rates = {CUP: seed / 10}
        return {"agent": {"gate": {"kind": "random", "recorded": f"g-s{seed}", "by_task": rates}}}

    paths = [
        SyntheticRun(tmp_path / f"c-s{s}", plan=(CUP,), settings={"seed": s, **gate(s)}).write()
        for s in range(2)
    ]
    (group,) = compare_runs(paths).groups
    assert len(group.lives) == 2


def test_lives_of_other_lengths_and_branches_are_other_groups(tmp_path):
    paths = runs(tmp_path, 1, a={}, b={}, c={})
    for path, steps in zip(paths, (50_000, 60_000, 50_000), strict=True):
        curriculum = path / "curriculum.yaml"
        curriculum.write_text(curriculum.read_text().replace("50000", str(steps)))
    (paths[2] / "ancestry.json").write_text('[{"origin": "old@phase1", "env_steps": 50000}]')
    first, longer, branch = compare_runs(paths).groups
    assert [len(g.lives) for g in (first, longer, branch)] == [1, 1, 1]
    assert "steps=60,000 + 60,000" in longer.label
    assert "branched_at=50,000" in branch.label


def test_runs_that_differ_in_their_seed_alone_make_a_group(few):
    found = compare_runs(few[::-1])
    assert [group.label for group in found.groups] == ["dreamer", "gated"]
    assert [life.seed for life in found.groups[0].lives] == ["0", "1", "2"]
    mean = found.groups[1].mean("returns")
    each = [find(load_run(path)).returns for path in few[:3]]
    np.testing.assert_allclose(mean, np.mean(each, axis=0))


def test_groups_of_one_variant_are_told_apart_by_what_differs(tmp_path):
    paths = runs(tmp_path, 1, a={}, b={"agent": {"gate": {"alpha": 20}}}, c={"log": {"every": 5}})
    with pytest.raises(UserError, match="are the same life: settings and seed are equal"):
        compare_runs(paths)  # how often something is written changes no life
    found = compare_runs(paths[:2])
    assert [group.label for group in found.groups] == ["gated, alpha=none", "gated, alpha=20"]


def test_a_few_lives_are_shown_as_points_and_nothing_is_concluded(few):
    found = compare_runs(few)
    for summaries in found.summaries.values():
        assert all(s.mean is None and s.iqm is None for s in summaries)
    assert all(math.isnan(d.p) for d in found.differences)
    *_, verdict = answer(found)
    assert "3 lives in the smallest group these are points" in verdict


def test_the_answer_has_three_sentences_also_where_a_task_came_back(few, tmp_path):
    plain = list(answer(compare_runs(few)))
    back = runs(tmp_path, 2, plan=(CUP, CRAFTER, CUP), gated={}, dreamer=PLAIN)
    performance, forgetting, verdict = answer(compare_runs(back))
    assert len(plain) == 3
    assert "came back" not in " ".join(plain) + performance + verdict
    assert re.search(r"; what was lost of a task when it came back: \d.* with .* and ", forgetting)


def test_enough_lives_have_intervals_and_tests_with_holms_correction(tmp_path):
    paths = runs(tmp_path, 8, gated={}, dreamer=PLAIN)
    found = compare_runs(paths)
    summary = found.summaries["average performance"][0]
    assert summary.mean.low < summary.mean.value < summary.mean.high
    tested = [d for d in found.differences if not math.isnan(d.p)]
    # The smallest p of 8 pairs is 2 / 2^8; Holm multiplies it by the tests that are left.
    assert {d.metric for d in tested} >= {"average performance", "forgetting"}
    assert min(d.p for d in tested) >= 2 / 256
    for d in tested:
        assert d.low < d.differences.mean() < d.high
    assert "8 lives" in Page(write_comparison(paths, tmp_path / "out").read_text()).text


def test_pairs_are_lives_of_equal_seeds(few, tmp_path):
    found = compare_runs([*few[:3], few[4]])
    (difference,) = [d for d in found.differences if d.metric == "forgetting"]
    assert difference.seeds == ("1",)
    mine, theirs = (find(load_run(few[i])) for i in (4, 1))
    of = lambda f: next(m.value for m in f.metrics if m.name == "forgetting")
    assert difference.differences[0] == of(mine) - of(theirs)


def test_a_number_that_is_missing_says_why_and_a_pair_of_unlike_means_is_marked(tmp_path):
    few = [lives_of(name, range(2), 0.5) for name in ("one", "other")]
    lost = Metric("forgetting", 0.3, "a formula", "a source", left_out={1: "not learned"})
    none = Metric("recovery", math.nan, "a formula", "a source", "no task counts: why", {0: "why"})
    few[1][0] = replace(few[1][0], metrics={**few[1][0].metrics, "forgetting": lost})
    few[1] = [replace(one, metrics={**one.metrics, "recovery": none}) for one in few[1]]
    found = compare_lives([*few[0], *few[1]])
    unlike = {d.metric: d.unlike for d in found.differences}
    assert unlike == {"average performance": (), "forgetting": ("0",), "recovery": ()}
    shown = Page(render(found)).text
    assert "of 1 to 2 of 2 tasks" in shown
    assert "means over different tasks for seed 0" in shown
    assert "no task counts: why" in shown
    first, second = (to_json(found)["groups"][i]["lives"][0] for i in (0, 1))
    assert (first["undefined"], first["left_out"]) == ({}, {})
    assert second["undefined"] == {"recovery": "no task counts: why"}
    assert second["left_out"] == {"forgetting": {CRAFTER: "not learned"}, "recovery": {CUP: "why"}}


def test_the_page_says_all_numbers_and_opens_alone(few, tmp_path):
    page = write_comparison(few, tmp_path / "out")
    html = page.read_text(encoding="utf-8")
    shown = Page(html)
    found = compare_runs(few)
    for sentence in answer(found):
        assert sentence in shown.text
    assert not [a for a in shown.addresses if a.startswith("http")]
    assert len(html) < 5_000_000
    assert "Holm" not in shown.text
    assert write_comparison(few, tmp_path / "again").read_bytes() == page.read_bytes()


def test_csv_json_and_latex_hold_the_same_numbers(few):
    found = compare_runs(few)
    rows = list(csv.DictReader(to_csv(found).splitlines()))
    assert [row["run"] for row in rows] == [path.name for path in few]
    numbers = json.loads(json.dumps(to_json(found), allow_nan=False))
    life = numbers["groups"][1]["lives"][2]
    assert float(rows[5]["forgetting"]) == life["metrics"]["forgetting"]
    mean = found.summaries["forgetting"][1].points.mean()
    assert f"${mean:.3f}$" in to_latex(found)
    assert "forward transfer, zero-shot & $" in to_latex(found)


def test_lives_of_other_plans_and_unjudged_ones_are_refused(few, tmp_path, capsys):
    other = SyntheticRun(tmp_path / "other", plan=(WALKER, CRAFTER)).write()
    with pytest.raises(UserError, match="only lives of one plan can be compared"):
        compare_runs([few[0], other])
    young = SyntheticRun(tmp_path / "young", plan=(CUP, CRAFTER), finished=0).write()
    with pytest.raises(UserError, match="young: no phase of it has been judged at its end yet"):
        compare_runs([few[0], young])
    with pytest.raises(UserError, match="expected two runs or more"):
        compare_runs(few[:1])
    assert compare.main([*map(str, few), f"--out={tmp_path / 'page'}"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "page" / "index.html")
