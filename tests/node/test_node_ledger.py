"""Deliveries: derived from what is done, tried again, given up, never entered twice; and what may be removed."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from node_case import config, series

from uhrct.batch.ledger import DONE, FAILED, RUNNING, WAITING
from uhrct.batch.series import Series
from uhrct.node import ledger as ledger_module
from uhrct.node.enrolment import Enrolment
from uhrct.node.incoming import Incoming
from uhrct.node.ledger import GIVEN_UP, MOST_REFUSALS, SENT, UNSENT, NodeLedger
from uhrct.node.retention import DAY_S, remove_old


@pytest.fixture
def ledger(tmp_path: Path) -> NodeLedger:
    return NodeLedger(tmp_path / "node" / "outgoing", "host:1:1")


def done(
    ledger: NodeLedger, name: str, files: Path, fingerprint: str = "f", peers: tuple[str, ...] = ("A", "B")
) -> None:
    """As a worker does it."""
    files.mkdir(parents=True, exist_ok=True)
    ledger.route(name, "all", peers)
    (files / fingerprint).write_text(fingerprint)
    assert ledger.add(Series(name, files), "w") == WAITING
    claim = ledger.claim()
    assert claim is not None
    claim.output.mkdir(exist_ok=True)
    (claim.output / "00001.dcm").write_text("result")
    ledger.settle(name, DONE, fingerprint=fingerprint, report={})


def test_adding_a_series_keeps_the_others_and_their_order(ledger: NodeLedger, tmp_path: Path) -> None:
    for name in "bac":
        (tmp_path / name).mkdir()
        assert ledger.add(Series(name, tmp_path / name), "w") == WAITING
    assert [row["name"] for row in ledger.rows()] == ["b", "a", "c"]
    first = ledger.claim()
    assert first is not None
    assert first.series.name == "b"
    (tmp_path / "b" / "late").write_text("x")
    assert ledger.add(Series("b", tmp_path / "b"), "w") == RUNNING  # later again
    ledger.settle("b", FAILED, error="e")
    assert ledger.add(Series("b", tmp_path / "b"), "w") == WAITING  # its files have changed
    assert [row["name"] for row in ledger.rows()] == ["b", "a", "c"]


def test_every_result_has_one_delivery_for_each_peer(ledger: NodeLedger, tmp_path: Path) -> None:
    done(ledger, "a", tmp_path / "a")
    assert [ledger.plan_deliveries() for _ in range(3)] == [2, 0, 0]
    delivery = ledger.next_delivery("A")
    assert delivery is not None
    assert delivery.folder.is_dir()
    assert ledger.settle_delivery(delivery) == SENT
    assert ledger.next_delivery("A") is None
    assert ledger.next_delivery("B") is not None
    assert ledger.next_delivery("C") is None
    assert ledger.counts_of_deliveries() == {SENT: 1, UNSENT: 1, GIVEN_UP: 0}


def test_a_new_result_takes_the_place_of_an_old_one_that_was_not_sent(ledger: NodeLedger, tmp_path: Path) -> None:
    done(ledger, "a", tmp_path / "a")
    ledger.plan_deliveries()
    old = ledger.next_delivery("A")
    assert old is not None
    done(ledger, "a", tmp_path / "a", fingerprint="g")
    assert ledger.next_delivery("A") is None  # the old result is gone
    assert ledger.plan_deliveries() == 2
    new = ledger.next_delivery("A")
    assert new is not None
    assert new.fingerprint == "g"
    assert ledger.settle_delivery(old) == GIVEN_UP
    assert len(ledger.deliveries()) == 2


def test_pauses_grow_and_only_refusals_are_given_up(
    ledger: NodeLedger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done(ledger, "a", tmp_path / "a", peers=("A",))
    ledger.plan_deliveries()
    delivery = ledger.next_delivery("A")
    assert delivery is not None
    pauses = []
    for _ in range(12):
        assert ledger.settle_delivery(delivery, "away") == UNSENT
        pauses.append(ledger.deliveries()[0]["next_try"] - time.time())
    assert pauses[0] == pytest.approx(5, abs=1)
    assert pauses[-1] == pytest.approx(600, abs=1)
    assert ledger.next_delivery("A") is None
    now = time.time()
    monkeypatch.setattr(ledger_module.time, "time", lambda: now + 700)
    assert ledger.next_delivery("A") == delivery
    found = [ledger.settle_delivery(delivery, "no", refused=True) for _ in range(MOST_REFUSALS)]
    assert found == [UNSENT] * (MOST_REFUSALS - 1) + [GIVEN_UP]
    assert ledger.next_delivery("A") is None
    ledger.retry_failed()
    assert ledger.next_delivery("A") == delivery


def test_what_is_sent_is_known_when_it_comes_back(ledger: NodeLedger) -> None:
    ledger.note_sent_series("1.2.3")
    ledger.note_sent_series("1.2.3")
    assert ledger.was_sent("1.2.3")
    assert not ledger.was_sent("1.2.4")


def test_only_what_was_delivered_to_all_is_removed_and_only_when_it_is_old(tmp_path: Path) -> None:
    node = config(tmp_path, retention_days=2)
    incoming = Incoming(node.incoming, 10**9, 10**6)
    ledger = NodeLedger(node.outgoing, "host:1:1")
    for name in ("old", "young", "half"):
        done(ledger, name, incoming.folder / name, fingerprint=name)
    ledger.plan_deliveries()
    for name in ("old", "young", "half"):
        for peer in ("A", "B") if name != "half" else ("A",):
            delivery = ledger.next_delivery(peer)
            while delivery is not None and delivery.name != name:  # the order is that of the next try
                ledger._db.execute("UPDATE deliveries SET next_try = next_try + 1 WHERE name = ?", (delivery.name,))
                delivery = ledger.next_delivery(peer)
            assert delivery is not None
            ledger.settle_delivery(delivery)
    ago = time.time() - 3 * DAY_S
    for name in ("old", "half"):
        ledger._db.execute("UPDATE deliveries SET sent = ? WHERE name = ?", (ago, name))
        ledger._db.execute("UPDATE series SET ended = ? WHERE name = ?", (ago, name))
        for path in (incoming.folder / name / name, incoming.folder / name):
            os.utime(path, (ago, ago))
    assert remove_old(node, incoming, ledger) == 1
    assert remove_old(node, incoming, ledger) == 0
    left = {p.name for p in (*incoming.series(), *node.outgoing.iterdir()) if p.is_dir()}
    assert left == {"young", "half"}
    assert remove_old(config(tmp_path), incoming, ledger) == 0


def test_enrolment_takes_complete_series_once_and_removes_what_no_rule_wants(tmp_path: Path) -> None:
    node = config(tmp_path, quiet_s=100, never=[{"kernel": "B9*"}])
    incoming = Incoming(node.incoming, 10**9, 10**7)
    ledger = NodeLedger(node.outgoing)
    enrolment = Enrolment(node, incoming, ledger)

    def arrive(seed: int, **options: object) -> Path:
        for file in series(tmp_path / str(seed), seed=seed, **options):
            taken = incoming.take([file.read_bytes()])
        return incoming.folder / taken.series

    wanted = arrive(1)
    unwanted = arrive(2, edit=lambda k, ds: setattr(ds, "ConvolutionKernel", "B90"))
    enrolment.look()
    assert ledger.known() == {}  # more may come
    for folder in (wanted, unwanted):
        os.utime(folder, (time.time() - 101,) * 2)
    for _ in range(3):
        enrolment.look()
        assert {name: row[0] for name, row in ledger.known().items()} == {wanted.name: WAITING}
    assert not unwanted.exists()
    assert incoming.used_bytes == 2 * 4096
    [(route,)] = ledger._db.execute("SELECT peers FROM routes").fetchall()
    assert json.loads(route) == ["PACS"]
    ledger.claim()
    ledger.settle(wanted.name, FAILED, error="e")
    Enrolment(node, incoming, ledger).look()  # another start of the node
    assert ledger.known()[wanted.name][0] == FAILED


def test_a_series_that_waits_gets_the_settings_of_the_present_configuration(tmp_path: Path) -> None:
    for quality in ("standard", "fast"):
        node = config(tmp_path, rules=[{"name": "all", "settings": {"quality": quality}, "send_to": "PACS"}])
        incoming = Incoming(node.incoming, 10**9, 10**7)
        if quality == "standard":
            for file in series(tmp_path / "in"):
                incoming.take([file.read_bytes()])
            [folder] = incoming.series()
            os.utime(folder, (time.time() - 101,) * 2)
        ledger = NodeLedger(node.outgoing)
        enrolment = Enrolment(node, incoming, ledger)
        enrolment.look()
        assert ledger.known()[folder.name][::2] == (WAITING, enrolment.jobs()[0].wanted)
