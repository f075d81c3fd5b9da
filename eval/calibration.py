"""Is the gate right? What `python -m continual.calibrate` found by trying both policies.

At sampled moments of episodes the world is forked: in one branch the actor holds for some
decisions, in the other its partner does, and then both go on alike. Which branch returned more says
who should have acted, and p, the gate's probability that the partner acts, is judged by that.
Whether it is of use is another question: a coin that speaks as often answers it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict

from continual.errors import UserError
from continual.strict_yaml import one_line
from eval.as_json import null_for_nan

FILE = "calibration.json"  # in the run's folder
SCHEMA = 2


class Fork(BaseModel):
    """One moment, tried with either policy.

    Attributes:
      seed, decision: of the episode, and in it: where the world was forked.
      p: of the gate there.
      actor, partner: return from there on, with the one or the other holding at first.
    """

    model_config = ConfigDict(frozen=True)

    seed: int
    decision: int
    p: float
    actor: float
    partner: float


class Skill(BaseModel):
    """The same episodes twice: with the gate, and with a coin in its place.

    Attributes:
      rate: share of the decisions that the gate gave to the partner, and chance of the coin.
      gated, coin: returns, episode by episode.
    """

    model_config = ConfigDict(frozen=True)

    rate: float
    gated: tuple[float, ...]
    coin: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean return of the gate minus that of the coin: what it knew, not how often it spoke."""
        return float(np.mean(self._differences))

    @property
    def error(self) -> float:
        """Standard error of the mean over the pairs; NaN for a single one."""
        n = len(self.gated)
        return float(np.std(self._differences, ddof=1) / math.sqrt(n)) if n > 1 else math.nan

    @property
    def _differences(self) -> np.ndarray:
        return np.subtract(self.gated, self.coin, dtype=np.float64)


class TaskCalibration(BaseModel):
    """What was tried in one task."""

    model_config = ConfigDict(frozen=True)

    task: str
    forks: tuple[Fork, ...]
    skill: Skill


class Calibration(BaseModel):
    """All that was found of a run.

    Attributes:
      phase: at whose end the agent was taken; None: the newest checkpoint.
      hold: decisions for which a policy is held.
      follow: decisions that follow, at most, with the gated agent.
    """

    model_config = ConfigDict(frozen=True)

    checkpoint: str
    phase: int | None
    hold: int
    follow: int
    tasks: tuple[TaskCalibration, ...]


@dataclass(frozen=True)
class Verdict:
    """How well p tells which policy should act.

    Attributes:
      forks, ties: how many. Ties have no label: share, AUROC and Brier score are of the others.
      partner_share: of them in which the partner returned more.
      auroc: chance that p is higher where the partner returned more than where the actor did; 1/2
        knows nothing.
      brier: mean of (p - label)^2; 0 is sure and right, 1/4 is p = 1/2 everywhere.
      gain: mean of (partner - actor) over all forks.
      reason: why some of these are NaN; empty otherwise.
    """

    forks: int
    ties: int
    partner_share: float
    auroc: float
    brier: float
    gain: float
    reason: str = ""


def judge_forks(forks: Sequence[Fork]) -> Verdict:
    """NaN where there are none that count, or, for the AUROC, none of one kind."""
    differences = np.array([f.partner - f.actor for f in forks], np.float64)
    p = np.array([f.p for f in forks], np.float64)
    counts = differences != 0
    label = differences[counts] > 0
    reason = ""
    if not len(forks):
        reason = "nothing was forked"
    elif not label.size:
        reason = "no two branches returned differently"
    elif label.all() or not label.any():
        reason = f"the {'partner' if label.all() else 'actor'} returned more in every fork"
    return Verdict(
        forks=len(forks),
        ties=int((~counts).sum()),
        partner_share=float(label.mean()) if label.size else math.nan,
        auroc=auroc(p[counts], label),
        brier=brier(p[counts], label),
        gain=float(differences.mean()) if len(differences) else math.nan,
        reason=reason,
    )


def auroc(score: ArrayLike, label: ArrayLike) -> float:
    """Area under the ROC curve: P(score of a positive > that of a negative), ties counting 1/2.

    Source: the Mann-Whitney form (Hanley & McNeil 1982).

    Args:
      score: [n]; label: [n], true for positives. NaN without a positive or a negative.
    """
    s, y = np.asarray(score, np.float64), np.asarray(label, bool)
    positive, negative = s[y], s[~y]
    if not positive.size or not negative.size:
        return math.nan
    apart = positive[:, None] - negative[None, :]
    return float(((apart > 0) + 0.5 * (apart == 0)).mean())


def brier(p: ArrayLike, label: ArrayLike) -> float:
    """Mean of (p - label)^2; NaN of nothing.

    Source: Brier 1950, for two outcomes, of which one is counted.

    Args:
      p: [n] probability of a positive; label: [n], true for positives.
    """
    error = np.asarray(p, np.float64) - np.asarray(label, np.float64)
    return float((error**2).mean()) if error.size else math.nan


def to_text(found: Calibration) -> str:
    """The file's content: forks, and what is concluded from them."""
    verdicts = {
        t.task: asdict(judge_forks(t.forks)) | {"skill": t.skill.mean, "skill_error": t.skill.error}
        for t in found.tasks
    }
    content = {"schema": SCHEMA, **found.model_dump(), "verdicts": null_for_nan(verdicts)}
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def load_calibration(run: Path) -> Calibration | None:
    """What was found of a run; None if nobody looked.

    Raises:
      UserError: the file is not one of ours.
    """
    path = run / FILE
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            raise ValueError(f"schema {content['schema']}, expected {SCHEMA}")
        return Calibration(**content)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a calibration: {one_line(error)}") from error
