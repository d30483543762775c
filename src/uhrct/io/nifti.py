"""NIfTI-1 and NIfTI-2 in one file (`.nii`, `.nii.gz`). nibabel decodes headers; their values are checked here."""

from __future__ import annotations

import contextlib
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np

from uhrct.core.errors import UhrctError
from uhrct.io.image_header import ImageHeader, Place, check_spacing, checked_shape, place_of
from uhrct.io.paths import known_suffix
from uhrct.io.voxels import Unpacked

#: Bits of a voxel by the type number of NIfTI (nifti1.h), for types with one number per voxel.
_BITS = {2: 8, 4: 16, 8: 32, 16: 32, 64: 64, 256: 8, 512: 16, 768: 32, 1024: 64, 1280: 64}
_COLOUR_OR_COMPLEX = (32, 128, 1792, 2048, 2304)
#: Intents that leave voxels what they are: none, an estimate, a label. Others state a statistic, vectors, times, ...
_INTENTS = (0, 1001, 1002)
_VECTORS = (1003, 1004, 1005, 1006, 1007, 1008, 1009, 2003, 2004)
#: Length of the space unit in mm. 0 means unknown: the unit is then mm, as in all readers.
_UNITS_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
#: Size of the header: place of the magic string, and the string in a single file.
_MAGIC = {348: (344, b"n+1\0"), 540: (4, b"n+2\0\r\n\x1a\n")}
#: Header extensions lie between the header and the voxels. Real ones take some kB.
_MOST_OFFSET = 1 << 26
_NO_HEADER = "not a NIfTI file (no valid header); export it again"
_RAS_TO_LPS = np.array([[-1.0], [-1.0], [1.0]])


def read_header(path: Path) -> ImageHeader:
    """The checked header of `path`.

    Raises
    ------
    UhrctError
        If it is no valid NIfTI header, if its fields contradict each other, or if it is not one scalar volume.
    """
    packing = "gzip" if known_suffix(path) == ".nii.gz" else "raw"
    with path.open("rb") as file:
        raw = Unpacked(file, packing).read_all(540)
    fields = _fields(raw)
    _check_meaning(fields)
    shape = _shape(fields)
    slope, intercept = _scaling(fields)
    return ImageHeader(
        shape=shape,
        dtype=fields.get_data_dtype(),
        place=_place(fields, shape),
        file=path,
        packing=packing,
        skip=_offset(fields),
        slope=slope,
        intercept=intercept,
    )


def _fields(raw: bytes) -> Any:
    """The header as nibabel decodes it, with a valid size, magic string, type and number of dimensions."""
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    for order in "<>":
        size = struct.unpack_from(order + "i", raw)[0] if len(raw) >= 348 else 0
        if size not in _MAGIC or len(raw) < size:
            continue
        at, magic = _MAGIC[size]
        if raw[at : at + 2] == b"ni":
            raise UhrctError("header of a NIfTI pair (.hdr and .img); convert it to one .nii file")
        if raw[at : at + len(magic)] != magic:
            break
        fields = (Nifti1Header if size == 348 else Nifti2Header)(raw[:size], order, check=False)
        count = int(fields["dim"][0])
        if 1 <= count <= 7 and min(fields["dim"][1 : 1 + count]) >= 1:
            return fields
        break
    raise UhrctError(_NO_HEADER)


def _check_meaning(fields: Any) -> None:
    kind, bits, intent = (int(fields[key]) for key in ("datatype", "bitpix", "intent_code"))
    if kind in _COLOUR_OR_COMPLEX or intent in _VECTORS or (fields["dim"][0] >= 5 and fields["dim"][5] > 1):
        raise UhrctError("colour or vector voxels, not CT values in HU; convert it to one value per voxel")
    if _BITS.get(kind) != bits:
        raise UhrctError(f"voxel type {kind} of {bits} bits is unknown or damaged; export it again")
    if intent not in _INTENTS:
        raise UhrctError(f"voxels with intent code {intent} are not CT values in HU; set it to 0 if they are")


