"""Find the trachea: a tube of air in the middle of the chest, with a wall all around and lung on both sides below."""

from __future__ import annotations

import numpy as np
from scipy import ndimage  # evaluation extra

from uhrct.core.errors import InputRefused
from uhrct.evaluation.fast_lungs import coarse_factors, coarsen

COARSE_MM = 2.0
AIR_BELOW_HU = -900.0
SECTION_CM2 = (0.5, 9.0)
#: a section is at most so many times as wide as deep, or as deep as wide. The air between back and table is flatter.
MOST_FLAT = 3.0
WALL_FROM_HU = -650.0  # mean around the section; it includes partial volume
LEAST_LENGTH_MM = 10.0
OFF_CENTRE_MM = 45.0
BESIDE_CM2 = 8.0  # of lung on each side of the lower end


def trachea(hu: np.ndarray, lungs: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """Mask of air in the trachea, in an array whose slices go from the head to the feet.

    Parameters
    ----------
    hu : array (z, y, x), HU
    lungs : array of bool, same shape
    spacing_mm : (z, y, x)

    Raises
    ------
    InputRefused
        If there is none.

    Example
    -------
    >>> z, y, x = np.mgrid[:20, :100, :100]
    >>> chest = np.where(np.hypot(y - 50, x - 50) < 48, 40, -1000)
    >>> lungs = (np.hypot(y - 50, x - 25) < 15) | (np.hypot(y - 50, x - 75) < 15)
    >>> chest[lungs] = -850
    >>> chest[np.hypot(y - 50, x - 50) < 5] = -1000
    >>> found = trachea(chest, lungs, (2.0, 2.0, 2.0))
    >>> bool(found[10, 50, 50]), bool(found[10, 50, 25])
    (True, False)
    """
    factors = coarse_factors(spacing_mm, COARSE_MM)
    mm = tuple(s * f for s, f in zip(spacing_mm, factors, strict=True))
    coarse, lung = coarsen(hu, factors), coarsen(lungs.astype(np.int16), factors) >= 0.5
    across = np.flatnonzero(lung.any((0, 1)))
    middle_mm = mm[2] * (across[0] + across[-1]) / 2
    sections = np.zeros(coarse.shape, bool)
    for k, plane in enumerate(coarse):
        sections[k] = _sections(plane, lung[k], mm, middle_mm)
    pieces, _ = ndimage.label(sections, np.ones((3, 3, 3)))
    best, longest_mm = 0, 0.0
    for k, where in enumerate(ndimage.find_objects(pieces), 1):
        length_mm = (where[0].stop - where[0].start) * mm[0]
        if length_mm >= max(LEAST_LENGTH_MM, longest_mm) and _between_lungs(pieces == k, where, lung, mm):
            best, longest_mm = k, length_mm
    if best == 0:
        raise InputRefused(
            "no trachea found, and airways are followed from there; give a scan that holds the chest from the neck "
            "or the upper lungs on"
        )
    core = pieces == best
    for axis, f in enumerate(factors):
        core = np.repeat(core, f, axis)
    z, y, x = hu.shape
    return core[:z, :y, :x] & (hu < AIR_BELOW_HU)


def _sections(plane: np.ndarray, lung: np.ndarray, mm: tuple[float, ...], middle_mm: float) -> np.ndarray:
    """Sections of one slice that may be those of a trachea."""
    kept = np.zeros(plane.shape, bool)
    pieces, _ = ndimage.label((plane < AIR_BELOW_HU) & ~lung)
    cm2 = mm[1] * mm[2] / 100
    for k, where in enumerate(ndimage.find_objects(pieces), 1):
        rows, columns = where
        if rows.start < 2 or columns.start < 2 or rows.stop > plane.shape[0] - 2 or columns.stop > plane.shape[1] - 2:
            continue
        piece = pieces[where] == k
        sides_mm = sorted(n * side for n, side in zip(piece.shape, mm[1:], strict=True))
        if sides_mm[1] > MOST_FLAT * sides_mm[0]:
            continue
        centre_mm = mm[2] * (columns.start + ndimage.center_of_mass(piece)[1])
        if not SECTION_CM2[0] <= piece.sum() * cm2 <= SECTION_CM2[1] or abs(centre_mm - middle_mm) > OFF_CENTRE_MM:
            continue
        around = (slice(rows.start - 2, rows.stop + 2), slice(columns.start - 2, columns.stop + 2))
        piece = pieces[around] == k
        ring = ndimage.binary_dilation(piece, iterations=2) & ~ndimage.binary_dilation(piece)
        if piece.sum() > 0.45 * (piece.any(0).sum() * piece.any(1).sum()) and plane[around][ring].mean() > WALL_FROM_HU:
            kept[around] |= piece
    return kept


def _between_lungs(piece: np.ndarray, where: tuple[slice, ...], lung: np.ndarray, mm: tuple[float, ...]) -> bool:
    """Whether lung lies on both sides of the lower end, within 2 cm below it: the gas of a bowel has none."""
    low = where[0].stop - 1
    x = int(np.argwhere(piece[low])[:, 1].mean())
    below = lung[max(low - int(10 / mm[0]), 0) : low + 1 + int(20 / mm[0])]
    area_cm2 = [half.sum((1, 2)).max() * mm[1] * mm[2] / 100 for half in (below[..., :x], below[..., x:])]
    return bool(min(area_cm2) >= BESIDE_CM2)
