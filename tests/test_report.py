"""A run folder becomes a page: what it must say, and what it must refuse."""

from __future__ import annotations

import csv
import json
import math
import re
import typing
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from continual.errors import UserError
from continual.strict_yaml import dump
from curricula.loader import parse_curriculum, resolved
from eval import latex, metrics, report, wording
from eval.findings import Findings, find
from eval.gate_behaviour import SideBySide, alarms, regret, switches
from eval.gate_sums import GATE_SUMS
from eval.judged import Judged, Metric
from eval.matrix import cell, clears_random, normalise
from eval.page import matrix_cells, write_report
from eval.plots import cell_colours
from eval.records import EpisodeRecord
from eval.run_folder import load_run
from storage import retention, sampling
from tests.synthetic_run import CRAFTER, CUP, STEPS, WALKER, SyntheticRun
from tests.test_metrics import record

BESIDE = ("matrix.csv", "matrix.tex", "summary.json")  # the page, in its folder


class Page(HTMLParser):
    """Collects the text of a page, and checks that what is opened is closed and ids are unique."""

    VOID = frozenset({"meta", "br", "wbr", "link", "img", "input", "hr"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.words: list[str] = []
        self.feed(html)
        assert not self.open, f"never closed: {self.open}"

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href", "data"):
                self.addresses.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.words.append(data)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return SyntheticRun(tmp_path_factory.mktemp("runs") / "synthetic").write()


@pytest.fixture(scope="module")
def html(run: Path) -> str:
    return write_report(run).read_text(encoding="utf-8")


def metric(f: Findings, name: str) -> Metric:
    (found,) = (m for m in f.metrics if m.name == name)
    return found


def page_of(folder: Path, **settings: object) -> Page:
    run = SyntheticRun(folder, **settings).write()  # type: ignore[arg-type]
    return Page(write_report(run).read_text(encoding="utf-8"))


def test_page_begins_with_the_answer_in_three_sentences_of_its_own_numbers(run: Path, html: str):
    f = find(load_run(run))
    sentences = wording.answer(f)
    text = Page(html).text
    assert len(sentences) == 3
    assert all(sentence in text for sentence in sentences)
    assert text.index(sentences[0]) < text.index("Forgetting matrix")
    cup = f.outcomes[0]
    assert f"{wording.number(cup.own.mean)} on {CUP}" in sentences[0]
    assert "3 of 3 tasks ended above the random agent" in sentences[0]
    assert f"{CUP} lost {wording.percent(cup.forgotten)}" in sentences[1]
    assert f"{wording.percent(f.lived[0].chosen)} of decisions (phase 1, {CUP})" in sentences[2]


def test_answer_says_what_training_again_made_good_and_how_a_control_moved(tmp_path: Path):
    back = find(load_run(SyntheticRun(tmp_path / "back", plan=(CUP, WALKER, CUP)).write()))
    (lost,) = [m.value for m in back.metrics if m.name == "forgetting, when a task came back"]
    assert f"when a task came back it had lost {wording.score(lost)}" in wording.answer(back)[1]
    control = find(load_run(SyntheticRun(tmp_path / "control", plan=(CUP, CUP)).write()))
    said = wording.answer(control)[1]
    assert f"{CUP}, which was trained in earlier phases too, stands" in said
    assert "came back" not in said
    # Unless it is told who the random agent is, nothing is said of one task in the name of all.
    unknown = SyntheticRun(tmp_path / "unknown", plan=(CUP, WALKER))
    unknown.write()
    records = tmp_path / "unknown" / "records" / "episodes.jsonl"
    kept = [x for x in records.read_text().splitlines() if '"policy":"random"' not in x]
    assert len(kept) < len(records.read_text().splitlines())
    records.write_text("".join(f"{line}\n" for line in kept))
    assert "cannot be measured" in wording.answer(find(load_run(tmp_path / "unknown")))[1]


def test_forgotten_share_is_the_lost_part_of_the_gain_over_random(run: Path):
    f = find(load_run(run))
    cup, walker, crafter = f.outcomes
    random = f.scales[0].zero
    own, final = f.returns[1, 0], f.returns[3, 0]
    assert cup.forgotten == pytest.approx((own - final) / (own - random))
    assert 0 < walker.forgotten < cup.forgotten
    assert math.isnan(crafter.forgotten)
    assert crafter.reason == "trained last"


def test_page_needs_nothing_from_outside_and_is_well_formed(html: str):
    page = Page(html)
    assert all(a.startswith("#") or a in BESIDE for a in page.addresses)
    assert len(page.ids) == len(set(page.ids))
    assert "@import" not in html
    assert "<metadata" not in html
    assert "<script" not in html
    assert len(html.encode()) < 5_000_000
    assert not re.search(r"\bnan\b", page.text, re.IGNORECASE)


def test_same_records_give_the_same_bytes(run: Path, html: str):
    again = write_report(run)
    assert again.read_text(encoding="utf-8") == html
    assert sorted(p.name for p in again.parent.iterdir()) == [
        "index.html",
        *BESIDE,
    ]


def test_matrix_file_holds_the_raw_returns_of_every_policy(run: Path, html: str):
    text = (run / "report" / "matrix.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    f = find(load_run(run))
    headline = [r for r in rows if (r["policy"], r["action_mode"]) == ("gated", "mode")]
    assert [r["trained"] for r in headline] == ["", CUP, WALKER, CRAFTER]
    values = [[float(r[task]) for task in (CUP, WALKER, CRAFTER)] for r in headline]
    np.testing.assert_array_equal(values, f.returns)
    assert {r["policy"] for r in rows} == {"gated", "dreamer_actor", "awac_actor", "random"}
    later_random = [r for r in rows if r["policy"] == "random" and r["phase"] == "2"]
    assert later_random[0][CUP] == ""


def test_latex_file_is_a_table_of_the_matrix_with_own_phases_in_bold(run: Path, html: str):
    lines = (run / "report" / "matrix.tex").read_text(encoding="utf-8").splitlines()
    f = find(load_run(run))
    assert lines[0] == r"\begin{tabular}{lrrr}"
    assert lines[2] == (r"phase & dmc/ball\_in\_cup\_catch & dmc/walker\_walk & crafter/reward \\")
    rows = [line.removesuffix(r" \\").split(" & ") for line in lines[4:-2]]
    assert [row[0] for row in rows[:2]] == ["before training", r"1 dmc/ball\_in\_cup\_catch"]
    shown = [[float(re.sub(r"[^0-9.-]", "", cell)) for cell in row[1:]] for row in rows]
    np.testing.assert_allclose(shown, f.returns, atol=0.05)
    bold = [["mathbf" in cell for cell in row[1:]] for row in rows]
    assert bold == [[False] * 3, *np.eye(3, dtype=bool).tolist()]


def test_names_are_escaped_for_latex():
    assert latex.escaped(r"a_b & 5% #1 {x} ~^\ $") == (
        r"a\_b \& 5\% \#1 \{x\} \textasciitilde{}\textasciicircum{}\textbackslash{} \$"
    )


def test_summary_file_is_strict_json_of_all_numbers(run: Path, html: str):
    def refuse(token: str) -> None:
        raise AssertionError(f"{token} is not JSON")

    text = (run / "report" / "summary.json").read_text(encoding="utf-8")
    summary = json.loads(text, parse_constant=refuse)
    assert summary["status"] == "finished"
    assert summary["headline"] == {"policy": "gated", "action_mode": "mode"}
    f = find(load_run(run))
    shown = {m["name"]: m for m in summary["metrics"]}
    assert shown["forgetting"]["value"] == metric(f, "forgetting").value
    assert shown["forgetting from the best"]["left_out"] == {CRAFTER: metrics.LAST}
    assert [phase["number"] for phase in summary["phases"]] == [1, 2, 3]
    assert len(summary["curves"][WALKER]["awac_actor"]) == 1 + 3 * 5
    assert summary["average_performance_seen"][0] is None


def test_every_null_of_the_summary_has_a_reason(run: Path, html: str):
    summary = json.loads((run / "report" / "summary.json").read_text(encoding="utf-8"))

    def holds_null(value: object) -> bool:
        if isinstance(value, dict):
            return any(map(holds_null, value.values()))
        return any(map(holds_null, value)) if isinstance(value, list) else value is None

    bare = {key for key, value in summary.items() if holds_null(value)}
    assert "drops" in bare
    # These say it number by number.
    assert bare - {"run", "metrics", "scales", "outcomes", "survival"} <= summary["reasons"].keys()
    for metric in summary["metrics"]:
        assert (metric["value"] is None) == bool(metric["reason"])


def test_a_page_of_many_tasks_and_evaluations_can_be_mailed(tmp_path: Path):
    plan = [CUP, WALKER, CRAFTER] * 20
    run = SyntheticRun(tmp_path / "long", plan=plan, episodes=2).write()
    pictures = run / "pictures"
    pictures.mkdir()
    for phase in range(1, 9):
        (pictures / f"open_loop-phase{phase:04d}-crafter_reward.png").write_bytes(bytes(500_000))
    page = write_report(run).read_text(encoding="utf-8")
    assert len(page.encode()) < 5_000_000
    drawn = page.split("data:image/png")
    assert len(drawn) - 1 >= 5  # what is drawn leaves room for pictures
    (panel,) = re.findall(
        r'aria-label="Evaluation return on dmc/walker_walk.*?</svg>', drawn[0], re.S
    )
    assert len(panel) < 200_000


def test_matrix_outlines_the_trained_task_and_colours_only_what_was_trained(run: Path):
    table = matrix_cells(find(load_run(run)))
    assert [[c.own for c in row] for row in table] == [
        [False] * 3,
        [True, False, False],
        [False, True, False],
        [False, False, True],
    ]
    assert [[bool(c.style) for c in row] for row in table] == [
        [False] * 3,
        [True, False, False],
        [True, True, False],
        [True] * 3,
    ]


def test_colour_follows_the_normalised_return_so_that_small_scales_do_not_vanish(run: Path):
    f = find(load_run(run))
    crafter = matrix_cells(f)[3][2]
    assert crafter.style.startswith(f"background:{cell_colours(f.normalised[3, 2])[0]}")
    assert cell_colours(-1.0) == cell_colours(0.0) != cell_colours(1.0)


def test_unfinished_run_gets_a_page_that_says_so(tmp_path: Path):
    page = page_of(tmp_path / "run", finished=1)
    assert "unfinished: phase 2 of 3" in page.text
    f = find(load_run(tmp_path / "run"))
    assert f.last == 1
    assert "cannot be measured" in wording.answer(f)[1]
    assert f.run.spans[-1].stop == STEPS + 20_000


def test_run_that_has_only_begun_gets_a_page(tmp_path: Path):
    page = page_of(tmp_path / "run", finished=0)
    assert "unfinished: phase 1 of 3" in page.text
    assert "No phase of the 3 has been judged" in page.text


def test_run_without_any_record_gets_a_page(tmp_path: Path):
    run = SyntheticRun(tmp_path / "run").write()
    for file in (run / "records").iterdir():
        file.unlink()
    page = Page(write_report(run).read_text(encoding="utf-8"))
    assert "unfinished: phase 1 of 3" in page.text


@pytest.mark.parametrize(
    ("policies", "says"),
    [
        (("dreamer_actor",), "no gate: the Dreamer actor took every decision"),
        (("random",), "no gate: the random agent took every decision"),
    ],
)
def test_variants_without_a_gate_speak_of_none(
    tmp_path: Path, policies: tuple[str, ...], says: str
):
    page = page_of(tmp_path / "run", policies=policies)
    assert says in page.text
    assert "What the gate did" not in page.text
    assert find(load_run(tmp_path / "run")).headline == policies[0]


def test_a_random_agent_learns_nothing_and_forgets_nothing(tmp_path: Path):
    run = SyntheticRun(tmp_path / "run", policies=("random",)).write()
    f = find(load_run(run))
    assert any(clears_random(o.own, o.random) for o in f.outcomes), "chance lifts none: new seed"
    assert f.learned == (False, False, False)
    assert math.isnan(metric(f, "forgetting").value)
    assert "0 of 3 tasks" in wording.answer(f)[0]


def test_returning_tasks_get_a_table_of_later_losses_and_judged_tasks_a_column(tmp_path: Path):
    page = page_of(tmp_path / "run", plan=(CUP, CRAFTER, CUP, CRAFTER), judged=(WALKER,))
    assert "What each phase's task had lost later" in page.text
    f = find(load_run(tmp_path / "run"))
    assert f.run.tasks == (CUP, CRAFTER, WALKER)
    assert f.outcomes[2].reason == "not trained yet"
    assert f.outcomes[0].phase == 3


def test_the_table_of_later_losses_ends_with_the_newest_judged_phase(tmp_path: Path):
    run = SyntheticRun(tmp_path / "run", plan=(CUP, CRAFTER, CUP, CRAFTER), finished=3).write()
    html = write_report(run).read_text(encoding="utf-8")
    assert re.findall(r"<th>end of (\d)</th>", html) == ["2", "3"]


def test_page_has_a_column_for_everything_a_gate_records(html: str):
    missing = [n for n in GATE_SUMS[2:] if f"<th>{n.replace('_', ' ')}</th>" not in html]
    assert not missing


def test_judgement_reads_what_a_life_keeps_of_its_curriculum(tmp_path: Path):
    kept = parse_curriculum(
        "{cycles: 2, phases: [{task: toy/reach, steps: 7}, {task: dmc/cup_catch, steps: 9}],"
        " judged: [dmc/walker_run]}",
        "back.yaml",
    )
    (tmp_path / "curriculum.yaml").write_text(dump(resolved(kept)))
    (tmp_path / "config.yaml").write_text("{}")
    run = load_run(tmp_path)
    assert run.curriculum == kept.name
    assert run.tasks == kept.tasks
    assert [(p.task, p.steps, p.cycle) for p in run.plan] == [
        (p.task, p.steps, p.cycle) for p in kept.plan
    ]


def test_a_task_without_a_return_range_is_not_normalised_and_says_so(tmp_path: Path):
    page = page_of(tmp_path / "run", plan=(CUP,), judged=("toy/unknown",))
    assert "curriculum.yaml gives no return range" in page.text
    f = find(load_run(tmp_path / "run"))
    assert np.isnan(f.normalised[:, 1]).all()
    average = metric(f, "average performance")
    assert not math.isnan(average.value)
    assert average.left_out == {1: "cannot be normalised: curriculum.yaml gives no return range"}


def test_a_metric_of_one_function_is_on_the_page_and_in_the_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def first_z(judged: Judged) -> Metric:
        (env_steps, z), *_ = judged.curves
        assert env_steps[0] == 0
        return Metric("level of the newborn", float(z[0]), "z at 0", "nobody")

    monkeypatch.setattr(metrics, "METRICS", (*metrics.METRICS, first_z))
    page = page_of(tmp_path / "run", finished=1)
    f = find(load_run(tmp_path / "run"))
    value = metric(f, "level of the newborn").value
    assert value == f.normalised[0, 0]
    assert f"level of the newborn{wording.score(value)}" in page.text
    summary = json.loads((tmp_path / "run" / "report" / "summary.json").read_text())
    assert summary["metrics"][-1]["value"] == value


def test_policies_are_compared_on_the_normalised_return_of_the_newest_phase(run: Path):
    f = find(load_run(run))
    zero, high = np.array([[s.zero, s.high] for s in f.scales]).T
    (actor,) = (c for c in f.side_by_side if (c.policy, c.action_mode) == ("dreamer_actor", "mode"))
    z = normalise(actor.means(), zero, high)[f.last].mean()
    assert f"{wording.number(z)} with the Dreamer actor alone" in wording.answer(f)[2]


def test_names_from_files_are_escaped(tmp_path: Path):
    run = SyntheticRun(tmp_path / "<script>alert(1)", plan=(CUP,), episodes=2).write()
    html = write_report(run).read_text(encoding="utf-8")
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)" in html


def test_door_prints_the_page_and_exits_0(run: Path, capsys: pytest.CaptureFixture[str]):
    assert report.main([str(run)]) == 0
    assert capsys.readouterr().out == f"{run / 'report' / 'index.html'}\n"


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        ("config.yaml missing", "no config.yaml"),
        ("config.yaml: [1, 2]", "config.yaml: found list, expected keys and values"),
        ("config.yaml: a: [", "config.yaml:1:5: not valid YAML"),
        ("curriculum.yaml: {name: a, judged: [], phases: 3}", "1:23: phases: expected a list"),
        ("curriculum.yaml: {name: a, judged: [], phases: []}", "phases: expected 1 or more"),
        ("curriculum.yaml: {phases: [{task: 3}]}", "curriculum.yaml:1:1: name: missing"),
        (
            "curriculum.yaml: {name: a, judged: [], phases: [{task: 3, steps: 1, cycle: 1}]}",
            "phases[0].task: expected text, found 3",
        ),
        ("versions.json: {", "versions.json:1: not JSON"),
        ("records/episodes.jsonl: nonsense\n", "episodes.jsonl:1: no EpisodeRecord"),
    ],
)
def test_odd_folders_are_refused_in_one_line(tmp_path: Path, spoil: str, says: str):
    run = SyntheticRun(tmp_path / "run", plan=(CUP,), episodes=1).write()
    file, _, text = spoil.partition(": ")
    if text:
        (run / file).write_text(text)
    else:
        (run / file.removesuffix(" missing")).unlink()
    with pytest.raises(UserError) as caught:
        report.main([str(run)])
    assert says in str(caught.value)
    assert str(caught.value).isprintable()


