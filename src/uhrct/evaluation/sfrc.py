"""sFRC: Fourier ring correlation over small patches, which flags patches whose detail is not that of the reference."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike

from uhrct.core.errors import UhrctError
from uhrct.core.undefined import Undefined
from uhrct.evaluation.fidelity import check_finite

#: Side and distance of the patches in pixels.
PATCH_PX, STEP_PX = 48, 24
#: A patch is flagged if the correlation of one of its rings falls below `LEAST` at a frequency up to `UP_TO` of the
#: Nyquist frequency of the reference. Scans with pixels twice as wide measure all of these frequencies.
LEAST, UP_TO = 0.5, 0.35
#: Patches with less contrast than this (standard deviation) hold noise, which no two images share.
LEAST_CONTRAST_HU = 60.0
WINDOW_HU = (-1000.0, 600.0)


def sfrc_flags(reference: ArrayLike, test: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Which patches of a slice are flagged, and which are examined.

    Parameters
    ----------
    reference, test : array_like, (y, x), HU

    Returns
    -------
    flagged, examined : arrays of bool (rows, columns)
        Patch (r, c) begins at pixel (r, c) * `STEP_PX`.

    Raises
    ------
    UhrctError
        On unequal shapes, sides below `PATCH_PX`, NaN or infinite values.
    """
    a, b = np.asarray(reference, np.float64), np.asarray(test, np.float64)
    if a.shape != b.shape or a.ndim != 2 or min(a.shape) < PATCH_PX:
        raise UhrctError(f"sFRC of reference {a.shape} and test {b.shape}: need equal (y, x) of {PATCH_PX} or more")
    check_finite(a, b, "sFRC")
    pa, pb = (_patches(image.clip(*WINDOW_HU)) for image in (a, b))
    examined = pa.std((-2, -1)) >= LEAST_CONTRAST_HU
    flagged = np.zeros(examined.shape, bool)
    flagged[examined] = (_ring_correlation(pa[examined], pb[examined]) < LEAST).any(-1)
    return flagged, examined


def sfrc(reference: ArrayLike, test: ArrayLike) -> float:
    """Share of the examined patches of a slice that are flagged: 0 for equal images, 1 where no patch agrees.

    Parameters and errors as for `sfrc_flags`.

    Raises
    ------
    Undefined
        If no patch of the reference has enough contrast.

    References
    ----------
    Kc et al., arXiv 2603.04673. Patch, window and thresholds are our own; the paper sets them per task.

    Example
    -------
    >>> image = np.random.default_rng(0).normal(0, 100, (96, 96))
    >>> sfrc(image, image + 5), sfrc(image, image[::-1])
    (0.0, 1.0)
    """
    flagged, examined = sfrc_flags(reference, test)
    if not examined.any():
        raise Undefined(f"no patch with a contrast of {LEAST_CONTRAST_HU:.0f} HU in the reference")
    return float(flagged.sum() / examined.sum())


def _patches(image: np.ndarray) -> np.ndarray:
    return sliding_window_view(image, (PATCH_PX, PATCH_PX))[::STEP_PX, ::STEP_PX]


def _ring_correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Fourier ring correlation of patches (n, y, x) for the rings 1, 2, ... up to `UP_TO` of Nyquist, (n, rings)."""
    taper = np.outer(*[np.hanning(PATCH_PX + 2)[1:-1]] * 2)
    fa, fb = (np.fft.fft2((p - p.mean((-2, -1), keepdims=True)) * taper) for p in (a, b))
    f = np.fft.fftfreq(PATCH_PX) * PATCH_PX
    ring = np.rint(np.hypot(f[:, None], f)).astype(int)
    out = []
    for k in range(1, int(UP_TO * PATCH_PX / 2) + 1):
        x, y = fa[:, ring == k], fb[:, ring == k]
        power = (np.abs(x) ** 2).sum(-1) * (np.abs(y) ** 2).sum(-1)
        out.append((x * y.conj()).real.sum(-1) / np.sqrt(np.maximum(power, 1e-12)))
    return np.stack(out, -1)