def _shape(fields: Any) -> tuple[int, int, int]:
    sizes = [int(n) for n in fields["dim"][1 : 1 + fields["dim"][0]]]
    while len(sizes) > 3 and sizes[-1] == 1:
        sizes.pop()
    return checked_shape(sizes)


def _offset(fields: Any) -> int:
    """Where voxels start: after the header and the four bytes that announce extensions."""
    offset, first = float(fields["vox_offset"]), int(fields["sizeof_hdr"]) + 4
    if not (first <= offset <= _MOST_OFFSET and offset.is_integer()):  # also catches NaN
        raise UhrctError(_NO_HEADER)
    return int(offset)


def _scaling(fields: Any) -> tuple[float, float]:
    """Slope and intercept. The standard: slope 0 means no scaling at all, also no intercept. NaN counts as 0."""
    slope, intercept = float(fields["scl_slope"]), float(fields["scl_inter"])
    return (1.0, 0.0) if slope == 0 or math.isnan(slope) else (slope, intercept)


def _place(fields: Any, shape: tuple[int, int, int]) -> Place:
    """From sform or qform. If the header has both, they must agree; the sform is used, because it is not rounded."""
    unit_mm = _UNITS_MM.get(int(fields["xyzt_units"]) & 7)
    if unit_mm is None:
        raise UhrctError(f"space unit {int(fields['xyzt_units']) & 7} is unknown; correct xyzt_units at the source")
    pixdim = fields["pixdim"][1:4].astype(float) * unit_mm
    check_spacing(pixdim.tolist())
    if not all(0 <= fields[key] <= 5 for key in ("qform_code", "sform_code")):
        raise UhrctError("qform_code or sform_code is unknown; correct it at the source")
    sform = _sform(fields, unit_mm) if fields["sform_code"] > 0 else None
    qform = _qform(fields, unit_mm) if fields["qform_code"] > 0 else None
    affine = qform if sform is None else sform
    if affine is None:
        raise UhrctError(
            "states no orientation (qform_code and sform_code are 0), so left and right are unknown; "
            "set the sform at the source"
        )
    place = place_of(_RAS_TO_LPS * affine[:, :3], _RAS_TO_LPS[:, 0] * affine[:, 3])
    if not np.allclose(place.spacing_mm[::-1], pixdim, rtol=1e-3):
        listed = " and ".join(", ".join(f"{s:g}" for s in v) for v in (place.spacing_mm[::-1], pixdim))
        raise UhrctError(f"sform and pixdim state different spacings: {listed} mm (x, y, z); correct it at the source")
    if sform is not None and qform is not None and not _agree(sform, qform, shape, place):
        raise UhrctError("qform and sform state different places; set both to the right one at the source")
    return place


def _sform(fields: Any, unit_mm: float) -> np.ndarray:
    return fields.get_sform()[:3] * unit_mm


def _qform(fields: Any, unit_mm: float) -> np.ndarray:
    if fields["pixdim"][0] == 0:
        fields["pixdim"][0] = 1  # the standard: 0 counts as 1
    if fields["pixdim"][0] in (-1, 1) and all(np.isfinite(fields[f"quatern_{axis}"]) for axis in "bcd"):
        # nibabel refuses a quaternion that is longer than 1
        with contextlib.suppress(ValueError):
            return fields.get_qform()[:3] * unit_mm
    raise UhrctError("the qform is no rotation (quaternion or pixdim[0] is damaged); correct it at the source")


def _agree(sform: np.ndarray, qform: np.ndarray, shape: tuple[int, int, int], place: Place) -> bool:
    """Whether no corner of the image moves by more than 0.1 voxels plus 0.001 of the diagonal.

    The second term is the rounding of a quaternion: with float32, half a turn is exact to 0.0005 rad only.
    """
    last = np.array(shape[::-1]) - 1
    corners = np.array([(*(last * corner), 1) for corner in np.ndindex(2, 2, 2)], float)
    moved = np.linalg.norm(corners @ (sform - qform).T, axis=1).max()
    diagonal_mm = float(np.linalg.norm(last[::-1] * place.spacing_mm))
    return bool(moved <= 0.1 * min(place.spacing_mm) + 1e-3 * diagonal_mm)
