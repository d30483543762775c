"""Slope and intercept of stored values."""

from __future__ import annotations

import numpy as np

from uhrct.core.hu import as_hu, fits_int16


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
        whole = all([fits_int16(values[i : i + 1] * np.float64(slope) + intercept, i) for i in range(len(values))])
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
