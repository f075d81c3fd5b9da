"""The records a life leaves behind: the only thing that judgement is built from.

One JSON object a line, one file a kind, append-only. Wall-clock times are not here but in
`timing.jsonl`, so that two runs can be compared bit for bit.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from continual.errors import UserError
from continual.files import failed
from continual.strict_yaml import one_line

SCHEMA = 1


@dataclass(frozen=True)
class Record:
    """Base of all records; `file` is the name of the JSON-lines file that holds the kind."""

    file: ClassVar[str]

    def to_json(self) -> str:
        """One line. Not-a-number becomes null, with the reason under `reasons`."""
        values: dict[str, Any] = {}
        reasons: dict[str, str] = {}
        for key, value in asdict(self).items():
            values[key] = _finite(value, key, reasons)
        if reasons:
            values["reasons"] = reasons
        return json.dumps({"schema": SCHEMA, **values}, separators=(",", ":"), allow_nan=False)


@dataclass(frozen=True)
class EpisodeRecord(Record):
    """One finished (or cut) episode, of training or of evaluation.

    Attributes:
      split: `train` or `eval`.
      eval_id: names the evaluation an `eval` episode belongs to, `<phase>@<phase_step>`;
        empty in training.
      when: of an evaluation: `before` any training, `inside` a phase, at the `end` of one; empty
        in training.
      task: judged or lived task, such as `dmc/walker_walk`.
      variant: of the task (a shift), empty for the plain one.
      policy: `gated`, `dreamer_actor`, `awac_actor` (or another rider) or `random`.
      action_mode: `mode` (modes of the distributions, gate at p > 1/2) or `sampled` (as lived).
      phase: counts from 1; 0 is before training.
      cycle: counts from 1.
      phase_step, env_steps, agent_steps, updates: the clock when the episode ended (training) or
        when the evaluation was taken.
      world: index among the parallel worlds.
      episode: counts the episodes of this phase, or of this evaluation, from 0.
      seed: of the world.
      return_: undiscounted sum of rewards.
      length: decisions.
      terminated: ended by termination rather than truncation.
      cut: ended by a phase boundary rather than by the world; not a whole episode.
      extras: facts from the world, e.g. {"achievements": {...}}.
      gate: {} without a gate, else sums over the decisions of the episode: `n` (count) and the
        statistics of `eval.gate_sums.GateMeans`.
    """

    file: ClassVar[str] = "episodes.jsonl"

    split: Literal["train", "eval"]
    eval_id: str
    when: Literal["", "before", "inside", "end"]
    task: str
    variant: str
    policy: str
    action_mode: Literal["mode", "sampled"]
    phase: int
    cycle: int
    phase_step: int
    env_steps: int
    agent_steps: int
    updates: int
    world: int
    episode: int
    seed: int
    return_: float
    length: int
    terminated: bool
    cut: bool = False
    extras: Mapping[str, Any] = field(default_factory=dict)
    gate: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class PhaseRecord(Record):
    """One finished phase: half-open ranges [from, to) in all three clocks.

    Attributes:
      boundary: what ended it, e.g. `steps`.
      replay_shares: share of the held replay rows per task at the end of the phase.
    """

    file: ClassVar[str] = "phases.jsonl"

    phase: int
    cycle: int
    task: str
    env_steps: tuple[int, int]
    agent_steps: tuple[int, int]
    updates: tuple[int, int]
    boundary: str
    replay_shares: Mapping[str, float]


@dataclass(frozen=True)
class TrainRecord(Record):
    """Means over the updates and decisions since the previous train record.

    Attributes:
      losses: name -> mean.
      diagnostics: name -> mean (entropies, norms, returns of imagination …).
      gate: task -> `n`, a count of decisions, and means over them of the statistics of
        `eval.gate_sums.GateMeans`.
      riders: rider -> statistic -> mean.
      by_task: task -> loss, diagnostic or rider's statistic -> mean over the updates that had rows
        of the task.
      sampled_rows, held_rows: task -> rows of replay trained on since the previous record, and
        rows held now.
      sampled_age: mean age in agent steps of the rows trained on.
      sampled_latent_age: mean number of updates since the latents that sequences began with were
        written; 0 where none are stored.
    """

    file: ClassVar[str] = "train.jsonl"

    phase: int
    cycle: int
    task: str
    phase_step: int
    env_steps: int
    agent_steps: int
    updates: int
    losses: Mapping[str, float]
    diagnostics: Mapping[str, float]
    gate: Mapping[str, Mapping[str, float]]
    riders: Mapping[str, Mapping[str, float]]
    by_task: Mapping[str, Mapping[str, float]]
    sampled_rows: Mapping[str, int]
    held_rows: Mapping[str, int]
    sampled_age: float
    sampled_latent_age: float = math.nan


R = TypeVar("R", bound=Record)
_AS_THEY_ARE = {str, int, float, bool}


def load_records(folder: Path, kind: type[R]) -> list[R]:
    """All records of one kind under `runs/<name>/records`; [] where none were written yet.

    A torn last line (a run that is being written, or was killed) is left out.

    Raises:
      UserError: it cannot be read, or a whole line of it is no record of this schema; says which.
    """
    path = folder / kind.file
    try:
        return list(_iterate(path, kind))
    except OSError as error:
        raise failed(path, "read", error) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not text: {one_line(error)}") from error


def _iterate(path: Path, kind: type[R]) -> Iterator[R]:
    if not path.exists():
        return
    names = {f.name for f in fields(kind)}
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.endswith("\n"):
                return
            try:
                values = json.loads(line)
                if values.get("schema") != SCHEMA:
                    raise ValueError(f"schema {values.get('schema')!r}, expected {SCHEMA}")
                yield kind(**_revived({k: values[k] for k in values.keys() & names}))
            except (ValueError, TypeError, AttributeError) as error:
                said = one_line(error)
                raise UserError(f"{path}:{number}: no {kind.__name__}: {said}") from error


def _revive(value: Any) -> Any:
    """JSON has no tuples and no NaN: lists become tuples; null, wherever it stands, was NaN."""
    if isinstance(value, list):
        return tuple(_revive(v) for v in value)
    if isinstance(value, dict):
        return _revived(value)
    return math.nan if value is None else value


def _revived(values: Mapping[str, Any]) -> dict[str, Any]:
    # A call for every number would take half the time that a comparison of long lives takes.
    return {k: v if v.__class__ in _AS_THEY_ARE else _revive(v) for k, v in values.items()}


def _finite(value: Any, path: str, reasons: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v, f"{path}.{k}", reasons) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v, f"{path}.{i}", reasons) for i, v in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        reasons[path] = str(value)
        return None
    return value
