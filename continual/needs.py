"""What a run will ask of a disk, from above: told at its start, and looked at as it goes on."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import jax

from agent.agent import Agent
from continual.collect import row_schema
from continual.config import Config
from continual.errors import UserError
from continual.pacing import decisions_in
from curricula.loader import NamedCurriculum
from storage.batch import Schema


@dataclass(frozen=True)
class Needs:
    """Bytes.

    Attributes:
      replay: of the rows that can be held at a time.
      learnt: of what the agent has learnt, which is a checkpoint but for a little.
      between: that are written from one checkpoint to the next, the latter included.
      disk: of the whole run's folder.
    """

    replay: int
    learnt: int
    between: int
    disk: int


def needs_of(config: Config, curriculum: NamedCurriculum, agent: Agent) -> Needs:
    """Counts rows as if no episode ended inside a phase: each end adds a row without a decision."""
    gated = config.agent.acting == "gated"
    latents = _nbytes(agent.latents)
    row = {
        task: _nbytes(row_schema(interface, gated)) + latents
        for task, interface in agent.union.tasks.items()
    }
    lived = rows_of(config, curriculum)
    replay = _heaviest(lived, row, config.replay.capacity)
    state = jax.eval_shape(agent.init, jax.random.key(0))
    learnt = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    every = min(config.checkpoint.every, lived.total())
    # An update rewrites latents; the old ones are kept until the next checkpoint.
    rewritten = min(config.replay.capacity, lived.total(), int(every * config.collect.train_ratio))
    between = every * max(row.values()) + rewritten * latents + learnt
    kept = config.checkpoint.keep + len(curriculum.plan)
    return Needs(replay, learnt, between, replay + 2 * between + kept * learnt)


def rows_of(config: Config, curriculum: NamedCurriculum) -> Counter[str]:
    """Task -> rows that its phases leave behind, all worlds together."""
    rows: Counter[str] = Counter()
    for phase in curriculum.plan:
        rows[phase.task] += config.collect.worlds * (decisions_in(phase, config.collect) + 1)
    return rows


def warning(needs: Needs, folder: Path) -> str | None:
    """A line for the person, if the disk may be too small; the estimate is from above."""
    free = shutil.disk_usage(folder).free
    there = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if needs.disk <= free + there:
        return None
    return (
        f"{folder}: the run may come to {needs.disk / 1e9:,.1f} GB, and {free / 1e9:,.1f} GB are "
        "free; it will stop in good order before the disk is full"
    )


def refuse_full_disk(needs: Needs, folder: Path) -> None:
    """Raises UserError: there may be no room for what is written until the next checkpoint."""
    free = shutil.disk_usage(folder).free
    if free < needs.between:
        raise UserError(
            f"{folder}: {free / 1e6:,.0f} MB are free, expected {needs.between / 1e6:,.0f} MB for "
            "what comes until the next checkpoint; all so far is saved, the same command goes on"
        )


def _nbytes(schema: Schema) -> int:
    return sum(column.nbytes for column in schema.values())


def _heaviest(rows: Counter[str], row: dict[str, int], capacity: int) -> int:
    """The most the held rows can weigh: as many as there will be of the heaviest tasks first."""
    held, left = 0, capacity
    for task in sorted(rows, key=lambda task: -row[task]):
        taken = min(left, rows[task])
        held += taken * row[task]
        left -= taken
    return held
