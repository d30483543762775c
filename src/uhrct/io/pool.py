"""A thread pool with a bounded queue: who hands over work faster than it is done has to wait."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any


class BoundedPool:
    """Runs jobs on a few threads; at most `room` are waiting or under way, so memory stays flat.

    An error of a job is raised by a later `submit` or at the end, and keeps waiting jobs from being run.
    What jobs return goes to `deliver`, on the thread that submits and in the order of submission.

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
        """Run `job` soon; waits while there is no room. Raises what an earlier job raised."""
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
