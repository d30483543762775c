"""Law: what `read` says of a scan, pydicom, SimpleITK, and dcm2niix with nibabel say too: HU and their places."""

from __future__ import annotations

import shutil
import subprocess
import warnings
from pathlib import Path

import dcm2niix
import imagecodecs
import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from ct_files import make_series, oblique
from ct_syntaxes import SYNTAXES, in_syntax, make_enhanced
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import generate_frames
from pydicom.pixels import pixel_array

from uhrct import io
from uhrct.core.errors import UhrctError
from uhrct.core.volume import Volume

REAL = [
    *("train/lidc0002", "train/lidc0003", "train/lidc0001", "train/cmbcrc01068", "train/phantomfda"),
    *("validation/rider0117", "test/lidc0314"),
]
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def affine(volume: Volume) -> np.ndarray:
    """(4, 4): array index (z, y, x) to patient coordinates (LPS, mm)."""
    matrix = np.eye(4)
    matrix[:3, :3] = volume.direction * volume.spacing_mm
    matrix[:3, 3] = volume.origin_mm
    return matrix


def assert_same_place(volume: Volume, values: np.ndarray, to_lps: np.ndarray, tolerance_mm: float = 1e-4) -> None:
    """`values`, whose indices `to_lps` maps to patient coordinates, hold the same HU at the same places.

    Another reader may order and flip axes as it likes.
    """
    between = np.linalg.inv(to_lps) @ affine(volume)
    steps = np.rint(between[:3, :3]).astype(int)
    assert (np.abs(steps).sum(axis=0) == 1).all()
    start = np.rint(between[:3, 3]).astype(int)
    moved = np.moveaxis(values, np.abs(steps).argmax(axis=0), (0, 1, 2))
    flips = tuple(slice(None, None, -1 if steps[:, axis].sum() < 0 else 1) for axis in range(3))
    np.testing.assert_array_equal(moved[flips], volume.hu)
    for index in np.ndindex(2, 2, 2):
        ours = np.array(index) * (np.array(volume.shape) - 1)
        theirs = start + steps @ ours
        place = affine(volume)[:3] @ [*ours, 1]
        np.testing.assert_allclose(to_lps[:3] @ [*theirs, 1], place, atol=tolerance_mm)


def by_simpleitk(files: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    if len(files) == 1:
        image = sitk.ReadImage(str(files[0]))
    else:
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames([str(f) for f in files])
        image = reader.Execute()
    matrix = np.eye(4)
    matrix[:3, :3] = (np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing())[:, ::-1]
    matrix[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image), matrix


def by_dcm2niix(folder: Path, out: Path) -> tuple[np.ndarray, np.ndarray]:
    out.mkdir()
    command = [dcm2niix.bin, "-b", "n", "-z", "n", "-f", "scan", "-o", out, folder]
    subprocess.run(command, check=True, capture_output=True)
    [file] = out.glob("*.nii")
    image = nibabel.load(file)
    return np.asanyarray(image.dataobj), LPS_TO_RAS @ image.affine


def by_pydicom(files: list[Path]) -> np.ndarray:
    slices = sorted((dcmread(f) for f in files), key=lambda ds: ds.ImagePositionPatient[2])
    return np.stack([ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept) for ds in slices])


