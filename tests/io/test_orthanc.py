"""A real server takes what we write: same study, same frame of reference, same voxels when it comes back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ct_files import make_series, oblique
from orthanc_server import ANSWER_S, Orthanc, orthanc
from pydicom import dcmread

from uhrct import io
from uhrct.core.volume import Volume
from uhrct.io import Derivation, DicomOptions, Segment

X2 = Derivation("uhrct 0.1, x2, seed 0", key="weights:x2:seed0", suffix="x2")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with orthanc(tmp_path_factory.mktemp("orthanc")) as running:
        yield running


def derived(folder: Path, seed: int, **options: Any) -> tuple[Volume, Volume]:
    """A source series in `folder`/in and a derived one in `folder`/out."""
    make_series(folder / "in", shape=(4, 20, 24), direction=oblique(seed), seed=seed, study=str(seed))
    source = io.read(folder / "in")
    fine = source.on_grid(source.refined_grid((1, 2, 2)), source.hu.repeat(2, 1).repeat(2, 2))
    with io.open_writer(
        folder / "out", fine.grid, dtype="int16", source=source, derivation=X2, dicom=DicomOptions(**options)
    ) as writer:
        writer.write(fine.hu)
    return source, fine


def c_store(server: Orthanc, files: list[Path]) -> list[int]:
    """Status of each C-STORE (PS3.4 annex B); 0 is success."""
    pynetdicom = pytest.importorskip("pynetdicom")
    node = pynetdicom.AE("UHRCT")
    node.acse_timeout = node.dimse_timeout = node.network_timeout = ANSWER_S
    datasets = [dcmread(file) for file in files]
    for ds in datasets:
        node.add_requested_context(ds.SOPClassUID, ds.file_meta.TransferSyntaxUID)
    association = node.associate("127.0.0.1", server.dicom_port, ae_title="ORTHANC")
    assert association.is_established
    try:
        return [association.send_c_store(ds).Status for ds in datasets]
    finally:
        association.release()


def check_at_home(server: Orthanc, source: Volume, fine: Volume, folder: Path) -> None:
    """The server sees both series in one study and frame of reference, and gives the derived one back as it was."""
    header = source.meta["dicom"][0]
    series = server.json(f"/dicom-web/studies/{header.StudyInstanceUID}/series", Accept="application/dicom+json")
    uids = {one["0020000E"]["Value"][0] for one in series}
    assert len(uids) == 2
    assert header.SeriesInstanceUID in uids
    [uid] = uids - {header.SeriesInstanceUID}
    files = server.wado(f"studies/{header.StudyInstanceUID}/series/{uid}")
    assert len(files) == fine.shape[0]
    (folder / "back").mkdir()
    for k, content in enumerate(files):
        (folder / "back" / f"{k}.dcm").write_bytes(content)
    got = io.read(folder / "back")
    np.testing.assert_array_equal(got.hu, fine.hu)
    np.testing.assert_allclose(got.origin_mm, fine.origin_mm, atol=1e-6)
    np.testing.assert_allclose(got.spacing_mm, fine.spacing_mm, atol=1e-6)
    for was in got.meta["dicom"]:
        assert was.FrameOfReferenceUID == header.FrameOfReferenceUID
        assert was.StudyInstanceUID == header.StudyInstanceUID
    written = {p.name: dcmread(p) for p in (folder / "out").iterdir()}
    for ds in map(dcmread, (folder / "back").iterdir()):
        ours = written[f"{ds.InstanceNumber:05d}.dcm"]
        assert ds == ours  # every element, pixels among them
        assert ds.file_meta.TransferSyntaxUID == ours.file_meta.TransferSyntaxUID


@pytest.mark.parametrize("syntax", ["explicit", "jpegls"])
def test_c_store(server: Orthanc, tmp_path: Path, syntax: str) -> None:
    source, fine = derived(tmp_path, seed=11 if syntax == "explicit" else 12, transfer_syntax=syntax)
    files = [*(tmp_path / "in").iterdir(), *(tmp_path / "out").iterdir()]
    assert set(c_store(server, files)) == {0}
    check_at_home(server, source, fine, tmp_path)


@pytest.mark.parametrize("syntax", ["explicit", "jpegls"])
def test_stow_rs(server: Orthanc, tmp_path: Path, syntax: str) -> None:
    source, fine = derived(tmp_path, seed=13 if syntax == "explicit" else 14, transfer_syntax=syntax)
    files = [*(tmp_path / "in").iterdir(), *(tmp_path / "out").iterdir()]
    answer = server.stow(files)
    assert len(answer["00081199"]["Value"]) == len(files)  # ReferencedSOPSequence: what was stored
    assert answer.get("00081198", {}).get("Value", []) == []  # FailedSOPSequence
    check_at_home(server, source, fine, tmp_path)


def test_a_second_run_adds_nothing(server: Orthanc, tmp_path: Path) -> None:
    """Deterministic UIDs: an archive that gets the same result twice keeps it once."""
    (tmp_path / "again").mkdir()
    source, _ = derived(tmp_path, seed=15)
    derived(tmp_path / "again", seed=15)
    for folder in (tmp_path / "in", tmp_path / "out", tmp_path / "again" / "out"):
        server.stow(list(folder.iterdir()))
    study = source.meta["dicom"][0].StudyInstanceUID
    assert len(server.json(f"/dicom-web/studies/{study}/instances", Accept="application/dicom+json")) == 8


def test_maps_and_masks(server: Orthanc, tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    source, fine = derived(tmp_path, seed=16)
    values = np.random.default_rng(0).random(fine.shape, np.float32)
    with io.open_map_writer(tmp_path / "v.dcm", fine.grid, "structure", source=source, derivation=X2) as writer:
        writer.write(values)
    mask = (fine.hu > 0).astype(np.uint8)
    io.write_segmentation(mask, fine.grid, tmp_path / "seg.dcm", [Segment("x")], source=source, derivation=X2)
    files = [*(tmp_path / "in").iterdir(), tmp_path / "v.dcm", tmp_path / "seg.dcm"]
    assert set(c_store(server, files)) == {0}
    study = source.meta["dicom"][0].StudyInstanceUID
    series = server.json(f"/dicom-web/studies/{study}/series", Accept="application/dicom+json")
    assert {one["00080060"]["Value"][0] for one in series} == {"CT", "OT", "SEG"}
    uid = dcmread(tmp_path / "v.dcm").SeriesInstanceUID
    [content] = server.wado(f"studies/{study}/series/{uid}")
    (tmp_path / "back.dcm").write_bytes(content)
    assert dcmread(tmp_path / "back.dcm").FloatPixelData == values.tobytes()
