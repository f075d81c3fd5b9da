"""Copying the next batch while the learner is busy with this one."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from storage.assemble import Copied, Order
from storage.batch import Where


class Prefetch:
    """At most one batch in the making, by one thread.

    What it is asked to copy is a guess: whoever takes the batch says which positions it has to
    have, and gets nothing if the guess was another. So a prefetch changes when rows are copied, and
    never which ones. Only what never changes is copied; latents come when the batch is taken.
    """

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._guess: tuple[Where, Order, Future[Copied]] | None = None

    def begin(self, where: Where, order: Order, copy: Callable[[], Copied]) -> None:
        """Let `copy` run, which returns the rows of `where`."""
        self.drop()
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, "replay")
        self._guess = where, order, self._pool.submit(copy)

    def take(self, where: Where, order: Order) -> Copied | None:
        """Its rows, if the batch was guessed right; whatever was guessed is dropped."""
        if self._guess is None:
            return None
        guessed, guessed_order, copying = self._guess
        if guessed_order == order and all(
            np.array_equal(getattr(guessed, name), getattr(where, name)) for name in vars(where)
        ):
            self._guess = None
            return copying.result()
        self.drop()
        return None

    def drop(self) -> None:
        """Wait for the thread; forget what it did, and whatever went wrong."""
        if self._guess is not None:
            self._guess[2].exception()
            self._guess = None

    def close(self) -> None:
        self.drop()
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
