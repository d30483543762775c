"""A denoiser that is learned from noisy slices alone, by adding more of the noise that they have.

Recorrupted-to-recorrupted: from a slice y with noise of covariance S, and z drawn from the same N(0, S),

    y + a z   and   y - z / a

have independent noise. A network that predicts the second from the first, with squared error, learns the mean of the
clean slice. S is known here: the scan's noise is measured, and `uhrct.physics.noise` draws more of it.

References
----------
Pang, Zheng, Quan, Ji, "Recorrupted-to-recorrupted: unsupervised deep learning for image denoising", CVPR 2021,
doi 10.1109/CVPR46437.2021.00208.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uhrct.core.errors import UhrctError
from uhrct.core.hu import FLOOR_HU
from uhrct.physics.kernels import Kernel
from uhrct.physics.noise import add_noise, directional_noise_map
from uhrct.physics.scan_noise import kernel_from_noise, measure_noise

#: a of the two recorrupted slices: small keeps the input like a real slice, large makes the other one less noisy.
RECORRUPTION = 0.5
#: HU beyond which a slice is held for the network; what was cut off is added again.
HIGHEST_HU = 2000.0
WIDTH, LAYERS = 32, 6
CROP_PX = 48
BATCH = 16
LEARNING_RATE = 2e-3


@dataclass(frozen=True)
class NoisySlice:
    """A slice whose noise is known.

    Parameters
    ----------
    hu : (y, x), float32, at least `FLOOR_HU`
    spacing_mm : (y, x)
    sigma_hu, kernel : of its noise
    directional : `directional_noise_map` of it
    clean : (y, x), its truth, of a phantom; None for real slices
    """

    hu: Tensor
    spacing_mm: tuple[float, float]
    sigma_hu: float
    kernel: Kernel
    directional: Tensor
    clean: Tensor | None = None

    @property
    def sigma_map_hu(self) -> Tensor:
        """Standard deviation of the noise (y, x)."""
        return self.sigma_hu * self.directional.square().mean(0).sqrt()


def noisy_slice(hu: np.ndarray, spacing_mm: tuple[float, float]) -> NoisySlice | None:
    """A slice (y, x) with its measured noise, or None where the noise cannot be measured."""
    held = np.asarray(hu, np.float32).clip(min=FLOOR_HU)
    measured = measure_noise(hu, spacing_mm)
    kernel = kernel_from_noise(measured, spacing_mm)
    if kernel is None:
        return None
    directional = directional_noise_map(held, spacing_mm)
    return NoisySlice(torch.from_numpy(held), spacing_mm, measured.sigma_hu, kernel, directional)


class SliceDenoiser(nn.Module):
    """A small convolutional network on 2 x 2 pixels at once; it is told how strong the noise is at each pixel.

    Example
    -------
    >>> network = SliceDenoiser()
    >>> network(torch.zeros(2, 1, 16, 18), torch.full((2, 1, 16, 18), 20.0)).shape
    torch.Size([2, 1, 16, 18])
    """

    def __init__(self, width: int = WIDTH, layers: int = LAYERS) -> None:
        super().__init__()
        sizes = [12, *[width] * (layers - 1)]
        self.body = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in zip(sizes, sizes[1:], strict=False))
        self.last = nn.Conv2d(width, 4, 3, padding=1)
        nn.init.zeros_(self.last.weight)

    def forward(self, hu: Tensor, sigma_hu: Tensor) -> Tensor:
        """Clean HU (B, 1, y, x) of noisy ones; `sigma_hu` (B, 1, y, x). Sides must be even."""
        detail = hu - F.avg_pool2d(F.pad(hu, (3, 3, 3, 3), mode="replicate"), 7, 1)
        features = torch.cat([hu / 200, torch.asinh(detail / sigma_hu), torch.log(sigma_hu / 20)], 1)
        x = F.pixel_unshuffle(features, 2)
        for k, layer in enumerate(self.body):
            new = F.relu(layer(x))
            x = new if k == 0 else x + new
        return hu + sigma_hu * F.pixel_shuffle(self.last(x), 2)

    @torch.inference_mode()
    def clean(self, hu: Tensor, sigma_map_hu: Tensor) -> Tensor:
        """Clean HU of a whole slice (y, x)."""
        height, width = hu.shape
        sides = (0, width % 2, 0, height % 2)
        held = hu.clamp(FLOOR_HU, HIGHEST_HU)
        image, sigma = (F.pad(t[None, None], sides, mode="replicate") for t in (held, sigma_map_hu))
        return self(image, sigma)[0, 0, :height, :width] + (hu - held)


def train_slice_denoiser(
    slices: Sequence[NoisySlice], *, steps: int = 1500, minutes: float | None = None, seed: int = 0
) -> SliceDenoiser:
    """Learn to denoise from slices with known noise; phantoms with a truth may be among them.

    Parameters
    ----------
    slices : real ones teach by recorruption, those with `clean` by their truth with new noise
    steps : of `BATCH` crops
    minutes : stop then, even before `steps`
    seed : of crops, noise and weights

    Raises
    ------
    UhrctError
        If there are no slices, or one is smaller than a crop.
    """
    if not slices:
        raise UhrctError("slices is empty: no slice whose noise is known; give slices with even soft tissue")
    if any(min(s.hu.shape) < CROP_PX for s in slices):
        raise UhrctError(f"slices holds one that is smaller than {CROP_PX} x {CROP_PX} pixels; leave it out")
    torch.manual_seed(seed)
    network = SliceDenoiser()
    optimiser = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=1e-4)
    generator = torch.Generator().manual_seed(seed)
    warmup = max(1, min(50, steps // 10))
    begin = time.monotonic()
    for step in range(steps):
        share = step / steps if minutes is None else max(step / steps, (time.monotonic() - begin) / 60 / minutes)
        if share >= 1:
            break
        optimiser.param_groups[0]["lr"] = LEARNING_RATE * min(1, (step + 1) / warmup) * (1 - share) ** 0.5
        seen, wanted, sigma = (
            torch.stack(t) for t in zip(*(_pair(slices, generator) for _ in range(BATCH)), strict=True)
        )
        loss = ((network(seen, sigma) - wanted) / sigma).square().mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
    return network.eval().requires_grad_(False)


def _pair(slices: Sequence[NoisySlice], generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """What the network sees, what it shall predict, and the noise of the first; each (1, CROP_PX, CROP_PX)."""

    def below(n: int) -> int:
        return int(torch.randint(n, (), generator=generator))

    chosen = slices[below(len(slices))]
    for _ in range(4):  # rather in the body than in the air around it
        y, x = (below(n - CROP_PX + 1) for n in chosen.hu.shape)
        cut = (..., slice(y, y + CROP_PX), slice(x, x + CROP_PX))
        if (chosen.hu[cut] > -960).float().mean() > 0.5:
            break
    held = chosen.hu[cut].clamp(max=HIGHEST_HU)
    directional = chosen.directional[cut]
    sigma = chosen.sigma_map_hu[cut]
    if chosen.clean is None:
        more = add_noise(
            torch.zeros_like(held), chosen.spacing_mm, chosen.sigma_hu, chosen.kernel, generator, directional
        )
        seen, wanted = held + RECORRUPTION * more, held - more / RECORRUPTION
        sigma = sigma * (1 + RECORRUPTION**2) ** 0.5
    else:
        wanted = chosen.clean[cut].clamp(max=HIGHEST_HU)
        factor = float(torch.rand((), generator=generator)) * 2 + 0.2
        sigma = sigma * factor
        seen = add_noise(wanted, chosen.spacing_mm, chosen.sigma_hu * factor, chosen.kernel, generator, directional)
    if below(2):
        seen, wanted, sigma = seen.T, wanted.T, sigma.T
    flips = [axis for axis in (0, 1) if below(2)]
    return tuple(t.flip(flips)[None] for t in (seen, wanted, sigma))  # type: ignore[return-value]