def test_missing_folder_names_the_nearest_one(run: Path):
    with pytest.raises(UserError, match="did you mean 'synthetic'"):
        load_run(run.parent / "syntetic")


def test_records_of_another_curriculum_are_refused(tmp_path: Path):
    run = SyntheticRun(tmp_path / "run", plan=(CUP, WALKER), episodes=1).write()
    text = (run / "curriculum.yaml").read_text()
    (run / "curriculum.yaml").write_text(text.replace(WALKER, "dmc/walker_run"))
    with pytest.raises(UserError, match=r"episodes\.jsonl:\d+: task 'dmc/walker_walk', not in"):
        load_run(run)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (951.4, "951"),
        (99.6, "100"),
        (12.34, "12.3"),
        (0.424, "0.42"),
        (-3.0, "−3.00"),
        (-0.001, "0.00"),
    ],
)
def test_numbers_keep_three_digits_at_any_scale(value: float, written: str):
    assert wording.number(value) == written
    assert wording.number(math.nan) == "–"


def test_scores_have_three_decimals_and_no_negative_zero():
    assert [wording.score(v) for v in (0.4236, -0.0001, -0.5, math.nan)] == [
        "0.424",
        "0.000",
        "−0.500",
        "–",
    ]


def test_the_gate_around_a_switch_is_that_of_whole_episodes_beside_it():
    def lived(phase: int, task: str, p: float) -> EpisodeRecord:
        return record(split="train", phase=phase, task=task, gate={"n": 1000, "p": 1000 * p})

    life = [lived(1, WALKER, p) for p in (0.9, 0.1, 0.2, 0.3)]
    life += [lived(2, "dmc/walker_run", p) for p in (0.5, 0.6, 0.7, 0.9)]
    life += [lived(3, CRAFTER, 0.4), lived(4, CRAFTER, 0.5)]
    first, second, third = switches(life)
    # Three episodes of 1000 decisions are the fewest that hold 2500.
    assert (first.phase, first.changed) == (2, "task")
    assert first.before.p == pytest.approx((0.1 + 0.2 + 0.3) / 3)
    assert first.after.p == pytest.approx((0.5 + 0.6 + 0.7) / 3)
    assert (second.phase, second.changed) == (3, "domain")
    assert second.after.p == pytest.approx(0.4)
    assert (third.phase, third.changed) == (4, "nothing")


