"""A scan's noise, measured in even tissue: standard deviation, autocorrelation and power spectrum, without a network.

Small patches of soft tissue are detrended. Those that hold noise alone are told from those with anatomy by the *shape*
of their spectrum, not by how quiet they are: anatomy has most of its power at low frequencies, and reconstruction noise
has almost none there. Choosing the quietest patches instead would underestimate the noise by 15 % and more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from uhrct.core.arguments import number
from uhrct.core.errors import UhrctError
from uhrct.core.hu import FLOOR_HU
from uhrct.physics.kernels import Kernel
from uhrct.physics.noise import noise_amplitude, noise_field
from uhrct.physics.resampling import gaussian_matrix
from uhrct.physics.scan_properties import ScanProperties

#: Side of a patch: large enough to hold the noise's correlation, small enough to fit into a vessel or muscle.
PATCH_MM = 10.5
PATCH_PX = (8, 16)
#: Range of blurred HU inside a patch: muscle, organs, blood with contrast; no fat (less noisy), no dense bone.
TISSUE_HU = (-10.0, 450.0)
BLUR_PX = 2.0
#: Patches whose share of low frequencies is at most this multiple of the smallest shares (a tenth) hold noise alone.
EVEN_QUANTILE, EVEN_FACTOR = 0.1, 1.5
#: Overlapping patches (about nine cover the area of one) that a measurement needs.
FEWEST_PATCHES = 25
#: Widths in pixels of the mean that divides low from high frequencies. The wider one is for noise so smooth (soft
#: kernel, small pixels) that more than `LARGEST_SHARE` of it would count as low.
WIDTHS_PX = (3, 5)
#: Largest share of low frequencies of the most even patches: above, they hold anatomy, or noise that cannot be told
#: from it.
LARGEST_SHARE = 0.8
LAGS = 3
#: Bound of the correction for what detrending takes away; where anatomy passes for smooth noise it would run away.
SMALLEST_FACTOR = 0.8


@dataclass(frozen=True)
class NoiseMeasurement:
    """The noise of a scan.

    Attributes
    ----------
    sigma_hu : typical standard deviation in even soft tissue; NaN where not measured
    autocorrelation : at 1, 2 and 3 pixels, mean of both axes
    patches : how many patches were used (they overlap)
    reliable : whether the numbers can be used
    reason : what was found, or why nothing was measured, in one line
    """

    sigma_hu: float
    autocorrelation: tuple[float, ...]
    patches: int
    reliable: bool
    reason: str


def measure_noise(hu: np.ndarray, spacing_mm: tuple[float, float]) -> NoiseMeasurement:
    """Standard deviation and autocorrelation of the noise in even soft tissue.

    Parameters
    ----------
    hu : (y, x) or (z, y, x), HU; some slices give a steadier answer than one
    spacing_mm : (y, x)

    Raises
    ------
    UhrctError
        If the array has another number of axes.

    Example
    -------
    >>> noise = np.random.default_rng(0).normal(40, 20, (96, 96))
    >>> found = measure_noise(noise, (0.8, 0.8))
    >>> found.reliable, bool(abs(found.sigma_hu - 20) < 2)
    (True, True)
    """
    found = even_patches(hu, spacing_mm)
    if isinstance(found, str):
        return NoiseMeasurement(float("nan"), (float("nan"),) * LAGS, 0, False, found)
    side = found.shape[-1]
    raw_sigma, raw_correlation = _statistics(found)
    sigma, correlation = raw_sigma, raw_correlation
    for _ in range(4):  # the correction depends on the kernel, which the correction helps to find
        factor, offset = _bias(_nearest_kernel(correlation), side)
        sigma = raw_sigma / max(factor, SMALLEST_FACTOR)
        correlation = tuple(c - o for c, o in zip(raw_correlation, offset, strict=True))
    return NoiseMeasurement(
        round(sigma, 2),
        tuple(round(c, 3) for c in correlation),
        len(found),
        True,
        f"{len(found)} overlapping patches of {side} x {side} pixels of even tissue",
    )


def with_noise(scan: ScanProperties, noise: NoiseMeasurement) -> ScanProperties:
    """The scan properties with the measured noise, or with the noise unknown where the measurement is not reliable."""
    if not noise.reliable:
        return replace(scan, noise_known=False)
    correlation = min(max(noise.autocorrelation[0], -1.0), 1.0)
    return replace(scan, noise_hu=min(noise.sigma_hu, 200.0), noise_correlation=correlation)


def _statistics(patches: np.ndarray) -> tuple[float, tuple[float, ...]]:
    """Median standard deviation and mean autocorrelation of detrended patches."""
    variance = (patches**2).sum((-2, -1)) / (patches.shape[-1] ** 2 - 6)
    scaled = patches / np.sqrt(np.maximum(variance, 1e-12))[:, None, None]
    power = (scaled**2).mean() or 1.0  # perfectly even tissue, as in a phantom without noise
    correlation = tuple(
        float(((scaled[:, lag:] * scaled[:, :-lag]).mean() + (scaled[:, :, lag:] * scaled[:, :, :-lag]).mean()) / 2)
        for lag in range(1, LAGS + 1)
    )
    return float(np.sqrt(np.median(variance))), tuple(c / float(power) for c in correlation)


def even_patches(hu: np.ndarray, spacing_mm: tuple[float, float]) -> np.ndarray | str:
    """Detrended patches (m, n, n) of even tissue in HU, or a sentence that says why there are none."""
    for value in spacing_mm:
        if not number("spacing_mm", value, 0):
            raise UhrctError("`spacing_mm` is 0; give the size of the pixels in mm")
    slices = np.asarray(hu, np.float32)
    if slices.ndim not in (2, 3):
        raise UhrctError(f"hu has {slices.ndim} axes; give one slice (y, x) or several (z, y, x)")
    slices = slices.reshape(-1, *slices.shape[-2:])
    side = int(np.clip(round(PATCH_MM / float(np.mean(spacing_mm))), *PATCH_PX))
    if min(slices.shape[-2:]) < side:
        return f"the image of {slices.shape[-2]} x {slices.shape[-1]} pixels is smaller than a patch of {side} pixels"
    patches = np.concatenate(list(_tissue_patches(slices, side)))
    if len(patches) < FEWEST_PATCHES:
        return f"too little soft tissue: {len(patches)} patches of {side} x {side} pixels, need {FEWEST_PATCHES}"
    even = _even(patches)
    if even is None:
        return "no even tissue: every patch holds anatomy, or the noise is too smooth to be told from it"
    if len(even) < FEWEST_PATCHES:
        return f"too little even tissue: {len(even)} patches of {side} x {side} pixels, need {FEWEST_PATCHES}"
    return even


def _even(patches: np.ndarray) -> np.ndarray | None:
    """The patches that hold noise alone, or None if the most even ones hold too much of low frequencies."""
    for width in WIDTHS_PX:
        share = _low_frequency_share(patches, width)
        smallest = float(np.quantile(share, EVEN_QUANTILE))
        if smallest <= LARGEST_SHARE:
            return patches[share <= EVEN_FACTOR * smallest]
    return None


def _tissue_patches(slices: np.ndarray, side: int) -> Iterator[np.ndarray]:
    """Detrended patches of each slice whose blurred values lie within `TISSUE_HU`."""
    for image in slices:
        # metal and padding must not reach far through the blur
        held = image.clip(FLOOR_HU, 1500)
        rows, columns = (gaussian_matrix(n, BLUR_PX).astype(np.float32) for n in image.shape)
        smooth = rows @ held @ columns.T
        yield _patches(image, (smooth > TISSUE_HU[0]) & (smooth < TISSUE_HU[1]), side)


def _patches(image: np.ndarray, tissue: np.ndarray, side: int) -> np.ndarray:
    """Detrended patches (m, side, side) that lie within `tissue`, a third of a side apart."""
    step = max(side // 3, 1)
    inside = sliding_window_view(tissue, (side, side))[::step, ::step].all((-2, -1))
    raw = sliding_window_view(image, (side, side))[::step, ::step][inside].reshape(-1, side * side)
    raw = raw - raw.mean(1, keepdims=True)  # float32 loses digits on a large mean
    trend = _quadratic(side)
    return (raw - (raw @ trend) @ trend.T).reshape(-1, side, side)


def _quadratic(side: int) -> np.ndarray:
    """Orthonormal basis (side^2, 6) of quadratic surfaces."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    terms = np.stack([np.ones_like(x), x, y, x * y, x * x, y * y], -1).reshape(-1, 6)
    return np.linalg.qr(terms)[0].astype(np.float32)


