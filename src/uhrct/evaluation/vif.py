"""VIF: the share of the reference's information that a test image keeps (pixel domain)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from uhrct.core.errors import UhrctError
from uhrct.core.undefined import Undefined
from uhrct.evaluation.fidelity import check_finite, checked_window

NOISE_VARIANCE = 2.0  # visual noise of the paper, in squared grey levels of 0 ... 255
SCALES = 4
SMALLEST_PX = 41  # smaller images have no window in the fourth scale
_TINY = 1e-10  # as in the authors' code, against division by zero


def vif(reference: ArrayLike, test: ArrayLike, *, window_hu: tuple[float, float]) -> float:
    """Visual information fidelity in the pixel domain (VIFp), with the window mapped to 0 ... 255. **Not symmetric.**

    The noise constant 2.0 refers to grey levels of an 8-bit image: the same pair in [0, 1] or in HU has another value.

    Parameters
    ----------
    reference, test : array_like, (y, x) or (z, y, x), HU, in this order
        A volume gives the mean over its slices.
    window_hu : (low, high)

    Returns
    -------
    float
        1 for equal images, 0 where nothing is kept, above 1 for a test of more contrast.

    Raises
    ------
    Undefined
        If a slice of the reference is constant inside the window.
    UhrctError
        On unequal shapes, slices below 41 x 41, NaN or infinite values, or a window without width.

    References
    ----------
    Sheikh and Bovik, IEEE TIP 2006, doi 10.1109/TIP.2005.859378; windows and scales as in the authors' vifp_mscale.

    Example
    -------
    >>> image = np.random.default_rng(0).uniform(-1000, 0, (48, 48))
    >>> f"{vif(image, image, window_hu=(-1000, 600)):.4f}", f"{vif(image, image / 2, window_hu=(-1000, 600)):.2f}"
    ('1.0000', '0.79')
    """
    low, high = checked_window(window_hu)
    a, b = np.asarray(reference), np.asarray(test)
    if a.shape != b.shape or a.ndim not in (2, 3) or a.size == 0 or min(a.shape[-2:]) < SMALLEST_PX:
        raise UhrctError(
            f"VIF of reference {a.shape} and test {b.shape}: need equal (y, x) or (z, y, x), slices of 41 x 41 or more"
        )
    check_finite(a, b, "VIF")

    def grey(x: np.ndarray) -> np.ndarray:
        return (np.clip(x.astype(np.float64), low, high) - low) * (255 / (high - low))

    pairs = zip(a.reshape(-1, *a.shape[-2:]), b.reshape(-1, *b.shape[-2:]), strict=True)
    return float(np.mean([_vifp(grey(x), grey(y)) for x, y in pairs]))


def _vifp(a: np.ndarray, b: np.ndarray) -> float:
    kept = held = 0.0
    for scale in range(SCALES):
        size = 2 ** (SCALES - scale) + 1
        if scale:
            a, b = _smooth(a, size)[::2, ::2], _smooth(b, size)[::2, ::2]
        mean_a, mean_b = _smooth(a, size), _smooth(b, size)
        var_a = (_smooth(a * a, size) - mean_a**2).clip(min=0)
        var_b = (_smooth(b * b, size) - mean_b**2).clip(min=0)
        cov = _smooth(a * b, size) - mean_a * mean_b
        gain = cov / (var_a + _TINY)  # the channel b = gain a + noise
        noise = var_b - gain * cov
        flat_a, flat_b = var_a < _TINY, var_b < _TINY
        gain[flat_a | flat_b] = 0
        noise[flat_a] = var_b[flat_a]
        noise[flat_b] = 0
        var_a[flat_a] = 0
        noise = noise.clip(min=_TINY)
        gain = gain.clip(min=0)  # an inverted image keeps nothing
        kept += np.log10(1 + gain**2 * var_a / (noise + NOISE_VARIANCE)).sum()
        held += np.log10(1 + var_a / NOISE_VARIANCE).sum()
    if held == 0:
        raise Undefined("the reference is constant inside the window")
    return float(kept / held)


def _smooth(image: np.ndarray, size: int) -> np.ndarray:
    """Gaussian of `size` pixels with sigma size / 5, where the whole window lies on the image."""
    from scipy import ndimage  # evaluation extra

    half = size // 2
    weights = np.exp(-0.5 * (np.arange(-half, half + 1) / (size / 5)) ** 2)
    weights /= weights.sum()
    for axis in (0, 1):
        image = ndimage.correlate1d(image, weights, axis=axis)
    return image[half:-half, half:-half]
