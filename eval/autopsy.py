"""Where was it lost? What `python -m continual.autopsy` measured in a run, read and judged.

R_own, R_final and R_recovered are mean returns on an old task: of the agent that the task's own
phase ended with, of the one that the last phase ended with, and of the latter once its actor and
critic were trained anew in dreams of its own world model.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from continual.errors import UserError
from continual.strict_yaml import one_line
from eval.as_json import null_for_nan
from eval.matrix import Cell, cell, is_above

FILE = "autopsy.json"  # in the run's folder
SCHEMA = 1
DEFINITIONS: Mapping[str, str] = {
    "R_own": "mean return at the end of the last phase that trained the task",
    "R_final": "mean return at the end of the last phase",
    "R_recovered": "mean return of the agent of the last phase after its actor and critic were "
    "trained in dreams of its world model, which was frozen; the dreams start from what that model "
    "makes of the replay of the task's own phase",
    "lost": "R_own - R_final",
    "by the policy": "R_recovered - R_final",
    "by the model": "R_own - R_recovered",
    "share": "of lost; undefined unless R_own is above R_final by more than twice the standard "
    "error of the difference",
    "transplant": "return with the world model (enc, dec, dyn, rew, con) of the end of one phase "
    "and the actor and critic (pol, val) of the end of another",
}


@dataclass(frozen=True)
class Loss:
    """What became of the return on a task; NaN, and a reason, where that cannot be said.

    Attributes:
      lost: by_policy + by_model.
      policy_share, model_share: of `lost`; they sum to 1, and may lie outside of [0, 1].
    """

    lost: float = math.nan
    by_policy: float = math.nan
    by_model: float = math.nan
    policy_share: float = math.nan
    model_share: float = math.nan
    reason: str = ""


def where_lost(own: Cell, final: Cell, recovered: Cell) -> Loss:
    """Part a loss: what comes back with the model as it is was lost by the policy, the rest by the
    model.

        lost          = R_own - R_final
        by the policy = R_recovered - R_final
        by the model  = R_own - R_recovered
    """
    lost = own.mean - final.mean
    by_policy, by_model = recovered.mean - final.mean, own.mean - recovered.mean
    reason = ""
    if not own.n or not final.n:
        reason = "not judged at both ends"
    elif not is_above(own, final):
        reason = "nothing was lost beyond chance"
    elif not recovered.n:
        reason = "not recovered"
    if reason:
        return Loss(lost, by_policy, by_model, reason=reason)
    return Loss(lost, by_policy, by_model, by_policy / lost, by_model / lost)


class Judged(BaseModel):
    """Returns of the evaluation episodes, in their order; none, and why, if none were played."""

    model_config = ConfigDict(frozen=True)

    returns: tuple[float, ...] = ()
    reason: str = ""

    @property
    def cell(self) -> Cell:
        return cell(self.returns)


class Transplant(Judged):
    """The world model of the end of one phase, with the heads of the end of another."""

    world_model: int
    heads: int


class TaskAutopsy(BaseModel):
    """What was measured of one old task.

    Attributes:
      own_phase: the last that trained it.
      replay_phase: at whose end the replay was kept that dreams started from; 0: none.
      transplants: the world model of every phase with the heads of every phase.
    """

    model_config = ConfigDict(frozen=True)

    task: str
    own_phase: int
    own: Judged
    final: Judged
    recovered: Judged
    replay_phase: int
    transplants: tuple[Transplant, ...]

    @property
    def loss(self) -> Loss:
        return where_lost(self.own.cell, self.final.cell, self.recovered.cell)

    @property
    def why(self) -> str:
        """Why there are no shares; empty where there are."""
        unmeasured = self.own.reason or self.final.reason
        if not unmeasured and self.loss.reason == "not recovered":
            unmeasured = self.recovered.reason
        return unmeasured or self.loss.reason


class Dissected(BaseModel):
    """An agent that was looked at.

    Attributes:
      checkpoint: its folder below checkpoints/; empty, and a reason, where there is none.
    """

    model_config = ConfigDict(frozen=True)

    phase: int
    checkpoint: str = ""
    agent_sha256: str = ""
    reason: str = ""


class Autopsy(BaseModel):
    """All that autopsy.json holds of a run.

    Attributes:
      seed: root of what was drawn in recovery.
      last_phase: the newest that had ended; its agent is the final one.
      updates: of the recovery of each task, imagined ones alone.
      episode_seeds: of the worlds' evaluation episodes.
      context: replay.context of the run, by which posteriors begin.
      agents: of the end of every phase.
    """

    model_config = ConfigDict(frozen=True)

    run: str
    seed: int
    last_phase: int
    policy: str
    action_mode: str
    updates: int
    episode_seeds: tuple[int, ...]
    context: str
    agents: tuple[Dissected, ...]
    tasks: tuple[TaskAutopsy, ...]


def autopsy_json(autopsy: Autopsy) -> str:
    """The text of autopsy.json: what was measured, and what follows from it. NaN is null."""
    content = {"schema": SCHEMA, "definitions": DEFINITIONS, **autopsy.model_dump()}
    for task, found in zip(content["tasks"], autopsy.tasks, strict=True):
        task |= {"loss": asdict(found.loss) | {"reason": found.why}}
        for judged in (task["own"], task["final"], task["recovered"], *task["transplants"]):
            judged |= asdict(cell(judged["returns"]))
    return json.dumps(null_for_nan(content), indent=1, ensure_ascii=False) + "\n"


def load_autopsy(run: Path) -> Autopsy | None:
    """What is known of a run; None without an autopsy.

    Raises:
      UserError: the file is not what we write.
    """
    path = run / FILE
    if not path.exists():
        return None
    remedy = f"python -m continual.autopsy {run} makes it anew"
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        schema = content["schema"]
        if schema != SCHEMA:
            raise UserError(f"{path}: schema {schema}, expected {SCHEMA}; {remedy}")
        return Autopsy.model_validate(content)
    except (OSError, ValueError, TypeError, KeyError) as error:
        said = one_line(str(error))[:200]
        raise UserError(f"{path}: not an autopsy of ours: {said}; {remedy}") from error