def _low_frequency_share(patches: np.ndarray, width: int) -> np.ndarray:
    """Power of each patch after a mean over `width` x `width` pixels, over the power that this mean takes away."""
    half = width // 2
    rows = sliding_window_view(patches, width, axis=1).mean(-1)
    low = sliding_window_view(rows, width, axis=2).mean(-1)
    high = patches[:, half:-half, half:-half] - low
    # a tenth of the rounding to whole HU keeps perfectly even patches from dividing by zero
    return (low**2).mean((1, 2)) / ((high**2).mean((1, 2)) + 0.01)


def noise_spectrum(
    hu: np.ndarray, spacing_mm: tuple[float, float], bins: int = 10
) -> tuple[np.ndarray, np.ndarray] | str:
    """Radial power spectrum of the noise in even tissue, as a share of its variance per unit of area in frequency.

    Returns
    -------
    (frequency (bins,) in lp/cm up to Nyquist, power (bins,)), or a sentence that says why there is none.

    Example
    -------
    >>> frequency, power = noise_spectrum(np.random.default_rng(0).normal(40, 20, (128, 128)), (0.8, 0.8))
    >>> bool(power[3:].std() < 0.15 * power.mean())
    True
    """
    found = even_patches(hu, spacing_mm)
    if isinstance(found, str):
        return found
    side = found.shape[-1]
    window = np.hanning(side + 2)[1:-1]
    padded = 2 * side
    power = (np.abs(np.fft.rfft2(found * np.outer(window, window), (padded, padded))) ** 2).mean(0)
    fy = 10 * np.fft.fftfreq(padded, spacing_mm[0])[:, None]
    fx = 10 * np.fft.rfftfreq(padded, spacing_mm[1])[None]
    radius = np.hypot(fy, fx)
    edges = np.linspace(0, 5 / max(spacing_mm), bins + 1)
    index = np.digitize(radius, edges) - 1
    inside = index < bins
    count = np.bincount(index[inside], minlength=bins)
    total = np.bincount(index[inside], power[inside], minlength=bins)
    frequency = np.bincount(index[inside], radius[inside], minlength=bins)
    area = (fy[1, 0] * fx[0, 1]) * 2 * power.sum()
    return frequency / count, total / count / area


