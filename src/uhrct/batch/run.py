"""Run a cohort: list the series, start workers, replace those that die, and sum up."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from uhrct.batch.ledger import RUNNING, WAITING, Ledger
from uhrct.batch.series import Series
from uhrct.batch.worker import DISK_FULL, FINISHED, Job, main
from uhrct.core.errors import UhrctError
from uhrct.core.progress import Progress
from uhrct.core.version import __version__

#: between two looks at the workers
LOOK_S = 0.5
#: the pause is so many times as long as a look, which takes long in a ledger of a million rows
MOST_LOOKING = 20
#: a worker that ends this often without processing anything is not started again
MOST_STARTS = 5

#: environment variable with the GPUs that a process sees
VISIBLE = "CUDA_VISIBLE_DEVICES"

#: listener(series of this run that are settled, all)
Listener = Callable[[int, int], None]


def run_batch(
    found: Sequence[Series],
    out: Path,
    *,
    suffix: str | None = None,
    settings: dict[str, Any] | None = None,
    anonymize: bool = False,
    workers: int = 1,
    part: tuple[int, int] | None = None,
    scheduler: str | None = None,
    retry_failed: bool = False,
    listener: Listener | None = None,
    quiet: bool = False,
) -> dict[str, int]:
    """Super-resolve all series that the ledger in `out` does not call done.

    Parameters
    ----------
    found : of `uhrct.batch.series.find_series`
    suffix : format of the results, such as ".nii.gz"; None: that of each scan
    settings : fields of `uhrct.upscaling.plan.UpscaleSettings`
    anonymize : remove what names the patient from DICOM results
    workers : processes on this machine
    part : (i, n): this is run i of n that share the ledger; it begins at another place of the list than the others
    scheduler : address of a Dask scheduler, whose workers do the work instead of processes of this machine
    retry_failed : also those that failed, or were set aside
    listener : called when the number of settled series changes
    quiet : show no progress

    Returns
    -------
    dict
        Number of series in each state.

    Raises
    ------
    UhrctError
        If an output is not ours, a setting is impossible, the disk is full, or workers die before they begin.
    """
    settings = settings or {}
    if scheduler is None:  # workers of a cluster may have other devices
        from uhrct.upscaling.upscaler import Upscaler

        Upscaler(**settings).check()
    wanted = settings_hash(settings, suffix, anonymize)
    start = len(found) * part[0] // part[1] if part else 0
    # a worker of a cluster knows its own cores
    threads = 0 if scheduler else max(1, (os.cpu_count() or 1) // workers)
    job = Job(out.absolute(), settings, anonymize, wanted, start, threads)
    ledger = Ledger(out)
    try:
        ledger.release_dead()
        ledger.enrol(found, wanted, suffix, retry_failed=retry_failed)
        _work(job, ledger, workers, scheduler, listener, quiet)
        return ledger.counts()
    except sqlite3.OperationalError as error:
        raise UhrctError(f"{ledger.path}: {error}; make room, and start the same command again") from error
    finally:
        ledger.close()


def _work(
    job: Job, ledger: Ledger, workers: int, scheduler: str | None, listener: Listener | None, quiet: bool
) -> None:
    """Let workers process what waits, and show how far they are."""
    counts = ledger.counts()
    listed, todo = sum(counts.values()), counts[WAITING] + counts[RUNNING]
    shown = 0
    with Progress("batch", todo, unit="series", quiet=quiet) as progress:

        def settled(counts: dict[str, int]) -> None:
            nonlocal shown
            left = counts[WAITING] + counts[RUNNING]
            if left < todo - shown:
                progress.advance(todo - left - shown)
                shown = todo - left
            if listener is not None:
                listener(listed - left, listed)

        if scheduler is None:
            _Workers(job, min(workers, max(todo, 1))).run(ledger, settled)
        else:
            from uhrct.batch.cluster import run_on_dask

            run_on_dask(job, ledger, scheduler, settled, lambda line: None if quiet else print(line, file=sys.stderr))


class _Workers:
    """The worker processes of a run."""

    def __init__(self, job: Job, count: int) -> None:
        self.job, self.count = job, count
        # a new interpreter each: a forked one would share locks of torch
        self._context = multiprocessing.get_context("spawn")
        self._starts = 0
        self._gpus: dict[int, str] = {}  # process -> its GPU

    def run(self, ledger: Ledger, settled: Callable[[dict[str, int]], None]) -> None:
        """Until no series waits. Raises `UhrctError` if it cannot go on."""
        alive: list[BaseProcess] = []
        seen = ledger.counts()
        try:
            while True:
                begin = time.monotonic()
                counts = ledger.counts()
                pause_s = max(LOOK_S, MOST_LOOKING * (time.monotonic() - begin))
                if counts != seen:
                    settled(counts)
                    seen, self._starts = counts, 0
                for process in [p for p in alive if not p.is_alive()]:
                    alive.remove(process)
                    self._ended(process, ledger)
                # a series of a dead run on another machine is free after a while
                if not counts[WAITING] and counts[RUNNING] and not alive:
                    ledger.release_dead()
                if not counts[WAITING] and not alive:
                    return
                if counts[WAITING] and len(alive) < self.count:
                    alive.append(self._start())
                time.sleep(pause_s)
        finally:
            for process in alive:
                process.terminate()
            for process in alive:
                process.join()
            ledger.release_dead()

    def _start(self) -> BaseProcess:
        self._starts += 1
        if self._starts > MOST_STARTS + self.count:
            raise UhrctError("workers end before they process anything; try uhrct upscale on one series to see why")
        process = self._context.Process(target=main, args=(self.job,))
        gpu = next_gpu(self.job.settings.get("device"), list(self._gpus.values()))
        with _only_gpu(gpu):  # torch must see it from its start
            process.start()
        if gpu is not None and process.pid is not None:
            self._gpus[process.pid] = gpu
        return process

    def _ended(self, process: BaseProcess, ledger: Ledger) -> None:
        self._gpus.pop(process.pid or 0, None)
        if process.exitcode == DISK_FULL:
            raise UhrctError(f"{self.job.out}: no space left; make room and start the same command again")
        if process.exitcode != FINISHED and (worker := ledger.held_by(process.pid or 0)) is not None:
            ledger.release_dead(worker)


def next_gpu(device: str | None, taken: Sequence[str]) -> str | None:
    """The GPU for a new worker, as CUDA_VISIBLE_DEVICES names it: the one with the fewest workers.

    Parameters
    ----------
    device : of the settings; a number ("cuda:1"), or another kind of device, leaves no choice
    taken : GPUs of the other workers

    Returns
    -------
    str or None
        None: there is nothing to share out.
    """
    import torch

    count = torch.cuda.device_count() if device in (None, "auto", "cuda") else 0
    if count < 2:
        return None
    names = [n.strip() for n in os.environ.get(VISIBLE, "").split(",") if n.strip()] or list(map(str, range(count)))
    return min(names[:count], key=taken.count)


@contextmanager
def _only_gpu(gpu: str | None) -> Iterator[None]:
    """In it, new processes see this GPU alone."""
    before = os.environ.get(VISIBLE)
    if gpu is not None:
        os.environ[VISIBLE] = gpu
    try:
        yield
    finally:
        if gpu is not None and before is None:
            del os.environ[VISIBLE]
        elif gpu is not None and before is not None:
            os.environ[VISIBLE] = before


def settings_hash(settings: dict[str, Any], suffix: str | None, anonymize: bool) -> str:
    """Hash of everything that decides a result besides its scan: version, weights and options.

    Example
    -------
    >>> settings_hash({"scale": 2}, None, False) == settings_hash({"scale": 4}, None, False)
    False
    """
    from uhrct.models.choice import served_scales
    from uhrct.models.model import read_config

    folders = served_scales(settings.get("weights"), fast=settings.get("quality") == "fast")
    weights = {folder.name: read_config(folder)[1] for folder in folders}
    kept = {k: str(v) for k, v in settings.items() if k != "device"}
    text = json.dumps([__version__, kept, weights, suffix, anonymize], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
