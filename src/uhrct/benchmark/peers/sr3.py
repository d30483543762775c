"""SR3: a denoiser of the whole image, conditioned on the interpolation, in a hundred steps.

Saharia, Ho, Chan, Salimans, Fleet, Norouzi, "Image super-resolution via iterative refinement", IEEE TPAMI 2022,
doi 10.1109/TPAMI.2022.3204461, arXiv 2104.07636.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from uhrct.benchmark.peers.peer import Noise, Peer, normal
from uhrct.benchmark.peers.unet import UNet
from uhrct.models.diffusion import Diffusion


class SR3(Peer):
    """Prediction of epsilon with L1, at a noise level drawn between two of 2000 steps; ancestral sampling.

    The default U-Net has an eighth of the published width and fewer levels, so that a CPU can train it in minutes. The
    published one for 64 -> 512 pixels has width=64, multipliers=[1, 2, 4, 8, 8, 16, 16], blocks=3, attend_from=5
    (about 0.6 G parameters).
    """

    power = 1
    sampling_steps = 100

    def __init__(
        self,
        scale: int,
        width: int = 16,
        multipliers: Sequence[int] = (1, 2, 4, 4),
        blocks: int = 1,
        attend_from: int = 3,
    ) -> None:
        super().__init__()
        self.diffusion = Diffusion("epsilon", "linear", "ancestral", sampling_steps=self.sampling_steps)
        self.unet = UNet(inputs=2, width=width, multipliers=multipliers, blocks=blocks, attend_from=attend_from)

    def forward(self, up: Tensor, z: Tensor, sqrt_g: Tensor) -> Tensor:
        """The noise in z = sqrt(g) y + sqrt(1 - g) n; sqrt_g of shape (B,) or (1,)."""
        return self.unet(torch.cat([up, z], 1), sqrt_g)

    def task(self, x: Tensor, up: Tensor, y: Tensor, generator: torch.Generator) -> tuple[tuple[Tensor, ...], Tensor]:
        g = self.diffusion.draw_levels(len(y), generator, y.device)
        n = normal(y, generator)
        z = g.sqrt()[:, None, None, None] * y + (1 - g).sqrt()[:, None, None, None] * n
        return (up, z, g.sqrt()), n

    def restore(self, x: Tensor, up: Tensor, noise: Noise | None = None, steps: int | None = None) -> Tensor:
        assert noise is not None, "SR3 draws samples and needs noise"
        return self.diffusion.sample(lambda z, sqrt_g: self(up, z, sqrt_g), noise, steps)