@pytest.mark.parametrize("name", REAL)
def test_real_series(shared_ct: Path, tmp_path: Path, name: str) -> None:
    files = sorted((shared_ct / name).glob("*.dcm"))
    files = files[len(files) // 2 :][:3]
    folder = tmp_path / "part"
    folder.mkdir()
    for file in files:
        shutil.copy(file, folder)
    volume = io.read(folder)
    np.testing.assert_array_equal(volume.hu, by_pydicom(files))
    assert_same_place(volume, *by_simpleitk(files), tolerance_mm=1e-3)  # ITK takes the increment from 2 slices
    assert_same_place(volume, *by_dcm2niix(folder, tmp_path / "nii"), tolerance_mm=1e-3)
    io.write(volume, tmp_path / "ours.nii.gz")
    ours = nibabel.load(tmp_path / "ours.nii.gz")
    assert_same_place(volume, np.asanyarray(ours.dataobj), LPS_TO_RAS @ ours.affine)


@pytest.mark.parametrize("seed", range(3))
def test_oblique_series(tmp_path: Path, seed: int) -> None:
    make_series(tmp_path / "in", shape=(5, 6, 7), direction=oblique(seed))
    volume = io.read(tmp_path / "in")
    files = sorted((tmp_path / "in").iterdir(), reverse=True)
    assert_same_place(volume, *by_simpleitk(files))
    assert_same_place(volume, *by_dcm2niix(tmp_path / "in", tmp_path / "nii"))


@pytest.mark.parametrize("syntax", [s for s in SYNTAXES if not s.startswith("htj2k")])
def test_transfer_syntaxes_by_simpleitk(tmp_path: Path, syntax: str) -> None:
    # HTJ2K is unknown to GDCM; there imagecodecs' OpenJPH wrote what openjpeg read, in the zoo
    make_series(tmp_path / "in", shape=(3, 16, 18), edit=in_syntax(syntax))
    files = sorted((tmp_path / "in").iterdir(), reverse=True)
    assert_same_place(io.read(tmp_path / "in"), *by_simpleitk(files))


def test_enhanced(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    make_enhanced(tmp_path / "in" / "a.dcm", shape=(5, 6, 7), order=[0, 1, 2, 3, 4], direction=oblique(5))
    volume = io.read(tmp_path / "in")
    values, _ = by_simpleitk([tmp_path / "in" / "a.dcm"])
    np.testing.assert_array_equal(values, volume.hu)


SHIPPED = sorted(Path(get_testdata_file("CT_small.dcm", download=False)).parent.glob("*.dcm"))


@pytest.mark.parametrize("file", SHIPPED, ids=lambda f: f.name)
def test_files_that_pydicom_ships(file: Path) -> None:
    """Modalities, character sets and damage of all kinds: HU as pydicom computes them, or one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            volume = io.read(file)
    except UhrctError as error:
        message = str(error)
    else:
        message = ""
    assert message.isprintable()
    if message:
        return
    ds = dcmread(file, force=True)
    assert ds.Modality == "CT"
    stored = pixel_array(file) if ds.file_meta.TransferSyntaxUID.is_encapsulated else ds.pixel_array
    np.testing.assert_array_equal(volume.hu[0], stored * float(ds.RescaleSlope) + float(ds.RescaleIntercept))


MONOCHROME = [
    *("JPEG-lossy.dcm", "JPEG2000.dcm", "JPGExtended.dcm"),
    *("JPEGLSNearLossless_08.dcm", "JPEGLSNearLossless_16.dcm", "MR_small.dcm", "MR_small_RLE.dcm"),
    *("MR_small_bigendian.dcm", "MR_small_expb.dcm", "MR_small_implicit.dcm", "MR_small_jp2klossless.dcm"),
    *("MR_small_jpeg_ls_lossless.dcm", "MR_small_padded.dcm", "examples_overlay.dcm", "rtdose_1frame.dcm"),
    *("rtdose_expb_1frame.dcm", "rtdose_rle_1frame.dcm", "image_dfl.dcm"),
]


@pytest.mark.parametrize("name", MONOCHROME)
def test_pixels_of_others_in_the_dress_of_ct(tmp_path: Path, name: str) -> None:
    """Files of many makers' encoders, lossy ones too, with the few attributes that make an image a CT."""
    ds = dcmread(get_testdata_file(name, download=False))
    dress = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2", "Modality": "CT", "ImageType": ["DERIVED", "PRIMARY", "AXIAL"]}
    dress |= {"PixelSpacing": [0.5, 0.6], "ImagePositionPatient": [1, 2, 3], "RescaleSlope": "2"}
    dress |= {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "RescaleIntercept": "-1024", "SpacingBetweenSlices": "4"}
    for key, value in dress.items():
        setattr(ds, key, value)
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.save_as(tmp_path / "a.dcm")
    volume = io.read(tmp_path / "a.dcm")
    assert volume.spacing_mm == (4.0, 0.5, 0.6)
    if ds.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.51":  # 12 bits: no decoder of pydicom's is here
        stored = imagecodecs.jpeg_decode(next(generate_frames(ds.PixelData, number_of_frames=1)), bitspersample=12)
    else:
        stored = ds.pixel_array
    np.testing.assert_array_equal(volume.hu[0], stored.astype(np.int64) * 2 - 1024)
