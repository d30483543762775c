"""The interface of a peer: one training task, and one way to restore an image."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

#: noise(step) -> N(0, 1) with the shape of the restored image; step 0 is the start
Noise = Callable[[int], Tensor]


class Peer(nn.Module):
    """A published method on normalised single slices.

    Images are (B, 1, y, x): `x` the low-resolution slice, `up` its interpolation on the fine grid, `y` the truth.
    """

    #: the published loss is the mean of |d|^power
    power = 2
    #: steps of a sample; 0: one pass gives the result, without noise
    sampling_steps = 0
    #: momentum of Adam
    betas = (0.9, 0.999)

    def task(self, x: Tensor, up: Tensor, y: Tensor, generator: torch.Generator) -> tuple[tuple[Tensor, ...], Tensor]:
        """(inputs of the network, its target) in one training step."""
        return (x, up), y

    def restore(self, x: Tensor, up: Tensor, noise: Noise | None = None, steps: int | None = None) -> Tensor:
        """The fine image. `noise` and `steps` are for peers that sample."""
        return self(x, up)


def exact(layer: nn.Module, f: Tensor) -> Tensor:
    """A layer in float32 even inside autocast: bfloat16 would round an image near -1000 HU by 2 HU."""
    with torch.autocast(f.device.type, enabled=False):
        return layer(f.float())


def normal(like: Tensor, generator: torch.Generator) -> Tensor:
    """N(0, 1) that depends on the generator only, not on the device."""
    return torch.randn(like.shape, generator=generator).to(like.device)
