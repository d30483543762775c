"""The ledger of a cohort: one row per series in an SQLite file, shared by all workers."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uhrct.batch.series import Series
from uhrct.core.errors import UhrctError

#: name of the file in the output folder
LEDGER = "uhrct-ledger.sqlite"
VERSION = 1
#: A worker renews its claim more often than this. On another machine, an older claim counts as that of a dead worker.
LEASE_S = 60.0
#: how long to wait for another process that writes
BUSY_S = 60.0
#: a series that ended the life of this many workers is set aside
MOST_KILLS = 2

WAITING, RUNNING, DONE, FAILED, SET_ASIDE = "waiting", "running", "done", "failed", "set aside"
STATES = (DONE, FAILED, SET_ASIDE, RUNNING, WAITING)

TABLES = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT);
CREATE TABLE IF NOT EXISTS series (
    name TEXT PRIMARY KEY,
    place INTEGER,      -- in the list of the last run, or NULL
    path TEXT, uid TEXT, output TEXT,
    state TEXT NOT NULL,
    files TEXT,         -- Series.state_of_files of what was or will be read
    wanted TEXT,        -- hash of settings, weights and version
    fingerprint TEXT,   -- of the result: hash of voxels, geometry and `wanted`
    kills INTEGER NOT NULL DEFAULT 0,
    worker TEXT, lease REAL,
    started REAL, ended REAL, seconds REAL,
    report TEXT, error TEXT
);
CREATE INDEX IF NOT EXISTS series_by_state ON series (state, place);
"""


@dataclass(frozen=True)
class Claim:
    """A series that this worker may process now."""

    series: Series
    output: Path
    files: str
    fingerprint: str | None


