"""What stays when a replay is full. A rule is a class here, which is its part of the configuration
as well (`replay.retention`), and a name in `Rule`.

A rule never rewrites data: it names the next block to go, of those that are not being filled. Every
block carries a number, uniform in [0, 1) and a function of the seed and its name: rules that sample
compare these numbers, and so need no state and give the same after a restart.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from continual.section import Section


@dataclass(frozen=True)
class Candidate:
    """A block that may go.

    Attributes:
      stream: index of its stream in order of opening.
      index: of the block in its stream.
      task: of the stream.
      size: rows or bytes, as the capacity is meant.
      draw: its number in [0, 1).
    """

    stream: int
    index: int
    task: str
    size: int
    draw: float


class _Rule(Section):
    """What every rule is, unless it says otherwise.

    Attributes:
      is_bounded: whether it keeps to the capacity.
      is_recency: whether exactly the newest stay, so that the last block may go row by row.
      knows_tasks: whether it goes by the task of a row, a privilege that reports name
        (`eval.wording`).
    """

    is_bounded: ClassVar[bool] = True
    is_recency: ClassVar[bool] = False
    knows_tasks: ClassVar[bool] = False

    def victim(self, blocks: Sequence[Candidate], capacity: int) -> Candidate:
        """The block that goes next.

        Args:
          blocks: that may go, oldest first; not empty.
          capacity: rows or bytes.
        """
        raise NotImplementedError


class Fifo(_Rule):
    """The newest rows stay. In rows it is exact to the row, in bytes to the block.

    Source: Lin 1992, "Self-improving reactive agents", and every replay since.
    """

    kind: Literal["fifo"] = "fifo"
    is_recency: ClassVar[bool] = True

    def victim(self, blocks: Sequence[Candidate], capacity: int) -> Candidate:
        del capacity
        return blocks[0]


class Reservoir(_Rule):
    """Every block that was ever filled is held with the same probability.

    Source: Vitter 1985, "Random sampling with a reservoir"; that the k smallest of independent
    uniform numbers are a uniform sample is the form that needs no count. Of blocks, not rows.
    """

    kind: Literal["reservoir"] = "reservoir"

    def victim(self, blocks: Sequence[Candidate], capacity: int) -> Candidate:
        del capacity
        return max(blocks, key=lambda block: block.draw)


class TaskQuota(_Rule):
    """Tasks share the capacity evenly, each a reservoir of its own; a task's share that it does not
    fill is the others'.

    Source: Chrysakis and Moens 2020, "Online continual learning from imbalanced data"
    (class-balancing reservoir sampling): what goes is of the task that holds most.
    """

    kind: Literal["task_quota"] = "task_quota"
    knows_tasks: ClassVar[bool] = True

    def victim(self, blocks: Sequence[Candidate], capacity: int) -> Candidate:
        del capacity
        held: Counter[str] = Counter()
        for block in blocks:
            held[block.task] += block.size
        largest = max(held, key=lambda task: (held[task], task))
        of_it = [block for block in blocks if block.task == largest]
        return max(of_it, key=lambda block: block.draw)


class HalfRecent(_Rule):
    """A window of the newest blocks, and a reservoir of what has left it.

    Source: Rolnick et al. 2019 (CLEAR; arXiv:1811.11682), half new and half replayed experience;
    Yang et al. (WMAR, ARROW; arXiv:2603.11395), a recent and a long-term buffer of 512-row pieces.
    """

    kind: Literal["half_recent"] = "half_recent"
    recent: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.5, description="share of the capacity that is the window"
    )

    def victim(self, blocks: Sequence[Candidate], capacity: int) -> Candidate:
        left, aged = self.recent * capacity, list(blocks)
        while len(aged) > 1 and aged[-1].size <= left:
            left -= aged.pop().size
        return max(aged, key=lambda block: block.draw)


class Unbounded(_Rule):
    """Everything stays, as long as the disk has room; the capacity only sizes the blocks."""

    kind: Literal["unbounded"] = "unbounded"
    is_bounded: ClassVar[bool] = False


Rule = Annotated[Fifo | Reservoir | TaskQuota | HalfRecent | Unbounded, Field(discriminator="kind")]


def let_go(
    rule: Rule, blocks: Sequence[Candidate], room: int, capacity: int
) -> Iterator[Candidate]:
    """The blocks that go so that a new one fits, one after another.

    Args:
      blocks: that are not being filled, oldest first.
      room: what the new one will take when it is full.
    """
    if not rule.is_bounded:
        return
    left = list(blocks)
    size = room + sum(block.size for block in left)
    while size > capacity and left:
        victim = rule.victim(left, capacity)
        left.remove(victim)
        size -= victim.size
        yield victim


def number_of(seed: int, stream: str, block: int) -> float:
    """The number of a block, in [0, 1)."""
    digest = hashlib.blake2s(f"{seed}/{stream}/{block}".encode(), digest_size=7).digest()
    return int.from_bytes(digest, "little") / 2**56
