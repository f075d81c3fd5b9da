"""What is read off a command line: a run, where it lies, and which command goes on with it."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from continual.cli import split_arguments
from continual.config import Config, resolve_config
from continual.errors import UserError
from continual.request import Request, parse_request
from continual.strict_yaml import dump
from continual.usage import make_parser
from eval.gate_behaviour import choice_rates
from eval.run_folder import load_run
from tests.synthetic_run import SyntheticRun

CURRICULUM = """
scale: smoke
phases:
  - {task: toy/reach, steps: 120}
  - {task: toy/match, steps: 60}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toys.yaml").write_text(CURRICULUM)
    return tmp_path


def request(*arguments: str) -> Request:
    return parse_request(["toys.yaml", *arguments])


def again(asked: Request) -> Request:
    """What the command that a request says goes on with it would ask for."""
    _, _, _, *arguments = shlex.split(asked.command)
    return parse_request(arguments)


def test_a_run_is_named_by_curriculum_scale_variant_and_seed():
    assert request().path == Path("runs/toys-smoke-gated-s0")
    assert request("variant=random", "seed=3").path == Path("runs/toys-smoke-random-s3")


def test_a_variant_that_is_a_path_names_the_run_by_its_stem(folder):
    own = folder / "sub" / "my.own.yaml"
    own.parent.mkdir()
    own.write_text("seed: 1")
    asked = request(f"variant={own}", "scale=configs/scales/smoke.yaml")
    assert asked.path == Path("runs/toys-smoke-my.own-s1")


@pytest.mark.parametrize("text", ["007", "1e3", "null", "1.50", "true"])
def test_name_and_place_of_a_run_are_text_as_it_was_written(text):
    assert request(f"name={text}", f"runs={text}").path == Path(text, text)


def test_the_same_command_goes_on_with_an_ordinary_run():
    asked = request("seed=2", "name=mine")
    assert again(asked) == asked


@pytest.mark.parametrize("more", [[], ["name=mine"], ["name=mine", "seed=4"]])
def test_a_fresh_run_is_gone_on_with_by_its_own_name(folder, more):
    taken = request(*more).path
    taken.mkdir(parents=True)
    asked = request("fresh=true", *more)
    assert asked.path == taken.with_name(f"{taken.name}-2")
    asked.path.mkdir()
    assert again(asked).path == asked.path
    assert again(asked).config == asked.config


def test_a_fresh_run_of_a_curriculum_after_two_dashes_is_gone_on_with():
    asked = parse_request(["fresh=true", "--", "toys.yaml"])
    asked.path.mkdir(parents=True)
    assert again(asked).path == asked.path


def test_the_command_that_goes_on_names_this_interpreter(folder, monkeypatch):
    assert shutil.which(shlex.split(request().command)[0]) == sys.executable
    inside = folder / ".venv" / "bin" / "python"
    monkeypatch.setattr(sys, "executable", str(inside))
    assert request().command == ".venv/bin/python -m continual.run toys.yaml"


def test_what_a_run_keeps_of_its_command_says_nothing_of_the_machine(folder):
    more = ["seed=2", f"runs={folder}", f"replay.scratch={folder}", "name=mine"]
    kept = parse_request([str(folder / "toys.yaml"), *more]).recorded
    assert kept == "python -m continual.run toys.yaml seed=2 name=mine"


def test_a_phase_that_leaves_no_sequence_behind_is_refused_where_there_is_learning():
    short = ["collect.budgets={toy/match: 33}", "collect.repeat={toy: 2}"]  # 17 decisions
    assert request(*short).curriculum.plan[1].steps == 33
    short[0] = "collect.budgets={toy/match: 32}"
    assert request(*short, "collect.train_ratio=0").curriculum.plan[1].steps == 32
    with pytest.raises(UserError) as caught:
        request(*short)
    assert str(caught.value).startswith(
        "phase 2 (toy/match): 32 steps are 16 decisions a world, expected 17, a sequence and "
        "its context, or more"
    )
    with pytest.raises(UserError, match=r"phase 2 .* 15 decisions a world"):
        request("collect.worlds=4", "collect.start=200")


