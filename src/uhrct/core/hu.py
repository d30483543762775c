"""Hounsfield units: what values mean, and the windows in which they are measured and shown."""

from __future__ import annotations

import math

import numpy as np

from uhrct.core.errors import InputRefused

#: HU at or below this are not attenuation but scanner padding outside the field of view (-2000 or -3024 in GE
#: series). Air itself is -1000, and noisy air rarely goes below -1200.
PADDING_HU = -1500.0

#: The lowest HU that networks, operators and metrics see. Padding counts as this value.
FLOOR_HU = -1024.0

#: Mean absolute value of Gaussian noise, as a share of its standard deviation.
MEAN_OF_NOISE = math.sqrt(2 / math.pi)

#: Range of a 16-bit voxel.
INT16 = np.iinfo(np.int16)

#: Windows (low, high) in HU for metrics. "wide" is the headline.
METRIC_WINDOWS_HU: dict[str, tuple[float, float]] = {
    "wide": (-1000, 600),  # the headline: from air to the onset of dense bone; the D1 data are clipped to it
    "lung": (-1350, 150),  # level -600, width 1500
    "mediastinum": (-160, 240),  # level 40, width 400
}

#: Windows (low, high) in HU for pictures. "paper" is the window of the figures of MICCAI 2023.
DISPLAY_WINDOWS_HU: dict[str, tuple[float, float]] = {
    "paper": (-600.0, 400.0),
    "lung": (-1000.0, 200.0),
    "bone": (-500.0, 1500.0),
    "wide": (-1000.0, 600.0),
}


def as_hu(values: np.ndarray) -> np.ndarray:
    """`values`, shape (z, ...), as int16 if that is exact, else as float32.

    Raises
    ------
    InputRefused
        If values are not real numbers, or some are NaN or infinite. The caller names the file.

    Example
    -------
    >>> as_hu(np.array([-1000.0, 40.0])).dtype, as_hu(np.array([0.5])).dtype, as_hu(np.array([40000])).dtype
    (dtype('int16'), dtype('float32'), dtype('float32'))
    """
    if values.dtype.kind not in "iuf":
        raise InputRefused(f"holds values of type {values.dtype}, not numbers in HU")
    if values.size == 0:
        raise InputRefused(f"holds no voxels (shape {values.shape})")
    # slice by slice, so that the check of a large volume needs no copy of it
    if all([fits_int16(values[i : i + 1], i) for i in range(len(values))]):
        return np.ascontiguousarray(values, dtype=np.int16)
    return np.ascontiguousarray(values, dtype=np.float32)


def as_held(values: np.ndarray) -> np.ndarray:
    """`values`, shape (z, ...), as a `Volume` holds them: integers as `as_hu`, floating point as float32.

    Whole numbers of floating-point type stay floating point: the type of a result should not depend on the values.

    Raises
    ------
    InputRefused
        As `as_hu`.

    Example
    -------
    >>> as_held(np.array([-1000.0])).dtype, as_held(np.array([40000])).dtype, as_held(np.array([40], np.uint8)).dtype
    (dtype('float32'), dtype('float32'), dtype('int16'))
    """
    if values.dtype.kind != "f" or values.size == 0:
        return as_hu(values)
    for i in range(len(values)):
        check_finite(values[i : i + 1], i)
    return np.ascontiguousarray(values, dtype=np.float32)


def check_finite(plane: np.ndarray, index: int) -> None:
    """Raise `InputRefused` if slice `index` holds values that are not finite in float32."""
    with np.errstate(invalid="ignore"):  # signalling NaNs are expected here
        bad = int((~(np.abs(plane) <= np.finfo(np.float32).max)).sum())
    if bad:
        raise InputRefused(f"{bad} voxels of slice {index} are NaN or infinite; replace them by HU (-1000 is air)")


def fits_int16(plane: np.ndarray, index: int) -> bool:
    """Whether all values of slice `index` are whole numbers that fit into int16. Raises for NaN as `check_finite`."""
    if plane.dtype.kind == "f":
        check_finite(plane, index)
        if (plane != np.rint(plane)).any():
            return False
    return bool(plane.min() >= INT16.min and plane.max() <= INT16.max)
