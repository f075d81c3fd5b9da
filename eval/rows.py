"""Records as rows for charts: numbers by name, where in the life they belong, what made them.

A name is `<kind>/<task>/<what>` or `<kind>/<what>`, the same in every phase and in every run:

    lived/<task>/…           return, length and gate of an episode that was lived
    judged/<task>/<policy>   mean return of an evaluation, by the modes of the policy
    judged_sampled/…         the same with sampled actions
    learner/…, riders/…      losses, diagnostics, riders' statistics
    by_task/<task>/…         those of one task
    gate/<task>/…            means over the decisions since the row before
    replay/…                 what was held and trained on
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from eval.matrix import cell
from eval.records import EpisodeRecord, PhaseRecord, Record, TrainRecord

AXES = ("env_steps", "phase_step", "phase", "agent_steps", "updates")
KINDS = (
    *("lived", "judged", "judged_sampled", "learner", "riders", "by_task", "gate", "replay"),
    "boundary",
)


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
      file, lines: of the records it is made of; lines count from 1.
      axes: of AXES -> value, in environment steps, replay rows and updates.
      values: name -> number; what is not a number is left out.
    """

    file: str
    lines: tuple[int, ...]
    axes: Mapping[str, int]
    values: Mapping[str, float]

    @property
    def record(self) -> str:
        """Where the row comes from: `episodes.jsonl:12`, `episodes.jsonl:12-21,32`."""
        return f"{self.file}:{','.join(_ranges(self.lines))}"


def last_line(record: str) -> tuple[str, int]:
    """File and last line of what `Row.record` names.

    Raises:
      ValueError: it names nothing.
    """
    file, _, lines = record.partition(":")
    return file, int(lines.replace(",", "-").rpartition("-")[2])


class RowMaker:
    """Makes rows of records that come one after another; an evaluation's episodes become one row.

    Episodes that a phase boundary cut are left out, as they would read as poor returns, and so are
    those of shifted tasks, which the forgetting matrix does not know either.
    """

    def __init__(self) -> None:
        self._judged: list[tuple[int, EpisodeRecord]] = []

    def add(self, line: int, record: Record) -> Iterator[Row]:
        """Rows that are whole now.

        Args:
          line: of the record in its file, counted from 1.
        """
        if self._judged and _piece(record) != _piece(self._judged[0][1]):
            yield from self.rest()
        match record:
            case EpisodeRecord(split="eval"):
                self._judged.append((line, record))
            case EpisodeRecord():
                yield from _lived(line, record)
            case TrainRecord():
                yield _trained(line, record)
            case PhaseRecord():
                yield _ended(line, record)

    def rest(self) -> Iterator[Row]:
        """The row of the evaluation that was last: no more of its episodes will come."""
        episodes, self._judged = self._judged, []
        whole = [(line, e) for line, e in episodes if not e.cut and not e.variant]
        if whole:
            _, first = whole[0]
            kind = "judged" if first.action_mode == "mode" else "judged_sampled"
            mean = cell([e.return_ for _, e in whole]).mean
            values = {f"{kind}/{first.task}/{first.policy}": mean}
            yield _row(first.file, tuple(line for line, _ in whole), _clock(first), values)


def make_rows(records: Iterable[tuple[int, Record]]) -> Iterator[Row]:
    """Rows of numbered records, in their order."""
    maker = RowMaker()
    for line, record in records:
        yield from maker.add(line, record)
    yield from maker.rest()


def merged(rows: Sequence[Row]) -> Row:
    """Rows of one file at one place of the life as one row; later values count."""
    values = {name: value for row in rows for name, value in row.values.items()}
    lines = tuple(sorted(line for row in rows for line in row.lines))
    return Row(rows[0].file, lines, rows[0].axes, values)


def own_values(values: Mapping[str, float], task: str) -> dict[str, float]:
    """What is about one task, without its name: `judged/gated`. So tasks share a chart."""
    part = f"/{task}/"
    return {name.replace(part, "/", 1): v for name, v in values.items() if part in name}


def _lived(line: int, e: EpisodeRecord) -> Iterator[Row]:
    if e.cut or e.variant:
        return
    values = {"return": e.return_, "length": float(e.length)}
    n = e.gate.get("n", 0)
    values |= {f"gate/{k}": v / n for k, v in e.gate.items() if n and k != "n"}
    named = {f"lived/{e.task}/{name}": value for name, value in values.items()}
    yield _row(e.file, (line,), _clock(e), named)


def _trained(line: int, t: TrainRecord) -> Row:
    values = {f"learner/loss/{name}": value for name, value in t.losses.items()}
    values |= {f"learner/{name}": value for name, value in t.diagnostics.items()}
    for kind, tables in (("riders", t.riders), ("gate", t.gate), ("by_task", t.by_task)):
        for key, held in tables.items():
            values |= {f"{kind}/{key}/{name}": value for name, value in held.items()}
    for what, counts in (("sampled", t.sampled_rows), ("held", t.held_rows)):
        values |= {f"replay/{task}/{what}": float(rows) for task, rows in counts.items()}
    values |= {"replay/age": t.sampled_age, "replay/latent_age": t.sampled_latent_age}
    return _row(t.file, (line,), _clock(t), values)


def _ended(line: int, p: PhaseRecord) -> Row:
    ranges = {"env_steps": p.env_steps, "agent_steps": p.agent_steps, "updates": p.updates}
    axes = {name: stop for name, (_, stop) in ranges.items()}
    axes |= {"phase": p.phase, "phase_step": p.env_steps[1] - p.env_steps[0]}
    values = {f"replay/{task}/share": share for task, share in p.replay_shares.items()}
    return _row(p.file, (line,), axes, values | {"boundary/phase": float(p.phase)})


def _row(
    file: str, lines: tuple[int, ...], axes: Mapping[str, int], values: Mapping[str, float]
) -> Row:
    return Row(file, lines, axes, {k: v for k, v in values.items() if math.isfinite(v)})


def _clock(record: EpisodeRecord | TrainRecord) -> dict[str, int]:
    return {name: getattr(record, name) for name in AXES}


def _piece(record: Record) -> tuple[str, ...] | None:
    """What of an evaluation an episode belongs to; None: to none."""
    if not isinstance(record, EpisodeRecord) or record.split == "train":
        return None
    e = record
    return (e.eval_id, e.when, e.task, e.variant, e.policy, e.action_mode)


def _ranges(lines: Sequence[int]) -> Iterator[str]:
    first = last = lines[0]
    for line in [*lines[1:], None]:
        if line == last + 1:
            last = line
        else:
            yield f"{first}" if first == last else f"{first}-{last}"
            first = last = line or 0
