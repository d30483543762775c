"""A node as a process: from a C-STORE to the result at the peer, also if it is killed on the way."""

from __future__ import annotations

from pathlib import Path

import pytest
from ct_files import PATIENT
from node_case import SHAPE, pacs, running, series, settings, store, wait_for, write_config
from pydicom import dcmread

from uhrct import io
from uhrct.batch.ledger import DONE
from uhrct.node.ledger import SENT, NodeLedger


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
