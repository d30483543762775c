"""Volumes from and to images of nibabel and SimpleITK in memory, and affine matrices.

Both libraries order axes (x, y, z). nibabel's world is RAS (x to the right, y to the front), that of SimpleITK, DICOM
and `Volume` is LPS: the first two world axes have opposite signs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from uhrct.core.errors import InputRefused, UhrctError
from uhrct.core.hu import as_held

Vector = tuple[float, float, float]
#: voxels (z, y, x), spacing_mm, origin_mm and direction: the arguments of `Volume`
Parts = tuple[np.ndarray, Vector, Vector, np.ndarray]

_LPS = np.diag([-1.0, -1.0, 1.0])


def affine_of(spacing_mm: Vector, origin_mm: Vector, direction: np.ndarray) -> np.ndarray:
    """The 4 x 4 matrix from voxel numbers (x, y, z) to mm in RAS, as nibabel has it.

    Example
    -------
    >>> affine_of((2.0, 0.7, 0.7), (0.0, 0.0, 0.0), np.eye(3)[::-1]).diagonal()
    array([-0.7, -0.7,  2. ,  1. ])
    """
    affine = np.eye(4)
    affine[:3, :3] = _LPS @ (direction * np.asarray(spacing_mm))[:, ::-1]
    affine[:3, 3] = _LPS @ np.asarray(origin_mm)
    return affine


def geometry_of(affine: Any) -> tuple[Vector, Vector, np.ndarray]:
    """(spacing_mm, origin_mm, direction) of a `Volume` from an affine; the inverse of `affine_of`.

    Raises
    ------
    UhrctError
        If it is no 4 x 4 matrix of finite numbers. A sheared one is refused by `Volume`.
    """
    try:
        matrix = np.asarray(affine, float)
    except (TypeError, ValueError):
        matrix = np.empty(0)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or not np.allclose(matrix[3], (0, 0, 0, 1)):
        raise UhrctError("`affine` is no matrix from voxels to mm; give 4 x 4 numbers with a last row of 0, 0, 0, 1")
    columns = (_LPS @ matrix[:3, :3])[:, ::-1]
    spacing = np.linalg.norm(columns, axis=0)
    if not (spacing > 0).all():
        raise UhrctError("`affine` has an axis of length 0; correct the spacing at its source")
    origin = _LPS @ matrix[:3, 3]
    z, y, x = (float(s) for s in spacing)
    return (z, y, x), (float(origin[0]), float(origin[1]), float(origin[2])), columns / spacing


def from_nibabel(image: Any) -> Parts:
    """Voxels and geometry of a nibabel image of three dimensions; scaling is applied and gives floating point.

    Raises
    ------
    UhrctError
        If it is no image of nibabel.
    InputRefused
        If the image is not one volume of real numbers with orthogonal axes.
    """
    if not (hasattr(image, "dataobj") and hasattr(image, "affine")):
        raise UhrctError(f"`image` is a {type(image).__name__}; give an image of nibabel, such as that of nibabel.load")
    voxels = np.asanyarray(image.dataobj)
    if voxels.ndim != 3:
        raise InputRefused(f"`image` has {voxels.ndim} dimensions; give one volume (x, y, z)")
    if image.affine is None:
        raise InputRefused("`image` has no affine, so its spacing and left and right are unknown; set it at the source")
    try:
        spacing_mm, origin_mm, direction = geometry_of(image.affine)
    except UhrctError as error:
        raise InputRefused(f"`image`: {error}") from None
    return _hu(voxels.transpose(2, 1, 0)), spacing_mm, origin_mm, direction


def to_nibabel(hu: np.ndarray, affine: np.ndarray) -> Any:
    """A `nibabel.Nifti1Image` of voxels (z, y, x), in scanner coordinates as those of a file. Needs nibabel."""
    from nibabel.nifti1 import Nifti1Image

    image = Nifti1Image(hu.transpose(2, 1, 0), affine, dtype=hu.dtype)
    image.set_sform(affine, "scanner")
    image.set_qform(affine, "scanner")
    image.header.set_xyzt_units("mm")
    return image


def from_sitk(image: Any) -> Parts:
    """Voxels and geometry of a SimpleITK image of three dimensions.

    Raises
    ------
    UhrctError
        If it is no image of SimpleITK.
    InputRefused
        If voxels are vectors, or the image has other dimensions: a 2D image states no distance between slices.
    """
    import SimpleITK as sitk

    if not isinstance(image, sitk.Image):
        raise UhrctError(f"`image` is a {type(image).__name__}; give an image of SimpleITK")
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise InputRefused("`image` is no single volume of scalar voxels; give one with three dimensions")
    direction = np.reshape(image.GetDirection(), (3, 3))
    return _hu(sitk.GetArrayFromImage(image)), image.GetSpacing()[::-1], image.GetOrigin(), direction[:, ::-1].copy()


def _hu(voxels: np.ndarray) -> np.ndarray:
    try:
        return as_held(np.ascontiguousarray(voxels))
    except InputRefused as error:
        raise InputRefused(f"`image`: {error}") from None


def to_sitk(hu: np.ndarray, spacing_mm: Vector, origin_mm: Vector, direction: np.ndarray) -> Any:
    """A SimpleITK image of voxels (z, y, x). Needs SimpleITK."""
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(hu)
    image.SetSpacing(spacing_mm[::-1])
    image.SetOrigin(origin_mm)
    image.SetDirection(direction[:, ::-1].ravel().tolist())
    return image
