"""A node as a process: from a C-STORE to the result at the peer, also if it is killed on the way."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from ct_files import PATIENT
from node_case import SHAPE, pacs, running, series, settings, store, wait_for, write_config
from pydicom import dcmread

from uhrct import io
from uhrct.batch.ledger import DONE
from uhrct.core.errors import UhrctError
from uhrct.node.config import load_config
from uhrct.node.ledger import SENT, NodeLedger
from uhrct.node.run import status_lines
from uhrct.node.workers import node_lock


def ledger_says(folder: Path) -> tuple[dict[str, int], dict[str, int]]:
    ledger = NodeLedger(folder / "node" / "outgoing")
    try:
        return ledger.counts(), ledger.counts_of_deliveries()
    finally:
        ledger.close()


@pytest.mark.slow
def test_a_series_comes_back_super_resolved_exactly_once(tmp_path: Path) -> None:
    files = series(tmp_path / "in")
    with pacs() as archive:
        path = write_config(tmp_path, settings(tmp_path, {"PACS": archive.peer}))
        with running(path) as node:
            assert set(store(node.port, files)) == {0}
            wait_for(lambda: ledger_says(tmp_path)[1][SENT] == 1)
            # the archive sends the result to the node, as a rule of it may say
            [result] = (tmp_path / "node" / "outgoing").glob("*/00001.dcm")
            sent_back = sorted(result.parent.iterdir())
            assert set(store(node.port, sent_back)) == {0}
            wait_for(lambda: "not processed (a result of uhrct)" in node.text)
            # the same series again changes nothing
            assert set(store(node.port, files)) == {0}
            assert node.stop() == 0
        assert sum(archive.arrived.values()) == len(archive.arrived) == SHAPE[0]
        assert archive.callers == {"UHRCT"}
        text = node.text
    for value in (PATIENT, "PAT4711", "CHEST 3", *(str(dcmread(f).SOPInstanceUID) for f in files)):
        assert value not in text
    assert str(dcmread(files[0]).SeriesInstanceUID) not in text
    scan, fine = io.read(tmp_path / "in"), io.read(result.parent)
    assert fine.shape == (SHAPE[0], 2 * SHAPE[1], 2 * SHAPE[2])
    assert fine.grid.corner_mm == pytest.approx(scan.grid.corner_mm)
    assert {str(h.SOPInstanceUID) for h in fine.meta["dicom"]} == set(archive.arrived)
    counts, deliveries = ledger_says(tmp_path)
    assert (counts[DONE], sum(counts.values()), deliveries[SENT]) == (1, 1, 1)
    assert len(list((tmp_path / "node" / "incoming").glob("*/*.dcm"))) == len(files)


@pytest.mark.slow
def test_a_node_that_is_killed_again_and_again_sends_every_result_once(tmp_path: Path) -> None:
    """Killed when the first result is being computed, when one was sent, and when the peer was away."""
    folders = [tmp_path / "in" / str(k) for k in range(5)]
    files = [series(folder, seed=k) for k, folder in enumerate(folders)]
    with pacs() as archive:
        port = archive.port
        path = write_config(tmp_path, settings(tmp_path, {"PACS": archive.peer}))
        with running(path) as node:
            for each in files:
                assert set(store(node.port, each)) == {0}
            wait_for(lambda: ledger_says(tmp_path)[0]["running"] == 1)
            node.kill()
        with running(path) as node:
            assert set(store(node.port, files[0])) == {0}  # the sender tries again
            wait_for(lambda: archive.arrived)
            node.kill()
        archive.stop()
        with running(path) as node:
            wait_for(lambda: ledger_says(tmp_path)[0][DONE] == 5)
            node.kill()
        first = archive
    with pacs(port=port) as archive, running(path) as node:
        wait_for(lambda: ledger_says(tmp_path)[1][SENT] == 5)
        assert node.stop() == 0
    counts, deliveries = ledger_says(tmp_path)
    assert (counts[DONE], sum(counts.values())) == (5, 5)
    assert deliveries == {SENT: 5, "unsent": 0, "given up": 0}
    expected = {
        str(dcmread(f, stop_before_pixels=True).SOPInstanceUID) for f in (tmp_path / "node").glob("outgoing/*/*.dcm")
    }
    assert len(expected) == 5 * SHAPE[0]
    assert {*first.arrived} | {*archive.arrived} == expected
    # what arrived twice, because the kill came before the node could note it, is the same object
    for uid in expected:
        assert len(first.content.get(uid, set()) | archive.content.get(uid, set())) == 1
    assert not list((tmp_path / "node").rglob(".uhrct-*"))


@pytest.mark.slow
def test_a_late_image_is_processed_with_its_series(tmp_path: Path) -> None:
    files = series(tmp_path / "in", shape=(3, 24, 24))
    with pacs() as archive, running(write_config(tmp_path, settings(tmp_path, {"PACS": archive.peer}))) as node:
        assert set(store(node.port, files[:2])) == {0}
        wait_for(lambda: len(archive.arrived) == 2)
        assert set(store(node.port, files[2:])) == {0}
        wait_for(lambda: len(archive.arrived) == 5)  # another series: it is made from other images
        wait_for(lambda: ledger_says(tmp_path)[1][SENT] == 2)
    [result] = (tmp_path / "node" / "outgoing").glob("*/00001.dcm")
    assert len(list(result.parent.iterdir())) == 3


@pytest.mark.slow
def test_a_refused_scan_says_so_in_the_status_and_stops_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = series(tmp_path / "bad", shape=(5, 24, 24))
    del files[2]  # a missing slice
    with pacs() as archive:
        path = write_config(tmp_path, settings(tmp_path, {"PACS": archive.peer}))
        with running(path) as node:
            assert set(store(node.port, files)) == {0}
            wait_for(lambda: ledger_says(tmp_path)[0]["failed"] == 1)
            assert set(store(node.port, series(tmp_path / "good", seed=1))) == {0}
            wait_for(lambda: ledger_says(tmp_path)[1][SENT] == 1)
            wait_for(lambda: ": failed; " in node.text)
    [line] = [line for line in status_lines(load_config(path)) if "failed:" in line]
    assert "missing slices" in line
    assert PATIENT not in line


def test_two_nodes_never_share_a_folder(tmp_path: Path) -> None:
    with node_lock(tmp_path), pytest.raises(UhrctError, match="another uhrct node"), node_lock(tmp_path):
        pass
    with node_lock(tmp_path):  # the first one is gone
        pass


@pytest.mark.slow
def test_sigterm_in_the_middle_of_work_leaves_nothing_behind(tmp_path: Path) -> None:
    with pacs() as archive:
        path = write_config(tmp_path, settings(tmp_path, {"PACS": archive.peer}))
        with running(path) as node:
            for k in range(3):
                assert set(store(node.port, series(tmp_path / "in" / str(k), seed=k))) == {0}
            wait_for(lambda: ledger_says(tmp_path)[0]["running"] == 1)
            workers = psutil.Process(node.process.pid).children()
            assert node.stop() == 0
            wait_for(lambda: not any(worker.is_running() for worker in workers), 10)
        assert ledger_says(tmp_path)[0]["running"] == 0
        assert not list((tmp_path / "node").rglob(".uhrct-*"))
        assert "Traceback" not in node.text
        with running(path):
            wait_for(lambda: len(archive.arrived) == 3 * SHAPE[0])
