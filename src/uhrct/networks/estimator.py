"""A small network that estimates from voxels what a scan's PSF, kernel and noise are."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ScanEstimator(nn.Module):
    """LR slices -> the estimated part of `ScanProperties.vector`, one row a slice.

    The one place that pools over an image: its answer is asked for once a scan, before any tile is cut, and handed to
    the networks as numbers.

    Parameters
    ----------
    outputs : numbers to estimate
    width : channels of the first convolution

    Example
    -------
    >>> ScanEstimator(outputs=4, width=4)(torch.zeros(2, 1, 40, 50)).shape
    torch.Size([2, 4])
    """

    def __init__(self, outputs: int = 4, width: int = 24) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, width, 5, padding=2),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, padding=1, stride=2),
            nn.ReLU(),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1, stride=2),
            nn.ReLU(),
        )
        self.head = nn.Sequential(nn.Linear(4 * width, 64), nn.ReLU(), nn.Linear(64, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, y, x) normalised LR slices -> (B, outputs)."""
        with torch.autocast(x.device.type, enabled=False):
            f = self.features(x.float())
            # mean and spread: noise raises features everywhere, blur moves those of edges
            pooled = torch.cat([f.mean((2, 3)), F.relu(f.var((2, 3), unbiased=False)).add(1e-6).sqrt()], 1)
            return self.head(pooled)
