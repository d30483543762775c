"""Work that waits, and the process that does it: one at a time in each lane."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import threading
import time
from collections import deque
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from uhrct.serve.store import CANCELLED, DONE, FAILED, LOOKING, READY, RUNNING, WAITING, Job, Store
from uhrct.serve.worker import Task, main

#: Between two looks at a worker.
_LOOK_S = 0.1
#: A worker that is told to end has so long for it.
_END_S = 5.0
#: Bytes of a message.
_MOST_BYTES = 1 << 22
#: Listing the series of a scan may take so long.
MOST_LOOKING_S = 600.0
_KILLED = "the process that worked on this scan was ended, perhaps because memory was full"


class Lane:
    """A queue of jobs and a thread that lets one process after the other work on them.

    Parameters
    ----------
    store : the jobs
    device, kept_free : as in `Task`
    """

    def __init__(self, store: Store, device: str, kept_free: int) -> None:
        self._store, self._device, self._kept_free = store, device, kept_free
        self._waiting: deque[Job] = deque()
        self._new = threading.Condition(store.lock)
        self._current: Job | None = None
        self._over = False
        # a new interpreter each: a forked one would share locks of other threads
        self._context = multiprocessing.get_context("spawn")
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def add(self, job: Job) -> None:
        """Let a job wait for its turn."""
        with self._new:
            self._waiting.append(job)
            self._new.notify()

    def drop(self, job: Job) -> None:
        """End the work on a job, or forget that it waits. Its process has ended when this returns."""
        with self._new:
            with contextlib.suppress(ValueError):
                self._waiting.remove(job)
            if job.state in (WAITING, RUNNING, LOOKING):
                job.state = CANCELLED
            self._new.notify()
            self._new.wait_for(lambda: self._current is not job, timeout=2 * _END_S)

    def close(self) -> None:
        """End all work."""
        with self._new:
            self._over = True
            self._waiting.clear()
            if self._current is not None:
                self._current.state = CANCELLED
            self._new.notify()
        self._thread.join(2 * _END_S)

    def _work(self) -> None:
        while True:
            with self._new:
                self._current = None
                self._new.notify_all()
                self._new.wait_for(lambda: self._over or self._waiting)
                if self._over:
                    return
                self._current = job = self._waiting.popleft()
                if job.state == WAITING:
                    job.state, job.stage = RUNNING, "starting"
            try:
                self._run(job)
            except OSError as error:  # no memory, or no process more
                self._settle(job, f"no process could be started ({error.strerror})")

    def _run(self, job: Job) -> None:
        """Start a process, enter what it says, and end it if the job was cancelled."""
        looking = job.state == LOOKING
        task = Task(job.folder, job.scan, None if looking else job.wish, self._device, self._kept_free)
        ours, theirs = self._context.Pipe(duplex=False)
        with ours:
            process = self._context.Process(target=main, args=(task, theirs), daemon=True)
            with theirs:
                process.start()
            error = self._listen(job, process, ours, time.monotonic() + MOST_LOOKING_S if looking else None)
            _end(process)
        process.close()
        self._settle(job, error)

    def _listen(self, job: Job, process: BaseProcess, pipe: Connection, until: float | None) -> str:
        """What was wrong, in one line; "" if nothing was."""
        begun = job.state
        while True:
            try:
                if pipe.poll(_LOOK_S):
                    message = json.loads(pipe.recv_bytes(_MOST_BYTES))
                    if message["kind"] == "end":
                        return ""
                    if message["kind"] == "error":
                        return str(message["text"])
                    with self._store.lock:
                        job.take(message)
            except (EOFError, OSError, ValueError, KeyError, TypeError):
                return _KILLED
            if job.state != begun:
                return "cancelled"
            if until is not None and time.monotonic() > until:
                return "finding the series of this scan took too long; upload one series"

    def _settle(self, job: Job, error: str) -> None:
        with self._store.lock:
            if job.state in (RUNNING, LOOKING):
                job.error = error
                job.state = FAILED if error else DONE if job.state == RUNNING else READY
                if error:
                    job.result = ""


def _end(process: BaseProcess) -> None:
    """End a process that has not ended by itself."""
    process.join(_LOOK_S)
    if process.is_alive():
        process.terminate()
        process.join(_END_S)
    if process.is_alive():
        process.kill()
        process.join()
