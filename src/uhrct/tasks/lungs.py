"""The two sides of the lungs of a volume in any orientation."""

from __future__ import annotations

import numpy as np
from scipy import ndimage  # evaluation extra

from uhrct.evaluation.fast_lungs import coarse_factors, coarsen

#: The two lungs are told apart with voxels of about this size.
SIDES_MM = 4.0
#: Of both lungs: a smaller piece is no lung of its own.
SMALLEST_SIDE = 0.15


def sides(lungs: np.ndarray, spacing_mm: tuple[float, float, float], direction: np.ndarray) -> np.ndarray | None:
    """The right lung as 1 and the left lung as 2, or None if two lungs cannot be told apart.

    The lungs are eroded until two large pieces remain that lie beside each other, not above or behind. A voxel belongs
    to the nearer piece.

    Parameters
    ----------
    lungs : array of bool (z, y, x)
    spacing_mm : (z, y, x)
    direction : array (3, 3)
        As in `Volume`: which array axis points to the left.

    Example
    -------
    >>> lungs = np.zeros((1, 40, 90), bool)
    >>> lungs[0, 5:35, 5:40] = lungs[0, 5:35, 50:85] = True
    >>> labels = sides(lungs, (5.0, 3.0, 3.0), np.eye(3)[::-1])
    >>> labels[0, 20, [20, 45, 70]].tolist()
    [1, 0, 2]
    """
    factors = coarse_factors(spacing_mm, SIDES_MM)
    coarse_mm = tuple(s * f for s, f in zip(spacing_mm, factors, strict=True))
    coarse = coarsen(lungs.astype(np.int16), factors) >= 0.5
    depth_mm = ndimage.distance_transform_edt(np.pad(coarse, 1), sampling=coarse_mm)[1:-1, 1:-1, 1:-1]
    if len(coarse) == 1:  # the faces of a single slice are no edge
        depth_mm = ndimage.distance_transform_edt(np.pad(coarse[0], 1), sampling=coarse_mm[1:])[None, 1:-1, 1:-1]
    for radius_mm in (0, 3, 5, 8, 11, 15):
        pieces, n = ndimage.label(coarse & (depth_mm > radius_mm))
        sizes = np.bincount(pieces.ravel(), minlength=3)
        sizes[0] = 0
        first, second = np.argsort(sizes)[::-1][:2] if n > 1 else (0, 0)
        if n < 2 or sizes[second] <= SMALLEST_SIDE * sizes.sum():
            continue
        cores = np.where(pieces == first, 1, np.where(pieces == second, 2, 0)).astype(np.uint8)
        middles = [direction @ (np.argwhere(cores == k).mean(0) * coarse_mm) for k in (1, 2)]
        towards_left, *others = middles[0] - middles[1]
        if abs(towards_left) > np.abs(others).max():
            break
    else:
        return None
    # a small piece belongs to the larger piece beside it
    near = ndimage.distance_transform_edt(cores == 0, sampling=coarse_mm, return_distances=False, return_indices=True)
    nearest = cores[tuple(near)]
    side = np.where((nearest == 1) ^ (towards_left > 0), 1, 2).astype(np.uint8)
    for axis, f in enumerate(factors):
        side = np.repeat(side, f, axis)
    z, y, x = lungs.shape
    return side[:z, :y, :x] * lungs
