"""Properties of a scan that a network is told: blur, kernel, noise, slice geometry."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from uhrct.core.errors import UhrctError


@dataclass(frozen=True)
class ScanProperties:
    """How a low-resolution scan was acquired. In-plane lengths are in its own pixels.

    The defaults are those of the benchmark: a Gaussian PSF of 0.6 pixels, no sharpening, no noise, contiguous slices.

    Parameters
    ----------
    psf_fwhm : float
        In-plane point-spread function, full width at half maximum in pixels.
    sharpening : float
        Edge enhancement by the kernel: share of detail (image minus its blur by one pixel) added after the PSF.
    noise_hu : float
        Standard deviation of the noise in HU.
    slice_thickness : float
        Slice thickness divided by the distance between slices.
    increment_mm : float
        Distance between neighbouring slices in mm; 0 for a single slice.
    noise_correlation : float
        Autocorrelation of the noise at one pixel, in plane.
    psf_known, noise_known : bool
        Whether PSF and sharpening, or noise and its correlation, are known. A network that is told "unknown" gives the
        mean over the possibilities.
    denoise : float
        Wish: share of the noise to remove, from 0 (keep) to 1 (remove).

    Example
    -------
    >>> ScanProperties(psf_fwhm=1.0, noise_known=False).conditions()
    [1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    """

    psf_fwhm: float = 0.6
    sharpening: float = 0.0
    noise_hu: float = 0.0
    slice_thickness: float = 1.0
    increment_mm: float = 2.5
    noise_correlation: float = 0.0
    psf_known: bool = True
    noise_known: bool = True
    denoise: float = 0.0

    def __post_init__(self) -> None:
        for name, (low, high) in LIMITS.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise UhrctError(f"{name} = {value}: give a number from {low} to {high}")

    def conditions(self) -> list[float]:
        """The numbers as a network gets them, within a few units; unknown ones are 0."""
        psf, noise = float(self.psf_known), float(self.noise_known)
        return [
            psf * (self.psf_fwhm - 0.6) / 0.4,
            psf * self.sharpening / 0.5,
            psf,
            noise * math.log1p(self.noise_hu / 10),
            noise * (self.noise_correlation if self.noise_hu >= SILENT_HU else 0.0),
            noise,
            self.denoise,
            self.slice_thickness - 1,
            math.log2(max(self.increment_mm, 0.1) / 2.5) / 2,
        ]


#: noise in HU below which its correlation has no meaning
SILENT_HU = 1.0

#: accepted values; training covers a part of them
LIMITS: dict[str, tuple[float, float]] = {
    "psf_fwhm": (0.0, 3.0),
    "sharpening": (-1.0, 3.0),
    "noise_hu": (0.0, 500.0),
    "slice_thickness": (0.05, 20.0),
    "increment_mm": (0.0, 100.0),
    "noise_correlation": (-1.0, 1.0),
    "denoise": (0.0, 1.0),
}
#: numbers in `ScanProperties.conditions`
N_CONDITIONS = 9


def kept_noise_hu(conditions: Any) -> Any:
    """Noise in HU that shall be kept, from rows of `ScanProperties.conditions` (B, k) as a tensor; 0 where unknown.

    Example
    -------
    >>> import torch
    >>> kept_noise_hu(torch.tensor([ScanProperties(noise_hu=20.0, denoise=0.25).conditions()]))
    tensor([15.])
    """
    return 10 * conditions[:, 3].expm1() * (1 - conditions[:, 6])


def nearly_square(y_mm: float, x_mm: float) -> bool:
    """Whether pixels can count as square: one number tells the PSF of both axes.

    Example
    -------
    >>> nearly_square(0.7, 0.7), nearly_square(0.8, 0.4)
    (True, False)
    """
    return abs(y_mm - x_mm) <= 0.15 * max(y_mm, x_mm)
