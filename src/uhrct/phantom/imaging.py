"""Noise of a scan by the acquisition model: correlated in plane, lower with dose and thickness."""

from __future__ import annotations

import numpy as np

from uhrct.phantom.scene import View

#: Standard deviation (HU) at dose 1, 1 mm slices, 0.7 mm pixels: a chest scan at about 100 mAs with a soft kernel.
NOISE_HU = 17.0
NOISE_FWHM_PX = 1.7  # reconstruction kernels correlate the noise


def noise_hu(view: View, dose: float) -> float:
    """Standard deviation of the noise (HU): the photons are proportional to dose, thickness and pixel area.

    Example
    -------
    >>> view = View((1, 8, 8), (1.0, 0.7, 0.7))
    >>> round(noise_hu(view, 1.0), 6), round(noise_hu(view, 4.0), 6)
    (17.0, 8.5)
    """
    z, y, x = view.spacing_mm
    return float(NOISE_HU / np.sqrt(dose * z * y * x / 0.49))


def add_noise(hu: np.ndarray, view: View, dose: float, seed: int, first: int) -> np.ndarray:
    """`hu` (z, y, x) with noise. It depends on the seed and each slice's number; the first has number `first`."""
    import torch

    from uhrct.physics.acquisition import correlated_noise

    out = np.empty(hu.shape, np.float32)
    sigma = noise_hu(view, dose)
    for k, image in enumerate(hu):
        g = torch.Generator().manual_seed((seed * 1_000_003 + first + k) % 2**63)
        out[k] = image + sigma * correlated_noise(image.shape, NOISE_FWHM_PX, g).numpy()
    return out
