"""Noise of a scan by the acquisition model: spectrum of the kernel, lower with dose and thickness."""

from __future__ import annotations

import numpy as np

from uhrct.phantom.scene import View
from uhrct.physics.kernels import STANDARD, Kernel
from uhrct.physics.noise import add_noise as add_reconstruction_noise
from uhrct.physics.noise import noise_power

#: Standard deviation (HU) at dose 1, 1 mm slices, 0.7 mm pixels and a standard kernel: a chest scan at about 100 mAs.
NOISE_HU = 17.0


def noise_hu(view: View, dose: float, kernel: Kernel = STANDARD) -> float:
    """Standard deviation of the noise in soft tissue (HU).

    The photons are proportional to dose, thickness and pixel area. A sharp kernel passes more of their noise.

    Example
    -------
    >>> view = View((1, 8, 8), (1.0, 0.7, 0.7))
    >>> round(noise_hu(view, 1.0), 6), round(noise_hu(view, 4.0), 6)
    (17.0, 8.5)
    >>> bool(noise_hu(view, 1.0, Kernel(7.4, 9.6, 0.4)) > 2 * 17)
    True
    """
    z, y, x = view.spacing_mm
    passed = np.sqrt(_variance(kernel) / _variance(STANDARD))
    return float(NOISE_HU * passed / np.sqrt(dose * z * y * x / 0.49))


def _variance(kernel: Kernel) -> float:
    """Integral of the noise power over the plane of frequencies, up to a factor."""
    frequency = np.linspace(0, 3 * kernel.mtf10_lp_cm, 512)
    return float((noise_power(frequency, kernel) * frequency).sum() * frequency[1])


def add_noise(hu: np.ndarray, view: View, dose: float, seed: int, first: int, kernel: Kernel = STANDARD) -> np.ndarray:
    """`hu` (z, y, x) with noise. It depends on the seed and each slice's number; the first has number `first`."""
    import torch

    out = np.empty(hu.shape, np.float32)
    sigma = noise_hu(view, dose, kernel)
    for k, image in enumerate(hu):
        g = torch.Generator().manual_seed((seed * 1_000_003 + first + k) % 2**63)
        clean = torch.from_numpy(np.ascontiguousarray(image, np.float32))
        out[k] = add_reconstruction_noise(clean, view.spacing_mm[1:], sigma, kernel, g).numpy()
    return out
