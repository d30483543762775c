"""DICOM in all its shapes against SimpleITK's own readers, and real CT."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from ct_files import PATIENT, SHAPE, SPACING, make_series, oblique
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless, generate_uid

from uhrct import io

REAL = [
    "train/lidc0002",
    "train/lidc0003",
    "train/lidc0001",
    "train/cmbcrc01068",
    "train/phantomfda",
    "validation/rider0117",
    "test/lidc0314",
]


def by_simpleitk(path: str | Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


@pytest.mark.parametrize("name", ["CT_small.dcm", "J2K_pixelrep_mismatch.dcm"])
def test_pydicom_files_against_simpleitk(name: str) -> None:
    path = get_testdata_file(name, download=False)
    volume = io.read(path)
    assert volume.hu.dtype == np.int16
    np.testing.assert_array_equal(volume.hu, by_simpleitk(path))


def test_jpeg2000_with_mismatched_sign_has_air_and_bone() -> None:
    hu = io.read(get_testdata_file("J2K_pixelrep_mismatch.dcm", download=False)).hu
    assert hu.min() == -2000  # padding comes back as stored
    inside = hu[hu > -1500]
    assert abs(np.percentile(inside, 1) + 1000) < 50
    assert hu.max() > 1500


def test_slices_are_sorted_along_their_normal(tmp_path: Path) -> None:
    direction = oblique(7)
    hu = make_series(tmp_path, direction=direction)  # file names and instance numbers run downwards
    volume = io.read(tmp_path)
    np.testing.assert_array_equal(volume.hu, hu)
    np.testing.assert_allclose(volume.direction, direction, atol=1e-8)
    np.testing.assert_allclose(volume.spacing_mm, SPACING, atol=1e-6)
    np.testing.assert_allclose(volume.origin_mm, (-100, -50, 20), atol=1e-6)
    assert volume.slice_thickness_mm == 3.0
    positions = [np.dot(h.ImagePositionPatient, direction[:, 0]) for h in volume.meta["dicom"]]
    assert positions == sorted(positions)
    assert not any("PixelData" in h for h in volume.meta["dicom"])


def test_tree_with_other_files(tmp_path: Path) -> None:
    hu = make_series(tmp_path / "a")
    (tmp_path / "b").mkdir()
    shutil.move(tmp_path / "a" / "002.dcm", tmp_path / "b" / "IMG2")  # no suffix needed
    (tmp_path / "notes.txt").write_text("not DICOM")
    (tmp_path / ".DS_Store").write_bytes(b"\0")
    (tmp_path / "a" / "._001.dcm").write_bytes(b"resource fork")
    np.testing.assert_array_equal(io.read(tmp_path).hu, hu)


def test_slope_and_intercept_of_each_slice(tmp_path: Path) -> None:
    def edit(k, ds):
        ds.RescaleSlope, ds.RescaleIntercept = (("2", "-1000"), ("1", "-24"))[k % 2]

    hu = make_series(tmp_path, edit=edit).astype(int) + 1024
    expected = [plane * (2, 1)[k % 2] + (-1000, -24)[k % 2] for k, plane in enumerate(hu)]
    volume = io.read(tmp_path)
    assert volume.hu.dtype == np.int16
    np.testing.assert_array_equal(volume.hu, expected)


def test_fractional_slope_in_one_slice_makes_float(tmp_path: Path) -> None:
    def edit(k, ds):
        ds.RescaleSlope = "0.25" if k == 2 else "1"

    hu = make_series(tmp_path, edit=edit).astype(float)
    hu[2] = (hu[2] + 1024) * 0.25 - 1024
    volume = io.read(tmp_path)
    assert volume.hu.dtype == np.float32
    np.testing.assert_array_equal(volume.hu, hu)


def test_unsigned_12_bit(tmp_path: Path) -> None:
    def edit(k, ds):
        ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 12, 11, 0
        ds.PixelData = (np.frombuffer(ds.PixelData, "<u2") % 4096).tobytes()

    hu = make_series(tmp_path, edit=edit)
    np.testing.assert_array_equal(io.read(tmp_path).hu, (hu.astype(int) + 1024) % 4096 - 1024)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless])
def test_transfer_syntaxes(tmp_path: Path, syntax: str) -> None:
    def edit(k, ds):
        if syntax == RLELossless:
            ds.compress(RLELossless)
        if syntax == ExplicitVRBigEndian:
            ds.PixelData = np.frombuffer(ds.PixelData, "<i2").astype(">i2").tobytes()
            ds.set_original_encoding(is_implicit_vr=False, is_little_endian=False)
        ds.file_meta.TransferSyntaxUID = syntax

    hu = make_series(tmp_path, edit=edit)
    np.testing.assert_array_equal(io.read(tmp_path).hu, hu)


def test_jpeg_lossless_falls_back_to_gdcm(tmp_path: Path) -> None:
    # No plugin of pydicom's decodes it here; SimpleITK writes and reads it.
    source = io.read(get_testdata_file("CT_small.dcm", download=False))
    image = sitk.ReadImage(get_testdata_file("CT_small.dcm", download=False))
    image = sitk.Cast(image, sitk.sitkInt16)
    for tag, value in {"0008|0060": "CT", "0008|0016": "1.2.840.10008.5.1.4.1.1.2"}.items():
        image.SetMetaData(tag, value)
    writer = sitk.ImageFileWriter()
    writer.SetFileName(str(tmp_path / "lossless.dcm"))
    writer.KeepOriginalImageUIDOn()
    writer.UseCompressionOn()
    writer.SetCompressor("JPEG")
    writer.Execute(image)
    syntax = dcmread(tmp_path / "lossless.dcm").file_meta.TransferSyntaxUID
    assert syntax == "1.2.840.10008.1.2.4.70"
    np.testing.assert_array_equal(io.read(tmp_path / "lossless.dcm").hu, source.hu)


def test_padding_is_not_touched(tmp_path: Path) -> None:
    def edit(k, ds):
        stored = np.frombuffer(ds.PixelData, "<i2").copy()
        stored[:5] = -2000
        ds.add_new("PixelPaddingValue", "US", 63536)
        ds.PixelData = stored.tobytes()

    make_series(tmp_path, edit=edit)
    assert (io.read(tmp_path).hu[:, 0, :5] == -3024).all()


def test_single_slice_spacing(tmp_path: Path) -> None:
    def edit(k, ds):
        if k:
            return False
        ds.SpacingBetweenSlices = "1.25"

    make_series(tmp_path, edit=edit)
    assert io.read(tmp_path).spacing_mm[0] == 1.25
    file = next(tmp_path.glob("*.dcm"))
    ds = dcmread(file)
    del ds.SpacingBetweenSlices
    ds.save_as(file)
    assert io.read(file).spacing_mm[0] == 3.0


def test_positions_rounded_by_the_scanner_are_even(tmp_path: Path) -> None:
    def edit(k, ds):
        ds.ImagePositionPatient = [-100, -50, round(20 + 0.625 * k, 1)]

    make_series(tmp_path, shape=(9, 4, 4), edit=edit)
    assert io.read(tmp_path).spacing_mm[0] == pytest.approx(0.625, abs=0.02)


def test_choice_between_series(tmp_path: Path) -> None:
    one = make_series(tmp_path / "1", number=4, seed=1)
    two = make_series(tmp_path / "2", number=3, seed=2)
    infos = io.inspect(tmp_path)
    assert [i.number for i in infos] == [1, 2]
    assert [i.description for i in infos] == ["CHEST 3", "CHEST 4"]
    np.testing.assert_array_equal(io.read(tmp_path, series="1").hu, two)
    np.testing.assert_array_equal(io.read(tmp_path, series=infos[1].uid).hu, one)


def as_localizer(k, ds):
    if k:
        return False
    ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    ds.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()


def test_localizer_series_is_ignored_with_a_warning(tmp_path: Path) -> None:
    make_series(tmp_path / "scout", number=1, seed=1, edit=as_localizer)
    hu = make_series(tmp_path / "scan", number=2, seed=2)
    with pytest.warns(UserWarning, match="ignored series 1: CHEST 1 .localizer"):
        volume = io.read(tmp_path)
    np.testing.assert_array_equal(volume.hu, hu)


def test_localizer_inside_the_series_is_ignored_with_a_warning(tmp_path: Path) -> None:
    make_series(tmp_path / "scout", edit=as_localizer)
    hu = make_series(tmp_path / "scan")
    with pytest.warns(UserWarning, match="ignored 1 localizer"):
        volume = io.read(tmp_path)
    np.testing.assert_array_equal(volume.hu, hu)


def test_reports_beside_the_scan_are_ignored(tmp_path: Path) -> None:
    hu = make_series(tmp_path)
    shutil.copy(get_testdata_file("test-SR.dcm", download=False), tmp_path / "report.dcm")
    np.testing.assert_array_equal(io.read(tmp_path).hu, hu)


def test_inspect_shows_no_patient(tmp_path: Path) -> None:
    make_series(tmp_path, direction=np.stack([[0, 1, 0], [0, 0, -1], [1, 0, 0]], axis=1).astype(float))
    [info] = io.inspect(tmp_path)
    assert info.shape == SHAPE
    assert info.spacing_mm == pytest.approx(SPACING)
    assert (info.orientation, info.scanner, info.problem) == ("coronal", "ACME Ring 1 B30", "")
    assert PATIENT not in repr(info)
    assert "4711" not in repr(info)


@pytest.mark.parametrize("name", REAL)
def test_real_series_against_simpleitk(shared_ct: Path, name: str) -> None:
    files = sorted((shared_ct / name).glob("*.dcm"))
    chosen = len(files) // 2
    part = files[chosen : chosen + 3]
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(f) for f in part])
    image = reader.Execute()
    from uhrct.io.dicom.geometry import arrange
    from uhrct.io.dicom.pixels import decode
    from uhrct.io.dicom.scan import scan

    [series] = scan(shared_ct / name).series
    stack = arrange(series)
    assert len(stack.slices) == len(files)
    assert [s.file.path for s in stack.slices] == files  # the collection is numbered in ascending position
    hu = np.stack([plane for one in stack.slices[chosen : chosen + 3] for _, plane in decode([one])])
    assert hu.dtype == np.int16
    np.testing.assert_array_equal(hu, sitk.GetArrayFromImage(image))
    np.testing.assert_allclose(stack.grid.spacing_mm, image.GetSpacing()[::-1], atol=1e-4)
    place = np.asarray(stack.grid.origin_mm) + stack.grid.direction[:, 0] * stack.grid.spacing_mm[0] * chosen
    np.testing.assert_allclose(place, image.GetOrigin(), atol=1e-2)  # headers hold positions to a few um


def test_real_study_as_a_whole(shared_ct: Path) -> None:
    volume = io.read(shared_ct / "validation/rider0117")
    assert volume.shape == (95, 512, 512)
    assert volume.hu.dtype == np.int16
    assert volume.spacing_mm == pytest.approx((0.8, 0.644531, 0.644531), abs=1e-5)
    assert volume.slice_thickness_mm == 1.25
    assert volume.hu.min() == -3024