def test_a_return_that_ends_a_phase_needs_judging_inside_it_and_time_for_a_sequence(folder):
    (folder / "until.yaml").write_text("phases: [{task: toy/reach, steps: 400, until_return: 5}]\n")
    small = ["scale=smoke", "collect.budgets={toy: 400}"]
    assert (
        parse_request(["until.yaml", *small, "evaluate.inside_every=0.25"])
        .curriculum.plan[0]
        .until_return
        == 5
    )
    with pytest.raises(UserError, match=r"until_return is judged inside .*inside_every=1 nothing"):
        parse_request(["until.yaml", *small, "evaluate.inside_every=1"])
    with pytest.raises(UserError, match="4 steps are 4 decisions a world, expected 17"):
        parse_request(["until.yaml", *small, "evaluate.inside_every=0.01"])


@pytest.mark.parametrize("table", ["collect.repeat", "collect.budgets", "evaluate.episodes_of"])
def test_the_keys_of_every_table_are_tasks_domains_or_providers(table):
    section, name = table.split(".")
    config = resolve_config({table: {"dmc/cup_catch": 40, "crafter": 20}}, "smoke")
    held = getattr(getattr(config, section), name)
    assert held["dmc/ball_in_cup_catch"] == 40
    assert held["crafter"] == 20
    with pytest.raises(UserError) as caught:
        request(f"{table}.dmc/cup_cach=40")
    expected = f"override {table}.dmc/cup_cach=40: 'dmc/cup_cach': no task"
    assert str(caught.value).startswith(expected)
    assert "did you mean 'dmc/cup_catch'" in str(caught.value)


def test_a_budget_beyond_reason_is_refused():
    with pytest.raises(UserError, match="expected at most 10_000_000_000"):
        request("collect.budgets={toy: 10000000001}")


def test_every_key_that_help_shows_can_be_set(capsys):
    with contextlib.suppress(SystemExit):
        make_parser().parse_args(["--help"])
    said = capsys.readouterr().out
    keys = said[said.index("\nkeys (") :].splitlines()[2:]
    named = {line.split()[0].partition("=")[0] for line in keys}
    assert {"agent.loss.continue", "agent.riders.NAME.beta", "agent.riders.NAME.rate"} <= named
    assert {"agent.gate.alpha", "agent.gate.p", "replay.length"} <= named
    kinds = {"agent.riders.NAME": "", "agent.gate": ""}
    for line in keys:
        argument = line.split()[0]
        if "…" in argument:
            continue
        key, _, value = argument.partition("=")
        owner, _, last = key.rpartition(".")
        if last == "kind":
            kinds[owner] = value
        chosen = [f"{owner}.kind={kinds[owner]}"] if owner in kinds and last != "kind" else []
        arguments = [a.replace("NAME", "mine") for a in (argument, *chosen)]
        _, overrides, _ = split_arguments(arguments, Config)
        assert resolve_config(overrides, "full")


def test_a_random_gate_can_open_as_often_as_the_gate_of_another_run(folder):
    tasks = ["dmc/ball_in_cup_catch", "dmc/walker_walk"]
    SyntheticRun(folder / "other", plan=tasks).write()
    rates = choice_rates(load_run(folder / "other").episodes)
    assert rates.keys() == set(tasks)
    gate = request("agent.gate.kind=random", "agent.gate.recorded=other").config.agent.gate
    assert gate.by_task == rates
    assert gate.recorded == "other"
    assert gate.of(tasks[0]).p == rates[tasks[0]]
    with pytest.raises(UserError, match="no such run"):
        request("agent.gate.kind=random", "agent.gate.recorded=othr")

    # A run that goes on has the rates in its config, and needs the other one no more.
    asked = ("agent.gate.kind=random", f"agent.gate.recorded={folder / 'other'}")
    begun = request(*asked)
    assert str(folder) not in begun.recorded
    begun.path.mkdir(parents=True)
    (begun.path / "config.yaml").write_text(
        dump(begun.config.model_dump(mode="json", by_alias=True))
    )
    shutil.rmtree(folder / "other")
    assert request(*asked).config == begun.config


def test_a_run_without_a_gate_has_no_rates_to_take(folder):
    SyntheticRun(folder / "other", policies=["dreamer_actor"]).write()
    with pytest.raises(UserError, match="no episode lived with a gate"):
        request("agent.gate.kind=random", "agent.gate.recorded=other")
