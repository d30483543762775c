"""Where a slice holds nothing but air, so that interpolation can stand for the networks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from uhrct.models.tiling import Box

#: squares of two pixels whose mean is lower are air; lung is denser, and noise seldom lifts air so high
AIR_HU = -900.0
#: input pixels around everything else in which the networks run too: no voxel nearer sees a difference
MARGIN_PX = 16


def occupied(slices: Tensor) -> list[Box]:
    """The box around everything but air in each of the slices (B, y, x), in HU, with a margin. It is never empty.

    Example
    -------
    >>> slices = torch.full((1, 100, 120), -1000.0); slices[0, 40:50, 60:70] = 40.0
    >>> occupied(slices)
    [(24, 66, 44, 86)]
    """
    height, width = slices.shape[-2:]
    dense = F.avg_pool2d(slices[:, None], 2, ceil_mode=True)[:, 0] > AIR_HU
    boxes = []
    for one in dense:
        rows, columns = (one.any(axis).nonzero().flatten() for axis in (1, 0))
        if not len(rows):
            boxes.append((0, 1, 0, 1))
            continue
        top, left = (max(2 * int(found[0]) - MARGIN_PX, 0) for found in (rows, columns))
        bottom, right = (2 * int(found[-1]) + 2 + MARGIN_PX for found in (rows, columns))
        boxes.append((top, min(bottom, height), left, min(right, width)))
    return boxes


def around_all(boxes: list[Box]) -> Box:
    """The smallest box that holds all of them.

    Example
    -------
    >>> around_all([(0, 5, 2, 4), (1, 9, 3, 8)])
    (0, 9, 2, 8)
    """
    tops, bottoms, lefts, rights = zip(*boxes, strict=True)
    return min(tops), max(bottoms), min(lefts), max(rights)


def inside(boxes: list[Box], shape: Sequence[int], scale_y: int, scale_x: int) -> Tensor:
    """Bool (B, 1, y', x'): whether a voxel of the result, `shape` (y', x'), lies in the box of its slice."""
    out = torch.zeros(len(boxes), 1, *shape, dtype=torch.bool)
    for mask, (top, bottom, left, right) in zip(out, boxes, strict=True):
        mask[:, top * scale_y : bottom * scale_y, left * scale_x : right * scale_x] = True
    return out
