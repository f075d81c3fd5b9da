"""Findings for other programs: everything a report says, as what JSON can hold."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from eval.crafter_score import ACHIEVEMENTS
from eval.findings import Findings
from eval.judged import Metric

NULLS: Mapping[str, str] = {
    "returns": "not judged at the end of that phase",
    "normalised": "not judged at the end of that phase, or the task has no scale: see scales",
    "average_performance": "nothing was judged at the end of that phase",
    "average_performance_seen": "nothing was judged at the end of that phase, or nothing trained",
    "drops": "before the end of the task's own phase, or not judged, or the task has no scale",
    "gate": "the gate took no decision there, or does not record that; latency: the choice rate "
    "never left the band of the episodes before, or there were fewer than two of them; alarm: "
    "fewer than two episodes on a side; regret: not judged with the gate and without",
    "health": "not recorded in that phase's newest diagnosis",
    "crafter": "no whole episode of that kind",
    "areas": "not trained yet, or not judged inside its first phase, or the task has no scale",
    "reference_areas": "no single-task reference, or not judged inside its phase, or no scale",
    "policies": "sd: fewer than two episodes; mean: not judged",
    "curves": "sd: fewer than two episodes",
}


def to_json(f: Findings) -> dict[str, Any]:
    """All numbers of the report, for other programs.

    NaN is null. Metrics, scales, outcomes and survival say why beside it; `reasons` says of the
    other tables what a null in them means.
    """
    run = f.run
    numbers = {
        "schema": 1,
        "run": {
            key: getattr(run, key)
            for key in ("name", "ancestry", "curriculum", "scale", "variant", "seed")
        },
        "status": run.unfinished or "finished",
        "tasks": run.tasks,
        "phases": [{"number": k, **phase.model_dump()} for k, phase in enumerate(run.plan, 1)],
        "last_judged_phase": f.last,
        "headline": {"policy": f.headline, "action_mode": f.mode},
        "scales": [asdict(scale) for scale in f.scales],
        "returns": f.returns.tolist(),
        "normalised": f.normalised.tolist(),
        "outcomes": [asdict(outcome) for outcome in f.outcomes],
        "metrics": [_metric_json(m, run.tasks) for m in f.metrics],
        "average_performance": f.average.tolist(),
        "average_performance_seen": f.average_seen.tolist(),
        "drops": f.drops.tolist(),
        "gate": {
            "while_living": [asdict(g) for g in f.lived],
            "when_judged": [[asdict(g) for g in row] for row in f.judged],
            "regret": f.regret.tolist() if f.regret is not None else [],
            "switches": [
                asdict(switch) | {"shift": switch.shift, "alarm": switch.alarm}
                for switch in f.switches
            ],
            "alarms": [asdict(kind) for kind in f.alarms],
        }
        if f.has_gate
        else {},
        "replay": [asdict(memory) for memory in f.memories],
        "survival": [
            asdict(s) | {"since": s.since.tolist(), "z": s.z.tolist()} for s in f.survivals
        ],
        "health": [asdict(signs) for signs in f.health],
        "crafter": {
            c.task: {
                "score": c.score,
                "judged_score": c.judged_score,
                "success_rates": dict(zip(ACHIEVEMENTS, c.lived.tolist(), strict=True)),
                "judged_success_rates": dict(zip(ACHIEVEMENTS, c.judged.tolist(), strict=True)),
            }
            for c in f.crafter
        },
        "areas": f.areas.tolist(),
        "reference_areas": f.reference_areas.tolist(),
        "reasons": NULLS,
        "policies": [asdict(column) for column in f.side_by_side],
        "curves": {
            task: {
                policy: [{"env_steps": t, **asdict(c)} for t, c in f.curve(task, policy)]
                for policy in f.policies
            }
            for task in run.tasks
        },
    }
    return {key: null_for_nan(value) for key, value in numbers.items()}


def _metric_json(metric: Metric, tasks: Sequence[str]) -> Mapping[str, Any]:
    left_out = {tasks[task]: reason for task, reason in metric.left_out.items()}
    return {**asdict(metric), "left_out": left_out}


def null_for_nan(value: Any) -> Any:
    """What JSON can hold: null in the place of what is no number."""
    if isinstance(value, Mapping):
        return {str(k): null_for_nan(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [null_for_nan(v) for v in value]
    if isinstance(value, np.ndarray):
        return null_for_nan(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
