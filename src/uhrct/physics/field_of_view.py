"""The part of a slice outside the field of view, which scanners fill with a constant."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from uhrct.core.hu import FLOOR_HU, PADDING_HU

#: fills that are no padding value are this dense or less. Air that was measured, or made for a phantom, is denser.
FILL_HU = -1010.0
#: smallest radius of a field of view, in sides of the slice
SMALLEST = 0.45
#: so many points of the edge must lie within so many pixels of one circle
POINTS, SHARE, APART_PX = 24, 0.95, 1.5
#: a rim with so many voxels of tissue cuts the patient
TISSUE_HU, TISSUE_VOXELS = -300.0, 10
#: pixels over which tissue is continued: as many as the networks see at once
REACH_PX = 20


def outside_view(slices: Tensor) -> Tensor:
    """Where slices (n, y, x) in HU show nothing that was measured: bool (n, y, x).

    That is padding (-1500 HU and below), and a constant of air density outside a circle around the middle.

    Example
    -------
    >>> y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    >>> scan = torch.where(torch.hypot(y - 31.5, x - 31.5) < 32, 40 + torch.randn(64, 64), -1024.0)
    >>> outside = outside_view(scan[None])[0]
    >>> bool(outside[0, 0]), bool(outside[32, 0]), bool(outside[32, 32])
    (True, False, False)
    """
    outside = slices <= PADDING_HU
    for k, one in enumerate(slices):
        fill = one[[0, 0, -1, -1], [0, -1, 0, -1]].min()
        if PADDING_HU < fill <= FILL_HU:
            circle = _circle(_edge(one == fill))
            if circle is not None and circle[2] >= SMALLEST * max(one.shape):
                y, x = (torch.arange(n, device=one.device, dtype=torch.float64) for n in one.shape)
                distance = torch.hypot(y[:, None] - circle[0], x - circle[1])
                outside[k] = (one == fill) & (distance > circle[2] - APART_PX)
    return outside


def _edge(fill: Tensor) -> Tensor:
    """(n, 2) places where the fill ends, seen from each side of a slice."""
    found = []
    for turned in (False, True):
        image = fill.T if turned else fill
        for flipped in (False, True):
            lines = image.flip(1) if flipped else image
            n = lines.shape[1]
            first = (~lines).to(torch.uint8).argmax(1)  # the first voxel of each line that is not filled
            rows = torch.nonzero(lines[:, 0] & (~lines).any(1))[:, 0]
            along = n - 1 - first[rows] if flipped else first[rows]
            found.append(torch.stack([along, rows] if turned else [rows, along], 1))
    return torch.cat(found).double()


def _circle(points: Tensor) -> tuple[float, float, float] | None:
    """(y, x, radius) of the circle through points (n, 2), by linear least squares; None if they lie on no circle."""
    if len(points) < POINTS:
        return None
    design = torch.cat([2 * points, torch.ones_like(points[:, :1])], 1)
    y, x, rest = torch.linalg.lstsq(design, points.square().sum(1, keepdim=True)).solution[:, 0].tolist()
    if not rest + y**2 + x**2 > 0:
        return None
    radius = (rest + y**2 + x**2) ** 0.5
    apart = (torch.hypot(points[:, 0] - y, points[:, 1] - x) - radius).abs()
    return (y, x, radius) if (apart <= APART_PX).float().mean() >= SHARE else None


def continued(slices: Tensor, outside: Tensor) -> Tensor:
    """Slices (n, y, x) with air outside the view; where the view cuts the patient, tissue goes on for some pixels.

    A step from tissue to air at the edge of the view is not in the patient, and would ring.
    """
    out = slices.masked_fill(outside, FLOOR_HU)
    for k in range(len(slices)):
        if not outside[k].any():
            continue
        if k and torch.equal(slices[k], slices[k - 1]):  # the first and last slices of a scan are their own neighbours
            out[k] = out[k - 1]
            continue
        rim = outside[k] ^ (_neighbours(outside[k : k + 1].float())[0] > 0)
        if (slices[k][rim] > TISSUE_HU).sum() >= TISSUE_VOXELS:
            grown = _grown(out[k : k + 1].float(), ~outside[k : k + 1])[0]
            out[k] = torch.where(outside[k], grown, out[k]).to(out.dtype)
    return out


def continued_padding(slices: Tensor) -> Tensor:
    """`continued` for slices (n, y, x) whose padding is all that lies outside the view, without decisions in Python.

    A graph for other programs can hold it.

    Example
    -------
    >>> slices = torch.full((1, 32, 32), 40.0)
    >>> slices[:, :, :16] = -2000
    >>> continued_padding(slices)[0, 16, [0, 8, 24]].tolist()
    [40.0, 40.0, 40.0]
    """
    outside = slices <= PADDING_HU
    air = torch.where(outside, FLOOR_HU, slices)
    rim = ~outside & (_neighbours(outside.to(slices.dtype)) > 0)
    cut = ((slices > TISSUE_HU) & rim).sum((1, 2)) >= TISSUE_VOXELS
    return torch.where(outside & cut[:, None, None], _grown(air, ~outside), air)


def _grown(images: Tensor, inside: Tensor) -> Tensor:
    """`images` (n, y, x), in which voxels outside get the mean of their neighbours, step by step from the edge.

    Squares of two pixels take part as one: that is eight times as fast, and nobody sees this part.
    """
    _, height, width = images.shape
    known = F.pad(inside.to(images.dtype), (0, 1, 0, 1))  # pooling leaves out what does not fill a square
    weight = F.avg_pool2d(known, 2)
    mean = F.avg_pool2d(F.pad(images, (0, 1, 0, 1), value=FLOOR_HU) * known, 2)
    squares = torch.where(weight > 0, mean / weight.clamp(min=1e-6), FLOOR_HU)
    held = (weight > 0).to(images.dtype)
    for _ in range(REACH_PX // 2):
        weight, spread = _neighbours(held), _neighbours(squares * held)
        new = (held == 0) & (weight > 0)
        squares = torch.where(new, spread / weight.clamp(min=1e-6), squares)
        held = torch.where(new, 1.0, held)
    return squares.repeat_interleave(2, 1).repeat_interleave(2, 2)[:, :height, :width]


def _neighbours(planes: Tensor) -> Tensor:
    """The sum over 3 x 3 pixels around each one, (n, y, x). `avg_pool2d` and `max_pool2d` take ten times as long."""
    wide = F.pad(planes, (1, 1, 1, 1))
    rows = wide[..., :-2] + wide[..., 1:-1] + wide[..., 2:]
    return rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
