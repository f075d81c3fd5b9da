"""The memory of a life: how much is held, what stays, and how batches are drawn from it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from agent.config import Section
from storage import Capacity, retention, sampling

Count = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(gt=0, lt=1)]


class FifoConfig(Section):
    """The newest rows stay."""

    kind: Literal["fifo"] = "fifo"

    def rule(self) -> retention.Rule:
        return retention.Fifo()


class ReservoirConfig(Section):
    """Every block of rows that was ever lived is as likely to be held as any other."""

    kind: Literal["reservoir"] = "reservoir"

    def rule(self) -> retention.Rule:
        return retention.Reservoir()


class TaskQuotaConfig(Section):
    """Tasks share the capacity evenly, each by a reservoir."""

    kind: Literal["task_quota"] = "task_quota"

    def rule(self) -> retention.Rule:
        return retention.TaskQuota()


class HalfRecentConfig(Section):
    """A window of the newest rows, and a reservoir of all that left it."""

    kind: Literal["half_recent"] = "half_recent"
    recent: Share = Field(0.5, description="share of the capacity that is the window")

    def rule(self) -> retention.Rule:
        return retention.HalfRecent(self.recent)


class UnboundedConfig(Section):
    """Everything stays; the capacity counts for the size of blocks alone."""

    kind: Literal["unbounded"] = "unbounded"

    def rule(self) -> retention.Rule:
        return retention.Unbounded()


RetentionConfig = (
    FifoConfig | ReservoirConfig | TaskQuotaConfig | HalfRecentConfig | UnboundedConfig
)


class UniformConfig(Section):
    """Sequences start anywhere."""

    kind: Literal["uniform"] = "uniform"

    def rule(self) -> sampling.Rule:
        return sampling.Uniform()


class RecencyConfig(Section):
    """Newer starts are likelier, by a geometric distribution."""

    kind: Literal["recency"] = "recency"
    half_life: Count = Field(100_000, description="rows after which a start is half as likely")

    def rule(self) -> sampling.Rule:
        return sampling.Recency(self.half_life)


class TaskBalancedConfig(Section):
    """Every task that is held is as likely as any other."""

    kind: Literal["task_balanced"] = "task_balanced"

    def rule(self) -> sampling.Rule:
        return sampling.TaskBalanced()


class CurrentShareConfig(Section):
    """A fixed share of every batch, on average, is from the running phase."""

    kind: Literal["current_share"] = "current_share"
    share: Share = Field(0.5, description="of the running phase; the others share the rest")

    def rule(self) -> sampling.Rule:
        return sampling.CurrentShare(self.share)


SamplingConfig = UniformConfig | RecencyConfig | TaskBalancedConfig | CurrentShareConfig


class ReplayConfig(Section):
    """The memory of a life, and the batches drawn from it."""

    capacity: Count = Field(1_000_000, description="rows, or bytes of rows, that can be sampled")
    unit: Literal["rows", "bytes"] = Field("rows", description="what capacity counts")
    retention: Annotated[RetentionConfig, Field(discriminator="kind")] = FifoConfig()
    sampling: Annotated[SamplingConfig, Field(discriminator="kind")] = UniformConfig()
    batch: Count = Field(16, description="B, sequences of a batch")
    length: Annotated[int, Field(ge=2)] = Field(64, description="T, rows of a sequence")
    scratch: str = Field(
        "", description="folder on a fast disk to live on; checkpoints bring it to the run's folder"
    )
    context: Literal["stored", "zero"] = Field(
        "stored", description="latent before a sequence: the one in replay, or zeros"
    )

    @property
    def goes_by_blocks(self) -> bool:
        """Whether whole blocks go, which may leave one that those beside it do not continue."""
        return not isinstance(self.retention, FifoConfig) or self.unit == "bytes"

    def held(self, seed: int) -> Capacity:
        """What the replay is opened with; `seed` draws the lots of rules that sample."""
        return Capacity(
            self.capacity,
            self.unit,
            keep=self.retention.rule(),
            seed=seed,
            block_rows=2 * (self.length + 1) if self.goes_by_blocks else 8,
        )
