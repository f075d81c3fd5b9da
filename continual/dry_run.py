"""What a run would do and need, without doing it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import jax

from agent.agent import AgentState, make_agent
from agent.owners import owners_of
from continual.envs.interface import union
from continual.envs.registry import interface_of
from continual.needs import needs_of, rows_in
from continual.pacing import repeat_of, updates_due
from continual.request import Request
from continual.scheduler import Clock, inside_points


def describe(request: Request) -> str:
    """Phases, parameters by owner, updates, memory and disk, as text.

    Counts rows as if no episode ended inside a phase: each end adds a row without a decision.
    """
    config, curriculum = request.config, request.curriculum
    agent = make_agent(config.agent, union({t: interface_of(t) for t in curriculum.tasks}))
    state = jax.eval_shape(agent.init, jax.random.key(0))
    needs = needs_of(config, curriculum, agent, state)

    lines = [request.banner(None).replace("begins:", "would be in:"), "", "phases"]
    clock = Clock()
    for phase in curriculum.plan:
        clock = replace(clock, agent_steps=clock.agent_steps + rows_in(phase, config.collect))
        due = updates_due(clock, phase.task, config.collect, config.replay)
        updates = due - clock.updates
        clock = replace(clock, updates=due).next_phase()
        judged = len(inside_points(config.evaluate, phase)) + 1
        repeat = repeat_of(phase.task, config.collect)
        lines.append(
            f"  {phase.number:>3}  {phase.task:<28} {phase.steps:>12,} steps, {repeat} a decision, "
            f"about {updates:>10,} updates, judged {judged} times"
        )
    for task in curriculum.tasks:
        if all(phase.task != task for phase in curriculum.plan):
            lines.append(f"    -  {task:<28} judged only")

    lines += ["", "parameters"]
    for owner, count in _by_owner(state).items():
        lines.append(f"  {owner:<40} {count:>14,}")
    total = sum(_by_owner(state).values())
    lines.append(f"  {'all but the riders':<40} {total:>14,}")
    for name, rider in state.riders.items():
        lines.append(f"  {'rider ' + name:<40} {_size(rider.params):>14,}")

    lines += [
        "",
        "sizes",
        f"  replay        {needs.replay / 1e6:>10,.0f} MB on disk, up to {needs.rows:,} rows",
        f"  agent         {needs.learnt / 1e6:>10,.0f} MB in memory,"
        " about three times that while learning",
        f"  disk          {needs.disk / 1e6:>10,.0f} MB at most",
    ]
    return "\n".join(lines)


def _by_owner(state: AgentState) -> dict[str, int]:
    params = state.learner.params
    sizes: Counter[str] = Counter()
    for owner, leaf in zip(owners_of(params), jax.tree.leaves(params), strict=True):
        sizes[owner] += leaf.size
    return dict(sorted(sizes.items(), key=lambda item: (item[0] != "shared", item[0])))


def _size(tree: object) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
