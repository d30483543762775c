"""RCAN: residual groups of residual blocks with channel attention on the low-resolution grid.

Zhang, Li, Li, Wang, Zhong, Fu, "Image super-resolution using very deep residual channel attention networks",
ECCV 2018, doi 10.1007/978-3-030-01234-2_18, arXiv 1807.02758.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uhrct.benchmark.peers.peer import Peer, exact


class RCAN(Peer):
    """The published blocks and skips; 64 features, attention reduced by 16, L1.

    The default, 2 groups of 5 blocks (1.0 M parameters at x2), has the size of the light SwinIR, so that a CPU can
    train it in minutes. The published network has groups=10, blocks=20 (15.4 M).
    """

    power = 1

    def __init__(self, scale: int, groups: int = 2, blocks: int = 5, width: int = 64, reduction: int = 16) -> None:
        super().__init__()
        self.head = nn.Conv2d(1, width, 3, padding=1)
        self.groups = nn.Sequential(*(_Group(width, blocks, reduction) for _ in range(groups)))
        self.after = nn.Conv2d(width, width, 3, padding=1)
        stages = [
            layer
            for _ in range(scale // 2)
            for layer in (nn.Conv2d(width, 4 * width, 3, padding=1), nn.PixelShuffle(2))
        ]
        self.upsampling = nn.Sequential(*stages)
        self.tail = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, x: Tensor, up: Tensor) -> Tensor:
        f = self.head(x)
        f = f + self.after(self.groups(f))
        return exact(self.tail, self.upsampling(f))


class _Group(nn.Module):
    def __init__(self, width: int, blocks: int, reduction: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(_Block(width, reduction) for _ in range(blocks)))
        self.after = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, f: Tensor) -> Tensor:
        return f + self.after(self.blocks(f))


class _Block(nn.Module):
    """Two convolutions, then a weight for each channel, computed from the means of all channels over the image."""

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.squeeze = nn.Conv2d(width, max(width // reduction, 1), 1)
        self.excite = nn.Conv2d(max(width // reduction, 1), width, 1)

    def forward(self, f: Tensor) -> Tensor:
        h = self.second(F.relu(self.first(f)))
        means = h.mean((2, 3), keepdim=True)
        return f + h * torch.sigmoid(self.excite(F.relu(self.squeeze(means))))
