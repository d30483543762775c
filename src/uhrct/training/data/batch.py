"""What a training step sees, and how losses cut its images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from uhrct.models.dssp import to_channels
from uhrct.physics.scan_properties import ScanProperties

Scale = tuple[int, int, int]

#: LR pixels of margin around a crop, so that PSF, interpolation and structure operator do not see its edge
MARGIN = 6


@dataclass(frozen=True)
class Batch:
    """What a training step sees; `spacing_mm` is that of the LR pixels of each item."""

    lr_hu: Tensor  # (B, n, y, x): slice and neighbours
    hr_hu: Tensor  # (B, sz, y', x'): the fine slices inside the middle one
    spacing_mm: list[tuple[float, float]]
    properties: Tensor | None = None  # (B, k): scan properties of each item, as the networks are told them
    scans: tuple[ScanProperties, ...] = ()  # the scan properties of each item, without error
    increment_mm: tuple[float, ...] = ()  # distance between the LR slices of each item
    structure: Tensor | None = None  # (B, sz, y', x'): exact structure map in [0, 1], NaN where it is unknown
    lungs: Tensor | None = None  # (B, sz, y', x') bool, if they were asked for
    kernel: Tensor | None = None  # (B, 2): what the interval network is told (`uhrct.models.interval.kernel_input`)


def cut_margin(image: Tensor, margin: int) -> Tensor:
    """The inner part of (..., y, x)."""
    return image[..., margin:-margin, margin:-margin]


def exact_map(per_mille: Tensor) -> Tensor:
    """A stored structure map (see `uhrct.training.data.phantoms`) in [0, 1], with NaN where it is unknown.

    Example
    -------
    >>> exact_map(torch.tensor([-1.0, 0.0, 500.0]))
    tensor([   nan, 0.0000, 0.5000])
    """
    return torch.where(per_mille < 0, torch.nan, per_mille / 1000)


def hr_crop(hr: Tensor, scale: Scale) -> Tensor:
    """HR images (B, sz, y', x') without their margin."""
    _, sy, sx = scale
    return hr[..., MARGIN * sy : -MARGIN * sy, MARGIN * sx : -MARGIN * sx]


def hr_spacing(batch: Batch, scale: Scale) -> list[tuple[float, float]]:
    """Spacing of the HR pixels (y, x) of each item, in mm."""
    _, sy, sx = scale
    return [(a / sy, b / sx) for a, b in batch.spacing_mm]


def lr_channels(hr: Tensor, scale: Scale) -> Tensor:
    """HR (B, sz, y', x'), margin included, as sub-voxel channels (B, sz sy sx, y, x) of the crop."""
    return cut_margin(to_channels(hr, *scale[1:]), MARGIN)
