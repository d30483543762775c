"""A thread pool with a bounded queue: `submit` waits while the queue is full."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any


class BoundedPool:
    """Runs jobs on a few threads. At most `room` jobs wait or run, which limits memory.

    An error of a job is raised by a later `submit` or at the end; waiting jobs then do not run. `deliver` receives the
    results of jobs, on the submitting thread and in the order of submission.

    Example
    -------
    >>> done = []
    >>> with BoundedPool(workers=2, room=4) as pool:
    ...     for k in range(9):
    ...         pool.submit(done.append, k)
    >>> sorted(done) == list(range(9))
    True
    """

    def __init__(
        self,
        workers: int | None = None,
        room: int | None = None,
        deliver: Callable[[Any], object] = lambda result: None,
    ) -> None:
        self._deliver = deliver
        self._workers = workers or min(8, os.cpu_count() or 1)
        self._room = room or 2 * self._workers
        self._jobs: deque[Future[Any]] = deque()

    def __enter__(self) -> BoundedPool:
        self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="uhrct-write")
        return self

    def submit(self, job: Callable[..., Any], *args: Any) -> None:
        """Queue a job. Waits while the queue is full. Raises the error of an earlier job."""
        while len(self._jobs) >= self._room:
            self._deliver(self._jobs.popleft().result())
        self._jobs.append(self._pool.submit(job, *args))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            while kind is None and self._jobs:
                self._deliver(self._jobs.popleft().result())
        finally:
            self._pool.shutdown(wait=True, cancel_futures=True)
