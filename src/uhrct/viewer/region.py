"""Regions of volumes: the same place in each volume, as voxels of its own grid, and how coarsely it is shown."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from uhrct.core.errors import UhrctError
from uhrct.core.volume import Grid, Volume

Three = tuple[int, int, int]

#: Longest side of a 3D texture that every current graphics card takes.
LONGEST_SIDE = 2048
#: Grids of which one voxel holds more than so many voxels of the other are not aligned.
_LARGEST_UNIT = 64
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Region:
    """Voxels `start` to `stop` (exclusive) along (z, y, x), shown as means of `step` voxels along each axis."""

    start: Three
    stop: Three
    step: Three = (1, 1, 1)

    @property
    def size(self) -> Three:
        """Number of voxels along (z, y, x) before means are taken."""
        z, y, x = (b - a for a, b in zip(self.start, self.stop, strict=True))
        return z, y, x

    @property
    def shown(self) -> Three:
        """Number of voxels along (z, y, x) that are shown."""
        z, y, x = (n // s for n, s in zip(self.size, self.step, strict=True))
        return z, y, x


def parsed_box(text: str, shape: Three) -> Region:
    """The box of ``z0:z1,y0:y1,x0:x1`` in voxels, the last ones exclusive.

    Raises
    ------
    UhrctError
        If the text has another form, or the box leaves a volume of this shape.

    Example
    -------
    >>> parsed_box("0:2,10:30,5:25", (4, 40, 40)).size
    (2, 20, 20)
    """
    found = re.fullmatch(r"\s*(\d{1,6}):(\d{1,6})\s*,\s*(\d{1,6}):(\d{1,6})\s*,\s*(\d{1,6}):(\d{1,6})\s*", text, re.A)
    if not found:
        raise UhrctError(
            f"`box` is {text[:60]!r}; give z0:z1,y0:y1,x0:x1 in voxels of the result, such as 10:40,0:256,0:256"
        )
    z0, z1, y0, y1, x0, x1 = (int(n) for n in found.groups())
    region = Region((z0, y0, x0), (z1, y1, x1))
    if min(region.size) < 1 or any(b > n for b, n in zip(region.stop, shape, strict=True)):
        z, y, x = shape
        raise UhrctError(f"`box` is {text.strip()}; the result has the voxels 0:{z},0:{y},0:{x}, give a part of them")
    return region


def region_on(region: Region, grid: Grid, other: Grid) -> Region:
    """The voxels of `other` that cover `region` of `grid`, clipped to those that exist. It may be empty.

    Example
    -------
    >>> fine = Grid((4, 8, 8), (2.0, 0.5, 0.5), (-0.25, -0.25, 0.0))
    >>> region_on(Region((1, 2, 2), (3, 6, 6)), fine, Grid((4, 4, 4), (2.0, 1.0, 1.0)))
    Region(start=(1, 1, 1), stop=(3, 3, 3), step=(1, 1, 1))
    """
    shift_mm = grid.direction.T @ (np.asarray(grid.corner_mm) - np.asarray(other.corner_mm))
    start, stop = [], []
    for axis in range(3):
        first, last = (
            (shift_mm[axis] + k * grid.spacing_mm[axis]) / other.spacing_mm[axis]
            for k in (region.start[axis], region.stop[axis])
        )
        low = min(max(0, math.floor(first + _TOLERANCE)), other.shape[axis])
        start.append(low)
        stop.append(max(low, min(other.shape[axis], math.ceil(last - _TOLERANCE))))
    return Region((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))


def shared_region(grid: Grid, others: Sequence[Grid]) -> Region:
    """The voxels of `grid` that lie in all `others`. It may be empty."""
    start, stop = np.zeros(3, int), np.asarray(grid.shape)
    for other in others:
        part = region_on(Region((0, 0, 0), other.shape), other, grid)
        start, stop = np.maximum(start, part.start), np.minimum(stop, part.stop)
    stop = np.maximum(start, stop)
    return Region(_three(start), _three(stop))


def aligned(region: Region, grid: Grid, others: Sequence[tuple[Grid, Three]], *, within: Region, grow: bool) -> Region:
    """`region` with edges that are also edges of the blocks of voxels that the other grids show.

    Panes then have the same size in mm, so that the same zoom shows the same part. Grids that do not share edges are
    left out.

    Parameters
    ----------
    others : pairs of a grid and its number of voxels per block
    within : the region that must not be left
    grow : whether edges move outwards (a box that was asked for) or inwards
    """
    start, stop = list(region.start), list(region.stop)
    for axis in range(3):
        unit = region.step[axis]
        for other, step in others:
            ratio = other.spacing_mm[axis] * step[axis] / grid.spacing_mm[axis]
            whole = round(ratio)
            if whole >= 1 and abs(ratio - whole) < _TOLERANCE and math.lcm(unit, whole) <= _LARGEST_UNIT:
                unit = math.lcm(unit, whole)
        low, high = within.start[axis], within.stop[axis]
        first, last = (start[axis] - low) / unit, (stop[axis] - low) / unit
        first, last = (math.floor(first), math.ceil(last)) if grow else (math.ceil(first), math.floor(last))
        if last > first:
            start[axis], stop[axis] = low + first * unit, min(high, low + last * unit)
    return Region(_three(start), _three(stop), region.step)


def coarse_step(region: Region, spacing_mm: Sequence[float], most_voxels: float) -> Three:
    """How many voxels along (z, y, x) become one, so that at most `most_voxels` are shown.

    The axes with the finest voxels become coarser first. y and x stay equal.

    Example
    -------
    >>> coarse_step(Region((0, 0, 0), (300, 1024, 1024)), (1.0, 0.35, 0.35), 84e6)
    (1, 2, 2)
    """
    z = plane = 1
    while True:
        shown = Region(region.start, region.stop, (z, plane, plane)).shown
        if math.prod(shown) <= most_voxels and max(shown) <= LONGEST_SIDE:
            return z, plane, plane
        if plane * min(spacing_mm[1:]) <= z * spacing_mm[0] and plane < min(region.size[1:]):
            plane += 1
        else:
            z += 1


def cut(volume: Volume, region: Region) -> Volume:
    """The voxels of a region, as they are, or as means of blocks (int16 stays int16: rounded to 1 HU).

    Voxels at the end that fill no block are left out.

    Example
    -------
    >>> volume = Volume(np.arange(16, dtype=np.int16).reshape(1, 4, 4), (2.0, 1.0, 1.0))
    >>> half = cut(volume, Region((0, 0, 0), (1, 4, 4), (1, 2, 2)))
    >>> half.hu.tolist(), half.spacing_mm, half.origin_mm
    ([[[2, 4], [10, 12]]], (2.0, 2.0, 2.0), (0.5, 0.5, 0.0))
    """
    full = Region(region.start, _three(np.asarray(region.start) + np.asarray(region.shown) * region.step))
    slices = [slice(a, b) for a, b in zip(full.start, full.stop, strict=True)]
    part = volume.hu[slices[0]][:, slices[1], slices[2]]
    origin = np.asarray(volume.origin_mm) + volume.direction @ (np.asarray(volume.spacing_mm) * full.start)
    grid = Grid(full.size, volume.spacing_mm, _floats(origin), volume.direction)
    if region.step != (1, 1, 1):
        part = _means(part, region.step)
        grid = grid.coarsened(region.step)
    return Volume(np.ascontiguousarray(part), grid.spacing_mm, grid.origin_mm, grid.direction)


def _means(part: np.ndarray, step: Three) -> np.ndarray:
    """Means of blocks, a few slices at a time: a large volume needs no copy in another type."""
    z, y, x = (n // s for n, s in zip(part.shape, step, strict=True))
    out = np.empty((z, y, x), part.dtype)
    sums = np.int32 if part.dtype == np.int16 else np.float64
    for k in range(z):
        block = part[k * step[0] : (k + 1) * step[0]]
        rows = block.reshape(step[0], y, step[1], -1).sum((0, 2), dtype=sums)
        mean = sum(rows[:, i :: step[2]] for i in range(step[2])) / math.prod(step)
        out[k] = np.rint(mean) if part.dtype == np.int16 else mean
    return out


def _three(values: Sequence[int] | np.ndarray) -> Three:
    z, y, x = (int(v) for v in values)
    return z, y, x


def _floats(values: np.ndarray) -> tuple[float, float, float]:
    a, b, c = (float(v) for v in values)
    return a, b, c