def test_a_gate_that_changes_its_mind_where_nothing_changed_raises_a_false_alarm():
    """Before: 0.1, 0.3, 0.2; mean 0.2, deviation 0.1, standard error 0.1 / sqrt(3)."""

    def lived(phase: int, step: int, rate: float, task: str = CRAFTER) -> EpisodeRecord:
        gate = {"n": 1000, "chosen": 1000 * rate}
        return record(split="train", phase=phase, phase_step=step, task=task, gate=gate)

    before = [lived(1, 10 * k, rate) for k, rate in enumerate((0.9, 0.1, 0.3, 0.2))]
    calm = [lived(2, 10, 0.25), lived(2, 20, 0.35), lived(2, 30, 0.15), lived(2, 40, 0.6)]
    stirred = [lived(2, 10, 0.35), lived(2, 20, 0.45), lived(2, 30, 0.4)]
    (quiet,), (alarmed,) = switches(before + calm), switches(before + stirred)
    assert (quiet.alarm, alarmed.alarm) == (False, True)
    assert quiet.shift == pytest.approx(0.05)
    assert alarmed.shift == pytest.approx(0.2)
    # Episodes beyond 0 to 0.4: the fourth, which the mean no longer counts, and the second.
    assert (quiet.latency, alarmed.latency) == (40, 20)
    (lone,) = switches([lived(1, 10, 0.2), *stirred])
    assert lone.alarm is None
    assert math.isnan(lone.latency)
    (elsewhere,) = switches([*before, *(lived(2, k, 0.2, WALKER) for k in range(3))])
    told = alarms([elsewhere, lone, quiet, alarmed])
    assert [(a.changed, a.told, a.raised) for a in told] == [("nothing", 2, 1), ("domain", 1, 0)]
    assert told[0].shift == pytest.approx((0.2 + 0.05 + 0.2) / 3)


