"""The ledger: who may process what, and what is done again."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from uhrct.batch import ledger as ledger_module
from uhrct.batch.ledger import DONE, FAILED, RUNNING, SET_ASIDE, WAITING, Ledger
from uhrct.batch.series import Series
from uhrct.core.errors import UhrctError


@pytest.fixture
def series(tmp_path: Path) -> list[Series]:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.nii").write_text(name)
    return [Series(name, folder / f"{name}.nii") for name in "abc"]


def finish(ledger: Ledger, name: str) -> None:
    """As a worker does: the output first, then the row."""
    (ledger.path.parent / f"{name}.nii").write_text("result")
    ledger.settle(name, DONE, fingerprint="f", report={})


def states(ledger: Ledger) -> dict[str, str]:
    return {row["name"]: row["state"] for row in ledger.rows()}


def test_two_workers_never_get_the_same_series(tmp_path: Path, series: list[Series]) -> None:
    first, second = Ledger(tmp_path / "out", "host:1:1"), Ledger(tmp_path / "out", "host:2:1")
    first.enrol(series, "w", None)
    claims = [worker.claim() for worker in (first, second, first, second)]
    assert [c.series.name for c in claims if c is not None] == ["a", "b", "c"]
    assert claims[3] is None


def test_a_full_disk_says_so_and_changes_nothing(tmp_path: Path, series: list[Series]) -> None:
    ledger = Ledger(tmp_path / "out")
    ledger.enrol(series, "w", None)
    ledger.claim()
    [pages] = ledger._db.execute("PRAGMA page_count").fetchone()
    ledger._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(sqlite3.OperationalError, match="full"):
        ledger.settle("a", DONE, fingerprint="f", report={"long": "x" * 100_000})
    ledger._db.execute("PRAGMA max_page_count = 1000000")
    assert states(ledger) == {"a": RUNNING, "b": WAITING, "c": WAITING}
    finish(ledger, "a")
    assert states(ledger)["a"] == DONE


def test_parts_begin_at_different_places_and_go_round(tmp_path: Path, series: list[Series]) -> None:
    ledger = Ledger(tmp_path / "out")
    ledger.enrol(series, "w", None)
    claims = [ledger.claim(start=1) for _ in series]
    assert [c.series.name for c in claims if c is not None] == ["b", "c", "a"]


def test_the_next_path_is_that_of_the_next_claim_and_claims_nothing(tmp_path: Path, series: list[Series]) -> None:
    ledger = Ledger(tmp_path / "out")
    ledger.enrol(series, "w", None)
    for _ in series:
        path = ledger.next_path(start=1)
        claim = ledger.claim(start=1)
        assert claim is not None
        assert path == claim.series.path
    assert ledger.next_path(start=1) is None


def test_what_is_done_waits_again_only_if_something_changed(tmp_path: Path, series: list[Series]) -> None:
    ledger = Ledger(tmp_path / "out")
    ledger.enrol(series, "w", None)
    for s in series:
        ledger.claim()
        finish(ledger, s.name)
    ledger.enrol(series, "w", None)
    assert set(states(ledger).values()) == {DONE}
    (tmp_path / "in" / "a.nii").write_text("another scan")
    (tmp_path / "out" / "b.nii").unlink()
    ledger.enrol(series, "w", None)
    assert states(ledger) == {"a": WAITING, "b": WAITING, "c": DONE}
    ledger.enrol(series, "other settings", None)
    assert set(states(ledger).values()) == {WAITING}


def test_what_failed_waits_again_only_on_request_or_if_it_changed(tmp_path: Path, series: list[Series]) -> None:
    ledger = Ledger(tmp_path / "out")
    ledger.enrol(series[:1], "w", None)
    ledger.claim()
    ledger.settle("a", FAILED, error="damaged")
    ledger.enrol(series[:1], "w", None)
    assert states(ledger) == {"a": FAILED}
    ledger.enrol(series[:1], "w", None, retry_failed=True)
    assert states(ledger) == {"a": WAITING}
    ledger.claim()
    ledger.settle("a", FAILED, error="damaged")
    (tmp_path / "in" / "a.nii").write_text("repaired scan")
    ledger.enrol(series[:1], "w", None)
    assert states(ledger) == {"a": WAITING}


def test_a_file_that_is_not_ours_is_never_replaced(tmp_path: Path, series: list[Series]) -> None:
    ledger = Ledger(tmp_path / "out")
    (tmp_path / "out" / "b.nii").write_text("precious")
    with pytest.raises(UhrctError, match=r"b\.nii: exists, and is not in the ledger"):
        ledger.enrol(series, "w", None)
    assert ledger.rows() == []


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_the_series_of_a_killed_worker_is_given_back_and_set_aside_after_the_second_time(
    tmp_path: Path, series: list[Series]
) -> None:
    host = ledger_module.this_worker().split(":")[0]
    for expected in (WAITING, SET_ASIDE):
        ledger = Ledger(tmp_path / "out", f"{host}:{dead_process()}:{os.getpid()}")
        if expected == WAITING:
            ledger.enrol(series[:1], "w", None)
        ledger.claim()
        ledger.release_dead()
        assert states(ledger) == {"a": expected}


def test_a_run_that_was_killed_as_a_whole_blames_no_series(tmp_path: Path, series: list[Series]) -> None:
    host = ledger_module.this_worker().split(":")[0]
    for turn in range(3):
        gone = dead_process()
        ledger = Ledger(tmp_path / "out", f"{host}:{gone}:{gone}")
        if turn == 0:
            ledger.enrol(series[:1], "w", None)
        assert ledger.claim() is not None
        ledger.release_dead()
        assert states(ledger) == {"a": WAITING}


def test_a_claim_of_another_machine_ends_when_nobody_renews_it(
    tmp_path: Path, series: list[Series], monkeypatch: pytest.MonkeyPatch
) -> None:
    far, here = Ledger(tmp_path / "out", "elsewhere:1:1"), Ledger(tmp_path / "out")
    far.enrol(series[:1], "w", None)
    far.claim()
    here.release_dead()
    assert states(here) == {"a": RUNNING}
    now = time.time()
    monkeypatch.setattr(ledger_module.time, "time", lambda: now + ledger_module.LEASE_S + 1)
    far.renew()
    here.release_dead()
    assert states(here) == {"a": RUNNING}
    monkeypatch.setattr(ledger_module.time, "time", lambda: now + 2 * ledger_module.LEASE_S + 2)
    here.release_dead()
    assert states(here) == {"a": WAITING}


def test_a_worker_that_lost_its_claim_changes_nothing(tmp_path: Path, series: list[Series]) -> None:
    slow, fast = Ledger(tmp_path / "out", "elsewhere:1:1"), Ledger(tmp_path / "out")
    slow.enrol(series[:1], "w", None)
    slow.claim()
    fast.release_dead("elsewhere:1:1")
    assert fast.claim() is not None
    slow.settle("a", FAILED, error="too late")
    assert states(fast) == {"a": RUNNING}
    finish(fast, "a")
    assert states(fast) == {"a": DONE}


def test_another_file_or_version_is_no_ledger(tmp_path: Path) -> None:
    (tmp_path / ledger_module.LEDGER).write_text("notes of a user, longer than a header of SQLite" * 9)
    with pytest.raises(UhrctError, match="cannot be used as a ledger"):
        Ledger(tmp_path)
    newer = Ledger(tmp_path / "newer")
    newer._db.execute("UPDATE facts SET value = '99'")
    with pytest.raises(UhrctError, match="a ledger of version 99"):
        Ledger(tmp_path / "newer")


def test_a_run_takes_no_series_that_waits_for_other_settings(tmp_path: Path, series: list[Series]) -> None:
    ledger = Ledger(tmp_path / "out")
    ledger.enrol(series, "new", None)
    assert ledger.claim(0, "old") is None
    assert ledger.claim(0, "new") is not None
