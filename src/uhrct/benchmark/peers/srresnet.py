"""SRResNet: residual blocks with batch normalisation on the low-resolution grid, then sub-pixel convolutions.

Ledig et al., "Photo-realistic single image super-resolution using a generative adversarial network", CVPR 2017,
doi 10.1109/CVPR.2017.19, arXiv 1609.04802 (the generator, trained for mean squared error).
"""

from __future__ import annotations

from torch import Tensor, nn

from uhrct.benchmark.peers.peer import Peer, exact


class SRResNet(Peer):
    """The published network: 16 blocks of 64 features, PReLU, batch normalisation, 9x9 convolutions at both ends.

    Parameters
    ----------
    scale : 2 or 4
        One or two sub-pixel convolutions of x2.
    """

    def __init__(self, scale: int, width: int = 64, blocks: int = 16) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.Conv2d(1, width, 9, padding=4), nn.PReLU())
        self.blocks = nn.Sequential(*(_Block(width) for _ in range(blocks)))
        self.after = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width))
        stages = [
            layer
            for _ in range(scale // 2)
            for layer in (nn.Conv2d(width, 4 * width, 3, padding=1), nn.PixelShuffle(2), nn.PReLU())
        ]
        self.upsampling = nn.Sequential(*stages)
        self.tail = nn.Conv2d(width, 1, 9, padding=4)

    def forward(self, x: Tensor, up: Tensor) -> Tensor:
        f = self.head(x)
        f = f + self.after(self.blocks(f))
        return exact(self.tail, self.upsampling(f))


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.PReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
        )

    def forward(self, f: Tensor) -> Tensor:
        return f + self.body(f)
