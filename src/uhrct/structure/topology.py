"""Betti numbers of masks (pieces, loops, cavities), and their differences between a reference and a test."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import ArrayLike

from uhrct.core.errors import UhrctError
from uhrct.core.undefined import Undefined
from uhrct.structure.vessels import masks

CROP = 64  # pixels or voxels along each side


def betti_numbers(mask: ArrayLike) -> tuple[int, ...]:
    """Pieces and holes of a slice (b0, b1); pieces, tunnels and cavities of a volume (b0, b1, b2).

    Pixels are 8-connected (background 4), voxels 26-connected (background 6). Holes follow from the Euler number.

    Parameters
    ----------
    mask : array_like of bool, (y, x) or (z, y, x)

    Raises
    ------
    UhrctError
        On another number of dimensions.

    References
    ----------
    Kong and Rosenfeld, CVGIP 1989, doi 10.1016/0734-189X(89)90147-3.

    Example
    -------
    >>> betti_numbers([[1, 1, 1, 0, 1], [1, 0, 1, 0, 0], [1, 1, 1, 0, 1]])
    (3, 1)
    """
    # These libraries belong to the evaluation extra.
    from scipy import ndimage
    from skimage.measure import euler_number

    image = np.asarray(mask, bool)
    if image.ndim not in (2, 3):
        raise UhrctError(f"Betti numbers of shape {image.shape}: need (y, x) or (z, y, x)")
    if not image.any():
        return (0,) * image.ndim
    pieces = ndimage.label(image, np.ones((3,) * image.ndim))[1]
    chi = int(euler_number(image, connectivity=image.ndim))
    if image.ndim == 2:
        return pieces, pieces - chi
    cavities = ndimage.label(np.pad(~image, 1, constant_values=True))[1] - 1  # the outside is no cavity
    return pieces, pieces + cavities - chi, cavities


def betti_errors(reference: ArrayLike, test: ArrayLike, inside: ArrayLike, *, crop: int = CROP) -> tuple[float, float]:
    """Absolute differences of b0 and of b1, each averaged over the crops that contain lung.

    Crops with sides of `crop` tile the image from its first corner. Crops at the far end may be smaller. The lungs
    alone decide which crops count, so an invented vessel cannot lower the mean.

    Parameters
    ----------
    reference, test : array_like of bool, (y, x) or (z, y, x)
        Vessel masks.
    inside : array_like of bool, same shape
        The lungs.
    crop : int

    Returns
    -------
    (b0 error, b1 error)

    Raises
    ------
    Undefined
        If there is no lung.
    UhrctError
        On unequal shapes.

    References
    ----------
    After the Betti error of Hu et al., NeurIPS 2019, doi 10.48550/arXiv.1906.05404.

    Example
    -------
    >>> whole = np.zeros((64, 64), bool); whole[30, 5:60] = True
    >>> broken = whole.copy(); broken[30, 20] = False
    >>> betti_errors(whole, broken, np.ones_like(whole))
    (1.0, 0.0)
    """
    total, count = betti_error_sums(reference, test, inside, crop=crop)
    if not count:
        raise Undefined("no lung in the reference")
    return total[0] / count, total[1] / count


def betti_error_sums(
    reference: ArrayLike, test: ArrayLike, inside: ArrayLike, *, crop: int = CROP
) -> tuple[tuple[int, int], int]:
    """The sums over crops of `betti_errors`, and the number of crops, for volumes that are read slab by slab."""
    a, b = masks(reference, test)
    lungs = np.asarray(inside, bool)
    if lungs.shape != a.shape:
        raise UhrctError(f"lungs {lungs.shape} do not fit vessel masks {a.shape}")
    pieces = loops = count = 0
    for corner in product(*(range(0, n, crop) for n in a.shape)):
        where = tuple(slice(k, k + crop) for k in corner)
        if not lungs[where].any():
            continue
        x, y = betti_numbers(a[where]), betti_numbers(b[where])
        pieces, loops, count = pieces + abs(x[0] - y[0]), loops + abs(x[1] - y[1]), count + 1
    return (pieces, loops), count
