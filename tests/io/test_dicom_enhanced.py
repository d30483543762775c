"""Enhanced CT in, Enhanced CT out: one file, frames placed by voxel edges, the source's frames named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conformance import errors
from ct_files import PATIENT, oblique
from ct_syntaxes import make_enhanced
from pydicom import Dataset, dcmread
from pydicom.uid import EnhancedCTImageStorage

from uhrct import io
from uhrct.core.volume import Volume
from uhrct.io import Derivation, DicomOptions, Segment
from uhrct.io.derivation import TRANSFER_SYNTAXES

pytest.importorskip("imagecodecs", reason="imagecodecs is not installed (pip install 'uhrct[dicom]')")
X2 = Derivation("uhrct 0.1, x2, seed 0", key="weights:x2:seed0", suffix="x2")


def complete(ds: Dataset) -> None:
    """What the maker of test files leaves out and the standard wants."""
    for name in ("AccessionNumber", "PatientBirthDate", "PatientSex", "PositionReferenceIndicator", "StudyID"):
        setattr(ds, name, "")
    ds.ReferringPhysicianName = ds.StudyDate = ds.StudyTime = ""
    ds.DeviceSerialNumber, ds.ManufacturerModelName, ds.SoftwareVersions = "1", "Ring", "1"
    ds.BurnedInAnnotation, ds.PatientPosition, ds.BodyPartExamined = "NO", "HFS", "CHEST"
    ds.AcquisitionContextSequence = []
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "51185008", "SCT", "Chest"
    anatomy, event = Dataset(), Dataset()
    anatomy.AnatomicRegionSequence, anatomy.FrameLaterality = [code], "U"
    event.IrradiationEventUID = "1.2.3.4"
    shared = ds.SharedFunctionalGroupsSequence[0]
    shared.FrameAnatomySequence, shared.IrradiationEventIdentificationSequence = [anatomy], [event]
    shared.add_new(0x00090010, "LO", "ACME PRIVATE")
    shared.add_new(0x00091001, "LO", "secret")


def derive(
    source: Volume, out: Path, scale: tuple[int, int, int] = (1, 2, 2), **options: Any
) -> tuple[Volume, Dataset]:
    hu = source.hu.repeat(scale[0], 0).repeat(scale[1], 1).repeat(scale[2], 2)
    fine = source.on_grid(source.refined_grid(scale), hu)
    with io.open_writer(
        out, fine.grid, dtype="int16", source=source, derivation=X2, dicom=DicomOptions(**options)
    ) as writer:
        writer.write(fine.hu[:1])
        writer.write(fine.hu[1:])
    return fine, dcmread(out / "00001.dcm" if out.is_dir() else out)


@pytest.fixture
def source(tmp_path: Path) -> Volume:
    make_enhanced(tmp_path / "in.dcm", direction=oblique(2), whole=complete)
    return io.read(tmp_path / "in.dcm")


@pytest.mark.parametrize("syntax", TRANSFER_SYNTAXES)
@pytest.mark.parametrize("scale", [(1, 2, 2), (3, 1, 2)])
@pytest.mark.parametrize("name", ["out", "out.dcm"])
def test_voxels_and_place(tmp_path: Path, source: Volume, syntax: str, scale: tuple[int, int, int], name: str) -> None:
    source.hu[1, 0, :2] = -32768, 32767  # needs an intercept of its own
    fine, ds = derive(source, tmp_path / name, scale, transfer_syntax=syntax)
    assert ds.SOPClassUID == ds.file_meta.MediaStorageSOPClassUID == EnhancedCTImageStorage
    assert ds.file_meta.TransferSyntaxUID == TRANSFER_SYNTAXES[syntax]
    got = io.read(tmp_path / name)
    np.testing.assert_array_equal(got.hu, fine.hu)
    np.testing.assert_allclose(got.origin_mm, fine.origin_mm, atol=1e-6)
    np.testing.assert_allclose(got.spacing_mm, fine.spacing_mm, atol=1e-6)
    np.testing.assert_allclose(got.grid.corner_mm, source.grid.corner_mm, atol=1e-6)
    assert ds.pixel_array.shape == fine.shape


def test_what_is_new_and_what_is_kept(tmp_path: Path, source: Volume) -> None:
    _, ds = derive(source, tmp_path / "out.dcm")
    was = dcmread(tmp_path / "in.dcm")
    for kept in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientName", "PatientID", "Manufacturer"):
        assert ds[kept].value == was[kept].value
    assert ds.SeriesInstanceUID != was.SeriesInstanceUID
    assert ds.SOPInstanceUID == ds.file_meta.MediaStorageSOPInstanceUID != was.SOPInstanceUID
    assert (ds.SeriesNumber, ds.SeriesDescription) == (1003, "CHEST 3 RESEARCH x2")
    assert ds.ImageType[:2] == ["DERIVED", "PRIMARY"]
    assert ds.ContentQualification == "RESEARCH"
    assert ds.SharedFunctionalGroupsSequence[0].FrameAnatomySequence[0].FrameLaterality == "U"
    assert "secret" not in str(ds)
    source_of = {tuple(header.ImagePositionPatient): k for k, header in enumerate(source.meta["dicom"])}
    numbers = [number for _, number in source.meta["dicom_frames"]]
    assert sorted(source_of.values()) == [0, 1, 2, 3]
    for k, frame in enumerate(ds.PerFrameFunctionalGroupsSequence):
        [derivation] = frame.DerivationImageSequence
        assert derivation.DerivationDescription == X2.description
        [reference] = derivation.SourceImageSequence
        assert reference.ReferencedSOPInstanceUID == was.SOPInstanceUID
        assert reference.ReferencedFrameNumber == numbers[k]
        assert frame.FrameContentSequence[0].InStackPositionNumber == k + 1


def test_the_writer_knows_the_uids_that_it_writes(tmp_path: Path, source: Volume) -> None:
    with io.open_writer(
        tmp_path / "out", source.grid, dtype="int16", source=source, derivation=X2, dicom=DicomOptions()
    ) as writer:
        writer.write(source.hu)
    ds = dcmread(tmp_path / "out" / "00001.dcm")
    assert writer.series_uid == ds.SeriesInstanceUID
    assert writer.instance_uids == (ds.SOPInstanceUID,)


def test_the_same_every_time(tmp_path: Path, source: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1800000000")
    for name in ("a.dcm", "b.dcm"):
        derive(source, tmp_path / name)
    assert (tmp_path / "a.dcm").read_bytes() == (tmp_path / "b.dcm").read_bytes()


def test_anonymous(tmp_path: Path, source: Volume) -> None:
    fine, ds = derive(source, tmp_path / "out.dcm", anonymize=True)
    was = dcmread(tmp_path / "in.dcm")
    content = (tmp_path / "out.dcm").read_bytes()
    for word in (PATIENT, "PAT4711", "secret", "1.2.3.4\0", was.SOPInstanceUID, was.StudyInstanceUID):
        assert word.encode() not in content
    np.testing.assert_array_equal(io.read(tmp_path / "out.dcm").hu, fine.hu)
    assert ds.PatientIdentityRemoved == "YES"


@pytest.mark.parametrize("options", [{}, {"transfer_syntax": "jpegls"}, {"anonymize": True}])
def test_no_error_that_was_not_in_the_source(tmp_path: Path, source: Volume, options: dict[str, Any]) -> None:
    derive(source, tmp_path / "out.dcm", **options)
    left = errors([tmp_path / "out.dcm"])
    assert left <= errors([tmp_path / "in.dcm"])
    if not options.get("anonymize"):
        assert left == set()


def test_maps_and_masks_name_the_enhanced_source(tmp_path: Path, source: Volume) -> None:
    pytest.importorskip("highdicom")
    grid = source.refined_grid((1, 2, 2))
    with io.open_map_writer(tmp_path / "v.dcm", grid, "structure", source=source, derivation=X2) as writer:
        writer.write(np.zeros(grid.shape, np.float32))
    mask = np.ones(grid.shape, np.uint8)
    io.write_segmentation(mask, grid, tmp_path / "s.dcm", [Segment("x")], source=source, derivation=X2)
    for name in ("v.dcm", "s.dcm"):
        ds = dcmread(tmp_path / name)
        [reference] = ds.ReferencedSeriesSequence[0].ReferencedInstanceSequence
        assert reference.ReferencedSOPClassUID == EnhancedCTImageStorage
        assert reference.ReferencedSOPInstanceUID == source.meta["dicom"][0].SOPInstanceUID
    assert errors([tmp_path / "v.dcm", tmp_path / "s.dcm"]) == set()
