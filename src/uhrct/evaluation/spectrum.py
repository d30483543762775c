"""Texture: power of the test in each octave of spatial frequency, relative to the reference."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from uhrct.core.errors import UhrctError
from uhrct.core.undefined import Undefined
from uhrct.evaluation.fidelity import check_finite

OCTAVES = 4
SMALLEST_PX = 16  # smaller images have no frequency in the fourth octave
#: Dense bone, metal and the step to padding must not dominate the spectrum.
TEXTURE_WINDOW_HU = (-1000.0, 600.0)


def octave_edges(spacing_mm: tuple[float, float]) -> list[tuple[float, float]]:
    """(low, high] of each octave in cycles / mm, finest first. It ends at the Nyquist frequency of the coarser axis.

    Example
    -------
    >>> octave_edges((0.5, 0.5))
    [(0.5, 1.0), (0.25, 0.5), (0.125, 0.25), (0.0625, 0.125)]
    """
    nyquist = 0.5 / max(spacing_mm)
    return [(nyquist / 2 ** (k + 1), nyquist / 2**k) for k in range(OCTAVES)]


def texture(reference: ArrayLike, test: ArrayLike, spacing_mm: tuple[float, float]) -> tuple[float, ...]:
    """Ratio of radial power spectra, test / reference, in four octaves below Nyquist, finest first.

    Both images are clipped to `TEXTURE_WINDOW_HU`, lose their mean and get a Hann window, because the edge of an image
    is no texture. 1 is the texture of the reference. Values far below 1 in the first octave mean blur; values above 1
    mean noise or invented detail.

    Parameters
    ----------
    reference, test : array_like, (y, x), HU
    spacing_mm : (y, x)

    Raises
    ------
    Undefined
        If the reference has no power in an octave (it is constant).
    UhrctError
        On unequal shapes, sides below 16, NaN or infinite values, or a spacing that does not fit.

    Example
    -------
    >>> noise = np.random.default_rng(0).normal(0, 20, (64, 64))
    >>> [f"{r:.2f}" for r in texture(noise, 0.5 * noise, (0.7, 0.7))]
    ['0.25', '0.25', '0.25', '0.25']
    """
    a, b = np.asarray(reference, np.float64), np.asarray(test, np.float64)
    if a.shape != b.shape or a.ndim != 2 or min(a.shape) < SMALLEST_PX:
        raise UhrctError(f"texture of reference {a.shape} and test {b.shape}: need equal (y, x) of 16 x 16 or more")
    if len(spacing_mm) != 2 or not all(0 < s < float("inf") for s in spacing_mm):
        raise UhrctError(f"spacing_mm is {tuple(spacing_mm)}, need (y, x) in mm")
    check_finite(a, b, "texture")
    power_a, power_b = octave_power(a, spacing_mm), octave_power(b, spacing_mm)
    if min(power_a) <= 1e-12 * np.abs(a).max() ** 2:  # rounding of a constant is no texture
        raise Undefined("the reference is constant inside the window")
    return tuple(q / p for p, q in zip(power_a, power_b, strict=True))


def octave_power(hu: np.ndarray, spacing_mm: tuple[float, float]) -> list[float]:
    """Mean power spectral density of one slice in each octave, finest first."""
    image = hu.clip(*TEXTURE_WINDOW_HU)
    taper = np.outer(*(np.hanning(n + 2)[1:-1] for n in image.shape))
    image = (image - (image * taper).sum() / taper.sum()) * taper
    power = np.abs(np.fft.fft2(image)) ** 2 / image.size
    fy, fx = (np.fft.fftfreq(n, s) for n, s in zip(image.shape, spacing_mm, strict=True))
    frequency = np.hypot(fy[:, None], fx)
    return [float(power[(frequency > low) & (frequency <= high)].mean()) for low, high in octave_edges(spacing_mm)]
