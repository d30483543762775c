"""What readers that know nothing of uhrct make of the files that it writes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from pydicom import dcmread
from test_round_trip_laws import volumes

from uhrct import io
from uhrct.core.volume import Volume

REAL = (
    *("test/lidc0314", "train/cmbcrc01068", "train/lidc0001", "train/lidc0002", "train/lidc0003", "train/phantomfda"),
    "validation/rider0117",
)


def corners_mm(volume: Volume) -> np.ndarray:
    far = np.array(list(np.ndindex(2, 2, 2))) * (np.array(volume.shape) - 1) * np.array(volume.spacing_mm)
    return np.asarray(volume.origin_mm) + far @ volume.direction.T


@given(volume=volumes())
@settings(max_examples=25, deadline=None)
def test_nifti_says_the_same_twice(tmp_path_factory: pytest.TempPathFactory, volume: Volume) -> None:
    """sform and qform are both set to scanner coordinates, and nibabel finds our voxels by either."""
    file = tmp_path_factory.mktemp("nifti") / "a.nii.gz"
    io.write(volume, file)
    image = nibabel.load(file)
    np.testing.assert_array_equal(np.asarray(image.dataobj).T, volume.hu)
    far = np.array(volume.shape) - 1
    expected = np.asarray(volume.origin_mm) + volume.direction @ (far * volume.spacing_mm)
    # A quaternion of three float32 knows half turns to some 5e-4 only: that is NIfTI's own limit, the sform has none.
    reach = float(np.linalg.norm(far * volume.spacing_mm))
    for (affine, code), blur in ((image.get_sform(coded=True), 0.0), (image.get_qform(coded=True), 1e-3 * reach)):
        assert code == 1
        ras = affine @ np.array([*far[::-1], 1])
        np.testing.assert_allclose(ras[:3] * (-1, -1, 1), expected, atol=1e-3 + blur)  # float32 in the header
    assert image.header["scl_slope"] in (0, 1) or np.isnan(image.header["scl_slope"])


@pytest.mark.parametrize("name", REAL)
def test_independent_readers_agree(tmp_path: Path, shared_ct: Path, name: str) -> None:
    """Some slices of each real series, upscaled in two directions: SimpleITK, pydicom, nibabel, dcm2niix."""
    (tmp_path / "in").mkdir()
    for file in sorted((shared_ct / name).glob("*.dcm"))[30:34]:
        shutil.copy(file, tmp_path / "in")
    source = io.read(tmp_path / "in")
    fine = source.on_grid(source.refined_grid((2, 2, 2)), source.hu.repeat(2, 0).repeat(2, 1).repeat(2, 2))
    io.write(fine, tmp_path / "out")
    io.write(fine, tmp_path / "out.nii.gz")
    files = sorted((tmp_path / "out").iterdir())

    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(list(map(str, files)))
    image = reader.Execute()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), fine.hu)
    far = [n - 1 for n in fine.shape[::-1]]
    np.testing.assert_allclose(image.TransformIndexToPhysicalPoint(far), corners_mm(fine)[-1], atol=1e-4)

    for k, file in enumerate(files):
        ds = dcmread(file)
        np.testing.assert_array_equal(ds.pixel_array * ds.RescaleSlope + ds.RescaleIntercept, fine.hu[k])

    nifti = nibabel.load(tmp_path / "out.nii.gz")
    np.testing.assert_array_equal(np.asarray(nifti.dataobj).T, fine.hu)

    program = shutil.which("dcm2niix", path=str(Path(sys.executable).parent)) or shutil.which("dcm2niix")
    if program is None:
        pytest.skip("dcm2niix is not installed (pip install dcm2niix): its part is not checked")
    (tmp_path / "niix").mkdir()
    command = [program, "-z", "n", "-b", "n", "-f", "a", "-o", str(tmp_path / "niix"), str(tmp_path / "out")]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    [converted] = [nibabel.load(file) for file in (tmp_path / "niix").glob("*.nii")]
    ours = _by_place(np.asarray(nifti.dataobj), nifti.affine)
    theirs = _by_place(np.asarray(converted.dataobj), converted.affine)
    np.testing.assert_array_equal(theirs[0], ours[0])
    np.testing.assert_allclose(theirs[1], ours[1], atol=2e-3)


def _by_place(voxels: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Voxels with all axes turned to RAS+, and the affine that belongs to them."""
    image = nibabel.as_closest_canonical(nibabel.Nifti1Image(voxels, affine))
    return np.asarray(image.dataobj), image.affine
