"""Several lives side by side: who is in which group, what is said of few, and of enough."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest

from continual.errors import UserError
from eval import compare
from eval.compare_page import answer, to_csv, to_json, to_latex, write_comparison
from eval.comparison import compare as compare_runs
from eval.findings import find
from eval.run_folder import load_run
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


def test_enough_lives_have_intervals_and_tests_with_holms_correction(tmp_path):
    paths = runs(tmp_path, 8, gated={}, dreamer=PLAIN)
    found = compare_runs(paths)
    summary = found.summaries["average performance"][0]
    assert summary.mean.low < summary.mean.value < summary.mean.high
    tested = [d for d in found.differences if not math.isnan(d.p)]
    # The smallest p of 8 pairs is 2 / 2^8; Holm multiplies it by the tests that are left.
    assert {d.metric for d in tested} >= {"average performance", "forgetting"}
    assert min(d.p for d in tested) >= 2 / 256
    assert "8 lives" in Page(write_comparison(paths, tmp_path / "out").read_text()).text


def test_pairs_are_lives_of_equal_seeds(few, tmp_path):
    found = compare_runs([*few[:3], few[4]])
    (difference,) = [d for d in found.differences if d.metric == "forgetting"]
    assert difference.seeds == ("1",)
    mine, theirs = (find(load_run(few[i])) for i in (4, 1))
    of = lambda f: next(m.value for m in f.metrics if m.name == "forgetting")
    assert difference.differences[0] == of(mine) - of(theirs)


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
