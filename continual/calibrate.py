"""The door `python -m continual.calibrate runs/NAME [phase=2] [task=…]`: is the gate right?

Forks worlds, which are functions of their seed and actions, so that both policies are tried from
the very same state; see `eval.calibration` for what is concluded.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Annotated, Any

from pydantic import Field

from agent.config import GateConfig, RandomGate
from continual import seeding
from continual.backend import keep_compiled_programs, set_compiler_flags
from continual.cli import asked_of_run, run_door
from continual.countdown import Countdown
from continual.envs.interact import Episode, Moment, Policy, begin, interact, replay_actions
from continual.envs.world import Action, World
from continual.errors import UserError
from continual.files import write_atomically
from continual.section import Section
from continual.trained import Trained, load_trained
from eval.calibration import FILE, Calibration, Fork, Skill, TaskCalibration, to_text
from eval.judge import judge
from eval.page import write_report

Count = Annotated[int, Field(gt=0)]


class Asked(Section):
    """How many moments are tried, and for how long."""

    phase: Count | None = Field(
        None, description="the agent as it was at the end of this phase; else the newest"
    )
    task: str = Field("", description="one of the run's; else all that were trained so far")
    episodes: Count = Field(5, description="in which moments are sampled")
    moments: Count = Field(10, description="of each episode")
    hold: Count = Field(10, description="decisions for which a policy is held")
    follow: Count = Field(100, description="decisions that follow at most, gated in both branches")


def main(argv: list[str]) -> int:
    set_compiler_flags()
    path, asked = asked_of_run(
        argv,
        Asked,
        prog="continual.calibrate",
        description="Try both policies of a gate from sampled states, say whether its p tells "
        "which does better, and toss a coin in its place. Changes nothing but calibration.json "
        "and the report.",
    )
    keep_compiled_programs()
    trained = load_trained(path, asked.phase)
    if trained.agent.policies()[0] != "gated":
        raise UserError(f"{path}: its agent has no gate")
    tasks = [trained.known(asked.task)] if asked.task else list(dict.fromkeys(trained.lived))
    found = []
    work = {"episodes": asked.episodes * len(tasks), "judgements": len(tasks)}
    with Countdown(work, sys.stdout) as shown:
        for task in tasks:
            shown.begin(f"forking {task}")
            forks = []
            for number in range(asked.episodes):
                forks += forks_of_episode(trained, task, number, asked)
                shown.done("episodes")
            shown.begin(f"tossing a coin in {task}")
            skill = skill_of(trained, task, asked)
            shown.done("judgements")
            found.append(TaskCalibration(task=task, forks=tuple(forks), skill=skill))
    calibration = Calibration(
        checkpoint=trained.checkpoint,
        phase=asked.phase,
        hold=asked.hold,
        follow=asked.follow,
        tasks=tuple(found),
    )
    write_atomically(path / FILE, to_text(calibration))
    print(f"the report: {write_report(path)}")
    return 0


def forks_of_episode(trained: Trained, task: str, number: int, asked: Asked) -> list[Fork]:
    """Play an episode as it is lived, and fork the world at some of its decisions.

    All branches draw as the episode does, by (seed, decision), so that they differ by who holds
    and by what comes of that.

    Args:
      number: of the evaluation episode.
    """
    seed = seeding.evaluation_seed(number)
    policies = {name: _policy(trained, task, name) for name in _names(trained)}
    gated, actor, partner = policies.values()
    with closing(trained.make_world(task)) as world, closing(trained.make_world(task)) as fork:
        episodes = begin([world], lambda _: (number, seed))
        played = list(_decisions(world, gated, gated.initial(1), episodes))
        actions: list[Action] = [{h: a[0] for h, a in m.actions.items()} for m in played]
        rng = seeding.generator(trained.config.seed, "calibrate", number)
        chosen = rng.permutation(len(played))[: asked.moments]
        return [
            Fork(
                seed=seed,
                decision=int(t),
                p=float(played[t].info["gate.p"][0]),
                actor=_return(fork, number, seed, actions[:t], played, actor, gated, asked),
                partner=_return(fork, number, seed, actions[:t], played, partner, gated, asked),
            )
            for t in sorted(chosen.tolist())
        ]


def skill_of(trained: Trained, task: str, asked: Asked) -> Skill:
    """The same episodes with the gate, and with a coin that gives the partner as many decisions."""
    gated = _policy(trained, task, "gated")
    with closing(trained.make_world(task)) as world:
        judged = judge([world], gated, episodes=asked.episodes)
        rate = sum(e.gate["chosen"] for e in judged) / sum(e.gate["n"] for e in judged)
        coin = RandomGate(p=rate, hold=trained.config.agent.gate.hold)
        tossed = judge([world], _policy(trained, task, "gated", coin), episodes=asked.episodes)
    return Skill(
        rate=rate,
        gated=tuple(e.return_ for e in judged),
        coin=tuple(e.return_ for e in tossed),
    )


def _return(
    world: World,
    number: int,
    seed: int,
    past: Sequence[Action],
    played: Sequence[Moment],
    held: Policy,
    common: Policy,
    asked: Asked,
) -> float:
    """Undiscounted, from the end of `past` on: `held` at first, then `common`."""
    episode = replay_actions(world, number, seed, past)
    before = episode.episode_return
    state = played[len(past) - 1].state if past else common.initial(1)
    for policy, decisions in ((held, asked.hold), (common, asked.follow)):
        if not episode.timestep.is_last:
            for moment in itertools.islice(_decisions(world, policy, state, [episode]), decisions):
                state = moment.state
    return float(episode.episode_return - before)


def _decisions(
    world: World, policy: Policy, state: Any, episodes: Sequence[Episode | None]
) -> Iterator[Moment]:
    """The decisions that are taken, until the episode is over."""
    for moment in interact([world], policy, state, episodes, lambda _: None):
        if moment.ended:
            return
        yield moment


def _names(trained: Trained) -> tuple[str, str, str]:
    """The gate, and the two that it chooses between."""
    return "gated", "dreamer_actor", f"{trained.config.agent.partner}_actor"


def _policy(trained: Trained, task: str, name: str, gate: GateConfig | None = None) -> Policy:
    return trained.agent.policy(lambda: trained.state, task, name, "sampled", 0, gate=gate)


if __name__ == "__main__":
    run_door(main)
