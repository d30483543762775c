"""What the voxels of a scan show: where the body lies, whether they were clipped, whether they are a mask."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from uhrct.core.hu import FLOOR_HU

#: limits of the scanners themselves: padding and air below, saturation above. They are not taken for clipping.
NATIVE_LOW_HU, NATIVE_HIGH_HU = -1024, 3000
#: a limit counts as clipped if it has PILE_RATIO times the voxels of the levels just inside, and PILE_VOXELS at least
PILE_RATIO, PILE_VOXELS = 5.0, 16
#: number of levels just inside a limit that it is compared with
NEIGHBOURS = 8

Clipping = tuple[int | None, int | None]


def training_hu(hu: Tensor) -> Tensor:
    """HU as int16 for training. Padding outside the field of view (below -1024) becomes -1024.

    Example
    -------
    >>> training_hu(torch.tensor([-3024.0, 39.6, 40000.0])).tolist()
    [-1024, 40, 32767]
    """
    return hu.clamp(int(FLOOR_HU), 2**15 - 1).round().short()


def training_volume(hu: np.ndarray) -> Tensor:
    """`training_hu` of a volume (z, y, x), slice by slice, without a second copy of the volume."""
    out = torch.empty(hu.shape, dtype=torch.int16)
    for k, plane in enumerate(hu):
        out[k] = training_hu(torch.from_numpy(plane))
    return out


def body_box(hu: Tensor) -> tuple[int, int, int, int]:
    """Rows and columns (y0, y1, x0, x1) of (z, y, x) in which more than 2 % of the voxels are tissue."""
    tissue = torch.zeros(hu.shape[1:], device=hu.device)
    for plane in hu:  # slice by slice, because a mask of the whole volume takes much memory
        tissue += plane > -300
    tissue /= hu.shape[0]
    box = []
    for line in (tissue.mean(1), tissue.mean(0)):
        inside = (line > 0.02).nonzero().flatten()
        box += [int(inside[0]), int(inside[-1]) + 1] if len(inside) else [0, len(line)]
    return box[0], box[1], box[2], box[3]


def clipped_hu(hu: np.ndarray) -> Clipping:
    """The limits to which a volume was clipped, (low, high) in HU; None where it was not clipped.

    A clipped volume has many voxels at exactly its lowest or highest value, and none beyond. The limits of a scanner
    (padding and air at -1024, saturation above 3000) do not count.

    Parameters
    ----------
    hu : array of int16, shape (z, y, x)

    Example
    -------
    >>> scan = np.random.default_rng(0).normal(0, 900, (8, 64, 64)).astype(np.int16)
    >>> clipped_hu(scan), clipped_hu(scan.clip(-1000, 600)), clipped_hu(scan.clip(None, 600))
    ((None, None), (-1000, 600), (None, 600))
    """
    counts = np.zeros(2**16, np.int64)
    for plane in hu:
        counts += np.bincount(plane.ravel().astype(np.int64) + 2**15, minlength=2**16)
    held = counts.nonzero()[0]
    low, high = int(held[0]), int(held[-1])
    if high - low <= 2 * NEIGHBOURS:  # a constant or a mask
        return None, None
    low_end = _piled(counts[low : low + NEIGHBOURS + 1])
    high_end = _piled(counts[high : high - NEIGHBOURS - 1 : -1])
    low, high = low - 2**15, high - 2**15
    return (
        low if low_end and low > NATIVE_LOW_HU else None,
        high if high_end and high < NATIVE_HIGH_HU else None,
    )


def clipping_note(clipping: Clipping) -> str:
    """The note for a series; "" if it was not clipped.

    Example
    -------
    >>> clipping_note((-1000, 600)), clipping_note((None, 600)), clipping_note((None, None))
    ('clipped to [-1000, 600] HU', 'clipped above 600 HU', '')
    """
    low, high = clipping
    if low is not None and high is not None:
        return f"clipped to [{low}, {high}] HU"
    if low is not None:
        return f"clipped below {low} HU"
    return "" if high is None else f"clipped above {high} HU"


def is_mask(hu: np.ndarray) -> bool:
    """Whether the voxels are labels of a segmentation, not HU: few different whole numbers from 0 to 255.

    Example
    -------
    >>> is_mask(np.array([[[0, 1, 2]]])), is_mask(np.array([[[-1000, 0, 40]]]))
    (True, False)
    """
    if hu.dtype.kind == "f" or hu.min() < 0 or hu.max() > 255:
        return False
    return int((np.bincount(hu.ravel()) > 0).sum()) <= 64


def _piled(counts: np.ndarray) -> bool:
    """Whether the first level has many more voxels than those that follow."""
    return bool(counts[0] >= max(PILE_VOXELS, PILE_RATIO * max(counts[1:].mean(), 1)))
