"""Maps as Parametric Maps and masks as SEG: in the scan's study and frame of reference, values and place kept."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ct_files import PATIENT, make_series, oblique
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file

from uhrct import io
from uhrct.core.errors import UhrctError
from uhrct.core.volume import Grid, Volume
from uhrct.io import Derivation, DicomOptions, Segment

hd: Any = pytest.importorskip("highdicom", reason="highdicom is not installed (pip install 'uhrct[dicom]')")
X2 = Derivation("uhrct 0.1, x2, seed 0", key="weights:x2:seed0", suffix="x2")


@pytest.fixture
def source(tmp_path: Path) -> Volume:
    make_series(tmp_path / "in", direction=oblique(6))
    return io.read(tmp_path / "in")


def map_of(path: Path, source: Volume | None, grid: Grid, quantity: str, **options: Any) -> tuple[np.ndarray, Dataset]:
    values = np.random.default_rng(1).random(grid.shape, np.float32)
    dicom = DicomOptions(**options)
    with io.open_map_writer(path, grid, quantity, source=source, derivation=X2, dicom=dicom) as writer:
        writer.write(values[:2])
        writer.write(values[2:])
    return values, dcmread(path / "00001.dcm" if path.is_dir() else path)


def at_our_voxels(volume: Any, grid: Grid) -> np.ndarray:
    """Values of a highdicom volume, which knows nothing of uhrct, at the places of the voxels of `grid`."""
    index = np.array(list(np.ndindex(grid.shape)))
    places = np.asarray(grid.origin_mm) + (index * grid.spacing_mm) @ grid.direction.T
    found = volume.map_reference_to_indices(places)
    np.testing.assert_allclose(found, np.rint(found), atol=1e-4 / min(grid.spacing_mm))
    z, y, x = np.rint(found).astype(int).T
    return volume.array[z, y, x].reshape(grid.shape)


@pytest.mark.parametrize(
    ("source_says", "region", "side"),
    [
        ({"BodyPartExamined": "CHEST"}, "816094009", "U"),
        ({"BodyPartExamined": "chest "}, "816094009", "U"),
        ({"BodyPartExamined": "NO SUCH PART"}, "38266002", "U"),
        ({}, "38266002", "U"),
        ({"BodyPartExamined": "KNEE", "Laterality": "L"}, "38266002", "L"),
    ],
)
def test_map_says_where_in_the_body_it_is(tmp_path: Path, source_says: dict[str, str], region: str, side: str) -> None:
    make_series(tmp_path / "in", edit=lambda k, ds: [setattr(ds, *item) for item in source_says.items()])
    source = io.read(tmp_path / "in")
    _, ds = map_of(tmp_path / "map.dcm", source, source.grid, "structure")
    [anatomy] = ds.SharedFunctionalGroupsSequence[0].FrameAnatomySequence
    assert (anatomy.AnatomicRegionSequence[0].CodeValue, anatomy.FrameLaterality) == (region, side)


@pytest.mark.parametrize(("quantity", "unit"), [("structure", "1"), ("spread", "[hnsf'U]")])
@pytest.mark.parametrize("name", ["map", "map.dcm"])
def test_map(tmp_path: Path, source: Volume, quantity: str, unit: str, name: str) -> None:
    grid = source.refined_grid((1, 2, 2))
    values, ds = map_of(tmp_path / name, source, grid, quantity)
    header = source.meta["dicom"][0]
    assert ds.SOPClassUID.name == "Parametric Map Storage"
    for kept in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientName", "PatientID"):
        assert ds[kept].value == header[kept].value
    assert ds.SeriesInstanceUID != header.SeriesInstanceUID
    assert (ds.NumberOfFrames, ds.Rows, ds.Columns) == grid.shape
    assert ds.ContentQualification == "RESEARCH"
    pixels = np.frombuffer(ds.FloatPixelData, "<f4").reshape(grid.shape)
    np.testing.assert_array_equal(pixels, values)
    [mapping] = ds.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == unit
    assert mapping.RealWorldValueSlope == 1
    image = hd.pm.ParametricMap.from_dataset(ds)
    np.testing.assert_array_equal(at_our_voxels(image.get_volume(), grid), values)


@pytest.mark.parametrize("kind", ["map", "masks"])
def test_each_frame_states_how_it_was_made(tmp_path: Path, source: Volume, kind: str) -> None:
    """These objects have no description as a whole: their IODs allow one per frame."""
    path = tmp_path / "out.dcm"
    if kind == "map":
        _, ds = map_of(path, source, source.grid, "structure")
    else:
        io.write_segmentation(
            np.ones(source.shape, np.uint8), source.grid, path, [Segment("drawn")], source=source, derivation=X2
        )
        ds = dcmread(path)
    for frame in ds.PerFrameFunctionalGroupsSequence:
        assert frame.DerivationImageSequence[0].DerivationDescription == X2.description


def test_map_is_the_same_every_time(tmp_path: Path, source: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1800000000")
    for name in ("a.dcm", "b.dcm"):
        map_of(tmp_path / name, source, source.grid, "structure")
    assert (tmp_path / "a.dcm").read_bytes() == (tmp_path / "b.dcm").read_bytes()


def test_outputs_of_one_run_are_told_apart(tmp_path: Path, source: Volume) -> None:
    _, a = map_of(tmp_path / "a", source, source.grid, "structure")
    _, b = map_of(tmp_path / "b", source, source.grid, "spread")
    mask = (source.hu > 0).astype(np.uint8)
    io.write_segmentation(mask, source.grid, tmp_path / "c", [Segment("x")], source=source, derivation=X2)
    c = dcmread(tmp_path / "c" / "00001.dcm")
    for key in ("SeriesInstanceUID", "SOPInstanceUID", "SeriesNumber", "SeriesDescription"):
        assert len({str(ds[key].value) for ds in (a, b, c)}) == 3
    assert a.SeriesDescription == "CHEST 3 RESEARCH x2 structure map"


KEY = "a long secret of one site"


def test_anonymous_map_lies_in_the_anonymous_study(tmp_path: Path, source: Volume) -> None:
    _, ds = map_of(tmp_path / "map.dcm", source, source.grid, "structure", anonymize=True, anonymize_key=KEY)
    io.write(source, tmp_path / "out", X2, DicomOptions(anonymize=True, anonymize_key=KEY))
    image = dcmread(tmp_path / "out" / "00001.dcm")
    for kept in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientName", "PatientID"):
        assert ds[kept].value == image[kept].value
    content = (tmp_path / "map.dcm").read_bytes()
    for word in (PATIENT, "PAT4711", "CHEST 3", *(h.SOPInstanceUID for h in source.meta["dicom"])):
        assert word.encode() not in content


def test_japanese_patient(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    name = "Yamada^Tarou=山田^太郎=やまだ^たろう"

    def edit(k, ds):
        ds.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
        ds.PatientName, ds.SeriesDescription, ds.PatientSex = name, "胸部", "F"

    make_series(tmp_path / "in", edit=edit)
    source = io.read(tmp_path / "in")
    _, ds = map_of(tmp_path / "map.dcm", source, source.grid, "structure")
    assert str(ds.PatientName) == name
    assert ds.SeriesDescription == "胸部 RESEARCH x2 structure map"
    assert capfd.readouterr() == ("", "")


def test_map_without_dicom_source(tmp_path: Path) -> None:
    grid = Grid((3, 4, 5), (2.0, 1.0, 1.0))
    values, ds = map_of(tmp_path / "map.dcm", Volume(np.zeros((3, 4, 5), np.int16), (2, 1, 1)), grid, "structure")
    np.testing.assert_array_equal(np.frombuffer(ds.FloatPixelData, "<f4").reshape(grid.shape), values)
    assert "ReferencedSeriesSequence" not in ds  # there is no such series


def test_too_large_map_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UhrctError, match=r"at most 4 GiB; choose \.nii\.gz"):
        io.open_map_writer(tmp_path / "map", Grid((1100, 1024, 1024), (1, 1, 1)), "structure")


def test_without_highdicom_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(UhrctError, match=r"uhrct\[dicom\].*or choose \.nii\.gz"):
        io.open_map_writer(tmp_path / "map", Grid((1, 2, 2), (1, 1, 1)), "structure")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("scale", [(1, 1, 1), (1, 2, 2), (3, 1, 1)])
def test_segmentation(
    tmp_path: Path, source: Volume, scale: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1800000000")
    grid = source.refined_grid(scale)
    mask = np.random.default_rng(2).integers(0, 3, grid.shape).astype(np.uint8)
    mask[1] = 0
    vessel = Segment("vessels", kind=("59820001", "SCT", "Blood vessel"))
    path = tmp_path / "seg.dcm"
    io.write_segmentation(mask, grid, path, [vessel, Segment("drawn", algorithm="")], source=source, derivation=X2)
    seg = hd.seg.segread(path)
    header = source.meta["dicom"][0]
    for kept in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientName"):
        assert seg[kept].value == header[kept].value
    assert [s.SegmentLabel for s in seg.SegmentSequence] == ["vessels", "drawn"]
    assert [s.SegmentAlgorithmType for s in seg.SegmentSequence] == ["AUTOMATIC", "MANUAL"]
    np.testing.assert_array_equal(at_our_voxels(seg.get_volume(combine_segments=True), grid), mask)
    again = tmp_path / "again.dcm"
    io.write_segmentation(mask, grid, again, [vessel, Segment("drawn", algorithm="")], source=source, derivation=X2)
    assert again.read_bytes() == path.read_bytes()


def test_segmentation_as_nifti(tmp_path: Path, source: Volume) -> None:
    mask = np.random.default_rng(2).integers(0, 2, source.shape).astype(bool)
    io.write_segmentation(mask, source.grid, tmp_path / "seg.nii.gz", [Segment("x")])
    np.testing.assert_array_equal(io.read(tmp_path / "seg.nii.gz").hu, mask)


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (np.zeros((2, 2, 2), np.uint8), "does not fit a grid"),
        (np.zeros((1, 2, 2), np.float32), "whole numbers"),
        (np.full((1, 2, 2), 2), "labels 2 to 2 do not fit 1 segment"),
        (np.full((1, 2, 2), -1), "labels -1 to -1"),
        (np.zeros((1, 2, 2), np.uint8), "mask is empty"),
    ],
)
def test_bad_masks_are_one_line(tmp_path: Path, mask: np.ndarray, words: str) -> None:
    with pytest.raises(UhrctError, match=words):
        io.write_segmentation(mask, Grid((1, 2, 2), (1, 1, 1)), tmp_path / "seg.dcm", [Segment("x")])
    assert list(tmp_path.iterdir()) == []


def test_single_slice(tmp_path: Path) -> None:
    source = io.read(get_testdata_file("CT_small.dcm"))
    grid = source.refined_grid((1, 2, 2))
    with io.open_map_writer(tmp_path / "map.dcm", grid, "structure", source=source, derivation=X2) as writer:
        writer.write(np.ones(grid.shape, np.float32))
    assert dcmread(tmp_path / "map.dcm").NumberOfFrames == 1
