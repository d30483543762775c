"""Every kind of bad DICOM: one line that names the file, what is wrong and what to do; never a patient."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ct_files import make_series, refusal
from pydicom import dcmread
from pydicom.data import get_testdata_file

from uhrct import io


def test_missing_file(tmp_path: Path) -> None:
    assert "no such file or folder" in refusal(tmp_path / "nothing.nii")


def test_empty_folder(tmp_path: Path) -> None:
    assert "folder is empty" in refusal(tmp_path)


def test_folder_without_dicom(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    assert "no DICOM among 1 files" in refusal(tmp_path)


def test_folder_with_a_report_only(tmp_path: Path) -> None:
    shutil.copy(get_testdata_file("test-SR.dcm", download=False), tmp_path / "report.dcm")
    assert "no images (SR)" in refusal(tmp_path)


def test_two_series_are_listed(tmp_path: Path) -> None:
    make_series(tmp_path / "1", number=3, seed=1)
    make_series(tmp_path / "2", number=4, seed=2, shape=(4, 6, 7))
    message = refusal(tmp_path)
    assert "`series=" in message
    assert "1: CHEST 3 (CT, 5 slices); 2: CHEST 4 (CT, 4 slices)" in message
    assert "no series 7" in refusal(tmp_path, series="7")


def place(z: float, y: float = -50.0) -> list[float]:
    return [-100.0, y, z]


def moved(z: Callable[[int], float], y: Callable[[int], float] = lambda k: -50.0):
    def edit(k, ds):
        ds.ImagePositionPatient = place(z(k), y(k))

    return edit


def test_missing_slices(tmp_path: Path) -> None:
    make_series(tmp_path, shape=(8, 4, 4), edit=lambda k, ds: k not in (3, 4))
    assert "missing slices: 2, first between 25.00 and 32.50 mm (006.dcm and 003.dcm)" in refusal(tmp_path)


def test_duplicate_positions(tmp_path: Path) -> None:
    make_series(tmp_path, edit=moved(lambda k: 2.5 * max(k, 1)))
    assert "duplicate slices: 005.dcm and 004.dcm both lie at 2.50 mm" in refusal(tmp_path).replace(
        "004.dcm and 005.dcm", "005.dcm and 004.dcm"
    )


def test_uneven_spacing(tmp_path: Path) -> None:
    make_series(tmp_path, edit=moved(lambda k: 1.0 * k + 0.15 * k * k))
    assert "uneven slice spacing: 1.150 to 2.050 mm" in refusal(tmp_path)


def test_gantry_tilt(tmp_path: Path) -> None:
    make_series(tmp_path, edit=moved(lambda k: 2.5 * k, lambda k: -50 + 2.5 * k * np.tan(np.radians(15))))
    message = refusal(tmp_path)
    assert "gantry tilt" in message
    assert "15.0 degrees" in message


def test_mixed_orientations(tmp_path: Path) -> None:
    def edit(k, ds):
        if k == 2:
            ds.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]

    make_series(tmp_path, edit=edit)
    assert "mixed orientations" in refusal(tmp_path)


def test_mixed_sizes(tmp_path: Path) -> None:
    make_series(tmp_path / "a", edit=lambda k, ds: k < 4)
    make_series(tmp_path / "b", shape=(5, 3, 3), edit=lambda k, ds: k == 4)
    assert "mixed image sizes" in refusal(tmp_path)


def test_localizer_alone(tmp_path: Path) -> None:
    def edit(k, ds):
        ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    make_series(tmp_path, edit=edit)
    assert "localizer" in refusal(tmp_path)
    assert "localizer" in io.inspect(tmp_path)[0].problem


@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.5, 0.9, 0.97])
@pytest.mark.parametrize("name", ["CT_small.dcm", "J2K_pixelrep_mismatch.dcm"])
def test_truncated_file(tmp_path: Path, name: str, fraction: float) -> None:
    content = Path(get_testdata_file(name, download=False)).read_bytes()
    file = tmp_path / "cut.dcm"
    file.write_bytes(content[: int(len(content) * fraction)])
    message = refusal(file)
    assert "truncated" in message or "damaged" in message


def test_truncated_slice_in_a_folder_is_named(tmp_path: Path) -> None:
    make_series(tmp_path, shape=(5, 64, 64))
    content = (tmp_path / "003.dcm").read_bytes()
    for size in (20, 250, 600, len(content) // 2, len(content) - 2):
        (tmp_path / "003.dcm").write_bytes(content[:size])
        assert "003.dcm" in refusal(tmp_path)


def test_empty_dcm(tmp_path: Path) -> None:
    make_series(tmp_path)
    (tmp_path / "lost.dcm").write_bytes(b"")
    assert "lost.dcm is empty" in refusal(tmp_path)


def test_text_named_dcm(tmp_path: Path) -> None:
    (tmp_path / "text.dcm").write_text("this is a text\n" * 50)
    assert "text.dcm: is not a DICOM file" in refusal(tmp_path / "text.dcm")
    make_series(tmp_path / "scan")
    shutil.move(tmp_path / "text.dcm", tmp_path / "scan" / "text.dcm")
    assert "text.dcm is not a DICOM file" in refusal(tmp_path / "scan")


def test_mr_instead_of_ct() -> None:
    assert "is MR, not CT" in refusal(Path(get_testdata_file("MR_small.dcm", download=False)))


def test_rgb(tmp_path: Path) -> None:
    ds = dcmread(get_testdata_file("SC_rgb_rle.dcm", download=False))
    ds.Modality = "CT"
    ds.RescaleSlope, ds.RescaleIntercept = "1", "0"
    ds.save_as(tmp_path / "rgb.dcm")
    assert "colour image (RGB)" in refusal(tmp_path / "rgb.dcm")


def test_multi_frame(tmp_path: Path) -> None:
    def edit(k, ds):
        ds.NumberOfFrames = 2

    make_series(tmp_path, edit=edit)
    assert "several frames but is not Enhanced CT" in refusal(tmp_path)


def drop(*names: str):
    def edit(k, ds):
        for name in names:
            delattr(ds, name)

    return edit


@pytest.mark.parametrize("name", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
def test_no_geometry(tmp_path: Path, name: str) -> None:
    make_series(tmp_path, edit=drop(name))
    assert f"no usable {name}" in refusal(tmp_path)


def test_no_rescale(tmp_path: Path) -> None:
    make_series(tmp_path, edit=drop("RescaleSlope", "RescaleIntercept"))
    assert "not HU" in refusal(tmp_path)


@pytest.mark.parametrize("key", ["Rows", "NumberOfFrames"])
def test_values_of_the_wrong_kind(tmp_path: Path, key: str) -> None:
    def edit(k, ds):
        setattr(ds, key, [3, 4])

    make_series(tmp_path, edit=edit)
    assert "damaged DICOM header" in refusal(tmp_path)


def test_no_pixels(tmp_path: Path) -> None:
    make_series(tmp_path, edit=drop("PixelData"))
    assert "holds no pixel data" in refusal(tmp_path)


@pytest.mark.parametrize("compressed", [False, True])
def test_the_listing_sees_a_file_that_is_cut_off(tmp_path: Path, compressed: bool) -> None:
    """Uncompressed: wherever it is cut. Compressed: before the pixels, whose length nobody else states."""
    name = "J2K_pixelrep_mismatch.dcm" if compressed else "CT_small.dcm"
    content = Path(get_testdata_file(name, download=False)).read_bytes()
    start = content.index(b"\xe0\x7f\x10\x00")
    file = tmp_path / "cut.dcm"
    file.write_bytes(content)
    assert io.inspect(file)[0].problem == ""
    pixels = start + 12
    for size in (start,) if compressed else (start, pixels, pixels + 2 * 128 * 128 - 1):
        file.write_bytes(content[:size])
        problem = io.inspect(file)[0].problem
        assert ("holds no pixel data" if size == start else "truncated") in problem
        assert problem.removeprefix("cut.dcm ") in refusal(file)


@pytest.mark.parametrize("spacing", [[0, 0.7], [0.7, -0.7]])
def test_dicom_spacing_not_positive(tmp_path: Path, spacing: list[float]) -> None:
    def edit(k, ds):
        ds.PixelSpacing = spacing

    make_series(tmp_path, edit=edit)
    assert "is not positive" in refusal(tmp_path)


def test_unknown_transfer_syntax(tmp_path: Path) -> None:
    def edit(k, ds):
        ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.100"
        ds["PixelData"].is_undefined_length = True
        ds.PixelData = b"\xfe\xff\x00\xe0\x00\x00\x00\x00"

    make_series(tmp_path, edit=edit)
    assert "MPEG2" in refusal(tmp_path)
    assert "MPEG2" in io.inspect(tmp_path)[0].problem
