"""Scans on a grid of cubes, on which detectors of nodules work: the same physical size on every scan."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from uhrct.core.hu import FLOOR_HU

#: side of the cubes: a nodule of 3 mm has four of them across
CUBE_MM = 0.8


@dataclass(frozen=True)
class EvenGrid:
    """A part of a scan on cubes of `CUBE_MM`.

    Parameters
    ----------
    hu : float32 tensor (z, y, x)
    first : first voxel of the part in the scan, (z, y, x)
    per_cube : voxels of the scan per cube along each axis
    """

    hu: Tensor
    first: np.ndarray
    per_cube: np.ndarray

    @classmethod
    def of(cls, hu: np.ndarray, spacing_mm: tuple[float, ...], part: tuple[slice, ...]) -> EvenGrid:
        """Resample a part of a scan (z, y, x): means over voxels that are smaller than a cube, then linear."""
        image = torch.from_numpy(np.maximum(hu[part], FLOOR_HU).astype(np.float32))[None, None]
        first = np.array([s.start for s in part], float)
        shape = [max(1, round(n * mm / CUBE_MM)) for n, mm in zip(image.shape[2:], spacing_mm, strict=True)]
        per_cube = np.array([n / m for n, m in zip(image.shape[2:], shape, strict=True)])
        if any(f >= 2 for f in per_cube):
            coarse = [m if f >= 2 else n for n, m, f in zip(image.shape[2:], shape, per_cube, strict=True)]
            image = F.adaptive_avg_pool3d(image, (coarse[0], coarse[1], coarse[2]))
        image = F.interpolate(image, shape, mode="trilinear", align_corners=False)
        return cls(image[0, 0], first, per_cube)

    def mask(self, mask: np.ndarray, part: tuple[slice, ...]) -> np.ndarray:
        """A mask of the scan on this grid, by the nearest voxel."""
        index = [
            np.minimum(((np.arange(m) + 0.5) * f).astype(int), n - 1)
            for m, f, n in zip(self.hu.shape, self.per_cube, mask[part].shape, strict=True)
        ]
        return np.asarray(mask[part][np.ix_(*index)])

    def to_scan(self, place: np.ndarray) -> np.ndarray:
        """Array coordinates of the scan for places (..., 3) of this grid. Whole numbers are voxel centres.

        Example
        -------
        >>> hu = np.zeros((10, 20, 20), np.int16)
        >>> grid = EvenGrid.of(hu, (1.6, 0.4, 0.4), (slice(0, 10), slice(4, 20), slice(0, 20)))
        >>> grid.hu.shape, grid.to_scan(np.array([0.5, 0.0, 0.0])).tolist()
        (torch.Size([20, 8, 10]), [0.0, 4.5, 0.5])
        """
        return self.first + (np.asarray(place, float) + 0.5) * self.per_cube - 0.5

    def from_scan(self, voxel: np.ndarray) -> np.ndarray:
        """The inverse of `to_scan`."""
        return (np.asarray(voxel, float) + 0.5 - self.first) / self.per_cube - 0.5
