"""Resample slabs of a volume to another grid with the same first corner, while they arrive."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from uhrct.core.hu import FLOOR_HU, PADDING_HU
from uhrct.core.volume import Grid
from uhrct.physics.resampling import apply_in_plane, as_tensor, resize_matrix


@dataclass
class Regrid:
    """Cubic resampling of slices that arrive in ascending z, antialiased where the grid gets coarser.

    Example
    -------
    >>> grid = Grid((4, 6, 6), (1.0, 0.5, 0.5))
    >>> regrid = Regrid(grid, grid.resampled((2.0, 0.75, 0.75)))
    >>> [regrid.feed(np.zeros((2, 6, 6))).shape for _ in range(2)]
    [(0, 4, 4), (2, 4, 4)]
    """

    source: Grid
    target: Grid
    #: for HU images: padding keeps its value and does not mix with its neighbours
    padded: bool = True
    _held: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)
    _arrived: int = 0
    _done: int = 0

    def __post_init__(self) -> None:
        self._along_z, self._nearest_z = self._axis(0), self._nearest(0)
        self._needs = [(row != 0).nonzero()[0] for row in self._along_z]

    def feed(self, slab: np.ndarray) -> np.ndarray:
        """Take the next slices (k, y, x) of the source; return the slices of the target that are complete now."""
        for image in slab:
            self._held[self._arrived] = self._in_plane(torch.from_numpy(np.asarray(image, np.float32)))
            self._arrived += 1
        ready = []
        while self._done < len(self._needs):
            needs, nearest = self._needs[self._done], int(self._nearest_z[self._done])
            if max(int(needs[-1]), nearest) >= self._arrived:
                oldest = min(int(needs[0]), nearest)
                self._held = {k: v for k, v in self._held.items() if k >= oldest}
                break
            ready.append(self._row(self._along_z[self._done], needs, nearest))
            self._done += 1
        return np.stack(ready) if ready else np.empty((0, *self.target.shape[1:]), np.float32)

    def _row(self, weights: np.ndarray, needed: np.ndarray, nearest: int) -> np.ndarray:
        out = torch.zeros_like(self._held[nearest][0])
        for k in needed:
            out += float(weights[k]) * self._held[int(k)][0]
        padding = self._held[nearest][1]
        return torch.where(torch.isnan(padding), out, padding).numpy()

    def _in_plane(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(resampled slice, image with the padding where the nearest voxel is padding and NaN elsewhere)."""
        outside = image <= PADDING_HU if self.padded else torch.zeros_like(image, dtype=torch.bool)
        rows, columns = (as_tensor(self._axis(a), image) for a in (1, 2))
        fine = apply_in_plane(image.masked_fill(outside, FLOOR_HU), rows, columns)
        padding = torch.where(outside, image, torch.nan)
        y, x = (torch.from_numpy(self._nearest(a)) for a in (1, 2))
        return fine, padding[y][:, x]

    def _axis(self, axis: int) -> np.ndarray:
        step = self.target.spacing_mm[axis] / self.source.spacing_mm[axis]
        if abs(step - 1) < 1e-9:  # same spacing: the weights are 0 and 1
            return np.eye(self.target.shape[axis], self.source.shape[axis])
        return resize_matrix(self.source.shape[axis], self.target.shape[axis], step)

    def _nearest(self, axis: int) -> np.ndarray:
        step = self.target.spacing_mm[axis] / self.source.spacing_mm[axis]
        index = np.floor((np.arange(self.target.shape[axis]) + 0.5) * step).astype(int)
        return index.clip(0, self.source.shape[axis] - 1)
