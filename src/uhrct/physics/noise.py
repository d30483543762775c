"""Noise of filtered back-projection: its power spectrum, and where in the body it is strong.

Each view adds ray noise that was filtered with the ramp and the kernel across the rays and smeared along them. So the
noise power is ramp times MTF squared: zero at zero frequency, and correlated over a few pixels. A view with little
light (through both shoulders, through dense bone or metal) adds more, and all of its noise has frequencies across its
rays: streaks. Here the views are grouped into `DIRECTIONS` sectors; each has a map of how much it adds where.

References
----------
Riederer, Pelc, Chesler, "The noise power spectrum in computed X-ray tomography", doi 10.1088/0031-9155/23/3/008.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from uhrct.core.hu import FLOOR_HU
from uhrct.physics.kernels import Kernel, frequencies_lp_cm

if TYPE_CHECKING:
    import torch

#: Sectors of view angles over half a turn.
DIRECTIONS = 8
#: Views per sector whose paths are traced.
VIEWS_PER_DIRECTION = 3
#: Side of the coarse image on which paths are traced, pixels.
COARSE_PX = 64
MU_WATER_PER_MM = 0.0195  # at about 70 keV
#: Ray noise variance grows as exp(PATH_WEIGHT * path). Without bowtie filter, tube current modulation and the
#: scanner's own smoothing of weak signals it would be 1. Fitted to the local noise of 43 real slices (slope 0.95).
PATH_WEIGHT = 0.5
#: Share of the view's longest path that tube current modulation compensates.
MODULATION = 0.5
#: HU range whose mean relative noise is set to 1.
SOFT_TISSUE_HU = (-150.0, 300.0)


def noise_power(frequency_lp_cm: np.ndarray, kernel: Kernel) -> np.ndarray:
    """Noise power at a radial frequency, up to a factor: ramp times squared MTF."""
    return frequency_lp_cm * kernel.mtf(frequency_lp_cm) ** 2


@lru_cache(maxsize=64)
def noise_amplitude(shape: tuple[int, int], spacing_mm: tuple[float, float], kernel: Kernel) -> np.ndarray:
    """Square root of the noise power (y, x // 2 + 1) on the grid of `torch.fft.rfft2`, mean power 1.

    Frequencies beyond the pixels' Nyquist frequency fold back, as in a reconstruction on large pixels.
    """
    fy, fx = frequencies_lp_cm(shape, spacing_mm)
    sampling = [10 / s for s in spacing_mm]
    table = np.linspace(0, 1.5 * math.hypot(*sampling), 2048)
    radial = noise_power(table, kernel)
    power = np.zeros(np.broadcast_shapes(fy.shape, fx.shape))
    for ky in (-1, 0, 1):
        for kx in (-1, 0, 1):
            folded = np.hypot(fy + ky * sampling[0], fx + kx * sampling[1])
            if folded.min() < 2 * kernel.mtf10_lp_cm:  # beyond, nothing passes
                power += np.interp(folded, table, radial)
    power[0, 0] = 0.0
    # a column of rfft2 stands for two, but for the first and (even widths) the last
    twice = np.full(fx.shape, 2.0)
    twice[0, 0] = 1.0
    if shape[1] % 2 == 0:
        twice[0, -1] = 1.0
    if not power.any():  # a single pixel: its only frequency is 0
        return np.zeros_like(power)
    return np.sqrt(power * shape[0] * shape[1] / (power * twice).sum())


@lru_cache(maxsize=64)
def _sectors(shape: tuple[int, int], spacing_mm: tuple[float, float]) -> np.ndarray:
    """Amplitude (DIRECTIONS, y, x // 2 + 1) of each sector of frequency directions; squares sum to 1."""
    fy, fx = frequencies_lp_cm(shape, spacing_mm)
    angle = np.arctan2(fy, fx) % np.pi
    width = np.pi / DIRECTIONS
    centre = np.arange(DIRECTIONS)[:, None, None] * width
    away = np.abs((angle - centre + np.pi / 2) % np.pi - np.pi / 2)
    return np.cos(np.pi / 2 * np.minimum(away / width, 1.0))


def _fields(
    shape: tuple[int, ...],
    spacing_mm: tuple[float, float],
    kernel: Kernel,
    generator: torch.Generator,
    sectors: np.ndarray | None = None,
) -> torch.Tensor:
    """Gaussian fields of `shape` with the kernel's spectrum, drawn in Fourier space; `sectors` split them up."""
    import torch

    height, width = shape[-2:]
    amplitude = noise_amplitude((height, width), spacing_mm, kernel)
    if sectors is not None:
        amplitude = amplitude * sectors
    factor = torch.as_tensor(amplitude, dtype=torch.float32) * math.sqrt(height * width / 2)
    # of columns without a partner only the real part counts, which holds half of the power
    factor[..., 0] *= math.sqrt(2)
    if width % 2 == 0:
        factor[..., -1] *= math.sqrt(2)
    white = torch.randn((*shape[:-1], width // 2 + 1, 2), generator=generator)
    return torch.fft.irfft2(torch.view_as_complex(white) * factor, s=(height, width))


def noise_field(
    shape: tuple[int, ...], spacing_mm: tuple[float, float], kernel: Kernel, generator: torch.Generator
) -> torch.Tensor:
    """Gaussian noise (..., y, x) of unit variance with the power spectrum of filtered back-projection.

    Parameters
    ----------
    shape : (..., y, x);  spacing_mm : (y, x)
    kernel : its MTF shapes the spectrum; frequencies beyond the pixel's Nyquist frequency fold back

    Example
    -------
    >>> import torch
    >>> noise = noise_field((4, 64, 64), (0.7, 0.7), Kernel(3.5, 5.9), torch.Generator().manual_seed(0))
    >>> bool(0.9 < noise.std() < 1.1), bool(noise.mean((-2, -1)).abs().max() < 1e-5)
    (True, True)
    """
    return _fields(shape, spacing_mm, kernel, generator)


def directional_noise_map(hu_slice: np.ndarray, spacing_mm: tuple[float, float]) -> torch.Tensor:
    """Relative standard deviation of the noise that each sector of views adds, (DIRECTIONS, y, x), float32.

    The root mean square over the sectors is `noise_map`. Paths are traced on a coarse image of the whole slice, so
    compute the map of a slice once and cut crops out of it.

    Parameters
    ----------
    hu_slice : (y, x), HU;  spacing_mm : (y, x)
    """
    import torch
    import torch.nn.functional as F

    hu = torch.as_tensor(np.asarray(hu_slice, np.float32)).clamp(min=FLOOR_HU)
    height, width = hu.shape
    extent = [n * s for n, s in zip(hu.shape, spacing_mm, strict=True)]
    step_mm = max(extent) / COARSE_PX
    coarse_shape = (max(1, round(extent[0] / step_mm)), max(1, round(extent[1] / step_mm)))
    coarse = F.adaptive_avg_pool2d(hu[None, None], coarse_shape)[0, 0]
    mu = ((coarse + 1000) / 1000 * MU_WATER_PER_MM).clamp(min=0)
    side = math.ceil(math.hypot(*coarse_shape) / 2) * 2
    square = mu.new_zeros(side, side)
    top, left = (side - coarse_shape[0]) // 2, (side - coarse_shape[1]) // 2
    square[top : top + coarse_shape[0], left : left + coarse_shape[1]] = mu
    views = DIRECTIONS * VIEWS_PER_DIRECTION
    angle = (torch.arange(views) - (VIEWS_PER_DIRECTION - 1) / 2) * (math.pi / views)
    path = _rotated(square.expand(views, 1, side, side), angle).sum(2) * step_mm  # (views, 1, t)
    variance = torch.exp(PATH_WEIGHT * (path - MODULATION * path.amax(-1, keepdim=True)))
    smeared = _rotated(variance[:, :, None].expand(views, 1, side, side), -angle)[:, 0]
    by_sector = smeared.reshape(DIRECTIONS, VIEWS_PER_DIRECTION, side, side).mean(1)
    inside = by_sector[:, top : top + coarse_shape[0], left : left + coarse_shape[1]]
    fine = F.interpolate(inside[:, None], (height, width), mode="bilinear")[:, 0]
    tissue = (hu > SOFT_TISSUE_HU[0]) & (hu < SOFT_TISSUE_HU[1])
    local = fine.mean(0).sqrt()
    return fine.sqrt() / (local[tissue].mean() if tissue.any() else local.mean())


def _rotated(images: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
    """Square images (n, 1, side, side), each turned about its middle; outside is the nearest edge value."""
    import torch
    import torch.nn.functional as F

    cos, sin = torch.cos(angle), torch.sin(angle)
    zero = torch.zeros_like(cos)
    theta = torch.stack([torch.stack([cos, -sin, zero], -1), torch.stack([sin, cos, zero], -1)], 1)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def noise_map(hu_slice: np.ndarray, spacing_mm: tuple[float, float]) -> torch.Tensor:
    """Relative local standard deviation of the noise (y, x), mean 1 in soft tissue.

    Stronger in the middle of the body, between the shoulders and behind dense bone and metal.

    Example
    -------
    >>> y, x = np.mgrid[:64, :64] - 31.5
    >>> relative = noise_map(np.where(np.hypot(y, x) < 26, 40.0, -1000.0), (5.0, 5.0))
    >>> bool(relative[32, 32] > 1.1 * relative[32, 8])
    True
    """
    return directional_noise_map(hu_slice, spacing_mm).square().mean(0).sqrt()


def add_noise(
    hu: torch.Tensor,
    spacing_mm: tuple[float, float],
    sigma_hu: float,
    kernel: Kernel,
    generator: torch.Generator,
    directional: torch.Tensor | None = None,
) -> torch.Tensor:
    """A slice or crop (y, x) with noise of `sigma_hu` in soft tissue, varying and streaking as the body demands.

    Parameters
    ----------
    hu : (y, x), HU;  spacing_mm : (y, x)
    directional : (DIRECTIONS, y, x), `directional_noise_map` of the whole slice, cut to the crop; None: traced through
        `hu` alone

    Example
    -------
    >>> import torch
    >>> water = torch.zeros(96, 96)
    >>> noisy = add_noise(water, (3.0, 3.0), 20.0, Kernel(1.0, 1.6), torch.Generator().manual_seed(0))
    >>> bool(15 < noisy.std() < 25)
    True
    """
    if directional is None:
        directional = directional_noise_map(hu.numpy(), spacing_mm)
    shape = (int(hu.shape[-2]), int(hu.shape[-1]))
    sectors = _sectors(shape, spacing_mm)
    fields = _fields((DIRECTIONS, *shape), spacing_mm, kernel, generator, sectors)
    return hu + sigma_hu * (directional * fields).sum(0)
