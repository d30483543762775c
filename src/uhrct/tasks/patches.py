"""Patches of scans and masks for training, each the same for the same step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from uhrct.core.errors import UhrctError
from uhrct.core.hu import FLOOR_HU
from uhrct.tasks.cases import Case

#: share of the patches around a voxel of the mask; the others lie anywhere
ON_MASK = 0.67
#: a patch is cut this much smaller or larger in plane, then resampled
ZOOM = (0.8, 1.25)
#: standard deviation of the added noise, up to this many HU
NOISE_HU = 40.0


@dataclass(frozen=True)
class PatchBatch:
    """hu : (B, 1, z, y, x) float32;  mask : (B, 1, z, y, x) float32 of 0 and 1"""

    hu: Tensor
    mask: Tensor


class PatchMaker:
    """Makes the batch of any step.

    Parameters
    ----------
    cases : list of Case
    patch : (z, y, x) voxels
    batch : patches per step
    """

    def __init__(
        self, cases: list[Case], patch: tuple[int, int, int], batch: int, *, seed: int, device: torch.device
    ) -> None:
        if any(side % 8 or side < 8 for side in patch):
            raise UhrctError(f"data.patch={list(patch)}: give multiples of 8")
        self.patients, self.patch, self.batch, self.seed, self.device = cases, patch, batch, seed, device
        self.left_out: list[str] = []
        self.shares = np.array([case.weight for case in cases]) / sum(case.weight for case in cases)
        self.marked = [np.flatnonzero(case.mask) for case in cases]

    def __call__(self, step: int, rank: int = 0) -> PatchBatch:
        """The batch of a step."""
        rng = np.random.default_rng([self.seed, step, rank])
        pairs = [self._patch(rng) for _ in range(self.batch)]
        hu, mask = (torch.stack(tensors)[:, None].to(self.device) for tensors in zip(*pairs, strict=True))
        return PatchBatch(hu, mask)

    def _patch(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        number = int(rng.choice(len(self.patients), p=self.shares))
        case, marked = self.patients[number], self.marked[number]
        if len(marked) and rng.random() < ON_MASK:
            middle = np.array(np.unravel_index(rng.choice(marked), case.mask.shape))
        else:
            middle = rng.integers(case.mask.shape)
        zoom = float(np.exp(rng.uniform(*np.log(ZOOM))))
        source = np.array([self.patch[0], *(round(side * zoom) for side in self.patch[1:])])
        start = middle - rng.integers(source // 4, source - source // 4)
        hu = torch.from_numpy(_cut(case.hu, start, source, FLOOR_HU)).float()
        mask = torch.from_numpy(_cut(case.mask, start, source, 0)).float()
        hu = _resized(hu, self.patch)
        mask = (_resized(mask, self.patch) >= 0.5).float()
        axes = [axis for axis in range(3) if rng.random() < 0.5]
        hu, mask = hu.flip(axes), mask.flip(axes)
        if self.patch[1] == self.patch[2] and rng.random() < 0.5:
            hu, mask = hu.mT, mask.mT
        noise = torch.from_numpy(rng.standard_normal(self.patch, np.float32))
        if rng.random() < 0.5:  # noise of a soft kernel: neighbours are alike
            noise = F.avg_pool3d(noise[None], (1, 3, 3), 1, (0, 1, 1))[0] * 3
        return hu + noise * float(rng.uniform(0, NOISE_HU)), mask


def _cut(volume: np.ndarray, start: np.ndarray, size: np.ndarray, outside: float) -> np.ndarray:
    """A box of a volume; beyond its ends `outside`."""
    low = start.clip(0, volume.shape)
    high = (start + size).clip(0, volume.shape)
    out = np.full(size, outside, volume.dtype)
    inner = tuple(slice(a - s, b - s) for a, b, s in zip(low, high, start, strict=True))
    out[inner] = volume[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    return out


def _resized(volume: Tensor, size: tuple[int, int, int]) -> Tensor:
    if tuple(volume.shape) == size:
        return volume
    return F.interpolate(volume[None, None], size, mode="trilinear", align_corners=False)[0, 0]
