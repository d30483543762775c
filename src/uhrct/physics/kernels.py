"""Reconstruction kernels as MTF curves in line pairs per cm, soft to edge-enhancing, and how an image looks with them.

A curve in lp/cm means the same at every pixel size. Three numbers describe it: the frequencies where it passes 50 %
and 10 % of the contrast, and by how much its peak exceeds 1:

    MTF(f) = (1 + c x^2) exp(-a x^p),    x = f / mtf50

a and p follow from the two frequencies, c from the overshoot. Without overshoot the curve is a generalised Gaussian.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from uhrct.core.errors import UhrctError

if TYPE_CHECKING:
    import torch

    Array = TypeVar("Array", np.ndarray, torch.Tensor)

#: Pixels by which an image is mirrored at its sides before it is filtered; kernels reach less far.
PADDING_PX = 16


@dataclass(frozen=True)
class Kernel:
    """A reconstruction kernel.

    Parameters
    ----------
    mtf50_lp_cm, mtf10_lp_cm : float
        Frequencies at which the MTF falls to 50 % and 10 %, line pairs per cm.
    overshoot : float
        By how much the MTF's peak exceeds 1: 0 for soft kernels, about 0.4 for lung and bone kernels.

    Raises
    ------
    UhrctError
        If the numbers make no curve of this family.

    Example
    -------
    >>> lung = Kernel(7.5, 9.5, overshoot=0.4)
    >>> lung.mtf(np.array([0.0, 7.5, 9.5])).round(3)
    array([1. , 0.5, 0.1])
    """

    mtf50_lp_cm: float
    mtf10_lp_cm: float
    overshoot: float = 0.0

    def __post_init__(self) -> None:
        if not (self.mtf50_lp_cm > 0 and 1.1 <= self.mtf10_lp_cm / self.mtf50_lp_cm <= 3):
            raise UhrctError(
                f"MTF of 50 % at {self.mtf50_lp_cm} and 10 % at {self.mtf10_lp_cm} lp/cm: "
                "both must be positive, the second 1.1 to 3 times the first"
            )
        if not 0 <= self.overshoot <= 1:
            raise UhrctError(f"overshoot {self.overshoot}: give a number from 0 to 1")

    def mtf(self, frequency_lp_cm: Array) -> Array:
        """MTF at non-negative frequencies, of the same shape and type (numpy or torch)."""
        a, p, c = _curve(round(self.mtf10_lp_cm / self.mtf50_lp_cm, 6), self.overshoot)
        x = frequency_lp_cm / self.mtf50_lp_cm
        return (1 + c * x * x) * math.e ** (-a * x**p)

    @property
    def psf_fwhm_mm(self) -> float:
        """Full width at half maximum (mm) of the Gaussian PSF with the same 50 % point.

        Example
        -------
        >>> round(Kernel(3.5, 5.9).psf_fwhm_mm, 2)
        1.26
        """
        return 40 * math.log(2) / (2 * math.pi * self.mtf50_lp_cm)


@lru_cache(maxsize=4096)
def _curve(ratio: float, overshoot: float) -> tuple[float, float, float]:
    """(a, p, c) of the curve with MTF(1) = 0.5, MTF(ratio) = 0.1 and this overshoot, by bisection over c."""
    x = np.linspace(0, 1, 201)

    def with_c(c: float) -> tuple[float, float]:
        a = math.log(2 * (1 + c))
        return a, math.log(math.log(10 * (1 + c * ratio**2)) / a) / math.log(ratio)

    low, high = 0.0, 200.0
    for _ in range(40 if overshoot else 0):
        c = (low + high) / 2
        a, p = with_c(c)
        peak = float(((1 + c * x**2) * np.exp(-a * x**p)).max()) - 1
        low, high = (c, high) if peak < overshoot else (low, c)
    return *with_c(low), low


def frequencies_lp_cm(shape: tuple[int, int], spacing_mm: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Signed frequencies (y', 1) and (1, x'), lp/cm, of `torch.fft.rfft2` of an image (y, x)."""
    fy = 10 * np.fft.fftfreq(shape[0], spacing_mm[0])[:, None]
    return fy, 10 * np.fft.rfftfreq(shape[1], spacing_mm[1])[None]


def filter_in_plane(
    image: torch.Tensor, spacing_mm: tuple[float, float], gain: Callable[[np.ndarray], np.ndarray]
) -> torch.Tensor:
    """Multiply the spectrum of slices (..., y, x) by a function of radial frequency (lp/cm). Sides are mirrored."""
    import torch
    import torch.nn.functional as F

    height, width = image.shape[-2:]
    py, px = min(PADDING_PX, height - 1), min(PADDING_PX, width - 1)
    flat = image.reshape(1, -1, height, width)
    padded = F.pad(flat, (px, px, py, py), mode="reflect")
    fy, fx = frequencies_lp_cm((height + 2 * py, width + 2 * px), spacing_mm)
    factor = torch.as_tensor(gain(np.hypot(fy, fx)), dtype=image.dtype, device=image.device)
    out = torch.fft.irfft2(torch.fft.rfft2(padded) * factor, s=padded.shape[-2:])
    return out[..., py : py + height, px : px + width].reshape(image.shape)


def apply_kernel(image: torch.Tensor, spacing_mm: tuple[float, float], kernel: Kernel) -> torch.Tensor:
    """A perfectly sharp object as a reconstruction with `kernel` shows it.

    Parameters
    ----------
    image : (..., y, x), HU, float;  spacing_mm : (y, x)

    Example
    -------
    >>> import torch
    >>> flat = torch.full((20, 24), 40.0)
    >>> bool(torch.allclose(apply_kernel(flat, (0.7, 0.7), Kernel(3.5, 5.9)), flat, atol=1e-4))
    True
    """
    return filter_in_plane(image, spacing_mm, kernel.mtf)


def draw_kernel(generator: torch.Generator) -> Kernel:
    """A random kernel for training, soft (like Siemens B10f) to sharp (like B70f, GE LUNG and BONE).

    The 50 % point is log-uniform in 2.3 to 9 lp/cm. Sharp kernels fall more steeply and overshoot more often.

    Example
    -------
    >>> import torch
    >>> 2.3 <= draw_kernel(torch.Generator().manual_seed(0)).mtf50_lp_cm <= 9.0
    True
    """
    import torch

    sharp, steep, enhanced, amount = torch.rand(4, generator=generator).tolist()
    mtf50 = 2.3 * (9.0 / 2.3) ** sharp
    ratio = 1.75 - 0.4 * sharp + 0.2 * (steep - 0.5)
    overshoot = 0.5 * amount * sharp if enhanced < 0.2 + 0.6 * sharp else 0.0
    return Kernel(round(mtf50, 3), round(mtf50 * ratio, 3), round(overshoot, 3))


#: A usual kernel for soft tissue (GE STANDARD), and one for the lungs (GE LUNG).
STANDARD, SHARP = Kernel(4.2, 7.2), Kernel(7.4, 9.6, 0.4)
