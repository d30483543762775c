"""Cut the centre lines of vessels or airways into short segments, and add up values along each."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy import ndimage

from uhrct.structure.lengths import line_lengths
from uhrct.structure.vessels import skeleton

NEIGHBOURS = np.ones((3, 3), bool)
#: Longest segment. A grade must be able to change along a vessel, and a short piece holds too little evidence.
LONGEST_MM = 6.0
#: Shorter pieces join the segment that they touch.
SHORTEST_VOXELS = 3
#: How far from its line a segment gathers evidence, in voxels.
REACH_VOXELS = 3

STEPS = [step for step in product((-1, 0, 1), repeat=2) if any(step)]


@dataclass(frozen=True)
class Places:
    """Voxels of a slice and the number of the segment that each belongs to, from 0: three arrays of one length.

    Lists of voxels are used instead of images: structures fill a few percent of a slice.
    """

    rows: np.ndarray
    columns: np.ndarray
    numbers: np.ndarray

    def of(self, values: np.ndarray) -> np.ndarray:
        """The values (y, x) on these voxels."""
        return np.asarray(values[self.rows, self.columns])


@dataclass(frozen=True)
class Segments:
    """Short pieces of the centre lines in one slice.

    Attributes
    ----------
    shape : (y, x) of the slice
    line : Places
        The voxels of the centre lines.
    region : Places
        The voxels of the structures around them, for sums over a structure.
    length_mm : array (n,)
        Length of each segment.
    """

    shape: tuple[int, int]
    line: Places
    region: Places
    length_mm: np.ndarray

    @property
    def count(self) -> int:
        return len(self.length_mm)

    @property
    def voxels(self) -> np.ndarray:
        """Number of voxels of each centre line, (n,)."""
        return np.bincount(self.line.numbers, minlength=self.count)

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Mean of values (y, x) along the centre line of each segment, (n,)."""
        return self.mean_of(self.line.of(values))

    def mean_of(self, values: np.ndarray) -> np.ndarray:
        """The same for values on the voxels of the lines."""
        return np.bincount(self.line.numbers, values, self.count) / np.maximum(self.voxels, 1)

    def total(self, values: np.ndarray) -> np.ndarray:
        """Sum of values (y, x) over the structure around each segment, (n,)."""
        return np.bincount(self.region.numbers, self.region.of(values), self.count)

    def largest_near(self, values: np.ndarray) -> np.ndarray:
        """Largest of the values (y, x) within one voxel of each voxel of the lines."""
        padded = np.pad(values, 1, mode="edge")
        near = [padded[self.line.rows + 1 + dy, self.line.columns + 1 + dx] for dy, dx in [(0, 0), *STEPS]]
        return np.asarray(np.max(near, axis=0)) if self.count else np.zeros(0)


def segments(mask: np.ndarray, spacing_mm: tuple[float, float]) -> Segments:
    """The centre lines of a mask, cut at junctions and into pieces of `LONGEST_MM` or less.

    Parameters
    ----------
    mask : bool array (y, x)
    spacing_mm : (y, x)

    Example
    -------
    >>> mask = np.zeros((9, 40), bool)
    >>> mask[4, 2:38] = True
    >>> found = segments(mask, (0.5, 0.5))
    >>> found.count, round(float(found.length_mm.sum()), 1)
    (4, 17.5)
    """
    line = skeleton(mask)
    rows, columns = np.nonzero(line)
    label = np.zeros(line.shape, np.int32)
    label[rows, columns] = _merged(label, rows, columns, _cut(line, rows, columns, spacing_mm)) + 1
    numbers = label[rows, columns] - 1
    count = int(numbers.max(initial=-1)) + 1
    length_mm = np.bincount(numbers, line_lengths(line, spacing_mm)[rows, columns], count)
    region = _grown(label, rows, columns, mask)
    return Segments((line.shape[0], line.shape[1]), Places(rows, columns, numbers), region, length_mm)


