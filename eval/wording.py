"""The answer in three sentences, and how numbers are written in them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from eval.autopsy import TaskAutopsy
from eval.findings import ACTOR, GATED, RANDOM, Findings, Outcome, normalised
from eval.gate_behaviour import domain_of
from eval.judged import Metric
from eval.metrics import CAME_BACK
from eval.run_folder import RecordedRun

SPELLED_OUT = 4  # with more tasks than these a sentence names the extremes only

POLICIES = {
    GATED: "gated agent",
    ACTOR: "Dreamer actor",
    "awac_actor": "AWAC actor",
    RANDOM: "random agent",
}

# Rules of what stays in a replay, and of what is drawn from it, that go by task or by phase.
KNOWING = ("task_quota", "task_balanced", "current_share")


def policy_name(policy: str) -> str:
    return POLICIES.get(policy, policy.replace("_", " "))


def number(value: float) -> str:
    """Three digits or so, whatever the scale: 951, 12.3, 0.42; a dash for NaN."""
    if math.isnan(value):
        return "–"
    size = abs(value)
    text = f"{value:.0f}" if size >= 99.5 else f"{value:.1f}" if size >= 9.95 else f"{value:.2f}"
    return "0.00" if text == "-0.00" else text.replace("-", "−")


def score(value: float) -> str:
    """A normalised return, or a difference of two: 0.424; a dash for NaN."""
    if math.isnan(value):
        return "–"
    text = f"{value:.3f}"
    return "0.000" if text == "-0.000" else text.replace("-", "−")


def percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{share * 100:.0f} %".replace("-", "−")


def steps(count: float) -> str:
    """Environment steps: 400, 50k, 1.5M."""
    for unit, letter in ((1_000_000, "M"), (1_000, "k")):
        if count >= unit:
            return f"{count / unit:.3g}{letter}"
    return f"{count:.0f}"


def listed(parts: Iterable[str]) -> str:
    """a, b and c"""
    parts = list(parts)
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def where_it_was_lost(t: TaskAutopsy) -> str:
    """One line on an old task: how much is lost, and by what."""
    loss = t.loss
    own, final, recovered = (number(j.cell.mean) for j in (t.own, t.final, t.recovered))
    went = f"{t.task}: {own} at the end of phase {t.own_phase}, {final} now, {recovered} recovered"
    if t.why:
        return f"{went}: {t.why}"
    return (
        f"{went}: {percent(loss.policy_share)} of what is lost was lost by the policy, "
        f"{percent(loss.model_share)} by the model"
    )


def answer(f: Findings) -> list[str]:
    """What was learned, what of it remained, what the gate did: one sentence each."""
    if not f.last:
        return [_nothing_yet(f), _gate(f)]
    return [_learned(f), _remained(f), _gate(f)]


def _nothing_yet(f: Findings) -> str:
    return (
        f"No phase of the {len(f.run.plan)} has been judged at its end yet, so nothing can be said "
        "about what was learned or forgotten."
    )


def _learned(f: Findings) -> str:
    ended = [o for o in f.outcomes if o.own.n]
    if not ended:
        return "No task was judged at the end of its own phase."
    learned = [o for o in ended if o.learned]
    parts = [f"{number(o.own.mean)} on {o.task}{_beside_random(o)}" for o in _spoken(ended)]
    known = [o for o in ended if o.learned is not None]
    verdict = (
        f"{len(learned)} of {len(known)} {plural('task', len(known))} ended above the random agent"
        if known
        else "no random agent was judged to compare with"
    )
    return (
        f"At the end of each task's own phase the {policy_name(f.headline)} returned "
        f"{listed(parts)}{_of_many(ended)}: {verdict}."
    )


def _remained(f: Findings) -> str:
    when = "the run" if f.last == len(f.run.plan) else f"phase {f.last}"
    lost = [o for o in f.outcomes if not math.isnan(o.forgotten)]
    if not lost and (again := _trained_again(f)):
        return f"By the end of {when} {again}{_came_back(f)}."
    if not lost:
        reasons = sorted({o.reason for o in f.outcomes if o.reason})
        return (
            f"Forgetting by the end of {when} cannot be measured: no task that was learned has "
            f"been judged after a later phase ({'; '.join(reasons)})."
        )
    parts = [
        f"{o.task} {_went(o.forgotten)} (from {number(o.own.mean)} to {number(o.final.mean)})"
        for o in _spoken(lost)
    ]
    mean = float(np.mean([o.forgotten for o in lost]))
    together = f", on average {percent(mean)} forgotten" if len(lost) > 1 else ""
    return (
        f"By the end of {when}, measured by the gain over the random agent, "
        f"{listed(parts)}{_of_many(lost)}{together}{_came_back(f)}."
    )


def _came_back(f: Findings) -> str:
    """What the end of the life no longer shows, because it was learnt again."""
    lost = _metric(f, CAME_BACK).value
    if math.isnan(lost):
        return ""
    went = f"lost {score(lost)}" if lost >= 0 else f"gained {score(-lost)}"
    return f"; when a task came back it had {went} of normalised return"


def _trained_again(f: Findings) -> str:
    """Where only the task of the last phase can have been forgotten: how it moved meanwhile."""
    forgetting, last = _metric(f, "forgetting"), f.run.trained[f.last - 1]
    if [i for i in range(len(f.run.tasks)) if i not in forgetting.left_out] != [last]:
        return ""
    where = "below" if forgetting.value > 0 else "above"
    return (
        f"{f.run.tasks[last]}, which was trained in earlier phases too, stands "
        f"{score(abs(forgetting.value))} {where} the ends of its phases, in normalised return"
    )


def _metric(f: Findings, name: str) -> Metric:
    return next(m for m in f.metrics if m.name == name)


def _went(forgotten: float) -> str:
    if forgotten >= 0.005:
        return f"lost {percent(forgotten)}"
    return f"gained {percent(-forgotten)}" if forgotten <= -0.005 else "kept everything"


def _gate(f: Findings) -> str:
    if not f.has_gate:
        return f"There was no gate: the {policy_name(f.headline)} took every decision."
    lived = enumerate(zip(f.run.plan, f.lived, strict=True), start=1)
    shares = [(g.chosen, f"phase {k}, {phase.task}") for k, (phase, g) in lived if g.decisions]
    if not shares:
        return "The gate was judged, but no lived episode has ended yet."
    if len(shares) > SPELLED_OUT:
        (low, least), (high, most) = min(shares), max(shares)
        chose = f"between {percent(low)} ({least}) and {percent(high)} ({most}) of decisions"
    else:
        chose = listed(f"{percent(share)} of decisions ({phase})" for share, phase in shares)
    return f"While living, the gate let its partner act in {chose}{_compared(f)}."


def _compared(f: Findings) -> str:
    """Mean z at the newest judged phase end, of every policy that was judged like the headline."""
    means = {}
    for column in f.side_by_side:
        if column.action_mode == f.mode and column.policy != RANDOM and f.last:
            z = normalised(column.means(), f.scales)[f.last]
            if not np.isnan(z).all():
                means[column.policy] = float(np.nanmean(z))
    if len(means) < 2 or f.headline not in means:
        return ""
    others = [
        f"{number(m)} with the {policy_name(p)} alone" for p, m in means.items() if p != f.headline
    ]
    return (
        f"; at the end of phase {f.last} the mean normalised return was "
        f"{listed([f'{number(means[f.headline])} with the gate', *others])}"
    )


def _beside_random(o: Outcome) -> str:
    return f" (random {number(o.random.mean)})" if o.random.n else ""


def _spoken(outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
    """All of a few; of many, those that lost most and least."""
    if len(outcomes) <= SPELLED_OUT:
        return outcomes
    by_loss = sorted(outcomes, key=lambda o: (math.isnan(o.forgotten), -o.forgotten))
    return [by_loss[0], by_loss[-1]]


def _of_many(outcomes: Sequence[Outcome]) -> str:
    return "" if len(outcomes) <= SPELLED_OUT else f" (two of {len(outcomes)} tasks; all below)"


def plural(noun: str, count: int) -> str:
    return noun if count == 1 else f"{noun}s"


def privileges(run: RecordedRun) -> list[str]:
    """What the agent and its learning are told that a world does not say, a sentence each."""
    domains: dict[str, list[str]] = {}
    for task in run.tasks:
        domains.setdefault(domain_of(task), []).append(task)
    shared = [tasks for tasks in domains.values() if len(tasks) > 1]
    told = "At every step which task it is in, by the observations that are there and the actions "
    told += "that are asked for"
    if shared:
        told += f"; but not which of {' and not which of '.join(map(listed, shared))}"
    replay = run.config.get("replay", {})
    rules = {key: (replay.get(key) or {}).get("kind", "") for key in ("retention", "sampling")}
    knowing = [f"replay.{key}={kind}" for key, kind in rules.items() if kind in KNOWING]
    return [
        f"{told}.",
        "Not when a phase ends, nor what comes next.",
        f"Its replay knows which task a row is of, and when that changes ({listed(knowing)})."
        if knowing
        else "Judging knows boundaries; the agent's updates do not.",
    ]
