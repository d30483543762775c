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
