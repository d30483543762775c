"""The lung mask of a whole volume in seconds: computed on a coarser grid."""

from __future__ import annotations

import numpy as np
import torch

from uhrct.core.hu import FLOOR_HU, PADDING_HU
from uhrct.core.upright import Upright
from uhrct.evaluation.lungs import lung_mask

#: The mask is computed with voxels of at most this size, so that its edge stays within one voxel of 1 mm.
COARSE_MM = 2.0


def coarse_factors(spacing_mm: tuple[float, ...], coarse_mm: float) -> tuple[int, ...]:
    """Voxels to join along each axis, so that a side is at most `coarse_mm`.

    Example
    -------
    >>> coarse_factors((1.0, 0.7, 0.7), 2.0), coarse_factors((5.0, 0.98, 0.98), 2.0)
    ((2, 2, 2), (1, 2, 2))
    """
    return tuple(max(1, int(coarse_mm / s + 1e-6)) for s in spacing_mm)


def coarsen(hu: np.ndarray, factors: tuple[int, ...]) -> np.ndarray:
    """Means of blocks of voxels in HU, float32. A block that is mostly padding is padding. The last blocks may be
    filled up with the last voxels.

    Example
    -------
    >>> coarsen(np.full((1, 3, 4), -2000, np.int16), (1, 2, 2)).tolist()
    [[[-2000.0, -2000.0], [-2000.0, -2000.0]]]
    """
    fz, fy, fx = factors
    shape = tuple(-(-n // f) for n, f in zip(hu.shape, factors, strict=True))
    coarse = np.empty(shape, np.float32)
    over = [(0, n * f - m) for n, f, m in zip(shape[1:], factors[1:], hu.shape[1:], strict=True)]
    for k in range(shape[0]):
        slab = np.pad(hu[k * fz : (k + 1) * fz], [(0, 0), *over], mode="edge")
        blocks = slab.reshape(len(slab), shape[1], fy, shape[2], fx)
        mean = np.maximum(blocks, FLOOR_HU).mean((0, 2, 4), dtype=np.float32)
        coarse[k] = np.where((blocks <= PADDING_HU).mean((0, 2, 4)) > 0.5, -2000, mean)
    return coarse


def refine(mask: np.ndarray, factors: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray:
    """A mask on the grid before `coarsen`: linear interpolation of the coarse mask, cut at one half."""
    if max(factors) == 1:
        return mask.copy()
    fz, fy, fx = factors
    fine = np.empty(shape, bool)
    coarse = torch.from_numpy(mask).float()
    for z in range(shape[0]):
        at = min(max((z + 0.5) / fz - 0.5, 0.0), len(coarse) - 1.0)
        low = int(at)
        plane = torch.lerp(coarse[low], coarse[min(low + 1, len(coarse) - 1)], at - low)
        wide = torch.nn.functional.interpolate(plane[None, None], scale_factor=(fy, fx), mode="bilinear")[0, 0]
        fine[z] = wide.numpy()[: shape[1], : shape[2]] >= 0.5
    return fine


def fast_lung_mask(hu: np.ndarray, spacing_mm: tuple[float, float, float], *, quiet: bool = True) -> np.ndarray:
    """`uhrct.evaluation.lungs.lung_mask` of a volume, computed with voxels of at most 2 mm.

    Parameters
    ----------
    hu : array (z, y, x), HU
    spacing_mm : (z, y, x)
    quiet : bool
        False shows progress.

    Returns
    -------
    ndarray of bool, shaped like `hu`
        All False where no lung was found.

    Example
    -------
    >>> y, x = np.mgrid[:100, :100]
    >>> chest = np.where(np.hypot(y - 50, x - 50) < 45, 40, -1000)
    >>> chest[np.hypot(y - 50, x - 35) < 12] = -850  # a lung
    >>> mask = fast_lung_mask(chest[None].repeat(2, 0), (5.0, 1.0, 1.0))
    >>> bool(mask[1, 50, 35]), bool(mask[1, 50, 65])
    (True, False)
    """
    factors = coarse_factors(spacing_mm, COARSE_MM)
    coarse_mm = tuple(s * f for s, f in zip(spacing_mm, factors, strict=True))
    return refine(lung_mask(coarsen(hu, factors), coarse_mm, quiet=quiet), factors, hu.shape)


def lungs_of(
    hu: np.ndarray, spacing_mm: tuple[float, float, float], direction: np.ndarray, *, quiet: bool = True
) -> np.ndarray:
    """`fast_lung_mask` in axial slices, whatever the order of the axes is.

    Parameters
    ----------
    hu : array (z, y, x), HU
    spacing_mm, direction : as in `Volume`
    quiet : bool
        False shows progress.
    """
    turn = Upright.of(direction)
    return turn.back(fast_lung_mask(turn.turned(hu), turn.spacing(spacing_mm), quiet=quiet))
