"""Flicker: changes of the error from slice to slice, compared with the noise of the reference."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from uhrct.core.errors import UhrctError
from uhrct.core.undefined import Undefined
from uhrct.evaluation.fidelity import check_finite

TISSUE_HU = (-200.0, 250.0)  # fat to contrasted blood
SMOOTH_MM = 2.0
FLAT_HU_PER_MM = 10.0  # in plane
STILL_HU = 30.0  # from slice to slice
FEWEST = 1000  # voxels


def flicker(reference: ArrayLike, test: ArrayLike, spacing_mm: tuple[float, ...]) -> float:
    """Standard deviation of z-differences of (test - reference) over that of the reference.

    Both are measured in homogeneous soft tissue, where neighbouring slices of the reference differ by noise alone. The
    value is 0 for the reference itself, 1 for a truth without noise, and sqrt(2) for a truth with other noise of the
    same strength. The project asks for 1.05 or less.

    Parameters
    ----------
    reference, test : array_like, (z, y, x), HU
    spacing_mm : (z, y, x)

    Raises
    ------
    Undefined
        With one slice, without 1000 voxels of homogeneous tissue, or where the reference has no noise.
    UhrctError
        On unequal shapes, NaN or infinite values, or a spacing that does not fit.

    Example
    -------
    >>> noise = np.random.default_rng(0).normal(40, 10, (4, 64, 64))
    >>> f"{flicker(noise, np.full((4, 64, 64), 40.0), (1, 1, 1)):.2f}"
    '1.00'
    """
    a, b = np.asarray(reference), np.asarray(test)
    if a.shape != b.shape or a.ndim != 3 or a.size == 0:
        raise UhrctError(f"flicker of reference {a.shape} and test {b.shape}: need equal (z, y, x)")
    if len(spacing_mm) != 3 or not all(0 < s < float("inf") for s in spacing_mm):
        raise UhrctError(f"spacing_mm is {tuple(spacing_mm)}, need (z, y, x) in mm")
    if len(a) < 2:
        raise Undefined("one slice has no neighbour")
    sums = np.zeros(4)  # error and noise: sums of differences and of their squares
    count = 0
    before: tuple[np.ndarray, ...] | None = None
    for x, y in zip(a, b, strict=True):  # a whole study in float64 would need too much memory
        check_finite(x, y, "flicker")
        hr = x.astype(np.float64)
        error = y.astype(np.float64) - hr
        smooth, flat = _homogeneous(hr, spacing_mm[1:])
        if before is not None:
            still = flat & before[3] & (np.abs(smooth - before[2]) < STILL_HU)
            for k, step in enumerate((error[still] - before[1][still], hr[still] - before[0][still])):
                sums[2 * k : 2 * k + 2] += step.sum(), (step**2).sum()
            count += int(still.sum())
        before = hr, error, smooth, flat
    if count < FEWEST:
        raise Undefined(f"only {count} voxels of homogeneous soft tissue")
    mean = sums / count
    variance = mean[1] - mean[0] ** 2, mean[3] - mean[2] ** 2
    if variance[1] <= 1e-6:
        raise Undefined("the reference has no noise")
    return float(np.sqrt(max(variance[0], 0.0) / variance[1]))


def _homogeneous(hu: np.ndarray, spacing_mm: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(the smoothed slice, mask of flat soft tissue)."""
    from scipy import ndimage  # evaluation extra

    smooth = ndimage.gaussian_filter(hu.clip(-1024, 600), [SMOOTH_MM / s for s in spacing_mm])
    slope = np.hypot(*np.gradient(smooth, *spacing_mm)) if min(smooth.shape) > 1 else np.full(smooth.shape, np.inf)
    return smooth, (smooth > TISSUE_HU[0]) & (smooth < TISSUE_HU[1]) & (slope < FLAT_HU_PER_MM)
