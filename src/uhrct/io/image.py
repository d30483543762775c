"""Read NIfTI, NRRD and MetaImage: the header by the module of the format, the voxels by `voxels`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from uhrct.core.errors import UhrctError
from uhrct.core.volume import Volume
from uhrct.io import metaimage, nifti, nrrd
from uhrct.io.image_header import ImageHeader
from uhrct.io.info import SeriesInfo, orientation_of
from uhrct.io.paths import FORMATS, known_suffix, shown
from uhrct.io.scaling import possible_scaling, rescaled
from uhrct.io.voxels import check_size, read_voxels

_READ_HEADER = {"NIfTI": nifti.read_header, "NRRD": nrrd.read_header, "MetaImage": metaimage.read_header}


def read_image(path: Path) -> Volume:
    """Read one file. Errors do not name the file; the caller adds the name."""
    header = _header(path)
    hu = rescaled(read_voxels(header), header.slope, header.intercept)
    place = header.place
    meta = {"format": FORMATS[known_suffix(path)]}
    return Volume(hu, place.spacing_mm, place.origin_mm, place.direction, header.slice_thickness_mm, meta)


def inspect_image(path: Path) -> SeriesInfo:
    """Shape, spacing and orientation from the header alone."""
    kind = FORMATS[known_suffix(path)]
    try:
        header = _header(path)
        check_size(header)
    except UhrctError as error:
        return SeriesInfo(kind=kind, problem=shown(str(error)))
    place = header.place
    return SeriesInfo(
        kind=kind, shape=header.shape, spacing_mm=place.spacing_mm, orientation=orientation_of(place.direction)
    )


def _header(path: Path) -> ImageHeader:
    if not path.is_file():
        raise UhrctError("is a pipe or a device, not a file; save it as a file first")
    # damaged numbers may be NaN or overflow; the checks find them, so numpy need not warn
    with np.errstate(invalid="ignore", over="ignore"):
        header = _READ_HEADER[FORMATS[known_suffix(path)]](path)
    if not possible_scaling(header.slope, header.intercept):
        raise UhrctError(
            f"slope {header.slope:g} and intercept {header.intercept:g} cannot give HU; correct them at the source"
        )
    return header
