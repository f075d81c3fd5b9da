"""The memory of a life: how much is held, what stays, and how batches are drawn from it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from continual.section import Section
from storage import Capacity
from storage.retention import Fifo
from storage.retention import Rule as Retention
from storage.sampling import Rule as Sampling
from storage.sampling import Uniform

Count = Annotated[int, Field(gt=0)]


class ReplayConfig(Section):
    """The memory of a life, and the batches drawn from it."""

    capacity: Count = Field(1_000_000, description="rows, or bytes of rows, that can be sampled")
    unit: Literal["rows", "bytes"] = Field("rows", description="what capacity counts")
    retention: Retention = Fifo()
    sampling: Sampling = Uniform()
    batch: Count = Field(16, description="B, sequences of a batch")
    length: Annotated[int, Field(ge=2)] = Field(64, description="T, rows of a sequence")
    scratch: str = Field(
        "", description="folder on a fast disk to live on; checkpoints bring it to the run's folder"
    )
    context: Literal["stored", "zero", "burn_in"] = Field(
        "stored",
        description="latent before a sequence: in replay, zeros, or what rows before it lead to",
    )
    burn_in: Count = Field(8, description="rows before a sequence, for context=burn_in")
    damaged: Literal["refuse", "leave_out"] = Field(
        "refuse", description="when a run goes on and a block of rows is damaged"
    )

    @property
    def untrained(self) -> int:
        """Rows at the beginning of a drawn sequence that are not trained on."""
        return self.burn_in if self.context == "burn_in" else 0

    @property
    def drawn(self) -> int:
        """Rows of a drawn sequence."""
        return self.untrained + self.length

    @property
    def goes_by_blocks(self) -> bool:
        """Whether whole blocks go, which may leave one that those beside it do not continue."""
        return self.unit == "bytes" or not self.retention.is_recency

    def held(self, seed: int) -> Capacity:
        """What the replay is opened with; `seed` draws the lots of rules that sample."""
        return Capacity(
            self.capacity,
            self.unit,
            keep=self.retention,
            seed=seed,
            block_rows=2 * (self.drawn + 1) if self.goes_by_blocks else 8,
        )
