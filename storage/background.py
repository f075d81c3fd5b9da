"""Work on files that the life does not wait for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Background:
    """Jobs done in turn by one thread, which is there from the first of them until `finish`."""

    def __init__(self, *, is_used: bool) -> None:
        """Without use for it everything is done at once: small files take less than a thread."""
        self._is_used = is_used
        self._pool: ThreadPoolExecutor | None = None
        self._jobs: list[Future[None]] = []

    def begin(self, job: Callable[[], None]) -> None:
        """Let a job be done after those that were begun before."""
        if not self._is_used:
            job()
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, "background")
        self._jobs.append(self._pool.submit(job))

    def finish(self) -> None:
        """Wait for all jobs. Raises whatever the first of those that failed did."""
        if self._pool is not None:
            self._pool.shutdown()
            jobs, self._jobs, self._pool = self._jobs, [], None
            for job in jobs:
                job.result()

    def drop(self) -> None:
        """Wait for all jobs, whatever became of them."""
        with contextlib.suppress(BaseException):
            self.finish()
