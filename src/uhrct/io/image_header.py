"""What the header of a NIfTI, NRRD or MetaImage file says about voxels and their place, after all checks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from uhrct.core.errors import UhrctError
from uhrct.core.volume import Vector
from uhrct.io.paths import shown

#: Spacing outside these limits is a wrong unit or a damaged number: micro-CT has 0.001 mm, topograms some mm.
SMALLEST_MM, LARGEST_MM = 1e-5, 1e4
#: Voxels of the largest image. A larger product of sizes is damage, and could overflow later.
MOST_VOXELS = 1 << 44


@dataclass(frozen=True)
class Place:
    """Where voxels lie, as in `Volume`."""

    spacing_mm: Vector
    origin_mm: Vector
    direction: np.ndarray


@dataclass(frozen=True)
class ImageHeader:
    """One volume of scalar voxels in a file.

    Parameters
    ----------
    shape : (z, y, x)
        Number of voxels.
    dtype : numpy dtype
        Type and byte order of a stored value.
    place : Place
        Spacing, origin and direction.
    file : path
        The file with the voxels.
    start : int
        First byte in `file` that belongs to the voxels, or to the packed stream that holds them.
    packing : str
        "raw", "gzip", "zlib" or "bzip2".
    skip : int
        Bytes of the unpacked stream before the first voxel.
    slope, intercept : float
        HU = slope * stored value + intercept.
    slice_thickness_mm : float or None
        Thickness of slices, where the format states it apart from their distance.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype
    place: Place
    file: Path
    start: int = 0
    packing: str = "raw"
    skip: int = 0
    slope: float = 1.0
    intercept: float = 0.0
    slice_thickness_mm: float | None = None

    @property
    def voxel_bytes(self) -> int:
        """Bytes of all voxels, unpacked."""
        return math.prod(self.shape) * self.dtype.itemsize


def checked_shape(sizes: Sequence[int]) -> tuple[int, int, int]:
    """(z, y, x) from the sizes in a header, in its order (x, y, z).

    Raises
    ------
    UhrctError
        If there are not three sizes, or one is not positive, or the image is impossibly large.
    """
    listed = " x ".join(str(n) for n in sizes[:8])
    if min(sizes) < 1 or math.prod(sizes) > MOST_VOXELS:
        raise UhrctError(f"image size {listed} is damaged; export it again")
    if len(sizes) > 3:
        raise UhrctError(f"{len(sizes)} dimensions ({listed}), need 3; split it into one volume per file")
    if len(sizes) < 3:
        raise UhrctError(f"{len(sizes)} dimensions ({listed}), need 3; export it with its slice distance")
    x, y, z = sizes
    return z, y, x


def check_spacing(spacing_mm: Sequence[float]) -> None:
    """Raise `UhrctError` for a spacing (x, y, z) that is not positive, or in no unit that CT uses."""
    listed = ", ".join(f"{s:g}" for s in spacing_mm)
    if not all(math.isfinite(s) and s > 0 for s in spacing_mm):
        raise UhrctError(f"voxel spacing {listed} mm (x, y, z) is not positive; correct it at the source")
    if not all(SMALLEST_MM <= s <= LARGEST_MM for s in spacing_mm):
        raise UhrctError(f"voxel spacing {listed} mm (x, y, z) is not plausible; correct it or its unit at the source")


def place_of(steps_mm: np.ndarray, origin_mm: np.ndarray) -> Place:
    """The place of voxels.

    Parameters
    ----------
    steps_mm : array, shape (3, 3)
        Column i is the step in mm (LPS) to the next voxel along file axis i (x, y, z).
    origin_mm : array, shape (3,)
        Centre of the first voxel (LPS).

    Raises
    ------
    UhrctError
        If numbers are missing, or axes are not at right angles.
    """
    if not np.isfinite(origin_mm).all() or np.abs(origin_mm).max() > 1e9:
        raise UhrctError("the position of the first voxel is not a number in mm; correct it at the source")
    lengths = np.linalg.norm(steps_mm, axis=0)
    check_spacing(lengths.tolist())
    direction = (steps_mm / lengths)[:, ::-1]
    if not np.allclose(direction.T @ direction, np.eye(3), atol=1e-3):
        raise UhrctError("axis directions are not orthonormal (sheared affine); resample it first")
    x, y, z = lengths.tolist()
    return Place((z, y, x), (float(origin_mm[0]), float(origin_mm[1]), float(origin_mm[2])), direction.copy())


def quoted(value: object) -> str:
    """A value from a header for a message: short and printable.

    >>> quoted("a" * 100), quoted("\\x1b[31mred")
    ('aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...', '?[31mred')
    """
    text = str(value)
    return shown(text[:40]) + ("..." if len(text) > 40 else "")
