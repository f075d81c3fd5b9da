"""Everything a report says about one run, as numbers; nothing here knows how it will look."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eval import curve_metrics, matrix_metrics, metrics
from eval.crafter_score import CrafterRates, crafter_rates
from eval.curves import mean_inside
from eval.gate_behaviour import (
    Alarms,
    SideBySide,
    Switch,
    alarms,
    gate_when_judged,
    gate_while_living,
    regret,
    side_by_side,
    switches,
)
from eval.gate_sums import GateMeans
from eval.health import Health, health
from eval.judged import NOT_JUDGED, NOT_LEARNED, NOT_TRAINED, Alone, Judged, Metric
from eval.matrix import (
    NARROW,
    ActionMode,
    Cell,
    Evaluation,
    Matrix,
    Vector,
    cells,
    clears_random,
    evaluation_curve,
    evaluations,
    evaluations_of,
    forgetting_matrix,
    normalise,
    random_cells,
)
from eval.memory import PhaseMemory, Survival, memories, survival
from eval.records import EpisodeRecord
from eval.run_folder import RecordedRun, load_references

GATED, ACTOR, RANDOM = "gated", "dreamer_actor", "random"


@dataclass(frozen=True)
class Scale:
    """What z = 0 and z = 1 mean for a task, and says who; `note`: why z is undefined."""

    task: str
    zero: float
    high: float
    zero_is: str
    note: str = ""


@dataclass(frozen=True)
class Outcome:
    """A task from the end of its own phase to the end of the run.

    Attributes:
      phase: the last one that trained it and is over; 0 where none is.
      own, final, random: returns at that phase's end, at the end of the newest judged phase, and of
        the random agent.
      learned: whether `own` is above `random` beyond chance; None where that cannot be said.
      forgotten: (own - final) / (own - random), the share of the gain over the random agent that is
        lost: 1 is all of it, below 0 it got better; NaN with a reason.
    """

    task: str
    phase: int
    own: Cell
    final: Cell
    random: Cell
    learned: bool | None
    forgotten: float
    reason: str = ""


@dataclass(frozen=True)
class Findings:
    """The numbers of a report; K phases, N tasks.

    Attributes:
      policies: all that acted or were judged, headline first.
      headline, mode: policy and action mode that matrix, metrics and answer speak of.
      last: newest phase that was judged at its end; 0: none.
      rows: [K+1][N], returns of the headline; row 0 is before training.
      returns, normalised: R and z, [K+1, N].
      learned: per phase.
      average, average_seen: [K+1] curves over phases of z.
      drops: [K, K+1], see `matrix_metrics.drops`, of z.
      lived, judged: gate per phase [K], and per phase and task [K+1][N]; empty without a gate.
      regret: [K+1, N] of the gate, against the better of its policies; None without.
      switches, alarms: the gate around each change of task, and over those of each kind.
      memories, health: per phase, where there was learning.
      survivals: of the tasks that have left the replay.
      crafter: success rates and scores in Crafter's tasks.
      areas, reference_areas: [N], mean z inside a task's first phase, and of an agent that lived
        it alone; NaN where there is none.
    """

    run: RecordedRun
    policies: tuple[str, ...]
    headline: str
    mode: ActionMode
    evaluations: Sequence[Evaluation]
    last: int
    rows: list[list[Cell]]
    scales: tuple[Scale, ...]
    returns: Matrix
    normalised: Matrix
    learned: tuple[bool | None, ...]
    outcomes: tuple[Outcome, ...]
    metrics: tuple[Metric, ...]
    average: Vector
    average_seen: Vector
    drops: Matrix
    lived: list[GateMeans]
    judged: list[list[GateMeans]]
    side_by_side: list[SideBySide]
    regret: Matrix | None
    switches: list[Switch]
    alarms: list[Alarms]
    memories: list[PhaseMemory]
    survivals: list[Survival]
    health: list[Health]
    crafter: tuple[CrafterRates, ...]
    areas: Vector
    reference_areas: Vector

    @property
    def has_gate(self) -> bool:
        return any(g.decisions for g in [*self.lived, *(g for row in self.judged for g in row)])

    def mode_of(self, policy: str) -> ActionMode:
        """The mode to show a policy in: `mode` where it was judged so."""
        return _mode_of(self.evaluations, policy)

    def curve(self, task: str, policy: str) -> list[tuple[int, Cell]]:
        """(env_steps, returns) of every evaluation of a policy on a task."""
        return evaluation_curve(self.evaluations, task, policy, self.mode_of(policy))


def find(run: RecordedRun) -> Findings:
    """Judge a run from its records."""
    taken = evaluations(run.episodes)
    policies = _policies(run.episodes)
    headline = policies[0]
    mode = _mode_of(taken, headline)
    rows = cells(taken, run.tasks, len(run.plan), headline, mode)
    R = forgetting_matrix(rows)
    last = max((k for k in range(1, len(R)) if not np.isnan(R[k]).all()), default=0)
    random = random_cells(taken, run.tasks)
    scales = tuple(_scale(run, task, c) for task, c in zip(run.tasks, random, strict=True))
    z = normalised(R, scales)
    trained = run.trained
    # The random agent learns nothing, even where chance lifts it above itself.
    learned = tuple(
        False if headline == RANDOM else clears_random(rows[k][task], random[task])
        for k, task in enumerate(trained, start=1)
    )
    judged = Judged(
        z=z[: last + 1],
        trained=trained[:last],
        learned=learned[:last],
        curves=[
            _normalised_curve(evaluation_curve(taken, task, headline, mode), scale)
            for task, scale in zip(run.tasks, scales, strict=True)
        ],
        not_normalised={i: scale.note for i, scale in enumerate(scales) if scale.note},
        spans=[(span.start, span.stop) for span in run.spans[:last]],
        references=_lived_alone(run, random, scales, headline, mode),
    )
    around = switches(run.episodes)
    columns = side_by_side(taken, run.tasks, len(run.plan), policies)
    return Findings(
        run=run,
        policies=policies,
        headline=headline,
        mode=mode,
        evaluations=taken,
        last=last,
        rows=rows,
        scales=scales,
        returns=R,
        normalised=z,
        learned=learned,
        outcomes=tuple(
            _outcome(run, i, rows, random[i], learned, last) for i in range(len(run.tasks))
        ),
        metrics=tuple(metric(judged) for metric in metrics.METRICS) if last else (),
        average=matrix_metrics.average_performance_curve(z),
        average_seen=matrix_metrics.average_seen_curve(z, trained),
        drops=matrix_metrics.drops(z, trained),
        lived=gate_while_living(run.episodes, len(run.plan)),
        judged=gate_when_judged(run.episodes, run.tasks, len(run.plan), mode),
        side_by_side=columns,
        regret=regret(columns, mode, _choices(run, policies)),
        switches=around,
        alarms=alarms(around),
        memories=memories(run.phases, run.train),
        survivals=_survivals(run, taken, headline, mode, scales, learned),
        health=health(run.train),
        crafter=crafter_rates(run.episodes, run.tasks, headline, mode),
        areas=curve_metrics.areas(judged),
        reference_areas=curve_metrics.reference_areas(judged),
    )


def _survivals(
    run: RecordedRun,
    taken: Sequence[Evaluation],
    policy: str,
    mode: ActionMode,
    scales: Sequence[Scale],
    learned: Sequence[bool | None],
) -> list[Survival]:
    """Of tasks without rows."""
    found = []
    taught = {
        phase.task for phase, is_so in zip(run.plan, learned, strict=True) if is_so is not False
    }
    for task, scale in zip(run.tasks, scales, strict=True):
        own = evaluations_of(taken, task, policy, mode)
        means = np.array([e.cell.mean for e in own], np.float64)
        z = normalised(means[:, None], [scale])[:, 0]
        if outlived := survival(own, z, run.train, task, task in taught):
            found.append(outlived)
    return found


def normalised(returns: Matrix, scales: Sequence[Scale]) -> Matrix:
    """z of returns [..., N] on the scales of N tasks."""
    zero = np.array([s.zero for s in scales], np.float64)
    return normalise(returns, zero, np.array([s.high for s in scales], np.float64))


def _policies(episodes: Sequence[EpisodeRecord]) -> tuple[str, ...]:
    """Headline first: the gate, else the actor, else what acted; then riders; `random` last."""
    found = {e.policy for e in episodes if not e.variant} or {RANDOM}
    order = {GATED: 0, ACTOR: 1, RANDOM: 3}
    return tuple(sorted(found, key=lambda policy: (order.get(policy, 2), policy)))


def _choices(run: RecordedRun, policies: Sequence[str]) -> tuple[str, ...]:
    """The two policies that the gate chooses between."""
    partner = run.config.get("agent", {}).get("partner")
    return (ACTOR, f"{partner}_actor") if partner else tuple(p for p in policies if p != RANDOM)


def _mode_of(taken: Sequence[Evaluation], policy: str) -> ActionMode:
    modes = {e.action_mode for e in taken if e.policy == policy}
    return "sampled" if modes == {"sampled"} else "mode"


def _scale(run: RecordedRun, task: str, random: Cell) -> Scale:
    low, high = run.return_ranges.get(task, (math.nan, math.nan))
    zero, zero_is = random.mean, f"random agent, {random.n} episodes"
    if not random.n:
        zero, zero_is = low, "lowest possible return: no random agent was judged"
    note = ""
    if task not in run.return_ranges:
        note = "curriculum.yaml gives no return range"
    elif high - zero < NARROW:
        note = "the random agent already reaches the highest return"
    return Scale(task, zero, high, zero_is, note)


def _lived_alone(
    run: RecordedRun,
    random: Sequence[Cell],
    scales: Sequence[Scale],
    policy: str,
    mode: ActionMode,
) -> dict[int, Alone]:
    """Task index -> its reference, of the tasks that have one."""
    found: dict[int, Alone] = {}
    for task, reference in load_references(run).items():
        i = run.tasks.index(task)
        if not (curve := evaluation_curve(evaluations(reference.episodes), task, policy, mode)):
            continue
        (span,) = reference.spans
        times, z = _normalised_curve(curve, scales[i])
        area = mean_inside(times, z, span.start, span.stop)
        # Where no random agent was judged, an end at z = 0 or below is no measure either.
        is_better = clears_random(curve[-1][1], random[i]) is not False and z[-1] > 0
        found[i] = Alone(area, float(z[-1]) if is_better else math.nan)
    return found


def _normalised_curve(points: Sequence[tuple[int, Cell]], scale: Scale) -> tuple[Vector, Vector]:
    env_steps = np.array([at for at, _ in points], np.float64)
    means = np.array([c.mean for _, c in points], np.float64)
    return env_steps, normalised(means[:, None], [scale])[:, 0]


def _outcome(
    run: RecordedRun,
    task: int,
    rows: Sequence[Sequence[Cell]],
    random: Cell,
    learned: Sequence[bool | None],
    last: int,
) -> Outcome:
    phases = [k for k, s in enumerate(run.trained, start=1) if s == task and k <= last]
    phase = phases[-1] if phases else 0
    own = rows[phase][task] if phase else Cell()
    final = rows[last][task]
    learnt = learned[phase - 1] if phase else None
    share, reason = math.nan, ""
    if not phase:
        reason = NOT_TRAINED
    elif learnt is False:
        reason = NOT_LEARNED
    elif learnt is None:
        reason = "no random agent to compare with" if own.n else NOT_JUDGED
    elif phase == last:
        reason = "trained last"
    elif not final.n:
        reason = NOT_JUDGED
    else:
        share = (own.mean - final.mean) / (own.mean - random.mean)
    return Outcome(run.tasks[task], phase, own, final, random, learnt, share, reason)
