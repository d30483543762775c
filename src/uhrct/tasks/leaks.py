"""Cut leaks off a mask that was grown from a seed: places where the front of the growth explodes.

The mask is divided into discs, by geodesic distance from the seed and by connection. Each disc knows the disc it came
from. In a tree of airways the sum of the cross-sections changes slowly along the way. In a leak it explodes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from uhrct.tasks.boxes import box_of

#: Thickness of a disc.
STEP_MM = 2.0
#: A disc may be this many times as large as the typical disc before it, plus a constant for thin branches.
GROWTH, EXTRA_MM2 = 2.2, 8.0
#: All discs that come from one disc, at the same distance, may be together this many times as large.
TOTAL_GROWTH, TOTAL_EXTRA_MM2 = 2.6, 14.0
#: How many discs further on a leak is looked for.
DEPTH = 7
#: After a cut the rest is examined again.
ROUNDS = 4


@dataclass
class _Discs:
    """Arrays with one entry per disc; disc 0 is the background."""

    number: np.ndarray  # disc of each voxel of the mask
    level: np.ndarray  # distance from the seed in steps
    parent: np.ndarray
    area_mm2: np.ndarray


def without_leaks(mask: np.ndarray, seed: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """The part of `mask` that is connected to `seed` by discs that do not explode.

    Parameters
    ----------
    mask, seed : arrays of bool (z, y, x)
        The seed is kept whole.
    spacing_mm : (z, y, x)

    Example
    -------
    >>> mask = np.zeros((40, 40, 40), bool)
    >>> mask[:, 19:22, 19:22] = True  # a tube, and a leak at its end
    >>> mask[30:38, 5:35, 5:35] = True
    >>> seed = mask & (np.arange(40) < 3)[:, None, None]
    >>> kept = without_leaks(mask, seed, (1.0, 1.0, 1.0))
    >>> bool(kept[25, 20, 20]), bool(kept[33, 8, 8])
    (True, False)
    """
    whole = mask | seed
    box = box_of(whole, (1, 1, 1))
    inside, start = whole[box], seed[box]
    distance_mm = _geodesic(inside, start, spacing_mm)
    step_mm = max(STEP_MM, 1.5 * max(spacing_mm))
    discs = _discs(distance_mm, step_mm, spacing_mm)
    bad = _exploding(discs)
    kept = np.zeros(whole.shape, bool)
    part = np.zeros(inside.shape, bool)
    part[np.isfinite(distance_mm)] = ~bad[discs.number]
    kept[box] = part | start
    return kept


def _geodesic(inside: np.ndarray, start: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """Length of the shortest path inside the mask, in mm; infinite where there is none."""
    from skimage.graph import MCP_Geometric  # evaluation extra

    paths = MCP_Geometric(np.where(inside, 1.0, -1.0), fully_connected=True, sampling=spacing_mm)
    distance_mm, _ = paths.find_costs(np.argwhere(start))
    return np.where(inside, distance_mm, np.inf)


def _discs(distance_mm: np.ndarray, step_mm: float, spacing_mm: tuple[float, float, float]) -> _Discs:
    from skimage.measure import label  # evaluation extra

    reached = np.isfinite(distance_mm)
    levels = np.zeros(distance_mm.shape, np.int32)
    levels[reached] = 1 + (distance_mm[reached] / step_mm).astype(np.int32)
    numbers = np.pad(label(levels, connectivity=3), 1)  # pieces of equal level
    flat, stride = numbers.ravel(), [s // numbers.itemsize for s in numbers.strides]
    at = np.flatnonzero(flat)
    number = flat[at]
    n = int(number.max()) + 1 if len(number) else 1
    size = np.bincount(number, minlength=n)
    level = np.zeros(n, np.int32)
    level[number] = levels[reached]
    pairs = []
    for dz in (-1, 0, 1):
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                other = flat[at + dz * stride[0] + dy * stride[1] + dx * stride[2]]
                towards = (other > 0) & (level[other] == level[number] - 1)
                pairs.append(number[towards].astype(np.int64) * n + other[towards])
    code, count = np.unique(np.concatenate(pairs), return_counts=True)
    order = np.argsort(count, kind="stable")  # the parent with most contacts is written last
    parent = np.zeros(n, np.int64)
    parent[code[order] // n] = code[order] % n
    return _Discs(number, level, parent, size * float(np.prod(spacing_mm)) / step_mm)


def _exploding(discs: _Discs) -> np.ndarray:
    """Discs of leaks, and all that comes from them."""
    parent, area, n = discs.parent, discs.area_mm2, len(discs.level)
    bad = np.zeros(n, bool)
    order = np.argsort(discs.level, kind="stable")
    order = order[discs.level[order] > 1]  # the first level is the seed
    usual = area.copy()
    for k in order:  # a disc after the one it came from
        before = parent[k]
        if before == 0:
            continue
        usual[k] = min(area[k], GROWTH * usual[before]) if discs.level[k] == 2 else 0.5 * (usual[before] + area[k])
        if bad[before] or area[k] > GROWTH * usual[before] + EXTRA_MM2:
            bad[k] = True
            usual[k] = usual[before]
    for _ in range(ROUNDS):
        total = np.where(bad, 0.0, area)
        for _ in range(DEPTH):
            later = np.zeros(n)
            np.add.at(later, parent, np.where(bad, 0.0, total))
            later[0] = 0
            total = later
            cause = (total > TOTAL_GROWTH * area + TOTAL_EXTRA_MM2) & (discs.level > 1) & ~bad
            if cause.any():
                bad |= cause[parent]
                break
        for k in order:
            bad[k] |= bad[parent[k]] and parent[k] > 0
        bad[0] = False
    return bad