def kernel_from_noise(measured: NoiseMeasurement, spacing_mm: tuple[float, float]) -> Kernel | None:
    """The kernel whose noise has the measured autocorrelation; None where nothing was measured.

    For images whose header does not name the kernel. Pixels say less the larger they are: at 0.8 mm, kernels that pass
    more than about 7 lp/cm all look alike.

    Example
    -------
    >>> import torch
    >>> from uhrct.physics.noise import noise_field
    >>> noise = noise_field((192, 192), (0.7, 0.7), Kernel(3.5, 5.9), torch.Generator().manual_seed(0))
    >>> kernel = kernel_from_noise(measure_noise(40 + 20 * noise.numpy(), (0.7, 0.7)), (0.7, 0.7))
    >>> 3.0 < kernel.mtf50_lp_cm < 4.2
    True
    """
    if not measured.reliable:
        return None
    at_1_mm = _nearest_kernel(measured.autocorrelation)
    pixel_mm = float(np.mean(spacing_mm))
    return Kernel(at_1_mm.mtf50_lp_cm / pixel_mm, at_1_mm.mtf10_lp_cm / pixel_mm, at_1_mm.overshoot)


def _nearest_kernel(autocorrelation: tuple[float, ...]) -> Kernel:
    """The kernel, at pixels of 1 mm, with the most similar autocorrelation."""
    kernels, correlations = _candidates()
    return kernels[int(((correlations - np.array(autocorrelation)) ** 2).sum(1).argmin())]


@lru_cache(maxsize=1)
def _candidates() -> tuple[list[Kernel], np.ndarray]:
    """Kernels from 1 to 9 lp/cm at pixels of 1 mm (0.1 to 0.9 periods per pixel), and their autocorrelations."""
    kernels = [
        Kernel(round(float(mtf50), 3), round(float(mtf50 * ratio), 3), overshoot)
        for ratio, overshoot in ((1.75, 0.0), (1.6, 0.0), (1.45, 0.2), (1.3, 0.4))
        for mtf50 in np.geomspace(1.0, 9.0, 56)
    ]
    return kernels, np.array([_expected(k) for k in kernels])


def _expected(kernel: Kernel) -> tuple[float, ...]:
    """Autocorrelation of a kernel's noise at pixels of 1 mm."""
    correlation = np.fft.irfft2(noise_amplitude((64, 64), (1.0, 1.0), kernel) ** 2, (64, 64))
    return tuple((correlation[lag, 0] + correlation[0, lag]) / (2 * correlation[0, 0]) for lag in range(1, LAGS + 1))


@lru_cache(maxsize=256)
def _bias(kernel: Kernel, side: int) -> tuple[float, tuple[float, ...]]:
    """What the method makes of pure noise of a kernel: measured / true standard deviation, and measured - true
    autocorrelation. Detrending and the choice of patches take away some of the lowest frequencies, which matters for
    soft kernels and small pixels.
    """
    import torch

    noise = 100 * noise_field((256, 256), (1.0, 1.0), kernel, torch.Generator().manual_seed(0)).numpy()
    even = _even(_patches(noise, np.ones(noise.shape, bool), side))
    if even is None:
        return 1.0, (0.0,) * LAGS
    sigma, correlation = _statistics(even)
    difference = np.subtract(correlation, _expected(kernel))
    return sigma / 100, tuple(float(d) for d in difference)
