"""Slices in space: order them along their normal, and say what keeps them from being a regular volume."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom import Dataset

from uhrct.errors import UhrctError
from uhrct.formats.dicom_scan import ENHANCED_CT, Series, Slice, is_localizer
from uhrct.volume import Grid

#: How far a slice may lie off the regular grid, in increments (positions are often rounded to 0.1 mm).
UNEVEN = 0.1


@dataclass(frozen=True, eq=False)
class Stack:
    """Slices in ascending position along the normal, and the grid that they form."""

    slices: list[Slice]
    grid: Grid


def arrange(series: Series) -> Stack:
    """Check that a series is one CT volume, and put its slices in order.

    Raises
    ------
    UhrctError
        Not CT, colour, multi-frame, no HU, mixed sizes or orientations, gantry tilt, duplicate, missing or
        uneven slices. Messages name files of the series, never its folder or its patient.
    """
    for one in series.slices:
        _check_content(one)
    first = series.slices[0].header
    spacing_yx = _positive(series.slices[0], "PixelSpacing", 2)
    direction = _direction(series.slices[0])
    for one in series.slices:
        _check_same(one, series.slices[0], spacing_yx, direction)

    positions = np.array([_numbers(one, "ImagePositionPatient", 3) for one in series.slices])
    along = positions @ direction[:, 0]
    order = np.argsort(along, kind="stable")
    slices = [series.slices[i] for i in order]
    positions, along = positions[order], along[order]
    _check_spacing_between(slices, along)
    _check_no_shear(positions, along, direction, min(spacing_yx))
    thickness = _optional(first, "SliceThickness")
    if len(slices) > 1:
        # 9 digits: rids the mean of the binary noise of decimal positions, moves no slice by more than 1 nm.
        increment = round(float(along[-1] - along[0]) / (len(slices) - 1), 9)
    else:
        increment = _optional(first, "SpacingBetweenSlices") or thickness or 1.0
    grid = Grid(
        (len(slices), int(first.Rows), int(first.Columns)),
        (increment, *spacing_yx),
        (float(positions[0, 0]), float(positions[0, 1]), float(positions[0, 2])),
        direction,
        thickness,
    )
    return Stack(slices, grid)


def _check_content(one: Slice) -> None:
    header, name = one.header, one.file.name
    if header.get("SOPClassUID") in ENHANCED_CT or int(header.get("NumberOfFrames") or 1) > 1:
        raise UhrctError(f"{name} is a multi-frame image, not supported yet; convert it to single-frame CT or NIfTI")
    if header.get("Modality") != "CT":
        raise UhrctError(
            f"{name} is {header.get('Modality') or 'of unknown modality'}, not CT; uhrct works on CT in HU"
        )
    if is_localizer(header):
        raise UhrctError(f"{name} is a localizer (scout view), not a scan; choose the scan itself")
    if header.get("SamplesPerPixel", 1) != 1 or "MONOCHROME" not in header.get("PhotometricInterpretation", ""):
        colour = header.get("PhotometricInterpretation", "colour")
        raise UhrctError(f"{name} is a colour image ({colour}), not CT values in HU; choose the original series")
    if _optional(header, "RescaleSlope") is None or header.get("RescaleIntercept") is None:
        raise UhrctError(f"{name} has no RescaleSlope and RescaleIntercept, so its values are not HU; export it again")


def _check_same(one: Slice, first: Slice, spacing_yx: tuple[float, float], direction: np.ndarray) -> None:
    pair = f"{first.file.name} and {one.file.name}"
    size, other = ((int(h.Rows), int(h.Columns)) for h in (first.header, one.header))
    if size != other:
        raise UhrctError(f"mixed image sizes: {pair} have {size} and {other} pixels; keep one kind of image")
    if not np.allclose(_direction(one), direction, atol=1e-3):
        raise UhrctError(f"mixed orientations: {pair} lie in different planes; keep one kind of image")
    if not np.allclose(_positive(one, "PixelSpacing", 2), spacing_yx, rtol=1e-4):
        raise UhrctError(f"mixed pixel spacing: {pair} differ; keep one reconstruction")


def _check_spacing_between(slices: list[Slice], along: np.ndarray) -> None:
    if len(slices) < 2:
        return
    steps = np.diff(along)
    usual = float(np.median(steps))
    closest = int(steps.argmin())
    if steps[closest] < max(1e-3, 0.01 * usual):
        pair = f"{slices[closest].file.name} and {slices[closest + 1].file.name}"
        raise UhrctError(f"duplicate slices: {pair} both lie at {along[closest]:.2f} mm; remove one copy or phase")
    gaps = np.flatnonzero(steps > 1.5 * usual)
    whole = np.abs(steps / usual - np.rint(steps / usual)) < 2 * UNEVEN
    if len(gaps) and whole.all():
        at = int(gaps[0])
        missing = int(np.rint(steps[gaps] / usual).sum()) - len(gaps)
        pair = f"{slices[at].file.name} and {slices[at + 1].file.name}"
        where = f"{along[at]:.2f} and {along[at + 1]:.2f} mm"
        raise UhrctError(f"missing slices: {missing}, first between {where} ({pair}); export the series again")
    even = np.linspace(along[0], along[-1], len(along))
    if np.abs(along - even).max() > max(UNEVEN * usual, 0.01):
        raise UhrctError(
            f"uneven slice spacing: {steps.min():.3f} to {steps.max():.3f} mm; resample or keep an even part"
        )


def _check_no_shear(positions: np.ndarray, along: np.ndarray, direction: np.ndarray, pixel_mm: float) -> None:
    steps = positions - positions[0]
    sideways = np.linalg.norm(steps - np.outer(along - along[0], direction[:, 0]), axis=1)
    # A quarter of a pixel over the whole stack is no shear that resampling could improve on.
    if sideways.max() > 0.25 * pixel_mm:
        angle = math.degrees(math.atan2(sideways[-1], along[-1] - along[0]))
        raise UhrctError(
            f"gantry tilt: slices shift sideways by up to {sideways.max():.1f} mm ({angle:.1f} degrees); "
            "resample to an upright grid first"
        )


def _direction(one: Slice) -> np.ndarray:
    """Columns normal, down the rows, along the columns: orthonormal to machine precision."""
    cosines = np.array(_numbers(one, "ImageOrientationPatient", 6))
    x, y = cosines[:3], cosines[3:]
    lengths = np.linalg.norm(x), np.linalg.norm(y)
    # Headers hold a few decimals only; beyond what rounding explains, the plane is not known.
    if not np.allclose(lengths, 1, atol=1e-2) or abs(x @ y) > 1e-2:
        raise UhrctError(f"{one.file.name}: ImageOrientationPatient is not orthonormal; export it again")
    x = x / lengths[0]
    y = y - (y @ x) * x
    y = y / np.linalg.norm(y)
    return np.stack([np.cross(x, y), y, x], axis=1)


def _numbers(one: Slice, key: str, count: int) -> list[float]:
    value: Any = one.header.get(key)
    try:
        numbers = [float(v) for v in value]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != count or not all(math.isfinite(v) for v in numbers):
        raise UhrctError(f"{one.file.name} has no usable {key}: place in the patient unknown; export it again")
    return numbers


def _positive(one: Slice, key: str, count: int) -> tuple[float, float]:
    a, b = _numbers(one, key, count)
    if a <= 0 or b <= 0:
        raise UhrctError(f"{one.file.name}: {key} {a:g}, {b:g} mm is not positive; correct it at the source")
    return a, b


def _optional(header: Dataset, key: str) -> float | None:
    """A number above zero, or None: absent, empty and 0 all mean that nobody knew."""
    try:
        value = float(header.get(key) or 0)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) and value > 0 else None
