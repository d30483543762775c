"""Consistency: does the test, measured by the scanner model, give the low-resolution scan again?"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from uhrct.core.errors import UhrctError
from uhrct.core.hu import FLOOR_HU, PADDING_HU
from uhrct.core.undefined import Undefined
from uhrct.physics.acquisition import Acquisition


def consistency(test: ArrayLike, lr: ArrayLike, acquisition: Acquisition) -> float:
    """Mean absolute difference in HU between A(test) and the low-resolution scan, without padding.

    Parameters
    ----------
    test : array_like, (y', x'), or (z', y', x') for a scale along z, HU
    lr : array_like, (y, x) or (z, y, x), HU
    acquisition : Acquisition
        The operator A. Its scale times the shape of `lr` must be the shape of the test, up to an incomplete last voxel.

    Raises
    ------
    Undefined
        If the low-resolution scan is padding everywhere.
    UhrctError
        On shapes that do not fit, NaN or infinite values.

    Example
    -------
    >>> import torch
    >>> A = Acquisition((1, 2, 2)); sr = np.random.default_rng(0).normal(0, 50, (16, 16))
    >>> lr = A.forward(torch.from_numpy(sr)).numpy()
    >>> f"{consistency(sr, lr, A):.1f}", f"{consistency(sr, lr + 3, A):.1f}"
    ('0.0', '3.0')
    """
    import torch

    sr, x = np.asarray(test), np.asarray(lr)
    scale = acquisition.scale[-x.ndim :] if x.ndim in (2, 3) else ()
    fits = sr.ndim == x.ndim == len(scale) and all(
        n // s == m for n, m, s in zip(sr.shape, x.shape, scale, strict=True)
    )
    if not fits or x.size == 0:
        raise UhrctError(f"test {sr.shape} is not {acquisition.scale} times the low-resolution scan {x.shape}")
    if not (np.isfinite(sr).all() and np.isfinite(x).all()):
        raise UhrctError("NaN or infinite values in the test or the low-resolution scan; the consistency is undefined")
    sr = sr[tuple(slice(m * s) for m, s in zip(x.shape, scale, strict=True))]
    image = torch.from_numpy(sr.astype(np.float64))
    padding = image <= PADDING_HU
    measured = acquisition.forward(image.masked_fill(padding, FLOOR_HU)).numpy()
    # An LR voxel that contains padding has another value in the scanner than in the model.
    padded = acquisition.forward(padding.double()).numpy() > 1e-6
    seen = (x > PADDING_HU) & ~padded
    if not seen.any():
        raise Undefined("the low-resolution scan is padding all over")
    return float(np.abs(measured - x.astype(np.float64))[seen].mean())
