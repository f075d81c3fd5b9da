"""A life on disk: one folder of safetensors and a manifest of their checksums.

    checkpoints/<serial>-p<phase>-<env steps>-<updates>/
        agent.safetensors   every parameter, moment and normaliser, under flat names
        stage.safetensors   policy state, gate sums, actions of the open episodes
        manifest.json       clock, cursors, open episodes, SHA-256 of the files above
        replay/             between phases, if wanted: the replay as it was, to branch from

A folder is written and deleted under another name, and has its own only while it is whole. Serials
count all that were ever written, so the newest is the one of the highest serial: whatever happens,
there is nothing else to keep in step. Kept are the newest ones, which a life can go on from, and
the first of every phase, which is what the phase before it came to, judged and closed. One that is
found damaged is passed over, and set aside as `<name>.damaged` when the life goes on from the one
before.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from agent.agent import AgentState
from agent.owners import path_names
from continual.envs.interact import Episode, replay_actions
from continual.envs.world import TimeStep, World
from continual.errors import UserError
from continual.files import PARTIAL, named, sync_path
from continual.life import Life, Meter, Stage
from continual.scheduler import Clock
from eval.gate_sums import GateSums

SCHEMA = 1
AGENT, STAGE = "agent.safetensors", "stage.safetensors"
KEPT_REPLAY = "replay"  # folder in a checkpoint
_NAME = re.compile(r"([0-9]{6,})-p([0-9]+)-[0-9]+-[0-9]+")
_DAMAGED = ".damaged"

Tree = TypeVar("Tree")


@dataclass(frozen=True)
class Saved:
    """A checkpoint as read: what can be had without building worlds or an agent.

    Attributes:
      path: its folder.
      clock: of the life.
      replay, records: cursors for their `rewind`.
      manifest: everything else that is small.
      passed_over: newer checkpoints that are damaged, and how.
    """

    path: Path
    clock: Clock
    replay: Mapping[str, Any]
    records: Mapping[str, int]
    manifest: Mapping[str, Any]
    passed_over: Mapping[Path, str] = field(default_factory=dict)

    def is_end_of(self, phase: int) -> bool:
        """Whether this is what a phase came to: nothing of the next one was lived yet."""
        return self.clock.phase == phase + 1 and self.clock.phase_step == 0


def save_checkpoint(
    folder: Path,
    life: Life,
    *,
    replay: Mapping[str, Any],
    records: Mapping[str, int],
    keep: int,
    fork: Callable[[Path], None] | None = None,
) -> Path:
    """Write the life; then, and only then, delete checkpoints that are neither among the newest
    `keep` nor the first of a phase.

    Args:
      fork: makes a replay in a folder that holds what `replay` does; to keep it.
    Returns:
      The new checkpoint, which is durable.
    Raises:
      UserError: such as a full disk; the checkpoints there are stay.
    """
    with named(folder, "write a checkpoint"):
        return _save(folder, life, replay, records, keep, fork)


def _save(
    folder: Path,
    life: Life,
    replay: Mapping[str, Any],
    records: Mapping[str, int],
    keep: int,
    fork: Callable[[Path], None] | None,
) -> Path:
    clock = life.clock
    folder.mkdir(parents=True, exist_ok=True)
    serial = 1 + max((_serial(p) for p in folder.iterdir()), default=0)
    path = folder / f"{serial:06d}-p{clock.phase}-{clock.env_steps}-{clock.updates}"
    partial = _partial(path)
    partial.mkdir()
    if fork is not None:
        fork(partial / KEPT_REPLAY)
    files = {
        AGENT: flatten(life.agent),
        STAGE: _stage_arrays(life.stage),
    }
    for name, arrays in files.items():
        _save_file(arrays, partial / name)
    manifest = {
        "schema": SCHEMA,
        "clock": dataclasses.asdict(clock),
        "episodes": _episodes(life.stage),
        "begun": life.stage.begun if life.stage else 0,
        "meter": vars(life.meter),
        "replay": replay,
        "records": records,
        "sha256": {name: _sha256(partial / name) for name in files},
    }
    (partial / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    for written in (*partial.iterdir(), partial):
        sync_path(written)  # a fork is durable already, and its folder does no harm
    partial.rename(path)
    sync_path(folder)
    whole = _whole(folder)
    spared = {_phase(old): old for old in reversed(whole)}.values()
    for old in whole[:-keep]:
        if old not in spared:
            old.rename(_partial(old))
    for rest in folder.glob(f"*{PARTIAL}"):
        shutil.rmtree(rest)
    return path


def _save_file(arrays: Mapping[str, np.ndarray], path: Path) -> None:
    """Raises OSError, as everything that writes does; the library says it in words of its own."""
    try:
        save_file(dict(arrays), path)
    except SafetensorError as error:
        number = re.search(r"os error ([0-9]+)", str(error))
        if not number:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from error


def find_checkpoint(folder: Path, phase: int | None = None) -> Saved | None:
    """The newest checkpoint that is whole, by its checksums; None before the first.

    Args:
      phase: what this phase came to, or has come to so far, instead of the newest of all.
    Raises:
      UserError: all of them are damaged, or the newest is of another schema; there is what is no
        checkpoint; or there is none of that phase.
    """
    whole = _whole(folder)
    if phase is not None:
        first = [path for path in whole if _phase(path) == phase + 1][:1]
        running = [path for path in whole if _phase(path) == phase] if phase > 0 else []
        if not first and not running:
            raise UserError(
                f"{folder}: no checkpoint of phase {phase}, there are those of "
                f"{', '.join(map(str, ended_phases(folder))) or 'none'}"
            )
        whole = first or running
    passed_over: dict[Path, str] = {}
    for path in reversed(whole):
        try:
            return replace(_read(path), passed_over=passed_over)
        except Damaged as error:
            passed_over[path] = str(error)
    if passed_over:
        raise UserError(next(iter(passed_over.values())))
    return None


def ended_phases(folder: Path) -> list[int]:
    """Phases whose end can be gone back to."""
    return sorted({_phase(path) - 1 for path in _whole(folder)} - {0})


class Damaged(Exception):
    """What is on the disk is not what was written."""


def _read(path: Path) -> Saved:
    """Raises Damaged, or UserError: it is of another schema."""
    try:
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        if manifest["schema"] != SCHEMA:
            raise UserError(f"{path}: checkpoint of schema {manifest['schema']}, expected {SCHEMA}")
        for name, expected in manifest["sha256"].items():
            if _sha256(path / name) != expected:
                raise Damaged(
                    f"{path / name}: damaged: its checksum is not the one in manifest.json"
                )
        clock = manifest["clock"]
        clock["phase_start"] = tuple(clock["phase_start"])
        return Saved(path, Clock(**clock), manifest["replay"], manifest["records"], manifest)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{path}: cannot be read as a checkpoint: {error}") from error


def set_aside(saved: Saved) -> None:
    """Take the damaged checkpoints that were passed over out of the way; they can be looked at."""
    for path in saved.passed_over:
        path.rename(path.with_name(path.name + _DAMAGED))


def load_agent(saved: Saved, like: AgentState) -> AgentState:
    """The learnt state. `like` gives the structure; its leaves may be shapes only.

    Raises:
      UserError: the checkpoint's leaves are not those of this agent.
    """
    return unflatten(like, load_leaves(saved), saved.path)


def load_leaves(saved: Saved) -> dict[str, np.ndarray]:
    """The learnt state as it lies there: `/`-joined path of a leaf -> array."""
    return _load(saved.path / AGENT)


def load_stage(
    saved: Saved, worlds: list[World], initial: Callable[[int], Any], heads: tuple[str, ...]
) -> Stage:
    """Bring the worlds back to where they stood, by their seeds and the actions taken.

    Args:
      saved: in the middle of a phase.
      worlds: N fresh ones of the phase's task.
      initial: n -> a policy state of n rows, for its structure.
      heads: of the worlds.
    Raises:
      UserError: a world does not come back to the observation it had.
    """
    arrays = _load(saved.path / STAGE)
    episodes: list[Episode | None] = []
    for index, (world, kept) in enumerate(zip(worlds, saved.manifest["episodes"], strict=True)):
        taken = {head: arrays[f"actions/{index}/{head}"] for head in heads if kept["length"]}
        actions = [{h: a[t] for h, a in taken.items()} for t in range(kept["length"])]
        episode = replay_actions(world, kept["number"], kept["seed"], actions)
        if _fingerprint(episode.timestep) != kept["fingerprint"]:
            raise UserError(
                f"{saved.path}: world {index} (seed {kept['seed']}, {kept['length']} actions) "
                "did not come back to the observation it had; "
                "was another version of the simulator installed?"
            )
        episodes.append(episode)
    state = {k.removeprefix("policy/"): v for k, v in arrays.items() if k.startswith("policy/")}
    sums = {k.removeprefix("gate/"): v for k, v in arrays.items() if k.startswith("gate/")}
    return Stage(
        unflatten(initial(len(worlds)), state, saved.path),
        episodes,
        saved.manifest["begun"],
        GateSums(len(worlds), sums),
    )


def load_meter(saved: Saved) -> Meter:
    kept = dict(saved.manifest["meter"])
    kept["sampled"] = Counter(kept["sampled"])
    return Meter(**kept)


def flatten(tree: Any) -> dict[str, np.ndarray]:
    """Leaves under `/`-joined paths, as arrays safetensors can write."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(path_names(path)): np.asarray(leaf, order="C") for path, leaf in leaves}


