"""Broken and invented vessels, as length of centre line in mm."""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from uhrct.core.errors import UhrctError
from uhrct.structure.vessels import masks, skeleton


class VesselLengths(NamedTuple):
    """Lengths of centre lines in mm."""

    reference: float
    test: float
    broken: float
    invented: float


def vessel_lengths(reference: ArrayLike, test: ArrayLike, spacing_mm: tuple[float, ...]) -> VesselLengths:
    """Centre line of the reference that is missing in the test, and centre line of the test without a reference.

    A point of a centre line counts as found where the other *mask* is within one voxel (diagonals count). So the centre
    line of a wide vessel may move inside the vessel without being broken.

    Parameters
    ----------
    reference, test : array_like of bool, (y, x) or (z, y, x)
        Vessel masks.
    spacing_mm : tuple of float
        In the order of the axes.

    Returns
    -------
    VesselLengths
        Whole lengths of both, ``broken`` (part of the reference) and ``invented`` (part of the test), in mm.

    Raises
    ------
    UhrctError
        On unequal shapes or a spacing that does not fit.

    Example
    -------
    >>> whole = np.zeros((16, 32), bool); whole[8, 1:31] = True
    >>> broken = whole.copy(); broken[8, 10:22] = False
    >>> vessel_lengths(whole, broken, (0.7, 0.5))  # 12 pixels are missing, one at each end is tolerated
    VesselLengths(reference=14.5, test=8.0, broken=5.0, invented=0.0)
    """
    lines = vessel_lines(reference, test)
    along_a, along_b = line_lengths(lines.reference, spacing_mm), line_lengths(lines.test, spacing_mm)
    return VesselLengths(
        *(float(v.sum()) for v in (along_a, along_b, along_a[lines.broken], along_b[lines.invented])),
    )


class VesselLines(NamedTuple):
    """Centre lines as masks."""

    reference: np.ndarray
    test: np.ndarray
    broken: np.ndarray
    invented: np.ndarray


def vessel_lines(reference: ArrayLike, test: ArrayLike) -> VesselLines:
    """The centre lines whose lengths `vessel_lengths` gives, for pictures. Arguments as there.

    Example
    -------
    >>> whole = np.zeros((16, 32), bool); whole[8, 1:31] = True
    >>> broken = whole.copy(); broken[8, 10:22] = False
    >>> vessel_lines(whole, broken).broken.sum()
    np.int64(10)
    """
    from scipy import ndimage  # evaluation extra

    a, b = masks(reference, test)
    line_a, line_b = skeleton(a), skeleton(b)
    near = np.ones((3,) * a.ndim)
    near_a, near_b = (ndimage.binary_dilation(m, near) for m in (a, b))
    return VesselLines(line_a, line_b, line_a & ~near_b, line_b & ~near_a)


def line_lengths(line: ArrayLike, spacing_mm: tuple[float, ...]) -> np.ndarray:
    """Length in mm of each voxel of a centre line: half of every link to a neighbour.

    Diagonal neighbours are linked only where no voxel between them is on the line. A voxel without neighbours (a vessel
    that crosses the slice) counts as the geometric mean of the spacing.

    Example
    -------
    >>> line_lengths(np.eye(4, dtype=bool), (3.0, 4.0)).sum()
    np.float64(15.0)
    """
    mask = np.asarray(line, bool)
    spacing = tuple(float(s) for s in spacing_mm)
    if len(spacing) != mask.ndim or not all(0 < s < float("inf") for s in spacing):
        raise UhrctError(f"spacing_mm is {spacing} for an image of {mask.ndim} dimensions")
    padded = np.pad(mask, 1)
    length = np.zeros(padded.shape)
    linked = np.zeros(padded.shape, bool)
    for step in product((-1, 0, 1), repeat=mask.ndim):
        if not any(step):
            continue
        links = padded & _from(padded, step)
        for between in product(*({0, s} for s in step)):
            if any(between) and between != step:
                links &= ~_from(padded, between)
        linked |= links
        length[links] += 0.5 * float(np.linalg.norm(np.multiply(step, spacing)))
    length[padded & ~linked] = float(np.prod(spacing)) ** (1 / mask.ndim)
    return length[(slice(1, -1),) * mask.ndim]


def branch_labels(line: ArrayLike) -> np.ndarray:
    """Number of the branch of each voxel of a centre line (z, y, x); 0 outside the line and at branch points.

    A branch is a piece of centre line between branch points or ends.

    Example
    -------
    >>> line = np.zeros((1, 5, 5), bool); line[0, 2] = line[0, :2, 2] = True
    >>> branch_labels(line)[0].tolist()
    [[0, 0, 1, 0, 0], [0, 0, 0, 0, 0], [2, 0, 0, 0, 3], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]]
    """
    from scipy import ndimage  # evaluation extra

    mask = np.asarray(line, bool)
    around = np.ones((3, 3, 3), np.uint8)
    neighbours = ndimage.convolve(mask.astype(np.uint8), around, mode="constant") - mask
    return np.asarray(ndimage.label(mask & (neighbours <= 2), around)[0])


def _from(padded: np.ndarray, step: tuple[int, ...]) -> np.ndarray:
    """At each voxel the value `step` further. The padding keeps the far side out."""
    return np.roll(padded, [-s for s in step], axis=tuple(range(padded.ndim)))
