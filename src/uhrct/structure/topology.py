"""Betti numbers of masks: pieces, loops, cavities; and how far those of reference and test are apart."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import ArrayLike

from uhrct.core.errors import UhrctError
from uhrct.core.undefined import Undefined
from uhrct.structure.vessels import masks

CROP = 64  # pixels or voxels along each side


def euler_number(mask: ArrayLike) -> int:
    """Euler characteristic of the union of closed pixels (voxels): cells of even dimension minus those of odd.

    Example
    -------
    >>> euler_number([[1, 1, 1], [1, 0, 1], [1, 1, 1]])  # one piece, one hole
    0
    """
    padded = np.pad(np.asarray(mask, bool), 1)
    total = 0
    for extends in product((False, True), repeat=padded.ndim):
        cells = padded  # a cell belongs to the union if any of the pixels that it bounds does
        for axis, extended in enumerate(extends):
            if not extended:
                first, last = [slice(None)] * padded.ndim, [slice(None)] * padded.ndim
                first[axis], last[axis] = slice(None, -1), slice(1, None)
                cells = cells[tuple(first)] | cells[tuple(last)]
        total += (-1) ** sum(extends) * int(cells.sum())
    return total


def betti_numbers(mask: ArrayLike) -> tuple[int, ...]:
    """Pieces and holes of a slice (b0, b1); pieces, tunnels and cavities of a volume (b0, b1, b2).

    Connectivity: pixels 8, background 4; voxels 26, background 6. Holes follow from the Euler number.

    Parameters
    ----------
    mask : array_like of bool, (y, x) or (z, y, x)

    References
    ----------
    Kong and Rosenfeld, CVGIP 1989, doi 10.1016/0734-189X(89)90147-3.

    Example
    -------
    >>> betti_numbers([[1, 1, 1, 0, 1], [1, 0, 1, 0, 0], [1, 1, 1, 0, 1]])
    (3, 1)
    """
    from scipy import ndimage  # only the evaluation extra has it

    image = np.asarray(mask, bool)
    if image.ndim not in (2, 3):
        raise UhrctError(f"Betti numbers of shape {image.shape}: need (y, x) or (z, y, x)")
    if not image.any():
        return (0,) * image.ndim
    pieces = ndimage.label(image, np.ones((3,) * image.ndim))[1]
    chi = euler_number(image)
    if image.ndim == 2:
        return pieces, pieces - chi
    cavities = ndimage.label(np.pad(~image, 1, constant_values=True))[1] - 1  # the outside is none
    return pieces, pieces + cavities - chi, cavities


def betti_errors(reference: ArrayLike, test: ArrayLike, inside: ArrayLike, *, crop: int = CROP) -> tuple[float, float]:
    """Absolute difference of b0 and of b1, each averaged over the crops that hold lung.

    Crops of `crop` along every side tile the image from its first corner; those at the far end may be smaller.
    Which of them count depends on the lungs alone, so that an invented vessel can't make the mean milder.

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
    """The sums over crops of `betti_errors`, and their number: volumes come slab after slab."""
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
