"""SRCNN: three convolutions on the interpolated image.

Dong, Loy, He, Tang, "Image super-resolution using deep convolutional networks", IEEE TPAMI 2016,
doi 10.1109/TPAMI.2015.2439281.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from uhrct.benchmark.peers.peer import Peer, exact


class SRCNN(Peer):
    """Kernels 9-5-5 with 64 and 32 features, the strongest published variant; mean squared error, no residual.

    Parameters
    ----------
    scale : int
        Not used, because the network sees the interpolated image.
    middle : int
        Side of the middle kernel: 5, or 1 for the smallest published variant (9-1-5).
    """

    def __init__(self, scale: int, middle: int = 5) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 64, 9, padding=4)
        self.mapping = nn.Conv2d(64, 32, middle, padding=middle // 2)
        self.reconstruction = nn.Conv2d(32, 1, 5, padding=2)

    def forward(self, x: Tensor, up: Tensor) -> Tensor:
        f = F.relu(self.patches(up))
        return exact(self.reconstruction, F.relu(self.mapping(f)))
