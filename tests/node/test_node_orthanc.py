"""A node between an archive and itself: it polls Orthanc, and sends results to the same Orthanc. Both are killed."""

from __future__ import annotations

import urllib.error
from pathlib import Path
from typing import Any

import pytest
from node_case import SHAPE, running, series, settings, wait_for, write_config
from orthanc_server import Orthanc, orthanc

from uhrct.node.ledger import SENT, NodeLedger

SERIES = 3


def images(server: Orthanc) -> list[str]:
    """SOPInstanceUID of every image in the archive; [] while it is away."""
    try:
        found = server.json("/dicom-web/instances?limit=1000", Accept="application/dicom+json")
    except (urllib.error.URLError, OSError):
        return []
    return [one["00080018"]["Value"][0] for one in found]


def sent(folder: Path) -> int:
    ledger = NodeLedger(folder / "node" / "outgoing")
    try:
        return ledger.counts_of_deliveries()[SENT]
    finally:
        ledger.close()


def around(server: Orthanc, folder: Path) -> dict[str, Any]:
    """A node that takes from this server and sends there in both ways."""
    url = f"http://127.0.0.1:{server.http_port}/dicom-web"
    dicom = {"ae_title": "ORTHANC", "host": "127.0.0.1", "port": server.dicom_port, "timeout_s": 10}
    peers = {"STORE": dicom, "STOW": {"url": url, "timeout_s": 10}}
    return settings(folder, peers, poll=[{"url": url, "every_s": 1, "timeout_s": 10}])


@pytest.mark.slow
def test_every_result_is_in_the_archive_once_although_node_and_archive_are_killed(tmp_path: Path) -> None:
    path = tmp_path / "node.yaml"
    with orthanc(tmp_path) as archive:
        write_config(tmp_path, around(archive, tmp_path))
        for k in range(SERIES):
            archive.stow(series(tmp_path / "in" / str(k), seed=k))
        with running(path) as node:
            wait_for(lambda: len(images(archive)) > SERIES * SHAPE[0])  # the first result is there
            archive.kill()
            node.kill()
    with orthanc(tmp_path, archive), running(path) as node:
        wait_for(lambda: sent(tmp_path) == 2 * SERIES)
        found = images(archive)
        # the node looks at its own results once, and leaves them where they are
        wait_for(lambda: node.text.count("not fetched (a result of uhrct)") == SERIES)
        assert sorted(images(archive)) == sorted(found)
        assert node.stop() == 0
    assert len(found) == len(set(found)) == 2 * SERIES * SHAPE[0]
    incoming = list((tmp_path / "node" / "incoming").glob("*/*.dcm"))
    assert len(incoming) == SERIES * SHAPE[0]
    assert "internal error" not in (tmp_path / "log.txt").read_text()
