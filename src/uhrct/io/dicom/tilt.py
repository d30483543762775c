"""Resample a scan with gantry tilt onto an upright grid."""

from __future__ import annotations

import math

import numpy as np

from uhrct.core.hu import PADDING_HU
from uhrct.core.volume import Grid
from uhrct.io.dicom.geometry import Stack

#: Value outside a shifted slice if the scan has no padding: air.
OUTSIDE_HU = -1024


def upright_grid(stack: Stack) -> Grid:
    """The smallest upright grid that holds every slice, with the planes and pixel size of the stack."""
    grid = stack.grid
    before, after = _margins(stack)
    spacing_yx = np.asarray(grid.spacing_mm[1:])
    origin = np.asarray(grid.origin_mm) - grid.direction[:, 1:] @ (before * spacing_yx)
    rows, columns = (n + int(b + a) for n, b, a in zip(grid.shape[1:], before, after, strict=True))
    return Grid(
        (grid.shape[0], rows, columns),
        grid.spacing_mm,
        (float(origin[0]), float(origin[1]), float(origin[2])),
        grid.direction,
        grid.slice_thickness_mm,
    )


def upright(hu: np.ndarray, stack: Stack) -> np.ndarray:
    """Shift every slice to its position on `upright_grid`. Slices are not mixed.

    Catmull-Rom interpolation along rows and columns (Keys 1981, doi 10.1109/TASSP.1981.1163711), exact if the shift is
    a whole number of pixels. Where padding takes part, the nearest pixel is used: padding keeps its value and does
    not ring.

    Parameters
    ----------
    hu : array, shape (z, y, x), int16 or float32
        Slices as stored.
    stack : Stack
        Their grid and the offset of each slice.

    Returns
    -------
    array, shape of `upright_grid`, type of `hu`
        Voxels outside every slice have the padding value of the scan, or -1024 HU.
    """
    grid = upright_grid(stack)
    fill = min(OUTSIDE_HU, int(hu.min()))
    out = np.full(grid.shape, fill, hu.dtype)
    before, _ = _margins(stack)
    shifts = stack.sideways_mm / np.asarray(grid.spacing_mm[1:]) + before
    for plane, shift, target in zip(hu, shifts, out, strict=True):
        whole = np.floor(shift + 1e-6).astype(int)
        part = shift - whole
        moved, top, left = plane.astype(np.float32), whole[0], whole[1]
        for axis in (0, 1):
            if part[axis] > 1e-3:
                moved = _shifted(moved, float(part[axis]), axis, fill)
        if hu.dtype == np.int16:
            moved = np.clip(np.rint(moved), -(2**15), 2**15 - 1)
        target[top : top + moved.shape[0], left : left + moved.shape[1]] = moved
    return out


def _margins(stack: Stack) -> tuple[np.ndarray, np.ndarray]:
    """Whole pixels to add before the first and after the last row and column."""
    pixels = stack.sideways_mm / np.asarray(stack.grid.spacing_mm[1:])
    before = np.array([math.ceil(max(0.0, -float(p)) - 1e-6) for p in pixels.min(axis=0)], float)
    after = np.array([math.ceil(max(0.0, float(p)) - 1e-6) for p in pixels.max(axis=0)], float)
    return before, after


def _shifted(plane: np.ndarray, by: float, axis: int, fill: float) -> np.ndarray:
    """`plane` moved by a part of a pixel, 0 < by < 1, towards larger indices; one pixel longer along `axis`."""
    lines = np.moveaxis(plane, axis, 0)
    wide = np.pad(lines, ((2, 2), (0, 0)), mode="edge")
    t = 1 - by  # output i lies between inputs i - 1 and i, at the fraction t
    weights = (
        ((2 - t) * t - 1) * t / 2,
        ((3 * t - 5) * t * t + 2) / 2,
        ((4 - 3 * t) * t + 1) * t / 2,
        (t - 1) * t * t / 2,
    )
    n = lines.shape[0] + 1
    taps = [wide[k : k + n] for k in range(4)]
    cubic = sum(w * tap for w, tap in zip(weights, taps, strict=True))
    nearest = taps[1] if t < 0.5 else taps[2]
    padded = np.minimum.reduce(taps) <= PADDING_HU
    out = np.where(padded, nearest, cubic)
    # the two border lines are partly outside the slice: keep the one that is more than half inside
    out[0 if t < 0.5 else -1] = fill
    return np.moveaxis(out, 0, axis)
