"""Order slices along their normal, and explain why they do not form a regular volume."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom import Dataset

from uhrct.core.errors import UhrctError
from uhrct.core.volume import Grid
from uhrct.io.dicom.frames import Slice
from uhrct.io.dicom.header import text
from uhrct.io.dicom.scan import Series, is_localizer
from uhrct.io.scaling import possible_scaling

#: Allowed distance of a slice from the regular grid, in slice distances (positions are often rounded to 0.1 mm).
UNEVEN = 0.1
#: RescaleType values of dual-energy maps, which are not HU (PS3.3 C.11.1.1.2).
NOT_HU = ("MGML", "Z_EFF", "ED", "EDW", "PCT", "OD")


@dataclass(frozen=True, eq=False)
class Stack:
    """Slices in ascending order along the normal, and their grid."""

    slices: list[Slice]
    grid: Grid
    sideways_mm: np.ndarray
    """Shape (slices, 2): in-plane offset of each slice from the grid, down the rows and along the columns."""

    @property
    def tilt_degrees(self) -> float:
        """Gantry tilt: the angle between the normal and the line from slice to slice; 0 for an upright stack."""
        # resampling could not improve an offset of less than a quarter of a pixel over the whole stack
        if np.abs(self.sideways_mm).max() <= 0.25 * min(self.grid.spacing_mm[1:]):
            return 0.0
        depth = self.grid.spacing_mm[0] * (len(self.slices) - 1)
        return math.degrees(math.atan2(float(np.linalg.norm(self.sideways_mm[-1])), depth))


def arrange(series: Series) -> Stack:
    """Check that a series is one CT volume, and put its slices in order.

    Raises
    ------
    UhrctError
        Not CT, colour, not HU, mixed sizes or orientations, duplicate, missing or uneven slices, or slices that are
        shifted sideways without a common angle. Messages name files of the series, never the folder or the patient.
        Gantry tilt is not an error here; see `Stack.tilt_degrees`.
    """
    if series.problem:
        raise UhrctError(series.problem)
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
    sideways = _sideways(positions, along, direction, min(spacing_yx))
    thickness = _optional(first, "SliceThickness")
    if len(slices) > 1:
        # rounding to 9 digits removes the binary noise of decimal positions; it moves no slice by more than 1 nm
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
    return Stack(slices, grid, sideways)


def _check_content(one: Slice) -> None:
    header, name = one.header, one.name
    if header.get("Modality") != "CT":
        modality = text(header, "Modality") or "of unknown modality"
        raise UhrctError(f"{name} is {modality}, not CT; uhrct works on CT in HU")
    if one.frame is None and int(header.get("NumberOfFrames") or 1) > 1:
        raise UhrctError(f"{name} has several frames but is not Enhanced CT, so their positions are unknown; use NIfTI")
    if is_localizer(header):
        raise UhrctError(f"{name} is a localizer (scout view), not a scan; choose the scan itself")
    if header.get("SamplesPerPixel", 1) != 1 or "MONOCHROME" not in header.get("PhotometricInterpretation", ""):
        colour = text(header, "PhotometricInterpretation") or "photometric interpretation unknown"
        raise UhrctError(f"{name} is a colour image ({colour}), not CT values in HU; choose the original series")
    if _optional(header, "RescaleSlope") is None or not _is_number(header.get("RescaleIntercept")):
        raise UhrctError(
            f"{name} has no usable RescaleSlope and RescaleIntercept, so its values are not HU; export it again"
        )
    if not possible_scaling(float(header.RescaleSlope), float(header.RescaleIntercept)):
        values = f"RescaleSlope {header.RescaleSlope} and RescaleIntercept {header.RescaleIntercept}"
        raise UhrctError(f"{name}: {values} cannot give HU; correct them at the source")
    if text(header, "RescaleType") in NOT_HU:
        raise UhrctError(f"{name} holds {text(header, 'RescaleType')}, not HU; choose the series with CT values")


def _check_same(one: Slice, first: Slice, spacing_yx: tuple[float, float], direction: np.ndarray) -> None:
    pair = f"{first.name} and {one.name}"
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
        pair = f"{slices[closest].name} and {slices[closest + 1].name}"
        raise UhrctError(f"duplicate slices: {pair} both lie at {along[closest]:.2f} mm; remove one copy or phase")
    gaps = np.flatnonzero(steps > 1.5 * usual)
    whole = np.abs(steps / usual - np.rint(steps / usual)) < 2 * UNEVEN
    if len(gaps) and whole.all():
        at = int(gaps[0])
        missing = int(np.rint(steps[gaps] / usual).sum()) - len(gaps)
        pair = f"{slices[at].name} and {slices[at + 1].name}"
        where = f"{along[at]:.2f} and {along[at + 1]:.2f} mm"
        raise UhrctError(f"missing slices: {missing}, first between {where} ({pair}); export the series again")
    even = np.linspace(along[0], along[-1], len(along))
    if np.abs(along - even).max() > max(UNEVEN * usual, 0.01):
        raise UhrctError(
            f"uneven slice spacing: {steps.min():.3f} to {steps.max():.3f} mm; resample or keep an even part"
        )


def _sideways(positions: np.ndarray, along: np.ndarray, direction: np.ndarray, pixel_mm: float) -> np.ndarray:
    """Offsets of the slices within their own plane, shape (slices, 2): constant steps, or an error."""
    steps = positions - positions[0]
    sideways = (steps - np.outer(along - along[0], direction[:, 0])) @ direction[:, 1:]
    even = np.outer(np.linspace(0, 1, len(along)), sideways[-1])
    worst = np.linalg.norm(sideways - even, axis=1)
    if worst.max() > 0.25 * pixel_mm:
        raise UhrctError(
            f"slices shift sideways by up to {np.linalg.norm(sideways, axis=1).max():.1f} mm without a "
            "common angle, so this is not gantry tilt; export the series again"
        )
    return sideways


def _direction(one: Slice) -> np.ndarray:
    """Columns normal, down the rows, along the columns: orthonormal to machine precision."""
    cosines = np.array(_numbers(one, "ImageOrientationPatient", 6))
    x, y = cosines[:3], cosines[3:]
    lengths = np.linalg.norm(x), np.linalg.norm(y)
    # headers have few decimals; beyond rounding errors the plane is unknown
    if not np.allclose(lengths, 1, atol=1e-2) or abs(x @ y) > 1e-2:
        raise UhrctError(f"{one.name}: ImageOrientationPatient is not orthonormal; export it again")
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
        raise UhrctError(f"{one.name} has no usable {key}, so its position is unknown; export it again")
    return numbers


def _positive(one: Slice, key: str, count: int) -> tuple[float, float]:
    a, b = _numbers(one, key, count)
    if a <= 0 or b <= 0:
        raise UhrctError(f"{one.name}: {key} {a:g}, {b:g} mm is not positive; correct it at the source")
    return a, b


def _is_number(value: Any) -> bool:
    try:
        return math.isfinite(float(value))
    except (TypeError, ValueError):
        return False


def _optional(header: Dataset, key: str) -> float | None:
    """A number above zero, or None: absent, empty and 0 all mean "unknown"."""
    try:
        value = float(header.get(key) or 0)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) and value > 0 else None
