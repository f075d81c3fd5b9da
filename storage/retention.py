"""What stays when a replay is full. A rule is a dataclass here and a line in `Rule`.

A rule never rewrites data: it names the next block to go, of those that are not being filled. Every
block carries a number, uniform in [0, 1) and a function of the seed and its name: rules that sample
compare these numbers, and so need no state and give the same after a restart.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


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


@dataclass(frozen=True)
class Fifo:
    """The newest rows stay. In rows it is exact to the row, in bytes to the block.

    Source: Lin 1992, "Self-improving reactive agents", and every replay since.
    """

    def victim(self, blocks: Sequence[Candidate], capacity: int) -> Candidate:
        del capacity
        return blocks[0]


@dataclass(frozen=True)
class Reservoir:
    """Every block that was ever filled is held with the same probability.

    Source: Vitter 1985, "Random sampling with a reservoir"; that the k smallest of independent
    uniform numbers are a uniform sample is the form that needs no count. Of blocks, not rows.
    """

    def victim(self, blocks: Sequence[Candidate], capacity: int) -> Candidate:
        del capacity
        return max(blocks, key=lambda block: block.draw)


@dataclass(frozen=True)
class TaskQuota:
    """Tasks share the capacity evenly, each a reservoir of its own; a task's share that it does not
    fill is the others'.

    Source: Chrysakis and Moens 2020, "Online continual learning from imbalanced data"
    (class-balancing reservoir sampling): what goes is of the task that holds most.
    """

    def victim(self, blocks: Sequence[Candidate], capacity: int) -> Candidate:
        del capacity
        held: Counter[str] = Counter()
        for block in blocks:
            held[block.task] += block.size
        largest = max(held, key=lambda task: (held[task], task))
        of_it = [block for block in blocks if block.task == largest]
        return max(of_it, key=lambda block: block.draw)


@dataclass(frozen=True)
class HalfRecent:
    """A window of the newest blocks, and a reservoir of what has left it.

    Source: Rolnick et al. 2019 (CLEAR; arXiv:1811.11682), half new and half replayed experience;
    Yang et al. (WMAR, ARROW; arXiv:2603.11395), a recent and a long-term buffer of 512-row pieces.

    Attributes:
      recent: share of the capacity that is the window.
    """

    recent: float = 0.5

    def victim(self, blocks: Sequence[Candidate], capacity: int) -> Candidate:
        left, aged = self.recent * capacity, list(blocks)
        while len(aged) > 1 and aged[-1].size <= left:
            left -= aged.pop().size
        return max(aged, key=lambda block: block.draw)


@dataclass(frozen=True)
class Unbounded:
    """Everything stays, as long as the disk has room."""

    def victim(self, blocks: Sequence[Candidate], capacity: int) -> None:
        del blocks, capacity


Rule = Fifo | Reservoir | TaskQuota | HalfRecent | Unbounded


def let_go(
    rule: Rule, blocks: Sequence[Candidate], room: int, capacity: int
) -> Iterator[Candidate]:
    """The blocks that go so that a new one fits, one after another.

    Args:
      blocks: that are not being filled, oldest first.
      room: what the new one will take when it is full.
    """
    left = list(blocks)
    size = room + sum(block.size for block in left)
    while size > capacity and left:
        victim = rule.victim(left, capacity)
        if victim is None:
            return
        left.remove(victim)
        size -= victim.size
        yield victim


def number_of(seed: int, stream: str, block: int) -> float:
    """The number of a block, in [0, 1)."""
    digest = hashlib.blake2s(f"{seed}/{stream}/{block}".encode(), digest_size=7).digest()
    return int.from_bytes(digest, "little") / 2**56
