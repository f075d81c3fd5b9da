"""All of a run but its curriculum: defaults here, scales and variants in configs/."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from agent.config import AgentConfig
from continual import resources
from continual.dotted import leaves
from continual.envs.registry import resolve_key
from continual.errors import UserError
from continual.overrides import apply_overrides
from continual.replay_config import ReplayConfig
from continual.section import Section
from continual.strict_yaml import Document, load, merge, shown
from continual.validation import checked, validate
from curricula.schema import EnvSteps
from storage import block

# Of two keys of a table that mean the same, the later one counts: it was laid on top.
_canonical = checked(resolve_key)
DEFAULT = "default"


def _canonical_or_default(key: str) -> str:
    return key if key == DEFAULT else _canonical(key)


def _for_all(value: Any) -> Any:
    """A number in a table's place holds for every task."""
    return value if isinstance(value, dict) else {DEFAULT: value}


def _with_default(table: dict[str, float]) -> dict[str, float]:
    if DEFAULT not in table:
        raise ValueError(f"no {DEFAULT!r}, which holds for tasks that no other key names")
    return table


Count = Annotated[int, Field(gt=0)]
TaskKey = Annotated[str, AfterValidator(_canonical)]
CountByTask = dict[TaskKey, Count]
EnvStepsByTask = dict[TaskKey, EnvSteps]
Ratio = Annotated[float, Field(ge=0)]
RatioByTask = Annotated[
    dict[Annotated[str, AfterValidator(_canonical_or_default)], Ratio],
    BeforeValidator(_for_all),
    AfterValidator(_with_default),
]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


class CollectConfig(Section):
    """How life is lived and learnt from. A row is a decision, or the end of an episode."""

    worlds: Count = Field(1, description="N, parallel worlds of the phase's task")
    repeat: CountByTask = Field(
        {}, description="control steps per decision, by task, domain or provider; 1 elsewhere"
    )
    start: Annotated[int, Field(ge=0)] = Field(
        1024, description="rows lived before the first update"
    )
    train_ratio: RatioByTask = Field(
        {DEFAULT: 512.0, "dmc": 1024.0},
        description="rows replayed per row lived: a number, or numbers by task, domain or "
        f"provider with {DEFAULT!r} for all else; 0: no learning",
    )
    budgets: EnvStepsByTask = Field(
        {},
        description="environment steps of a phase, by task, domain or provider; "
        "else the curriculum's",
    )


class EvaluateConfig(Section):
    """When and how the agent is judged: before training, inside phases, at the end of each."""

    episodes: Count = Field(
        10, description="of each task and policy, before training and at phase ends"
    )
    episodes_of: CountByTask = Field({}, description="the same for one task, domain or provider")
    inside_every: Annotated[float, Field(gt=0, le=1)] = Field(
        0.05, description="share of a phase between evaluations inside it; 1: none"
    )
    inside_episodes: Count = Field(10, description="of each task and policy, inside phases")
    inside_heads: bool = Field(
        True, description="inside phases judge every policy, not only the one that lives"
    )
    sampled: bool = Field(True, description="at phase ends judge with sampled actions as well")
    worlds: Count = Field(5, description="worlds per batched call; changes no number")


class CheckpointConfig(Section):
    """How much life a kill may cost."""

    every: EnvSteps = Field(10_000, description="environment steps between checkpoints")
    keep: Annotated[int, Field(ge=2)] = Field(2, description="newest checkpoints kept")
    keep_replays: bool = Field(
        True, description="the replay of every phase's end is kept, so that one can branch there"
    )


class LogConfig(Section):
    """What is written besides episodes and phases."""

    every: Count = Field(200, description="updates between train records")
    diagnose_every: Annotated[int, Field(ge=0)] = Field(
        2000, description="updates between diagnoses of the learner (norms, rank); 0: none"
    )


class Config(Section):
    """A run. `python -m continual.run --help` lists every key."""

    scale: str = Field("full", description="set of overrides in configs/scales")
    variant: str = Field("gated", description="set of overrides in configs/variants")
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(0, description="of everything random")
    agent: AgentConfig = AgentConfig()
    replay: ReplayConfig = ReplayConfig()
    collect: CollectConfig = CollectConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    log: LogConfig = LogConfig()

    @model_validator(mode="after")
    def _sequences_fit(self) -> Config:
        """Some stream holds a sequence whenever there is learning, also just after a switch.

        Let n = worlds * (drawn + 1): the rows of a sequence and its context in every world. At
        every update the newest 2n rows are held, for as many were lived before the first, and
        capacity is at least 4n. Either the newest n of them are of the running phase, or the phase
        before it has n rows among them, since `continual.pacing.refuse_short_phases` lets none
        begin that would leave fewer.
        """
        n = self.collect.worlds * (self.replay.drawn + 1)
        # Where whole blocks go, each has 2n rows or more: one is being filled, one just closed.
        least = max(16 * n, 4 * block.SMALLEST) if self.replay.goes_by_blocks else 4 * n
        if self.replay.unit == "rows" and self.replay.capacity < least:
            raise ValueError(
                f"replay.capacity={self.replay.capacity} is below "
                f"{least}, which sequences of {self.replay.drawn} rows and retention ask for"
            )
        if any(self.collect.train_ratio.values()) and self.collect.start < 2 * n:
            raise ValueError(
                f"collect.start={self.collect.start} is below {2 * n}, two sequences and their "
                "contexts in every world"
            )
        return self


def resolve_config(overrides: Mapping[str, Any], scale: str) -> Config:
    """Defaults, then the scale, then the variant, then overrides.

    Args:
      overrides: dotted key -> value; `scale` and `variant` among them choose the sets.
      scale: the one to take when the overrides name none.
    Raises:
      UserError: unknown set, unknown key, or a value that does not fit.
    """
    scale = str(overrides.get("scale", scale))
    variant = str(overrides.get("variant", Config.model_fields["variant"].default))
    document = Document.of({"scale": scale, "variant": variant}, "config")
    for kind, chosen in (("scales", scale), ("variants", variant)):
        file = resources.find(chosen, f"configs.{kind}")
        document = merge(document, load(resources.read_text(file), str(file)))
    return validate(Config, apply_overrides(document, overrides, Config))


def check_name(name: str) -> str:
    """A run's name, which is a folder below `runs/` and nowhere else."""
    if not _NAME.fullmatch(name) or ".." in name:
        raise UserError(
            f"name={shown(name)}: expected letters, digits, '-', '_' and '.', at most 128, "
            "first a letter or digit"
        )
    return name


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """`key.path: old there, new here` for every leaf in which two configs differ."""
    flat_old, flat_new = leaves(old, in_lists=True), leaves(new, in_lists=True)
    for key in sorted(flat_old.keys() | flat_new.keys()):
        a, b = flat_old.get(key, "nothing"), flat_new.get(key, "nothing")
        if a != b:
            yield f"{key}: {a} there, {b} here"
