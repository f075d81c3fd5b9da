"""What a run will ask of a disk, from above: told at its start, and looked at as it goes on."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import jax

from agent.agent import Agent, AgentState
from continual.collect import row_schema
from continual.config import CollectConfig, Config
from continual.errors import UserError
from continual.pacing import decisions_in, train_ratio_of
from curricula.loader import NamedCurriculum, PlannedPhase
from storage.files import sizes_below
from storage.mirror import nbytes_of


@dataclass(frozen=True)
class Needs:
    """Rows, and bytes.

    Attributes:
      rows: that can be held at a time; of the lightest kind, where capacity is in bytes.
      replay: of those rows.
      learnt: of what the agent has learnt, which is a checkpoint but for a little.
      between: that are written from one checkpoint to the next, the latter included.
      disk: of the whole run's folder.
    """

    rows: int
    replay: int
    learnt: int
    between: int
    disk: int


def needs_of(config: Config, curriculum: NamedCurriculum, agent: Agent, state: AgentState) -> Needs:
    """What a run needs; of `state` only the sizes count, so shapes serve as well as arrays."""
    gated = config.agent.acting == "gated"
    stored = agent.latents if config.replay.context == "stored" else {}
    latents = nbytes_of(stored)
    schemas = {t: {**row_schema(i, gated), **stored} for t, i in agent.union.tasks.items()}
    row = {task: nbytes_of(schema) for task, schema in schemas.items()}
    lived = rows_of(config, curriculum)
    capacity = config.replay.held(config.seed)
    # At most: of each task as many as fit if nothing else is held, and all tasks together no more
    # than fit of the lightest.
    rows = {task: int(min(n, capacity.in_rows(schemas[task]))) for task, n in lived.items()}
    most = int(min(lived.total(), max(capacity.in_rows(schemas[task]) for task in lived)))
    replay = _heaviest(Counter(rows), row, most)
    if config.replay.unit == "bytes" and config.replay.retention.is_bounded:
        replay = min(replay, config.replay.capacity)
    learnt = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    every = min(config.checkpoint.every, lived.total())
    # An update rewrites latents; the old ones are kept until the next checkpoint.
    ratio = max(train_ratio_of(task, config.collect) for task in lived)
    rewritten = min(most, int(every * ratio))
    between = every * max(row.values()) + rewritten * latents + learnt
    phases = len(curriculum.plan)
    kept = (config.checkpoint.keep + phases + 1) * learnt
    if config.checkpoint.keep_replays:
        # Of all that ever was, each block once; latents once a phase.
        latent_rows = phases * most
        kept += sum(n * (row[task] - latents) for task, n in lived.items()) + latent_rows * latents
    return Needs(most, replay, learnt, between, replay + 2 * between + kept)


def rows_of(config: Config, curriculum: NamedCurriculum) -> Counter[str]:
    """Task -> rows that its phases leave behind, all worlds together."""
    rows: Counter[str] = Counter()
    for phase in curriculum.plan:
        rows[phase.task] += rows_in(phase, config.collect)
    return rows


def rows_in(phase: PlannedPhase, collect: CollectConfig) -> int:
    """Rows that a phase leaves behind, all worlds together, if no episode ends inside it: each end
    adds a row without a decision.
    """
    return collect.worlds * (decisions_in(phase, collect) + 1)


def warning(needs: Needs, folder: Path) -> str | None:
    """A line for the person, if the disk may be too small; the estimate is from above."""
    free = shutil.disk_usage(folder).free
    if needs.disk <= free or needs.disk <= free + sum(sizes_below(folder).values()):
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


def _heaviest(rows: Counter[str], row: dict[str, int], capacity: int) -> int:
    """The most the held rows can weigh: as many as there will be of the heaviest tasks first."""
    held, left = 0, capacity
    for task in sorted(rows, key=lambda task: -row[task]):
        taken = min(left, rows[task])
        held += taken * row[task]
        left -= taken
    return held
