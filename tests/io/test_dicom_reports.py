"""Measurement reports (TID 1500), read back by highdicom and pydicom."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from conformance import dciodvfy_errors
from ct_files import SPACING, make_series

from uhrct import io
from uhrct.core.errors import InputRefused, UhrctError
from uhrct.core.volume import Volume
from uhrct.io.derivation import Derivation, DicomOptions
from uhrct.io.dicom.sr import write_findings
from uhrct.io.findings import RoundFinding

hd = pytest.importorskip("highdicom")
DETECTED = Derivation("uhrct detect", key="detect", suffix="nodules", codes=())


@pytest.fixture
def scan(tmp_path: Path) -> Volume:
    make_series(tmp_path / "in")
    return io.read(tmp_path / "in")


def finding(scan: Volume, voxel: tuple[float, float, float], diameter_mm: float = 6.0) -> RoundFinding:
    x, y, z = np.asarray(scan.origin_mm) + scan.direction @ (np.asarray(voxel) * scan.spacing_mm)
    return RoundFinding((x, y, z), diameter_mm, 0.871)


def test_each_finding_has_its_circle_diameter_and_certainty(scan: Volume, tmp_path: Path) -> None:
    write_findings([finding(scan, (1, 3, 5)), finding(scan, (2, 4, 6), 9.5)], tmp_path / "sr.dcm", scan, DETECTED)
    report = hd.sr.ComprehensiveSR.from_dataset(pydicom.dcmread(tmp_path / "sr.dcm"))
    groups = report.content.get_planar_roi_measurement_groups()
    assert [g.finding_type.meaning for g in groups] == ["Nodule", "Nodule"]
    values = [{m.name.meaning: m.value for m in g.get_measurements()} for g in groups]
    assert values[0] == {"Diameter": 6.0, "Certainty of Finding": 87.1}
    assert values[1]["Diameter"] == 9.5
    middle, rim = groups[0].roi.value
    assert middle.tolist() == [5.5, 3.5]  # the corner of the picture is (0, 0)
    assert (rim - middle)[0] * SPACING[2] == pytest.approx(3.0, abs=1e-3)
    names = [h.SOPInstanceUID for h in scan.meta["dicom"]]
    images = [g.roi.ContentSequence[0].ReferencedSOPSequence[0] for g in groups]
    assert [names.index(image.ReferencedSOPInstanceUID) for image in images] == [1, 2]


def test_the_report_belongs_to_the_patient_and_study(scan: Volume, tmp_path: Path) -> None:
    write_findings([finding(scan, (1, 3, 5))], tmp_path / "sr.dcm", scan, DETECTED)
    out, header = pydicom.dcmread(tmp_path / "sr.dcm"), scan.meta["dicom"][0]
    for kept in ("StudyInstanceUID", "PatientName", "PatientID"):
        assert out[kept].value == header[kept].value
    assert out.Modality == "SR"
    assert "RESEARCH" in out.SeriesDescription
    assert dciodvfy_errors([tmp_path / "sr.dcm"]) == set()


def test_a_second_run_gives_the_same_bytes(scan: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1800000000")
    for name in ("a.dcm", "b.dcm"):
        write_findings([finding(scan, (1, 3, 5))], tmp_path / name, scan, DETECTED)
    assert (tmp_path / "a.dcm").read_bytes() == (tmp_path / "b.dcm").read_bytes()


def test_no_finding_makes_no_file(scan: Volume, tmp_path: Path) -> None:
    with pytest.raises(UhrctError, match="there are no findings"):
        write_findings([], tmp_path / "sr.dcm", scan, DETECTED)
    assert not (tmp_path / "sr.dcm").exists()


def test_an_anonymous_report_names_nobody(scan: Volume, tmp_path: Path) -> None:
    options = DicomOptions(anonymize=True)
    write_findings([finding(scan, (1, 3, 5))], tmp_path / "sr.dcm", scan, DETECTED, options)
    raw = (tmp_path / "sr.dcm").read_bytes()
    header = scan.meta["dicom"][0]
    for secret in (str(header.PatientName), header.PatientID, header.StudyInstanceUID, header.SOPInstanceUID):
        assert secret.encode() not in raw


def test_a_scan_without_dicom_has_no_report(tmp_path: Path) -> None:
    volume = Volume(np.zeros((2, 4, 4), np.int16), (1, 1, 1))
    with pytest.raises(InputRefused, match="refers to the images of a DICOM scan"):
        write_findings([finding(volume, (0, 1, 1))], tmp_path / "sr.dcm", volume, DETECTED)
    assert list(tmp_path.iterdir()) == []
