"""Law: what is written and read again is the same volume in the same place, in every format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from ct_files import make_series, oblique

from uhrct import io
from uhrct.core.volume import Grid, Volume

FILES = ["out.nii", "out.nii.gz", "out.nrrd", "out.mha", "out.mhd", "out.npz"]
AXIAL = np.eye(3)[::-1]
DIRECTIONS = {
    "axial": AXIAL,
    "head first": AXIAL @ np.diag([1, -1, -1]),
    "coronal": np.stack([[0, 1, 0], [0, 0, -1], [1, 0, 0]], axis=1).astype(float),
    "oblique": oblique(1),
    "left-handed": oblique(2) @ np.diag([-1, 1, 1]),
}


def make_volume(shape, direction, dtype, spacing=(1.237, 0.683, 0.911)) -> Volume:
    hu = np.random.default_rng(3).integers(-32768, 32768, shape)
    hu = hu.astype(np.int16) if dtype == np.int16 else (hu + 0.37).astype(np.float32)
    return Volume(hu, spacing, (-171.23456, 402.5, -1033.125), direction)


def corners_mm(volume: Volume | Grid) -> np.ndarray:
    far = np.array(list(np.ndindex(2, 2, 2))) * (np.array(volume.shape) - 1) * np.array(volume.spacing_mm)
    return np.asarray(volume.origin_mm) + far @ volume.direction.T


def assert_same(got: Volume, expected: Volume) -> None:
    assert got.hu.dtype == expected.hu.dtype
    np.testing.assert_array_equal(got.hu, expected.hu)
    np.testing.assert_allclose(got.spacing_mm, expected.spacing_mm, atol=1e-6)
    np.testing.assert_allclose(got.direction, expected.direction, atol=1e-6)
    np.testing.assert_allclose(corners_mm(got), corners_mm(expected), atol=1e-4)


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("direction", DIRECTIONS.values(), ids=DIRECTIONS)
def test_files(tmp_path: Path, name: str, direction: np.ndarray, dtype: type) -> None:
    volume = make_volume((5, 7, 11), direction, dtype)
    io.write(volume, tmp_path / name)
    assert_same(io.read(tmp_path / name), volume)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("shape", [(1, 7, 5), (3, 1, 2), (1, 1, 1), (2, 33, 1)])
def test_any_shape(tmp_path: Path, name: str, shape: tuple[int, int, int]) -> None:
    volume = make_volume(shape, DIRECTIONS["oblique"], np.int16)
    io.write(volume, tmp_path / name)
    assert_same(io.read(tmp_path / name), volume)


@pytest.mark.parametrize("name", FILES)
def test_slabs_of_any_size_give_the_same_file(tmp_path: Path, name: str) -> None:
    volume = make_volume((7, 5, 6), DIRECTIONS["oblique"], np.int16)
    (tmp_path / "b").mkdir()
    io.write(volume, tmp_path / name)
    with io.open_writer(tmp_path / "b" / name, volume.grid, dtype=np.int16) as writer:
        writer.write(volume.hu[:4])
        writer.write(volume.hu[4:, ::-1][:, ::-1])  # not contiguous
    assert (tmp_path / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("name", [n for n in FILES if n != "out.npz"])
def test_simpleitk_agrees(tmp_path: Path, name: str) -> None:
    volume = make_volume((4, 6, 5), DIRECTIONS["oblique"], np.float32)
    io.write(volume, tmp_path / name)
    image = sitk.ReadImage(str(tmp_path / name))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), volume.hu)
    for index in [(0, 0, 0), (4, 5, 3), (1, 2, 3)]:
        k = np.array(index[::-1]) * volume.spacing_mm
        expected = np.asarray(volume.origin_mm) + volume.direction @ k
        np.testing.assert_allclose(image.TransformIndexToPhysicalPoint(index), expected, atol=1e-4)


def test_nifti_has_qform_and_sform(tmp_path: Path) -> None:
    io.write(make_volume((2, 3, 4), DIRECTIONS["oblique"], np.int16), tmp_path / "a.nii")
    image = sitk.ReadImage(str(tmp_path / "a.nii"))
    assert int(image.GetMetaData("qform_code")) > 0
    assert int(image.GetMetaData("sform_code")) > 0


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
@pytest.mark.parametrize("direction", [d for n, d in DIRECTIONS.items() if n != "left-handed"])
def test_dicom_folder(tmp_path: Path, direction: np.ndarray, dtype: type) -> None:
    volume = make_volume((5, 7, 11), direction, dtype)
    volume.hu.clip(-30000, 30000, out=volume.hu)
    io.write(volume, tmp_path / "series")
    got = io.read(tmp_path / "series")
    rounded = Volume(np.rint(volume.hu).astype(np.int16), volume.spacing_mm, volume.origin_mm, volume.direction)
    assert_same(got, rounded)
    image = _by_simpleitk(tmp_path / "series")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), rounded.hu)
    far = [n - 1 for n in volume.shape[::-1]]
    np.testing.assert_allclose(image.TransformIndexToPhysicalPoint(far), corners_mm(volume)[-1], atol=1e-4)


def test_left_handed_volume_as_dicom_is_turned_but_stays_in_place(tmp_path: Path) -> None:
    volume = make_volume((4, 5, 6), DIRECTIONS["left-handed"], np.int16)
    io.write(volume, tmp_path / "series")
    got = io.read(tmp_path / "series")
    np.testing.assert_array_equal(got.hu, volume.hu[::-1])
    flipped = np.array([3, 0, 0]) * volume.spacing_mm
    np.testing.assert_allclose(got.origin_mm, volume.origin_mm + volume.direction @ flipped, atol=1e-4)


def test_single_slice_as_one_dicom_file(tmp_path: Path) -> None:
    volume = make_volume((1, 9, 4), DIRECTIONS["oblique"], np.int16)
    io.write(volume, tmp_path / "one.dcm")
    assert_same(io.read(tmp_path / "one.dcm"), volume)


@pytest.mark.parametrize("name", FILES)
def test_dicom_to_file_keeps_place(tmp_path: Path, name: str) -> None:
    hu = make_series(tmp_path / "in", direction=oblique(4))
    volume = io.read(tmp_path / "in")
    np.testing.assert_array_equal(volume.hu, hu)
    io.write(volume, tmp_path / name)
    assert_same(io.read(tmp_path / name), volume)


def test_npz_keeps_thickness(tmp_path: Path) -> None:
    volume = Volume(np.zeros((2, 3, 4), np.int16), (1, 1, 1), slice_thickness_mm=2.5)
    io.write(volume, tmp_path / "a.npz")
    assert io.read(tmp_path / "a.npz").slice_thickness_mm == 2.5


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (np.array([-1000, 3000], np.int32), np.int16),
        (np.array([0, 4095], np.uint16), np.int16),
        (np.array([0, 40000], np.uint16), np.float32),
        (np.array([0, 255], np.uint8), np.int16),
        (np.array([-1000.0, 3000.0], np.float64), np.int16),
        (np.array([-1000.5, 3000.0], np.float64), np.float32),
        (np.array([-32768, 32767], np.int64), np.int16),
        (np.array([-32769, 0], np.int32), np.float32),
    ],
)
@pytest.mark.parametrize("name", ["a.nii.gz", "a.nrrd", "a.mha", "a.npz"])
def test_other_voxel_types(tmp_path: Path, name: str, source: np.ndarray, expected: type) -> None:
    values = source.reshape(1, 1, 2).repeat(2, axis=0)
    if name == "a.npz":
        np.savez(tmp_path / name, values)
        got = io.read(tmp_path / name, spacing_mm=(1, 1, 1))
    else:
        sitk.WriteImage(sitk.GetImageFromArray(values), str(tmp_path / name))
        got = io.read(tmp_path / name)
    assert got.hu.dtype == expected
    np.testing.assert_array_equal(got.hu, values)


def _by_simpleitk(folder: Path) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()