def test_regret_is_against_the_better_of_the_two_policies():
    def column(policy: str, *means: float) -> SideBySide:
        return SideBySide(policy, "mode", [[cell([m]) for m in means]])

    columns = [
        column("gated", 5, 3),
        column("dreamer_actor", 4, 6),
        column("awac_actor", 7, 2),
        column("random", 99, 99),
        column("ema_actor", 99, 99),  # a rider that the gate cannot choose
    ]
    choices = ("dreamer_actor", "awac_actor")
    found = regret(columns, "mode", choices)
    assert found is not None
    np.testing.assert_array_equal(found, [[2, 3]])
    assert regret(columns[1:], "mode", choices) is None
    assert regret(columns[:1], "mode", choices) is None


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        ("dmc/cartpole_balance_sparse", "dmc/cartpole_swingup", "task"),
        ("dmc/finger_spin", "dmc/finger_turn_easy", "task"),
        ("dmc/ball_in_cup_catch", "dmc/cartpole_swingup", "domain"),
        ("gone/walker_walk", "gone/walker_run", "domain"),
    ],
)
def test_tasks_of_one_body_are_told_from_those_of_another(before, after, changed):
    life = [
        record(split="train", phase=k, task=t, gate={"n": 1}) for k, t in ((1, before), (2, after))
    ]
    (switch,) = switches(life)
    assert switch.changed == changed