class Ledger:
    """The ledger beside the results. Every method is one transaction.

    Parameters
    ----------
    out : folder of the results
    worker : name of the process that claims series

    Raises
    ------
    UhrctError
        If the file is no ledger, is of another version, or cannot be written.
    """

    def __init__(self, out: Path, worker: str | None = None) -> None:
        self.path = out / LEDGER
        self.worker = worker or this_worker()
        try:
            out.mkdir(parents=True, exist_ok=True)
            # a rollback journal also works on network file systems, where a write-ahead log does not
            self._db = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            self._db.row_factory = sqlite3.Row
            with self._transaction() as db:
                for statement in TABLES.split(";")[:-1]:
                    db.execute(statement)
                db.execute("INSERT OR IGNORE INTO facts VALUES ('version', ?)", (str(VERSION),))
                [found] = db.execute("SELECT value FROM facts WHERE name = 'version'").fetchone()
        except (OSError, sqlite3.Error) as error:
            raise UhrctError(f"{self.path}: cannot be used as a ledger ({error})") from error
        if found != str(VERSION):
            raise UhrctError(
                f"{self.path}: a ledger of version {found}; this program has {VERSION}. Choose another OUT"
            )

    def enrol(self, found: Sequence[Series], wanted: str, suffix: str | None, *, retry_failed: bool = False) -> None:
        """Take the list of a run. Series that are new, changed, or have lost their output wait to be processed.

        Parameters
        ----------
        wanted : hash of settings, weights and version
        suffix : format of the results; None: that of each scan
        retry_failed : whether failed series and those that were set aside wait too

        Raises
        ------
        UhrctError
            If an output exists that is in no row: it is not ours.
        """
        out = self.path.parent
        with self._transaction() as db:
            known = {row["name"]: row for row in db.execute("SELECT * FROM series")}
            for s in found:
                output = s.output(out, suffix)
                if s.name not in known and output.exists():
                    raise UhrctError(f"{output}: exists, and is not in the ledger; choose another OUT, or move it")
            db.execute("UPDATE series SET place = NULL")
            for place, s in enumerate(found):
                self._take(db, known.get(s.name), s, place, wanted, suffix, retry_failed)

    def add(self, s: Series, wanted: str, suffix: str | None = None) -> str:
        """Take one more series, and keep all others. If it is new, changed, or has lost its output, it waits.

        Parameters
        ----------
        wanted, suffix : as for `enrol`

        Returns
        -------
        str
            Its state now. A series that is running stays as it is, even if its files changed: add it again later.

        Raises
        ------
        UhrctError
            If its output exists and is in no row: it is not ours.
        """
        with self._transaction() as db:
            row = db.execute("SELECT * FROM series WHERE name = ?", (s.name,)).fetchone()
            output = s.output(self.path.parent, suffix)
            if row is None and output.exists():
                raise UhrctError(f"{output}: exists, and is not in the ledger; choose another OUT, or move it")
            if row is None or row["place"] is None:
                [place] = db.execute("SELECT coalesce(max(place) + 1, 0) FROM series").fetchone()
            else:
                place = row["place"]
            self._take(db, row, s, place, wanted, suffix)
            [state] = db.execute("SELECT state FROM series WHERE name = ?", (s.name,)).fetchone()
        return str(state)

    def _take(
        self,
        db: sqlite3.Connection,
        row: sqlite3.Row | None,
        s: Series,
        place: int,
        wanted: str,
        suffix: str | None,
        retry_failed: bool = False,
    ) -> None:
        """Enter one series; `row` is what was known of it."""
        out = self.path.parent
        output, files = s.output(out, suffix), _files(s)
        values = {
            "place": place,
            "path": str(s.path.absolute()),
            "uid": s.uid,
            "output": str(output.relative_to(out)),
        }
        if row is None:
            _insert(db, values | {"name": s.name, "state": WAITING, "files": files, "wanted": wanted})
            return
        same = row["files"] == files and row["wanted"] == wanted and row["output"] == values["output"]
        retried = retry_failed and row["state"] in (FAILED, SET_ASIDE)
        if retried or (row["state"] != RUNNING and not (same and (row["state"] != DONE or output.exists()))):
            values |= {"state": WAITING, "files": files, "wanted": wanted, "kills": 0, "error": None}
        _update(db, s.name, values)

    def release_dead(self, worker: str | None = None) -> None:
        """Give back the series of workers that are dead.

        Parameters
        ----------
        worker : one that is known to be dead; None: look for processes of this machine that are gone, and for claims
            of other machines that nobody renewed
        """
        now = time.time()
        with self._transaction() as db:
            for row in db.execute(
                "SELECT name, worker, lease, kills FROM series WHERE state = ?", (RUNNING,)
            ).fetchall():
                if row["worker"] == worker if worker is not None else _is_dead(row["worker"], row["lease"], now):
                    # if the whole run ended, the series is not to blame
                    blamed = worker is not None or _parent_lives(row["worker"])
                    kills = row["kills"] + blamed
                    values = {"state": WAITING, "kills": kills, "worker": None}
                    if kills >= MOST_KILLS:
                        values |= {"state": SET_ASIDE, "error": f"its worker was killed {kills} times"}
                    _update(db, row["name"], values)

    def claim(self, start: int = 0, wanted: str | None = None) -> Claim | None:
        """The next series that waits, now claimed by this worker; None if no series waits.

        Parameters
        ----------
        start : place in the list where this worker begins; it goes round
        wanted : take only series that wait for these settings, since another run may have changed them meanwhile
        """
        now = time.time()
        with self._transaction() as db:
            row = self._next(start, wanted)
            if row is None:
                return None
            values = {"state": RUNNING, "worker": self.worker, "lease": now + LEASE_S, "started": now, "ended": None}
            _update(db, row["name"], values)
        series = Series(row["name"], Path(row["path"]), row["uid"])
        return Claim(series, self.path.parent / row["output"], row["files"], row["fingerprint"])

    def next_path(self, start: int = 0, wanted: str | None = None) -> Path | None:
        """The scan that `claim` would give now. Nothing is claimed, so another worker may take it."""
        row = self._next(start, wanted)
        return None if row is None else Path(row["path"])

    def _next(self, start: int, wanted: str | None) -> sqlite3.Row | None:
        # one range of the index after the other, so that a million rows cost nothing
        where = "state = ? AND place {} ? AND wanted = coalesce(?, wanted)"
        text = f"SELECT * FROM series WHERE {where} ORDER BY place LIMIT 1"
        found = (self._db.execute(text.format(side), (WAITING, start, wanted)).fetchone() for side in (">=", "<"))
        return next((one for one in found if one is not None), None)

    def renew(self) -> None:
        """Say that this worker lives."""
        with self._transaction() as db:
            db.execute(
                "UPDATE series SET lease = ? WHERE worker = ? AND state = ?",
                (time.time() + LEASE_S, self.worker, RUNNING),
            )

    def forget_result(self, name: str) -> None:
        """The result is about to be replaced. If this worker dies, nobody may take the new one for the old."""
        with self._transaction() as db:
            _update(db, name, {"fingerprint": None})

    def settle(
        self, name: str, state: str, *, error: str | None = None, report: Any = None, fingerprint: str | None = None
    ) -> None:
        """Enter what became of a series that this worker holds. Nothing changes if another worker took it over."""
        now = time.time()
        with self._transaction() as db:
            row = db.execute("SELECT * FROM series WHERE name = ?", (name,)).fetchone()
            if row["state"] != RUNNING or row["worker"] != self.worker:
                return
            values: dict[str, Any] = {"state": state, "error": error, "ended": now, "worker": None}
            if state == DONE:
                values |= {"fingerprint": fingerprint, "kills": 0}
                if report is not None:
                    values |= {"report": json.dumps(report), "seconds": now - row["started"]}
            _update(db, name, values)

    def counts(self) -> dict[str, int]:
        """Number of series of the last run in each state."""
        found = self._db.execute("SELECT state, count(*) FROM series WHERE place IS NOT NULL GROUP BY state")
        return dict.fromkeys(STATES, 0) | dict(found.fetchall())

    def held_by(self, process: int) -> str | None:
        """The worker that holds a series in a process of this machine."""
        found = self._db.execute("SELECT worker FROM series WHERE state = ?", (RUNNING,)).fetchall()
        own = f"{socket.gethostname()}:{process}:"
        return next((worker for (worker,) in found if worker.startswith(own)), None)

    def rows(self) -> list[dict[str, Any]]:
        """All series of the last run, in its order."""
        return [dict(r) for r in self._db.execute("SELECT * FROM series WHERE place IS NOT NULL ORDER BY place")]

    def close(self) -> None:
        self._db.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        # IMMEDIATE: two workers cannot both read a series as waiting
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
        except BaseException:
            if self._db.in_transaction:  # SQLite ends a transaction itself when the disk is full
                self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")


def this_worker() -> str:
    """Machine, process and parent process."""
    return f"{socket.gethostname()}:{os.getpid()}:{os.getppid()}"


def _files(s: Series) -> str:
    try:
        return s.state_of_files()
    except OSError:  # the worker will say what is wrong with it
        return ""


def _is_dead(worker: str, lease: float, now: float) -> bool:
    host, pid, _ = worker.rsplit(":", 2)
    return now > lease or (host == socket.gethostname() and not _lives(int(pid)))


def _parent_lives(worker: str) -> bool:
    host, _, parent = worker.rsplit(":", 2)
    return host == socket.gethostname() and _lives(int(parent))


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _insert(db: sqlite3.Connection, values: dict[str, Any]) -> None:
    db.execute(f"INSERT INTO series ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})", [*values.values()])


def _update(db: sqlite3.Connection, name: str, values: dict[str, Any]) -> None:
    db.execute(
        f"UPDATE series SET {', '.join(f'{key} = ?' for key in values)} WHERE name = ?", [*values.values(), name]
    )
