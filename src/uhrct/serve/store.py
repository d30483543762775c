"""What was uploaded and made: one private folder per job, with limits of size and number, and removed at the end.

The folder has the form of a workspace of `uhrct.core.workspace`: what a killed server leaves behind is removed by the
next one. Names of uploaded files never arrive here. Files are numbered in the order in which they come.
"""

from __future__ import annotations

import secrets
import shutil
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from uhrct.core.errors import UhrctError
from uhrct.core.progress import duration
from uhrct.serve.wishes import Wish

#: Endings that an uploaded file may have. "" is a file of a DICOM folder without a known ending.
VOLUMES = (".nii.gz", ".nii", ".nrrd", ".mha")
SLICES = ("", ".dcm")
SUFFIXES = (*VOLUMES, ".zip", *SLICES)
#: States of a job. A job can be started in one of `STARTABLE`.
UPLOADING, LOOKING, READY = "uploading", "looking", "ready"
WAITING, RUNNING, DONE, FAILED, CANCELLED = "waiting", "running", "done", "failed", "cancelled"
REMOVED = "removed"
STARTABLE = (READY, DONE, FAILED, CANCELLED)
#: Notes of one job that are kept.
_MOST_NOTES = 100


class Refused(UhrctError):
    """A request that a limit or the state of a job forbids, with the HTTP status that says so."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True)
class Limits:
    """What a client may use.

    Attributes
    ----------
    most_bytes : of one scan
    most_files : of one scan
    most_jobs : at the same time, finished ones included
    kept_free : bytes of the disk that stay free
    """

    most_bytes: int = 4_000_000_000
    most_files: int = 20_000
    most_jobs: int = 8
    kept_free: int = 1_000_000_000


@dataclass
class Job:
    """A scan, what was asked for, and what became of it."""

    name: str
    folder: Path
    state: str = UPLOADING
    files: int = 0
    size: int = 0
    uploads: int = 0
    suffix: str | None = None
    series: list[dict[str, Any]] = field(default_factory=list)
    wish: Wish | None = None
    #: counts the starts: messages and pages of an earlier run are then known as old
    run: int = 0
    stage: str = ""
    done: float = 0.0
    total: float = 0.0
    begun: float = 0.0
    plan: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    summary: list[str] = field(default_factory=list)
    error: str = ""
    result: str = ""
    shown: dict[str, str] = field(default_factory=dict)

    @property
    def scan(self) -> Path:
        """The uploaded file, or the folder with the DICOM files, relative to the folder of the job."""
        return Path("scan" if self.suffix in SLICES else f"scan{self.suffix}")

    def forget_run(self) -> None:
        """Remove what an earlier run has made, on disk and here."""
        shutil.rmtree(self.folder / "made", ignore_errors=True)
        self.plan, self.notes, self.summary, self.error, self.result, self.shown = [], [], [], "", "", {}
        self.stage, self.done, self.total = "", 0.0, 0.0

    def take(self, message: dict[str, Any]) -> None:
        """Enter what the worker says."""
        kind = message.get("kind")
        if kind == "stage":
            self.stage, self.total, self.done = str(message["text"]), float(message.get("total", 0)), 0.0
            self.begun = time.monotonic()
        elif kind == "done":
            self.done = float(message["count"])
        elif kind == "note" and len(self.notes) < _MOST_NOTES:
            self.notes.append(str(message["text"]))
        elif kind == "plan":
            self.plan = [str(line) for line in message["lines"]]
        elif kind == "series":
            self.series = list(message["series"])
        elif kind == "result":
            self.result, self.shown = str(message["file"]), dict(message["shown"])
            self.summary = [str(line) for line in message["lines"]]

    def as_dict(self) -> dict[str, Any]:
        """What the page shows. Only what the page itself has sent, numbers, and texts of the program."""
        return {
            "name": self.name,
            "state": self.state,
            "files": self.files,
            "megabytes": round(self.size / 1e6, 1),
            "series": self.series,
            "wish": None if self.wish is None else self.wish.model_dump(),
            "run": self.run,
            "stage": self.stage,
            "done": round(self.done, 2),
            "total": self.total,
            "left": self._left(),
            "plan": self.plan,
            "notes": self.notes,
            "summary": self.summary,
            "error": self.error,
            "result": self.result,
        }

    def _left(self) -> str:
        """The time left in words, "" if it is not known yet."""
        if self.state != RUNNING or not self.done or not self.total:
            return ""
        return f"{duration((time.monotonic() - self.begun) / self.done * (self.total - self.done))} left"


class Store:
    """All jobs, in the order in which they came. Its methods may be called from several threads.

    Parameters
    ----------
    folder : private and empty
    limits : Limits
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.folder, self.limits = folder, limits
        self.lock = threading.RLock()
        self._jobs: dict[str, Job] = {}
        self._pending = 0  # bytes of uploads under way

    def add(self) -> Job:
        """A new job without files. Raises `Refused` if there are too many, or the disk is full."""
        with self.lock:
            if len(self._jobs) >= self.limits.most_jobs:
                raise Refused(429, f"there are {len(self._jobs)} scans on this page already; delete one first")
            self._check_room(0)
            name = secrets.token_hex(8)
            job = Job(name, self.folder / name)
            job.folder.mkdir(mode=0o700)
            self._jobs[name] = job
            return job

    def get(self, name: str) -> Job:
        """The job of this name. Raises `Refused` if there is none."""
        with self.lock:
            if name not in self._jobs:
                raise Refused(404, "this scan is not here any more; upload it again")
            return self._jobs[name]

    def all(self) -> list[dict[str, Any]]:
        """What the page shows of each job."""
        with self.lock:
            return [job.as_dict() for job in self._jobs.values()]

    def remove(self, job: Job) -> None:
        """Forget a job and remove its files."""
        with self.lock:
            self._jobs.pop(job.name, None)
            job.state = REMOVED
        shutil.rmtree(job.folder, ignore_errors=True)

    def reserve(self, job: Job, suffix: str, size: int) -> Path:
        """The path for the next file of a job, with room for its bytes.

        Parameters
        ----------
        suffix : one of `SUFFIXES`
        size : bytes that the client promises, and may not exceed

        Raises
        ------
        Refused
            If the job takes no file of this kind, or a limit forbids it.
        """
        with self.lock:
            if job.state != UPLOADING:
                raise Refused(409, "this scan is complete; start another upload")
            if suffix not in SUFFIXES:
                raise Refused(415, f"files of this kind are not read; known are {', '.join(filter(None, SUFFIXES))}")
            several = suffix in SLICES and job.suffix in (*SLICES, None)
            if job.files and not several:
                raise Refused(409, "a scan is one file, or a folder of DICOM files")
            if job.files >= self.limits.most_files:
                raise Refused(413, f"the folder has more than {self.limits.most_files} files; choose one series")
            if job.size + size > self.limits.most_bytes:
                limit = self.limits.most_bytes / 1e9
                raise Refused(413, f"the scan is larger than {limit:g} GB; start uhrct serve with a larger --max-gb")
            self._check_room(size)
            job.suffix, job.files, job.size, job.uploads = suffix, job.files + 1, job.size + size, job.uploads + 1
            self._pending += size
            if suffix not in SLICES:
                return job.folder / job.scan
            (job.folder / job.scan).mkdir(mode=0o700, exist_ok=True)
            return job.folder / job.scan / f"{job.files:06d}{suffix}"

    def arrived(self, job: Job, path: Path, size: int, complete: bool) -> None:
        """An upload has ended. If it is not complete, its file is removed and its bytes are free again."""
        with self.lock:
            job.uploads -= 1
            self._pending -= size
            if not complete:
                job.size -= size
                path.unlink(missing_ok=True)
                if job.suffix not in SLICES:  # the one file can be sent again
                    job.files, job.suffix = 0, None

    def _check_room(self, size: int) -> None:
        free = shutil.disk_usage(self.folder).free - self.limits.kept_free - self._pending
        if size > free:
            raise Refused(
                507,
                f"the disk of the server has no room for {size / 1e6:.0f} MB more; delete scans, or start uhrct serve "
                "with another --folder",
            )