def test_every_rule_of_the_replay_that_knows_tasks_is_named_as_a_privilege():
    unions = [typing.get_args(rules)[0] for rules in (retention.Rule, sampling.Rule)]
    rules = [rule for union in unions for rule in typing.get_args(union)]
    knowing = [rule for rule in rules if rule.knows_tasks]
    assert {rule.model_fields["kind"].default for rule in knowing} == set(wording.KNOWING)


def test_the_page_says_what_the_agent_is_told_and_what_its_replay_knows(tmp_path):
    plain = load_run(SyntheticRun(tmp_path / "plain", plan=(CUP, WALKER)).write())
    said = " ".join(wording.privileges(plain))
    assert "which task it is in" in said
    assert "not which of" not in said
    assert "updates do not" in said
    knowing = SyntheticRun(
        tmp_path / "knowing",
        plan=(WALKER, "dmc/walker_run", CUP),
        settings={"replay": {"retention": {"kind": "task_quota"}, "sampling": {"kind": "uniform"}}},
    )
    said = " ".join(wording.privileges(load_run(knowing.write())))
    assert "but not which of dmc/walker_walk and dmc/walker_run" in said
    assert "(replay.retention=task_quota)" in said
    assert "updates do not" not in said
    assert said in Page(write_report(knowing.folder).read_text()).text


def test_page_says_what_was_held_what_outlived_it_and_how_the_learner_is(run: Path, html: str):
    text = Page(html).text
    f = find(load_run(run))
    assert [m.phase for m in f.memories] == [1, 2, 3]
    (cup, walker) = f.survivals
    assert (cup.task, walker.task) == (CUP, WALKER)
    for heading in ("What the replay held", "Skills whose rows are gone", "The learner's health"):
        assert heading in text
    assert wording.score(float(cup.z[0])) in text
    assert "Around each switch" in text
    assert "Regret of the gate" in text
