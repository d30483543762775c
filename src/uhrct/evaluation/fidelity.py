"""Fidelity to a reference in HU: PSNR, RMSE, MAE and SSIM.

PSNR of one pair of images changes by 10 dB with the assumed range. So the caller always names the window; it is never
taken from the data.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

from uhrct.core.errors import UhrctError

Window = tuple[float, float]


def psnr(reference: ArrayLike, test: ArrayLike, *, window_hu: Window) -> float:
    """Peak signal-to-noise ratio in dB. Both images are clipped to the window; the peak is its width.

    Parameters
    ----------
    reference, test : array_like, any shape, HU
    window_hu : (low, high)
        One of `uhrct.core.hu.METRIC_WINDOWS_HU`, or another.

    Returns
    -------
    float
        `inf` where both are equal inside the window.

    Raises
    ------
    UhrctError
        On unequal shapes, empty arrays, NaN or infinite values, or a window without width.

    Example
    -------
    >>> reference = np.full((4, 8, 8), -800.0)
    >>> round(psnr(reference, reference + 16, window_hu=(-1000, 600)), 2)  # 20 log10(1600 / 16)
    40.0
    """
    low, high = checked_window(window_hu)
    a, b = _pair(reference, test)
    mse = _mean((np.clip(x, low, high) - np.clip(y, low, high)) ** 2 for x, y in _slices(a, b))
    return math.inf if mse == 0 else 10 * math.log10((high - low) ** 2 / mse)


def rmse(reference: ArrayLike, test: ArrayLike) -> float:
    """Root mean squared error in HU, without a window. Errors as in `psnr`.

    Example
    -------
    >>> rmse(np.zeros((2, 2)), [[0, 0], [0, 20]])
    10.0
    """
    return math.sqrt(_mean((x - y) ** 2 for x, y in _slices(*_pair(reference, test))))


def mae(reference: ArrayLike, test: ArrayLike) -> float:
    """Mean absolute error in HU, without a window. Errors as in `psnr`.

    Example
    -------
    >>> mae(np.zeros((2, 2)), [[0, 0], [0, -20]])
    5.0
    """
    return _mean(np.abs(x - y) for x, y in _slices(*_pair(reference, test)))


def ssim(reference: ArrayLike, test: ArrayLike, *, window_hu: Window) -> float:
    """Structural similarity: Gaussian 11 x 11, sigma 1.5, window mapped to [0, 1], biased covariance.

    Parameters
    ----------
    reference, test : array_like, (y, x) or (z, y, x), HU
        A volume gives the mean over its slices.
    window_hu : (low, high)

    Returns
    -------
    float
        At most 1, for equal images.

    Raises
    ------
    UhrctError
        As `psnr`, and on slices below 11 x 11.

    References
    ----------
    Wang et al., IEEE TIP 2004, doi 10.1109/TIP.2003.819861; K1 = 0.01, K2 = 0.03.

    Example
    -------
    >>> image = np.random.default_rng(0).uniform(-1000, 0, (16, 16))
    >>> ssim(image, image, window_hu=(-1000, 600))
    1.0
    """
    from skimage.metrics import structural_similarity  # evaluation extra

    low, high = checked_window(window_hu)
    a, b = _pair(reference, test)
    if a.ndim not in (2, 3) or min(a.shape[-2:]) < 11:
        raise UhrctError(f"SSIM of shape {a.shape}: need (y, x) or (z, y, x) with slices of 11 x 11 or more")

    def mapped(x: np.ndarray) -> np.ndarray:
        return (np.clip(x, low, high) - low) / (high - low)

    return _mean(
        np.asarray(
            structural_similarity(
                mapped(x),
                mapped(y),
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
                data_range=1.0,
            )
        )
        for x, y in _slices(a, b)
    )


def checked_window(window_hu: Window) -> Window:
    """The window as floats. Raises `UhrctError` unless it is finite and has a width."""
    low, high = window_hu
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UhrctError(f"window ({low}, {high}) HU: need a finite lower end below a finite upper end")
    return float(low), float(high)


def _pair(reference: ArrayLike, test: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(reference), np.asarray(test)
    if a.shape != b.shape:
        raise UhrctError(f"reference {a.shape} and test {b.shape} differ in shape; resample one to the other's grid")
    if a.size == 0:
        raise UhrctError(f"the arrays are empty: shape {a.shape}")
    check_finite(a, b, "the fidelity")
    return a, b


def check_finite(reference: np.ndarray, test: np.ndarray, metric: str) -> None:
    """Raise `UhrctError` on NaN or infinite values. `metric` names the metric in the message."""
    if not (np.isfinite(reference).all() and np.isfinite(test).all()):
        raise UhrctError(f"NaN or infinite values in the reference or the test; {metric} is undefined")


def _slices(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of slices in float64, one at a time: a whole volume in float64 would need four times its memory."""
    if a.ndim < 3:
        a, b = a[None], b[None]
    for x, y in zip(a, b, strict=True):
        yield x.astype(np.float64), y.astype(np.float64)


def _mean(values: Iterator[np.ndarray]) -> float:
    """Mean over arrays of one size."""
    return float(np.mean([v.mean() for v in values]))
