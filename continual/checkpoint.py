"""A life on disk: one folder of safetensors and a manifest of their checksums.

    checkpoints/latest                        names the newest whole folder
    checkpoints/<phase>-<env steps>-<updates>/
        agent.safetensors   every parameter, moment and normaliser, under flat names
        stage.safetensors   policy state, gate sums, actions of the open episodes
        manifest.json       clock, cursors, open episodes, SHA-256 of the files above

A folder is written under another name, made durable, renamed, and only then pointed at; so whatever
happens, `latest` names a whole one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
from continual.life import Life, Meter, Stage
from continual.rundir import sync_folder, write_atomically
from continual.scheduler import Clock
from eval.judge import GateSums

SCHEMA = 1
_POINTER = "latest"

Tree = TypeVar("Tree")


@dataclass(frozen=True)
class Saved:
    """A checkpoint as read: what can be had without building worlds or an agent.

    Attributes:
      clock: of the life.
      replay, records: cursors for their `rewind`.
      manifest: everything else that is small.
    """

    path: Path
    clock: Clock
    replay: Mapping[str, Any]
    records: Mapping[str, int]
    manifest: Mapping[str, Any]


def save_checkpoint(
    folder: Path, life: Life, *, replay: Mapping[str, Any], records: Mapping[str, int], keep: int
) -> Path:
    """Write the life, point at it, and delete all but the newest `keep` checkpoints."""
    clock = life.clock
    path = folder / f"{clock.phase:04d}-{clock.env_steps:012d}-{clock.updates:010d}"
    partial = folder / f"{path.name}.partial"
    for old in (partial, path):
        if old.exists():
            shutil.rmtree(old)
    partial.mkdir(parents=True)
    files = {
        "agent.safetensors": flatten(life.agent),
        "stage.safetensors": _stage_arrays(life.stage),
    }
    for name, arrays in files.items():
        save_file(arrays, partial / name)
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
    for file in partial.iterdir():
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    sync_folder(partial)
    partial.rename(path)
    sync_folder(folder)
    write_atomically(folder / _POINTER, path.name + "\n")
    whole = sorted(p for p in folder.iterdir() if p.is_dir() and p.suffix != ".partial")
    for old in whole[:-keep]:
        shutil.rmtree(old)
    return path


def find_checkpoint(folder: Path) -> Saved | None:
    """The checkpoint that `latest` names, its checksums verified; None before the first.

    Raises:
      UserError: it is damaged, or of another schema.
    """
    pointer = folder / _POINTER
    if not pointer.exists():
        return None
    path = folder / pointer.read_text(encoding="utf-8").strip()
    try:
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        if manifest["schema"] != SCHEMA:
            raise UserError(f"{path}: checkpoint of schema {manifest['schema']}, expected {SCHEMA}")
        for name, expected in manifest["sha256"].items():
            if _sha256(path / name) != expected:
                raise UserError(
                    f"{path / name}: damaged: its checksum is not the one in manifest.json"
                )
        clock = manifest["clock"]
        clock["phase_start"] = tuple(clock["phase_start"])
        return Saved(path, Clock(**clock), manifest["replay"], manifest["records"], manifest)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: cannot be read as a checkpoint: {error}") from error


def load_agent(saved: Saved, like: AgentState) -> AgentState:
    """The learnt state. `like` gives the structure; its leaves may be shapes only.

    Raises:
      UserError: the checkpoint's leaves are not those of this agent.
    """
    return unflatten(like, _load(saved.path / "agent.safetensors"), saved.path)


def load_stage(
    saved: Saved, worlds: list[World], initial: Callable[[int], Any], heads: tuple[str, ...]
) -> Stage | None:
    """Bring the worlds back to where they stood, by their seeds and the actions taken.

    Args:
      worlds: N fresh ones of the phase's task.
      initial: n -> a policy state of n rows, for its structure.
      heads: of the worlds.
    Raises:
      UserError: a world does not come back to the observation it had.
    """
    if saved.manifest["episodes"] is None:
        return None
    arrays = _load(saved.path / "stage.safetensors")
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
