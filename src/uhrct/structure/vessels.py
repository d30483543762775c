"""Vessels inside the lungs as a mask, their centre lines, and clDice."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from uhrct.core.errors import UhrctError
from uhrct.core.undefined import Undefined

#: Thresholds of the V_C map in [0, 1] with the constants of `SMSE_OPERATORS`: 0.25 for vessels, 0.1 with faint ones,
#: 0.5 for wide ones alone. Reference and test share them: a threshold of each image's own would hide lost contrast.
#: docs/structure.md, section "Vessel thresholds", says how they were checked.
VESSEL_THRESHOLDS = (0.1, 0.25, 0.5)


def vessel_mask(structure: ArrayLike, lungs: ArrayLike, threshold: float) -> np.ndarray:
    """Mask of the voxels in the lungs whose structure map reaches the threshold.

    Parameters
    ----------
    structure : array_like, (y, x) or (z, y, x), in [0, 1]
    lungs : array_like of bool, same shape
    threshold : float, above 0

    Example
    -------
    >>> vessel_mask([[0.2, 0.8]], [[True, True]], 0.5)
    array([[False,  True]])
    """
    s, inside = np.asarray(structure), np.asarray(lungs, bool)
    if s.shape != inside.shape or s.ndim not in (2, 3):
        raise UhrctError(f"structure map {s.shape} and lungs {inside.shape}: need equal (y, x) or (z, y, x)")
    if not threshold > 0:
        raise UhrctError(f"vessel threshold {threshold}: need more than 0")
    return inside & (s >= threshold)


def skeleton(mask: ArrayLike) -> np.ndarray:
    """Centre lines of one voxel width, by the thinning of Zhang and Suen (slices) or Lee (volumes).

    References
    ----------
    doi 10.1145/357994.358023 (2D), doi 10.1006/cgip.1994.1042 (3D).

    Example
    -------
    >>> skeleton(np.pad(np.ones((3, 9), bool), 3)).sum(0).max()
    np.int64(1)
    """
    from skimage.morphology import skeletonize  # evaluation extra

    image = np.asarray(mask, bool)
    if image.ndim not in (2, 3):
        raise UhrctError(f"skeleton of shape {image.shape}: need (y, x) or (z, y, x)")
    return np.asarray(skeletonize(image), bool) if image.any() else image.copy()


def cldice(reference: ArrayLike, test: ArrayLike) -> float:
    """Centre-line Dice: harmonic mean of the shares of each hard skeleton that lie inside the other mask.

    Parameters
    ----------
    reference, test : array_like of bool, (y, x) or (z, y, x)
        Vessel masks.

    Returns
    -------
    float
        1 where both share all centre lines; 0 where they share none, or the test is empty.

    Raises
    ------
    Undefined
        If the reference is empty.
    UhrctError
        On unequal shapes.

    References
    ----------
    Shit et al., CVPR 2021, doi 10.1109/CVPR46437.2021.01629.

    Example
    -------
    >>> vessel = np.zeros((16, 16), bool); vessel[7:10, 1:15] = True
    >>> broken = vessel.copy(); broken[:, 6:10] = False
    >>> cldice(vessel, vessel), 0 < cldice(vessel, broken) < 1
    (1.0, True)
    """
    a, b = masks(reference, test)
    if not a.any():
        raise Undefined("no vessel in the reference")
    line_a, line_b = skeleton(a), skeleton(b)
    if not line_b.any():
        return 0.0
    precision, sensitivity = float(a[line_b].mean()), float(b[line_a].mean())
    total = precision + sensitivity
    return 2 * precision * sensitivity / total if total else 0.0


def masks(reference: ArrayLike, test: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Two boolean masks of one shape, (y, x) or (z, y, x). Raises `UhrctError` otherwise."""
    a, b = np.asarray(reference, bool), np.asarray(test, bool)
    if a.shape != b.shape or a.ndim not in (2, 3) or a.size == 0:
        raise UhrctError(f"vessel masks of reference {a.shape} and test {b.shape}: need equal (y, x) or (z, y, x)")
    return a, b
