"""The ledger of a node: that of `uhrct batch`, and in tables of their own where results go and what was sent."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uhrct.batch.ledger import DONE, FAILED, RUNNING, SET_ASIDE, WAITING, Ledger

#: states of a delivery
SENT, UNSENT, GIVEN_UP = "sent", "unsent", "given up"
#: between two tries: doubled from the first to the last
FIRST_PAUSE_S, LAST_PAUSE_S = 5.0, 600.0
#: a peer that refuses a result so often does not get it
MOST_REFUSALS = 8

TABLES = """
CREATE TABLE IF NOT EXISTS routes (name TEXT PRIMARY KEY, rule TEXT NOT NULL, peers TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS deliveries (
    name TEXT NOT NULL, fingerprint TEXT NOT NULL, peer TEXT NOT NULL,
    state TEXT NOT NULL,
    tries INTEGER NOT NULL DEFAULT 0, refusals INTEGER NOT NULL DEFAULT 0,
    next_try REAL NOT NULL DEFAULT 0, sent REAL, error TEXT,
    PRIMARY KEY (name, fingerprint, peer)
);
CREATE INDEX IF NOT EXISTS deliveries_by_state ON deliveries (state, peer, next_try);
CREATE TABLE IF NOT EXISTS sent_series (uid TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS polled (source TEXT, series TEXT, images INTEGER, PRIMARY KEY (source, series));
"""


@dataclass(frozen=True)
class Delivery:
    """A result that a peer shall get."""

    name: str
    fingerprint: str
    peer: str
    folder: Path


class NodeLedger(Ledger):
    """The ledger beside the results, with the deliveries. Every method is one transaction."""

    def __init__(self, out: Path, worker: str | None = None) -> None:
        super().__init__(out, worker)
        with self._transaction() as db:
            for statement in TABLES.split(";")[:-1]:
                db.execute(statement)

    def known(self) -> dict[str, tuple[str, str, str]]:
        """State, hash of files and hash of settings of every series."""
        rows = self._db.execute("SELECT name, state, files, wanted FROM series WHERE place IS NOT NULL")
        return {row["name"]: (row["state"], row["files"], row["wanted"]) for row in rows}

    def route(self, name: str, rule: str, peers: Sequence[str]) -> None:
        """Note where the result of a series goes. Called before the series may be processed."""
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO routes VALUES (?, ?, ?)", (name, rule, json.dumps(list(peers))))

    def release_all(self) -> None:
        """Give back every series that is running. Only for a node that is known to have no worker."""
        with self._transaction() as db:
            db.execute("UPDATE series SET state = ?, worker = NULL WHERE state = ?", (WAITING, RUNNING))

    def retry_failed(self) -> None:
        """Let what failed wait again: series and deliveries."""
        with self._transaction() as db:
            db.execute(
                "UPDATE series SET state = ?, kills = 0, error = NULL WHERE state IN (?, ?)",
                (WAITING, FAILED, SET_ASIDE),
            )
            db.execute(
                "UPDATE deliveries SET state = ?, refusals = 0, next_try = 0 WHERE state = ?", (UNSENT, GIVEN_UP)
            )

    def failed(self) -> list[tuple[str, str]]:
        """Name and state of each series that has no result and will not be tried again."""
        found = self._db.execute("SELECT name, state FROM series WHERE state IN (?, ?)", (FAILED, SET_ASIDE))
        return [(name, state) for name, state in found.fetchall()]

    def plan_deliveries(self) -> int:
        """Enter a delivery for each result and peer that has none. Returns how many are new.

        It is derived from what is done. So a kill between the two loses none.
        """
        count = 0
        with self._transaction() as db:
            rows = db.execute(
                "SELECT name, fingerprint, peers FROM series JOIN routes USING (name) WHERE state = ? AND NOT EXISTS "
                "(SELECT 1 FROM deliveries d WHERE d.name = series.name AND d.fingerprint = series.fingerprint)",
                (DONE,),
            ).fetchall()
            for row in rows:
                # an earlier result of this series is out of date
                db.execute("DELETE FROM deliveries WHERE name = ? AND state != ?", (row["name"], SENT))
                for peer in json.loads(row["peers"]):
                    key = (row["name"], row["fingerprint"], peer, UNSENT)
                    db.execute("INSERT INTO deliveries (name, fingerprint, peer, state) VALUES (?, ?, ?, ?)", key)
                    count += 1
        return count

    def next_delivery(self, peer: str) -> Delivery | None:
        """A result that the peer shall get now. It must still be the present result of its series."""
        row = self._db.execute(
            "SELECT d.name, d.fingerprint, d.peer, s.output FROM deliveries d JOIN series s ON s.name = d.name "
            "AND s.fingerprint = d.fingerprint AND s.state = ? WHERE d.state = ? AND d.peer = ? AND d.next_try <= ? "
            "ORDER BY d.next_try LIMIT 1",
            (DONE, UNSENT, peer, time.time()),
        ).fetchone()
        return None if row is None else Delivery(row[0], row[1], row[2], self.path.parent / row[3])

    def settle_delivery(self, delivery: Delivery, error: str | None = None, *, refused: bool = False) -> str:
        """Enter what became of a delivery. Without an error it was sent. Returns its state.

        Parameters
        ----------
        refused : whether the peer was there, and refused
        """
        now = time.time()
        where = "WHERE name = ? AND fingerprint = ? AND peer = ?"
        key = (delivery.name, delivery.fingerprint, delivery.peer)
        with self._transaction() as db:
            row = db.execute(f"SELECT tries, refusals FROM deliveries {where}", key).fetchone()
            if row is None:
                return GIVEN_UP  # a newer result has taken its place
            tries, refusals = row["tries"] + 1, row["refusals"] + refused
            state = SENT if error is None else GIVEN_UP if refusals >= MOST_REFUSALS else UNSENT
            pause_s = min(LAST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(tries - 1, 10))
            values = (state, tries, refusals, now + pause_s, now if error is None else None, error)
            db.execute(
                f"UPDATE deliveries SET state = ?, tries = ?, refusals = ?, next_try = ?, sent = ?, error = ? {where}",
                (*values, *key),
            )
        return state

    def counts_of_deliveries(self) -> dict[str, int]:
        """How many deliveries are in each state."""
        found = self._db.execute("SELECT state, count(*) FROM deliveries GROUP BY state")
        return dict.fromkeys((SENT, UNSENT, GIVEN_UP), 0) | dict(found.fetchall())

    def deliveries(self) -> list[dict[str, Any]]:
        return [dict(row) for row in self._db.execute("SELECT * FROM deliveries ORDER BY name, peer")]

    def note_sent_series(self, uid: str) -> None:
        """Note the SeriesInstanceUID of a result before it is sent, so that it is known if it comes back."""
        with self._transaction() as db:
            db.execute("INSERT OR IGNORE INTO sent_series VALUES (?)", (uid,))

    def was_sent(self, uid: str) -> bool:
        return self._db.execute("SELECT 1 FROM sent_series WHERE uid = ?", (uid,)).fetchone() is not None

    def delivered_before(self, moment: float) -> list[tuple[str, Path]]:
        """Series that were delivered completely before `moment`, with their results."""
        rows = self._db.execute(
            "SELECT s.name, s.output, count(*), sum(d.state = ?), max(d.sent), s.ended FROM series s "
            "JOIN deliveries d ON d.name = s.name AND d.fingerprint = s.fingerprint WHERE s.state = ? GROUP BY s.name",
            (SENT, DONE),
        ).fetchall()
        old = (r for r in rows if r[2] == r[3] and max(r[4], r[5] or 0) < moment)
        return [(r[0], self.path.parent / r[1]) for r in old]

    def polled(self, source: str) -> dict[str, int]:
        """Series that were taken from a source, or found unwanted, and their number of images then."""
        return dict(self._db.execute("SELECT series, images FROM polled WHERE source = ?", (source,)).fetchall())

    def note_polled(self, source: str, series: Iterable[tuple[str, int]]) -> None:
        with self._transaction() as db:
            rows = [(source, name, images) for name, images in series]
            db.executemany("INSERT OR REPLACE INTO polled VALUES (?, ?, ?)", rows)
