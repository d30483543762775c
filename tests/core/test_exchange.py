"""Images of nibabel and SimpleITK: the same voxel lies at the same place in the patient, and comes back exactly."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from ct_files import oblique

from uhrct.core.errors import UhrctError
from uhrct.core.exchange import geometry_of
from uhrct.core.volume import Volume


def volume(dtype: type = np.int16) -> Volume:
    hu = np.random.default_rng(0).integers(-1024, 3000, (3, 4, 5)).astype(dtype)
    return Volume(hu, (2.5, 0.7, 0.8), (-10.0, 20.0, 30.0), oblique(3))


def same(a: Volume, b: Volume) -> bool:
    return bool(
        np.array_equal(a.hu, b.hu)
        and a.hu.dtype == b.hu.dtype
        and np.allclose(a.spacing_mm, b.spacing_mm)
        and np.allclose(a.origin_mm, b.origin_mm)
        and np.allclose(a.direction, b.direction)
    )


def place_lps(v: Volume, z: int, y: int, x: int) -> np.ndarray:
    return np.asarray(v.origin_mm) + v.direction @ (np.asarray(v.spacing_mm) * (z, y, x))


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_there_and_back(dtype: type) -> None:
    v = volume(dtype)
    assert same(Volume.from_nibabel(v.to_nibabel()), v)
    assert same(Volume.from_sitk(v.to_sitk()), v)


def test_both_libraries_put_a_voxel_where_the_volume_has_it() -> None:
    v = volume()
    in_ras = nib.affines.apply_affine(v.to_nibabel().affine, (4, 2, 1))
    assert np.allclose(in_ras * (-1, -1, 1), place_lps(v, 1, 2, 4))
    assert np.allclose(v.to_sitk().TransformIndexToPhysicalPoint((4, 2, 1)), place_lps(v, 1, 2, 4))
    assert v.to_nibabel().get_fdata()[4, 2, 1] == v.hu[1, 2, 4]
    assert v.to_sitk()[4, 2, 1] == v.hu[1, 2, 4]


def test_scaling_of_nibabel_is_applied() -> None:
    image = nib.Nifti1Image(np.full((2, 3, 4), 10, np.int16), np.eye(4))
    image.header.set_slope_inter(2.0, -1000.0)
    image = nib.Nifti1Image.from_bytes(image.to_bytes())
    assert Volume.from_nibabel(image).hu.max() == image.get_fdata().max()


@pytest.mark.parametrize(
    "affine", [np.eye(3), np.full((4, 4), np.nan), np.diag([0.0, 1, 1, 1]), "x", None, np.ones((4, 4))]
)
def test_impossible_affines_are_refused(affine: object) -> None:
    with pytest.raises(UhrctError, match="`affine`"):
        geometry_of(affine)


def test_a_sheared_affine_and_vectors_are_refused() -> None:
    sheared = np.eye(4)
    sheared[0, 1] = 0.5
    with pytest.raises(UhrctError, match="orthonormal"):
        Volume.from_nibabel(nib.Nifti1Image(np.zeros((2, 2, 2), np.int16), sheared))
    with pytest.raises(UhrctError, match="`image`"):
        Volume.from_nibabel(nib.Nifti1Image(np.zeros((2, 2, 2, 2), np.int16), np.eye(4)))
    with pytest.raises(UhrctError, match="`image`"):
        Volume.from_sitk(sitk.Image([4, 4, 4], sitk.sitkVectorUInt8, 3))
    with pytest.raises(UhrctError, match="three dimensions"):
        Volume.from_sitk(sitk.Image([4, 4], sitk.sitkInt16))


def test_an_image_of_nibabel_states_scanner_coordinates() -> None:
    header = volume().to_nibabel().header
    assert int(header["sform_code"]) == int(header["qform_code"]) == 1
    assert np.allclose(header.get_sform(), header.get_qform(), atol=1e-3)
