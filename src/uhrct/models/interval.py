"""The network that says how far the truth may lie below and above the posterior mean.

It is small: it sees the slice, what the mean network added to the interpolation, and the kernel of the scan. It
predicts two widths in HU for each voxel of the result. In training they are the 5 % and 95 % quantiles of truth minus
mean. It is not told the other scan properties: on coarse pixels, anatomy can pass for noise of more than 100 HU, and
the intervals would become as wide.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from uhrct.models.dssp import DSSP
from uhrct.models.settings import Settings

#: share of the voxels that an interval shall hold; each of its sides misses half of the rest
LEVEL = 0.9
#: HU at which the inputs begin to be compressed, and the width that a network of zeros gives
FINE_HU = 10.0
#: bounds of the logarithm of a width: 0.1 to 4000 HU
LOG_WIDTH = (-4.6, 6.0)


class IntervalSize(Settings):
    """The size of the interval network. It has one stream of the kind of `uhrct.models.dssp.DSSP`."""

    #: features, and residual blocks
    width: Annotated[int, Field(ge=1, le=256)] = 32
    blocks: Annotated[int, Field(ge=0, le=16)] = 2


#: side in pixels of the square over which fine detail is averaged
WINDOW_PX = 15
#: numbers in `kernel_input`
N_KERNEL = 2


def interval_network(size: IntervalSize, *, slices: int, sub_voxels: int) -> DSSP:
    """A new network. Its outputs are the logarithms of the widths below, then those above, for each sub-voxel."""
    return DSSP(
        inputs=slices + 2 + sub_voxels,
        sub_voxels=2 * sub_voxels,
        noisy=False,
        properties=N_KERNEL,
        exact_input=False,
        image_width=size.width,
        image_blocks=size.blocks,
        structure_width=0,
        fusion_blocks=0,
    )


def kernel_input(kernel_lp_cm: float | None, fine_mm: float) -> list[float]:
    """What the network is told about the kernel: whether it is known, and how sharp it is on pixels of the result.

    A sharp kernel makes noise that coarse pixels average out and fine pixels would show.

    Parameters
    ----------
    kernel_lp_cm : 50 % point of its MTF in line pairs per cm;  fine_mm : pixel of the result

    Example
    -------
    >>> kernel_input(None, 0.35), kernel_input(10.0, 0.5)
    ([0.0, 0.0], [1.0, 0.0])
    """
    if kernel_lp_cm is None:
        return [0.0, 0.0]
    return [1.0, math.log2(2 * kernel_lp_cm / 10 * fine_mm)]  # 0: half of the contrast at the finest possible detail


def interval_inputs(x: Tensor, lr_hu: Tensor, residual_hu: Tensor) -> Tensor:
    """The inputs of the network, (B, slices + 2 + sub-voxels, y, x).

    Parameters
    ----------
    x : (B, slices, y, x) normalised slice and neighbours
    lr_hu : (B, 1, y, x), HU: the slice. What it has beyond its mean over 3 x 3 pixels shows its noise.
    residual_hu : (B, sub-voxels, y, x), HU: mean minus interpolation
    """
    detail = (lr_hu - _local_mean(lr_hu, 3)) / FINE_HU
    amount = torch.log1p(_local_mean(detail.abs(), WINDOW_PX))
    return torch.cat([x, torch.asinh(detail), amount, torch.asinh(residual_hu / FINE_HU)], 1)


def _local_mean(image: Tensor, side: int) -> Tensor:
    """Mean over squares; beyond the border the outermost pixels are repeated."""
    half = side // 2
    return F.avg_pool2d(F.pad(image, (half, half, half, half), mode="replicate"), side, 1)


def widths_hu(outputs: Tensor) -> tuple[Tensor, Tensor]:
    """(width below, width above) in HU, each (B, sub-voxels, y, x), from the outputs of the network.

    Example
    -------
    >>> below, above = widths_hu(torch.zeros(1, 8, 2, 2))
    >>> below.shape, float(above[0, 0, 0, 0])
    (torch.Size([1, 4, 2, 2]), 10.0)
    """
    below, above = (FINE_HU * outputs.clamp(*LOG_WIDTH).exp()).chunk(2, 1)
    return below, above