def unflatten(like: Tree, arrays: Mapping[str, np.ndarray], source: Path) -> Tree:
    """Inverse of `flatten`: the structure of `like` with the leaves of `arrays`.

    Raises:
      UserError: missing, surplus or misshapen leaves.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(like)
    names = ["/".join(path_names(path)) for path, _ in leaves]
    for name in {*names} ^ arrays.keys():
        known = "lacks" if name in names else "has an unknown leaf"
        raise UserError(f"{source}: the checkpoint {known} {name!r}; it is of another agent")
    for name, (_, leaf) in zip(names, leaves, strict=True):
        found = arrays[name]
        if found.shape != leaf.shape or found.dtype != leaf.dtype:
            raise UserError(
                f"{source}: {name!r} is {found.dtype}{found.shape}, "
                f"this agent has {leaf.dtype}{leaf.shape}"
            )
    # A copy each: updates consume their state, and must not write into a mapped file.
    tree: Tree = jax.tree.unflatten(structure, [jax.numpy.array(arrays[n]) for n in names])
    return tree


def _whole(folder: Path) -> list[Path]:
    """Checkpoints from the oldest to the newest.

    Raises:
      UserError: there is what is no checkpoint: not to know it must not mean to begin anew.
    """
    found = [p for p in folder.glob("*") if p.is_dir() and p.suffix not in (PARTIAL, _DAMAGED)]
    for path in found:
        if not _serial(path):
            raise UserError(
                f"{path}: not a checkpoint of ours, expected SERIAL-pPHASE-STEPS-UPDATES"
            )
    return sorted(found, key=_serial)


def _serial(path: Path) -> int:
    """Of a checkpoint, whole, partial or damaged; 0 for anything else."""
    match = _NAME.fullmatch(path.name.removesuffix(PARTIAL).removesuffix(_DAMAGED))
    return int(match[1]) if match else 0


def _phase(path: Path) -> int:
    """Of a whole checkpoint."""
    match = _NAME.fullmatch(path.name)
    return int(match[2]) if match else 0


def _partial(path: Path) -> Path:
    return path.with_name(path.name + PARTIAL)


def _stage_arrays(stage: Stage | None) -> dict[str, np.ndarray]:
    if stage is None:
        return {}
    arrays = {f"policy/{name}": leaf for name, leaf in flatten(stage.policy_state).items()}
    arrays |= {f"gate/{name}": sums for name, sums in stage.gate.sums.items()}
    for index, episode in enumerate(stage.episodes):
        assert episode is not None, "a living row always has an episode"
        shown = episode.actions or [{}]
        for head in shown[0]:
            arrays[f"actions/{index}/{head}"] = np.stack([a[head] for a in episode.actions])
    return arrays


def _episodes(stage: Stage | None) -> list[dict[str, Any]] | None:
    if stage is None:
        return None
    return [
        {
            "number": e.number,
            "seed": e.seed,
            "length": len(e.actions),
            "fingerprint": _fingerprint(e.timestep),
        }
        for e in stage.episodes
        if e is not None
    ]


def _fingerprint(timestep: TimeStep) -> int:
    """Checksum of an observation and its reward."""
    total = zlib.crc32(np.float64(timestep.reward).tobytes())
    for name in sorted(timestep.observation):
        total = zlib.crc32(np.ascontiguousarray(timestep.observation[name]).tobytes(), total)
    return total


def _load(path: Path) -> dict[str, np.ndarray]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
