"""docs/pacs.md in full: a study from a DICOM server, super-resolved, and sent back."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from ct_files import make_series
from docs_commands import ROOT, commands
from pynetdicom import AE, StoragePresentationContexts, evt
from pynetdicom.events import Event
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelGet
from run_cli import Uhrct, done


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[tuple[int, list[pydicom.Dataset], list[pydicom.Dataset]]]:
    """A server on loopback: its port, the images of its study, and what it received."""
    make_series(tmp_path / "archive", shape=(3, 40, 32))
    held = [pydicom.dcmread(f) for f in sorted((tmp_path / "archive").iterdir())]
    received: list[pydicom.Dataset] = []

    def give(event: Event) -> Iterator[object]:
        wanted = [ds for ds in held if ds.StudyInstanceUID == event.identifier.StudyInstanceUID]
        yield len(wanted)
        for ds in wanted:
            yield 0xFF00, ds

    def take(event: Event) -> int:
        dataset = event.dataset
        dataset.file_meta = event.file_meta
        received.append(dataset)
        return 0x0000

    ae = AE()
    for context in StoragePresentationContexts:
        ae.add_supported_context(context.abstract_syntax, scu_role=True, scp_role=True)
    ae.add_supported_context(StudyRootQueryRetrieveInformationModelGet)
    server = ae.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_GET, give), (evt.EVT_C_STORE, take)]
    )
    yield server.server_address[1], held, received
    server.shutdown()


def test_the_page_works(
    pacs: tuple[int, list[pydicom.Dataset], list[pydicom.Dataset]],
    tmp_path: Path,
    uhrct: Uhrct,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port, held, received = pacs
    monkeypatch.chdir(tmp_path)
    make_series(tmp_path / "incoming" / "one", shape=(3, 40, 32))
    (tmp_path / "key.txt").write_text("a secret of a test, long enough")
    stands_for = {"HOST": "127.0.0.1", "PORT": str(port)}
    for command in commands((ROOT / "docs" / "pacs.md").read_text()):
        program, *words = command.words
        words = [stands_for.get(w, w).replace("STUDY-UID", str(held[0].StudyInstanceUID)) for w in words]
        if program == "python":
            run = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=60)
            assert run.returncode == 0, run.stderr
        elif "--workers" not in words:  # a whole cohort: tests/batch
            done(uhrct(*words))
    assert len(list((tmp_path / "study").iterdir())) == len(held)
    assert len(received) == len(held)
    for image in received:
        assert image.StudyInstanceUID == held[0].StudyInstanceUID
        assert image.SeriesInstanceUID != held[0].SeriesInstanceUID
        assert "RESEARCH" in image.SeriesDescription
        assert (image.Rows, image.Columns) == (2 * held[0].Rows, 2 * held[0].Columns)
    assert {str(p) for p in Path().iterdir()} >= {"study-jls", "study-90-lower", "study-vessels.dcm", "study-anon"}
