"""The box around a mask."""

from __future__ import annotations

import numpy as np


def box_of(mask: np.ndarray, margin: tuple[int, ...] = (0, 0, 0)) -> tuple[slice, slice, slice]:
    """Slices of the smallest box that holds `mask`, with some voxels around it that stay inside the array.

    Example
    -------
    >>> mask = np.zeros((9, 9, 9), bool); mask[4, 5, 1] = True
    >>> box_of(mask, (1, 1, 3))
    (slice(3, 6, None), slice(4, 7, None), slice(0, 5, None))
    """
    sides = []
    for some, n, extra in zip((mask.any((1, 2)), mask.any((0, 2)), mask.any((0, 1))), mask.shape, margin, strict=True):
        at = np.flatnonzero(some)
        sides.append(slice(max(int(at[0]) - extra, 0), min(int(at[-1]) + 1 + extra, n)))
    return sides[0], sides[1], sides[2]