def _cut(line: np.ndarray, rows: np.ndarray, columns: np.ndarray, spacing_mm: tuple[float, float]) -> np.ndarray:
    """A number for each voxel of the line, from 0. Junctions are numbered like a neighbour."""
    padded = np.pad(line, 1)
    neighbours = sum(padded[rows + 1 + dy, columns + 1 + dx].astype(int) for dy, dx in STEPS)
    junction = np.asarray(neighbours) > 2
    rest = line.copy()
    rest[rows[junction], columns[junction]] = False
    pieces, _ = ndimage.label(rest, NEIGHBOURS)
    # squares of a checkerboard cut long pieces; unlike a walk along the line this needs no order of voxels
    side = [max(SHORTEST_VOXELS, int(LONGEST_MM / mm)) for mm in spacing_mm]
    key = np.stack([pieces[rows, columns], rows // side[0], columns // side[1]], 1)
    label = np.full(padded.shape, -1, np.int32)
    if not junction.all():
        numbers = np.unique(key[~junction], axis=0, return_inverse=True)[1].ravel()
        label[rows[~junction] + 1, columns[~junction] + 1] = numbers
    for _ in range(3):  # a junction can be several voxels wide
        _join(label, rows[junction], columns[junction])
    lone = label[rows + 1, columns + 1] < 0
    label[rows[lone] + 1, columns[lone] + 1] = label.max() + 1 + np.arange(lone.sum())
    return label[rows + 1, columns + 1]


def _join(label: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> None:
    """Number voxels that have no number (-1) like the neighbour with the highest one. `label` is padded by a voxel."""
    free = label[rows + 1, columns + 1] < 0
    rows, columns = rows[free] + 1, columns[free] + 1
    if len(rows):
        label[rows, columns] = np.max([label[rows + dy, columns + dx] for dy, dx in STEPS], axis=0)


def _merged(label: np.ndarray, rows: np.ndarray, columns: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Pieces of fewer than `SHORTEST_VOXELS` join a segment that they touch. The numbers are then without gaps."""
    if not len(numbers):
        return numbers
    small = np.bincount(numbers)[numbers] < SHORTEST_VOXELS
    kept = np.full((label.shape[0] + 2, label.shape[1] + 2), -1, np.int32)
    kept[rows[~small] + 1, columns[~small] + 1] = numbers[~small]
    _join(kept, rows[small], columns[small])
    joined = kept[rows + 1, columns + 1]
    return np.unique(np.where(joined >= 0, joined, numbers), return_inverse=True)[1].ravel()


def _grown(label: np.ndarray, rows: np.ndarray, columns: np.ndarray, mask: np.ndarray) -> Places:
    """The voxels within `REACH_VOXELS` steps of the lines: inside the mask, and one step beyond it."""
    padded, inside = np.pad(label, 1), np.pad(mask, 1)
    allowed = np.ones_like(inside)
    allowed[[0, -1], :] = allowed[:, [0, -1]] = False  # the padding
    found = [(rows + 1, columns + 1)]
    for step in range(REACH_VOXELS):
        last = step == REACH_VOXELS - 1
        front: list[tuple[np.ndarray, np.ndarray]] = []
        for r, c in list(found) if last else found[-1:]:
            for dy, dx in STEPS:
                to = (r + dy, c + dx)
                free = (padded[to] == 0) & (allowed if last else inside)[to]
                new = (to[0][free], to[1][free])
                padded[new] = padded[r[free], c[free]]
                front.append(new)
        y, x = (np.concatenate([f[k] for f in front]) for k in (0, 1))
        found.append((y, x))
    y, x = (np.concatenate([f[k] for f in found]) for k in (0, 1))
    flat = np.unique(y * padded.shape[1] + x)  # two lines may reach a voxel in one step
    y, x = flat // padded.shape[1], flat % padded.shape[1]
    return Places(y - 1, x - 1, padded[y, x] - 1)
