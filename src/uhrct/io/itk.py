"""NIfTI, NRRD and MetaImage by SimpleITK. Only here and in DICOM are axes (x, y, z)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from uhrct.core.errors import UhrctError
from uhrct.core.volume import Vector, Volume
from uhrct.io.headers import check_header
from uhrct.io.hu import as_hu
from uhrct.io.info import SeriesInfo, orientation_of
from uhrct.io.paths import FORMATS, known_suffix, shown

IMAGE_IO = {
    ".nii": "NiftiImageIO",
    ".nii.gz": "NiftiImageIO",
    ".nrrd": "NrrdImageIO",
    ".mha": "MetaImageIO",
    ".mhd": "MetaImageIO",
}
Geometry = tuple[tuple[int, int, int], Vector, Vector, np.ndarray]


def read_itk(path: Path) -> Volume:
    """Read one file. Errors do not name the file; the caller adds the name."""
    import SimpleITK as sitk

    check_header(path, known_suffix(path), voxels=True)
    with readable_errors():
        reader = _open(path)
        image = reader.Execute()
        shape, spacing, origin, direction = _geometry(reader)
        voxels = sitk.GetArrayFromImage(image).reshape(shape)
    del image
    return Volume(as_hu(voxels), spacing, origin, direction)


def inspect_itk(path: Path) -> SeriesInfo:
    """Shape, spacing and orientation from the header alone."""
    kind = FORMATS[known_suffix(path)]
    try:
        check_header(path, known_suffix(path), voxels=False)
        with readable_errors():
            shape, spacing, _, direction = _geometry(_open(path))
    except UhrctError as error:
        return SeriesInfo(kind=kind, problem=shown(str(error)))
    return SeriesInfo(kind=kind, shape=shape, spacing_mm=spacing, orientation=orientation_of(direction))


def _open(path: Path) -> Any:
    """A reader that has read the header and checked that it describes scalar voxels in 2D or 3D."""
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    # without this, ITK tries all of its readers and accepts a PNG that is called .nii
    reader.SetImageIO(IMAGE_IO[known_suffix(path)])
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    if reader.GetDimension() > 3:
        size = " x ".join(str(n) for n in reader.GetSize())
        raise UhrctError(f"{reader.GetDimension()} dimensions ({size}), need 3; split it into one volume per file")
    if reader.GetNumberOfComponents() != 1 or "complex" in sitk.GetPixelIDValueAsString(reader.GetPixelID()):
        raise UhrctError("colour or vector voxels, not CT values in HU; convert it to one value per voxel")
    return reader


def _geometry(reader: Any) -> Geometry:
    """(z, y, x) shape and spacing, origin and direction; a 2D image becomes one axial slice of 1 mm."""
    n = reader.GetDimension()
    size, spacing, origin = (list(v) for v in (reader.GetSize(), reader.GetSpacing(), reader.GetOrigin()))
    direction = np.eye(3)
    direction[:n, :n] = np.reshape(reader.GetDirection(), (n, n))
    size, spacing, origin = size + [1] * (3 - n), spacing + [1.0] * (3 - n), origin + [0.0] * (3 - n)
    return (
        (size[2], size[1], size[0]),
        (spacing[2], spacing[1], spacing[0]),
        (origin[0], origin[1], origin[2]),
        direction[:, ::-1].copy(),
    )


@contextlib.contextmanager
def readable_errors() -> Iterator[None]:
    """Turn the long messages of ITK into one line, and hide its warnings."""
    import SimpleITK as sitk

    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if "orthonormal" in text:
            reason = "axis directions are not orthonormal (sheared affine); resample it first"
        elif "Zero-valued spacing" in text:
            reason = "voxel spacing is zero; correct it at the source"
        else:
            reason = f"cannot be read, damaged or truncated? ({text.strip().splitlines()[-1].strip()})"
        raise UhrctError(reason) from error
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)
