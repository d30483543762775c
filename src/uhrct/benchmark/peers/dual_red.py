"""Dual-RED: the denoiser of the published dual-stream diffusion model. It is here to measure its cost.

Chu, Zhou, Luo, Qiu, Gao, "Topology-preserving computed tomography super-resolution based on dual-stream diffusion
model", MICCAI 2023, doi 10.1007/978-3-031-43999-5_25; its authors' code: github.com/Arturia-Pendragon-Iris/UHRCT_SR.

Sources. The article gives two streams, two 3x3 convolutions after each, an exchange of their features, a fusion block
and a structure block, and 100 steps. The code gives the rest: a stream is RED-CNN (doi 10.1109/TMI.2017.2715284) with
ten 5x5 convolutions at full size, without padding, 32-64-128-128-128 features and back by transposed convolutions, with
two sums across; the image stream takes noisy image, interpolation and noise level as three channels; features are
exchanged by concatenation (in the article by summation). So the network has its published 4.43 M parameters.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DualRed(nn.Module):
    """One pass of the denoiser: (noise in the image, structure map), each (B, 1, y', x') at full size.

    It is not a `Peer`, because nothing trains it. `benchmarks/peers_cost.py` measures the cost of a pass.

    Example
    -------
    >>> net = DualRed()
    >>> sum(p.numel() for p in net.parameters())
    4431432
    >>> [out.shape for out in net(torch.zeros(1, 3, 24, 32), torch.zeros(1, 1, 24, 32))]
    [torch.Size([1, 1, 24, 32]), torch.Size([1, 1, 24, 32])]
    """

    #: denoising steps of a restored image
    sampling_steps = 100

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.image, self.structure = _Stream(3, width), _Stream(1, width)
        self.image_out, self.structure_out = _fusion(width), _fusion(width)

    def forward(self, image: Tensor, structure: Tensor) -> tuple[Tensor, Tensor]:
        """`image` (B, 3, y', x'): noisy image, interpolation, noise level; `structure` (B, 1, y', x'): its map."""
        a, b = self.image(image), self.structure(structure)
        return self.image_out(torch.cat([a, b], 1)), self.structure_out(torch.cat([b, a], 1))


class _Stream(nn.Module):
    """RED-CNN up to its last features, then two 3x3 convolutions."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width, 4 * width, 4 * width]
        self.down = nn.ModuleList(nn.Conv2d(a, b, 5) for a, b in pairwise([inputs, *widths]))
        self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 5) for a, b in pairwise([*widths[::-1], width]))
        self.after = nn.Sequential(
            *(layer for _ in range(2) for layer in (nn.Conv2d(width, width, 3, padding=1), nn.PReLU()))
        )

    def forward(self, image: Tensor) -> Tensor:
        f, seen = image, []
        for conv in self.down:
            f = F.relu(conv(f))
            seen.append(f)
        for k, conv in enumerate(self.up):
            f = conv(f if k == 0 else F.relu(f))
            if k in (0, 2):  # the size after the fourth and the second convolution
                f = f + seen[3 - k]
        return self.after(f)


def _fusion(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(2 * width, width, 3, padding=1), nn.PReLU(), nn.Conv2d(width, 1, 3, padding=1))
