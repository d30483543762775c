"""Worker processes of a node. They process what waits in the ledger, as `uhrct batch` does, and then wait for more."""

from __future__ import annotations

import contextlib
import fcntl
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from uhrct.batch.ledger import Ledger
from uhrct.batch.worker import DISK_FULL, STOPPED, Job, work
from uhrct.core.errors import UhrctError
from uhrct.node.ledger import NodeLedger
from uhrct.node.log import LOG, start_log

#: held by the node, and by each of its workers
NODE_LOCK, WORKER_LOCK = ".node.lock", ".workers.lock"
#: between two looks into the ledger
LOOK_S = 0.5
#: orphans of a killed node notice that it is gone within this time
ORPHAN_S = 1.0
#: after a worker died, or found the disk full
PAUSE_S = 10.0


class Workers:
    """Keeps some worker processes alive. `look` must be called from time to time."""

    def __init__(self, jobs: Sequence[Job], count: int) -> None:
        self._jobs, self._count = tuple(jobs), count
        # a new interpreter each: a forked one would share locks of torch
        self._context = multiprocessing.get_context("spawn")
        self._alive: list[BaseProcess] = []
        self._not_before = 0.0

    def look(self, ledger: NodeLedger) -> None:
        """Replace workers that died. The series of a dead worker waits again, or is set aside after two deaths."""
        for process in [p for p in self._alive if not p.is_alive()]:
            self._alive.remove(process)
            if process.exitcode == DISK_FULL:
                LOG.warning("no space left for results; make room")
                self._not_before = time.monotonic() + PAUSE_S
                continue
            LOG.warning("a worker died (exit code %s)", process.exitcode)
            if (worker := ledger.held_by(process.pid or 0)) is not None:
                ledger.release_dead(worker)
            else:
                self._not_before = time.monotonic() + PAUSE_S  # it died before it could begin
        while len(self._alive) < self._count and time.monotonic() >= self._not_before:
            process = self._context.Process(target=main, args=(self._jobs,))
            process.start()
            self._alive.append(process)

    def stop(self, ledger: NodeLedger) -> None:
        """End all workers. What they were at waits again."""
        for process in self._alive:
            process.terminate()
        for process in self._alive:
            process.join()
        self._alive.clear()
        ledger.release_all()


def main(jobs: Sequence[Job]) -> None:
    """Entry point of a process."""
    start_log()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the node decides
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(STOPPED))  # an exception: unfinished files are removed
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    with _shared(jobs[0].out / WORKER_LOCK):
        sys.exit(_serve(jobs))


def _serve(jobs: Sequence[Job]) -> int:
    from uhrct.upscaling.upscaler import Upscaler

    upscalers: dict[str, Any] = {}
    with contextlib.closing(Ledger(jobs[0].out)) as ledger:
        while True:
            waiting = [job for job in jobs if ledger.next_path(0, job.wanted) is not None]
            for job in waiting:
                if job.wanted not in upscalers:
                    upscalers[job.wanted] = Upscaler(**job.settings)
                if code := work(job, most=1, upscaler=upscalers[job.wanted], begins=_say):
                    return code
            if not waiting:
                time.sleep(LOOK_S)


def _say(name: str) -> None:
    LOG.info("series %s: is being computed", name)


def _end_with(parent: int) -> None:
    """End this process when the node was killed. Its series waits, and no second worker may meet this one."""
    while os.getppid() == parent:
        time.sleep(ORPHAN_S)
    os._exit(STOPPED)


@contextlib.contextmanager
def node_lock(out: Path) -> Iterator[None]:
    """The right to be the only node on a folder. Waits until the workers of a killed one are gone.

    Locks are better than numbers of processes, which are used again when a container restarts.

    Raises
    ------
    UhrctError
        If another node runs on this folder.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (out / NODE_LOCK).open("w") as own, (out / WORKER_LOCK).open("w") as workers:
        try:
            fcntl.flock(own, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UhrctError(
                f"{out}: another uhrct node runs on this folder; stop it, or choose another folder"
            ) from None
        fcntl.flock(workers, fcntl.LOCK_EX)
        fcntl.flock(workers, fcntl.LOCK_UN)
        yield


@contextlib.contextmanager
def _shared(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield
