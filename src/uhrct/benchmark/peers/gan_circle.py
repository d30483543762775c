"""GAN-CIRCLE: a CycleGAN for CT between low and high resolution, trained without pairs.

You et al., "CT super-resolution GAN constrained by the identical, residual, and cycle learning ensemble
(GAN-CIRCLE)", IEEE TMI 2020, doi 10.1109/TMI.2019.2922960, arXiv 1808.04256. Critics after Gulrajani et al.,
"Improved training of Wasserstein GANs" (WGAN-GP), NeurIPS 2017, arXiv 1704.00028.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uhrct.benchmark.peers.peer import Peer, exact


class GanCircle(Peer):
    """Generators G: low -> high and F: high -> low on the fine grid (low is interpolated), and a critic for each side.

    Parameters
    ----------
    scale : not used; both sides are on the fine grid
    widths : features of the layers of a generator
    patch : side in fine pixels of the images that the critics see (published: 64): the crop of the training times the
        scale. With 32 the last normalisation is over 2 x 2 pixels, and the gradient of the penalty explodes.
    critic_width : features of the first stage of a critic (published: 64)
    """

    betas = (0.5, 0.9)

    def __init__(
        self,
        scale: int,
        widths: Sequence[int] = (64, 54, 48, 43, 39, 35, 31, 28, 25, 22, 18, 16),
        patch: int = 64,
        critic_width: int = 64,
    ) -> None:
        super().__init__()
        self.generators = nn.ModuleDict({"to_high": _Generator(widths), "to_low": _Generator(widths)})
        self.critics = nn.ModuleDict({"high": _Critic(patch, critic_width), "low": _Critic(patch, critic_width)})

    def forward(self, x: Tensor, up: Tensor) -> Tensor:
        return self.generators["to_high"](up)


class _Generator(nn.Module):
    """Twelve layers whose features are all concatenated, compressed by parallel 1x1 convolutions; plus the input.

    The publication has dropout. Here it is left out, because trainings of minutes do not overfit.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        before = (1, *widths[:-1])
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in zip(before, widths, strict=True))
        everything = sum(widths)
        self.wide = nn.Conv2d(everything, 24, 1)
        self.narrow = nn.Sequential(
            nn.Conv2d(everything, 8, 1), nn.LeakyReLU(0.1), nn.Conv2d(8, 8, 3, padding=1), nn.LeakyReLU(0.1)
        )
        self.join = nn.Conv2d(32, 32, 3, padding=1)
        self.out = nn.Conv2d(32, 1, 3, padding=1)
        # it starts near the identity, where cycles close
        nn.init.normal_(self.out.weight, std=1e-3)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, image: Tensor) -> Tensor:
        f, features = image, []
        for layer in self.layers:
            f = F.leaky_relu(layer(f), 0.1)
            features.append(f)
        joined = torch.cat(features, 1)
        f = torch.cat([F.leaky_relu(self.wide(joined), 0.1), self.narrow(joined)], 1)
        return image + exact(self.out, F.leaky_relu(self.join(f), 0.1))


class _Critic(nn.Module):
    """Four stages of two convolutions with instance normalisation, the second halving, then two full layers."""

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        now = 1
        for wider in (width, 2 * width, 4 * width, 8 * width):
            for stride in (1, 2):
                stages += [
                    nn.Conv2d(now, wider, 3, stride, 1),
                    nn.InstanceNorm2d(wider, affine=True),
                    nn.LeakyReLU(0.2),
                ]
                now = wider
        self.stages = nn.Sequential(*stages)
        side = -(-patch // 16)
        self.judge = nn.Sequential(nn.Linear(now * side**2, 1024), nn.LeakyReLU(0.2), nn.Linear(1024, 1))

    def forward(self, image: Tensor) -> Tensor:
        return exact(self.judge, self.stages(image).flatten(1))[:, 0]


def gradient_penalty(critic: nn.Module, real: Tensor, fake: Tensor, generator: torch.Generator) -> Tensor:
    """Mean of (|grad D| - 1)^2 at random points between real and fake images (arXiv 1704.00028, eq. 3)."""
    share = torch.rand(len(real), 1, 1, 1, generator=generator).to(real.device)
    between = torch.lerp(fake, real, share).requires_grad_()
    [slope] = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return (slope.flatten(1).norm(dim=1) - 1).square().mean()
