"""Exact conversion of stored values to the two types of a volume: int16 or float32 HU."""

from __future__ import annotations

import numpy as np

from uhrct.core.errors import UhrctError
from uhrct.core.hu import INT16


def as_hu(values: np.ndarray) -> np.ndarray:
    """`values`, shape (z, ...), as int16 if that is exact, else as float32.

    Raises
    ------
    UhrctError
        If values are not real numbers, or some are NaN or infinite. The caller names the file.

    Example
    -------
    >>> as_hu(np.array([-1000.0, 40.0])).dtype, as_hu(np.array([0.5])).dtype, as_hu(np.array([40000])).dtype
    (dtype('int16'), dtype('float32'), dtype('float32'))
    """
    if values.dtype.kind not in "iuf":
        raise UhrctError(f"holds values of type {values.dtype}, not numbers in HU")
    if values.size == 0:
        raise UhrctError(f"holds no voxels (shape {values.shape})")
    # slice by slice, so that the check of a large volume needs no copy of it
    if all([_fits_int16(values[i : i + 1], i) for i in range(len(values))]):
        return np.ascontiguousarray(values, dtype=np.int16)
    return np.ascontiguousarray(values, dtype=np.float32)


def rescaled(values: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    """``slope * values + intercept``, shape (z, ...), as `as_hu` returns it. Slice by slice, to save memory.

    Raises
    ------
    UhrctError
        As `as_hu`.

    Example
    -------
    >>> rescaled(np.array([0, 1024], np.uint16), 1.0, -1024.0), rescaled(np.array([3]), 0.5, 0.0)
    (array([-1024,     0], dtype=int16), array([1.5], dtype=float32))
    """
    if (slope, intercept) == (1, 0):
        return as_hu(values)
    # float64 holds every product of a stored value and a slope of whole numbers exactly, up to 2**53
    with np.errstate(invalid="ignore", over="ignore"):
        whole = all([_fits_int16(values[i : i + 1] * np.float64(slope) + intercept, i) for i in range(len(values))])
        result = np.empty(values.shape, np.int16 if whole else np.float32)
        for i in range(len(values)):
            result[i] = values[i] * np.float64(slope) + intercept
    return result


def possible_scaling(slope: float, intercept: float) -> bool:
    """Whether a slope and an intercept can make HU of stored values.

    A slope below 1e-12 maps every stored value to the same HU. Real slopes lie between 1e-5 (maps from 0 to 1) and 10.

    >>> possible_scaling(1.0, -1024.0), possible_scaling(1e-310, 0.0), possible_scaling(1.0, float("nan"))
    (True, False, False)
    """
    return 1e-12 <= abs(slope) <= 1e12 and abs(intercept) <= 1e12


def check_finite(plane: np.ndarray, index: int) -> None:
    """Raise `UhrctError` if slice `index` holds values that are not finite in float32."""
    with np.errstate(invalid="ignore"):  # signalling NaNs are expected here
        bad = int((~(np.abs(plane) <= np.finfo(np.float32).max)).sum())
    if bad:
        raise UhrctError(f"{bad} voxels of slice {index} are NaN or infinite; replace them by HU (-1000 is air)")


def _fits_int16(plane: np.ndarray, index: int) -> bool:
    if plane.dtype.kind == "f":
        check_finite(plane, index)
        if (plane != np.rint(plane)).any():
            return False
    return bool(plane.min() >= INT16.min and plane.max() <= INT16.max)
