"""A worker process: claims series from the ledger, one after the other, with weights that stay loaded."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import signal
import sqlite3
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from uhrct.batch.ledger import DONE, FAILED, LEASE_S, WAITING, Claim, Ledger
from uhrct.core.errors import UhrctError
from uhrct.core.memory import keep_freed_memory
from uhrct.core.volume import Volume

#: exit codes of a worker process
FINISHED, DISK_FULL, STOPPED = 0, 3, 4


@dataclass(frozen=True)
class Job:
    """What all workers of a run do.

    Attributes
    ----------
    out : folder of the results and the ledger
    settings : of `uhrct.upscaling.plan.UpscaleSettings`, as keyword arguments
    anonymize : whether DICOM results lose what names the patient
    wanted : hash of settings, weights and version
    start : place in the list where this worker begins
    threads : of the processor; 0: all
    """

    out: Path
    settings: dict[str, Any] = field(default_factory=dict)
    anonymize: bool = False
    wanted: str = ""
    start: int = 0
    threads: int = 0


class DiskFull(Exception):
    """No space is left for results or ledger: there is no sense in going on."""


def work(
    job: Job,
    over: Callable[[], bool] = lambda: False,
    *,
    most: int | None = None,
    upscaler: Any = None,
    begins: Callable[[str], None] = lambda name: None,
) -> int:
    """Process series until none waits, or until `over` says so between two series.

    Parameters
    ----------
    most : process no more than so many
    upscaler : one that has loaded its weights already
    begins : called with the name of each series before it is computed

    Returns
    -------
    int
        `FINISHED`, or `DISK_FULL`
    """
    import torch

    from uhrct.upscaling.upscaler import Upscaler

    keep_freed_memory()
    if job.threads:
        torch.set_num_threads(job.threads)
    upscaler = upscaler or Upscaler(**job.settings)
    done = 0
    try:
        with contextlib.closing(Ledger(job.out)) as ledger, _Heartbeat(job.out, ledger.worker):
            while not over() and done != most and (claim := ledger.claim(job.start, job.wanted)) is not None:
                begins(claim.series.name)
                _process(claim, job, upscaler, ledger)
                done += 1
    except DiskFull:
        return DISK_FULL
    except sqlite3.OperationalError as error:
        if "disk" in str(error):  # "database or disk is full", "disk I/O error"
            return DISK_FULL
        raise
    return FINISHED


def main(job: Job) -> None:
    """Entry point of a process. If the run that started it dies, it ends after the series it is at."""
    parent = os.getppid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the parent decides
    signal.signal(signal.SIGTERM, _stop)
    sys.exit(work(job, lambda: os.getppid() != parent))


def _stop(*_: Any) -> None:
    sys.exit(STOPPED)  # an exception: unfinished files are removed


def _process(claim: Claim, job: Job, upscaler: Any, ledger: Ledger) -> None:
    """Super-resolve one series, and enter what became of it."""
    name = claim.series.name
    try:
        volume, fingerprint = _read(claim, job)
        _read_ahead(ledger.next_path(job.start, job.wanted))
        if fingerprint == claim.fingerprint and claim.output.exists():
            ledger.settle(name, DONE, fingerprint=fingerprint)  # only times of files changed
            return
        ledger.forget_result(name)
        report = _write(claim, job, upscaler, volume)
    except UhrctError as error:
        if _disk_is_full(error):
            ledger.settle(name, WAITING)
            raise DiskFull from error
        ledger.settle(name, FAILED, error=" ".join(str(error).split()))
    except (SystemExit, KeyboardInterrupt):
        ledger.settle(name, WAITING)
        raise
    except Exception as error:  # one strange series must not end the run
        frame = traceback.extract_tb(error.__traceback__)[-1]
        # without the text of the exception, which may hold patient data
        place = f"{type(error).__name__} in {Path(frame.filename).name}, line {frame.lineno}"
        ledger.settle(name, FAILED, error=f"internal error ({place}); please report it")
    else:
        ledger.settle(name, DONE, report=report, fingerprint=fingerprint)


def _read(claim: Claim, job: Job) -> tuple[Volume, str]:
    """The scan, and the fingerprint that its result will have."""
    from uhrct import io

    volume = io.read(claim.series.path, series=claim.series.uid or None)
    digest = hashlib.sha256(volume.hu.tobytes())
    digest.update(f"{volume.spacing_mm} {volume.origin_mm} {volume.direction.tolist()} {job.wanted}".encode())
    return volume, digest.hexdigest()


def _read_ahead(path: Path | None) -> None:
    """Bring the files of the next scan into the memory of the system, while this one is computed.

    Nobody then waits for a slow disk. The next series is not claimed: if this worker dies, that one is not blamed.
    """
    if path is not None:
        threading.Thread(target=read_through, args=(path,), daemon=True).start()


def read_through(path: Path) -> int:
    """Read a file, or those of a folder, and keep nothing; stop at the first error. Returns the number of bytes."""
    count = 0
    with contextlib.suppress(OSError):  # the reader of the scan will say what is wrong
        for file in [path] if path.is_file() else sorted(p for p in path.iterdir() if p.is_file()):
            with file.open("rb", buffering=0) as stream:
                while piece := stream.read(1 << 20):
                    count += len(piece)
    return count


def _write(claim: Claim, job: Job, upscaler: Any, volume: Volume) -> dict[str, Any]:
    from uhrct.io import DicomOptions
    from uhrct.upscaling.files import write_result

    try:
        claim.output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UhrctError(f"{claim.output.parent}: cannot be made ({error.strerror})") from error
    dicom = DicomOptions(anonymize=True) if job.anonymize else None
    return write_result(upscaler.plan(volume), volume, claim.output, dicom=dicom, overwrite=True, quiet=True)


def _disk_is_full(error: BaseException) -> bool:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        cause = cause.__cause__
    return False


class _Heartbeat:
    """Renews the claims of a worker from a thread of its own, while the networks run."""

    def __init__(self, out: Path, worker: str) -> None:
        self._out, self._worker, self._over = out, worker, threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def _beat(self) -> None:
        ledger = Ledger(self._out, self._worker)
        while not self._over.wait(LEASE_S / 4):
            try:
                ledger.renew()
            except sqlite3.OperationalError:  # busy, or the disk is full: the main thread will notice
                continue
