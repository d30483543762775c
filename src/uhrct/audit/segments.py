"""Cut the centre lines of vessels or airways into short segments, and add up values along each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from uhrct.structure.lengths import line_lengths
from uhrct.structure.vessels import skeleton

NEIGHBOURS = np.ones((3, 3), bool)
#: Longest segment. A grade must be able to change along a vessel, and a short piece holds too little evidence.
LONGEST_MM = 6.0
#: Shorter pieces join the segment that they touch.
SHORTEST_VOXELS = 3


@dataclass(frozen=True)
class Segments:
    """Short pieces of the centre lines in one slice.

    Attributes
    ----------
    label : int32 array (y, x)
        Number of the segment on each voxel of a centre line, from 1; 0 elsewhere.
    region : int32 array (y, x)
        The same number on the voxels of the structure around the line, for sums over the structure.
    length_mm : array (n,)
        Length of each segment.
    """

    label: np.ndarray
    region: np.ndarray
    length_mm: np.ndarray

    @property
    def count(self) -> int:
        return len(self.length_mm)

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Mean of values (y, x) along the centre line of each segment, (n,)."""
        where = self.label > 0
        numbers = self.label[where]
        voxels = np.bincount(numbers, minlength=self.count + 1)[1:]
        return np.bincount(numbers, values[where], self.count + 1)[1:] / np.maximum(voxels, 1)

    def total(self, values: np.ndarray) -> np.ndarray:
        """Sum of values (y, x) over the structure around each segment, (n,)."""
        where = self.region > 0
        return np.bincount(self.region[where], values[where], self.count + 1)[1:]


def segments(mask: np.ndarray, spacing_mm: tuple[float, float], *, reach_voxels: int = 3) -> Segments:
    """The centre lines of a mask, cut at junctions and into pieces of `LONGEST_MM` or less.

    Parameters
    ----------
    mask : bool array (y, x)
    spacing_mm : (y, x)
    reach_voxels : int
        How far from its line a region extends at most. Regions do not leave the mask dilated by one voxel.

    Example
    -------
    >>> mask = np.zeros((9, 40), bool)
    >>> mask[4, 2:38] = True
    >>> found = segments(mask, (0.5, 0.5))
    >>> found.count, round(float(found.length_mm.sum()), 1)
    (4, 17.5)
    """
    line = skeleton(mask)
    label = _merged(_cut(line, spacing_mm))
    lengths = line_lengths(line, spacing_mm)
    n = int(label.max())
    length_mm = np.bincount(label.ravel(), lengths.ravel(), n + 1)[1:]
    around = ndimage.binary_dilation(mask, NEIGHBOURS)
    region = label
    for _ in range(reach_voxels):
        region = np.where((region == 0) & around, ndimage.grey_dilation(region, footprint=NEIGHBOURS), region)
    return Segments(label, region, length_mm)


def _cut(line: np.ndarray, spacing_mm: tuple[float, float]) -> np.ndarray:
    """Numbers on the voxels of a line; junctions have the number of a neighbour."""
    neighbours = ndimage.convolve(line.astype(np.uint8), NEIGHBOURS.astype(np.uint8), mode="constant") - 1
    junction = line & (neighbours > 2)
    pieces, _ = ndimage.label(line & ~junction, NEIGHBOURS)
    rows, columns = np.nonzero(pieces)
    # squares of a checkerboard cut long pieces; unlike a walk along the line this needs no order of voxels
    side = [max(SHORTEST_VOXELS, int(LONGEST_MM / mm)) for mm in spacing_mm]
    key = np.stack([pieces[rows, columns], rows // side[0], columns // side[1]], 1)
    label = np.zeros(line.shape, np.int32)
    if len(key):
        label[rows, columns] = np.unique(key, axis=0, return_inverse=True)[1].ravel() + 1
    lone = junction.copy()
    for _ in range(3):  # a junction can be several voxels wide
        label = np.where(lone & (label == 0), ndimage.grey_dilation(label, footprint=NEIGHBOURS), label)
    lone &= label == 0
    label[lone] = np.arange(1, lone.sum() + 1) + label.max()
    return label


def _merged(label: np.ndarray) -> np.ndarray:
    """Pieces of fewer than `SHORTEST_VOXELS` join a segment that they touch. The numbers are then without gaps."""
    sizes = np.bincount(label.ravel())
    small = (sizes < SHORTEST_VOXELS)[label] & (label > 0)
    if small.any():
        kept = np.where(small, 0, label)
        touching = ndimage.grey_dilation(kept, footprint=NEIGHBOURS)
        label = np.where(small & (touching > 0), touching, label)
    used = np.unique(label)
    numbers = np.zeros(int(used.max()) + 1, np.int32)
    numbers[used[used > 0]] = np.arange(1, (used > 0).sum() + 1)
    return numbers[label]
