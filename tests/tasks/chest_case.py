"""A small chest with a trachea that divides four times and a few vessels: HU and exact masks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from uhrct.core.volume import Volume

#: z towards the head, y towards the back, x towards the left; size of the field in mm
FIELD_MM = (90.0, 130.0, 190.0)
USUAL_MM = (1.5, 1.25, 1.25)


@dataclass(frozen=True)
class Chest:
    volume: Volume
    lungs: np.ndarray
    airways: np.ndarray
    vessels: np.ndarray


Tube = tuple[tuple[float, float, float], tuple[float, float, float], float]


def _tubes(kind: str) -> list[Tube]:
    """(start, end, radius) in mm from the first corner."""
    if kind == "vessels":
        lines = []
        for side in (1, -1):
            root = (42.0, 65.0, 95 + side * 30.0)
            for k, end in enumerate(((20, 46, 56), (22, 86, 54), (66, 45, 54), (70, 84, 50), (44, 66, 66))):
                lines.append((root, (end[0], end[1], 95 + side * float(end[2])), 2.4 - 0.35 * k))
        return lines
    carina = (60.0, 65.0, 95.0)
    lines = [((95.0, 65.0, 95.0), carina, 7.0)]
    for side in (1, -1):
        main = (50.0, 65.0, 95 + side * 30.0)
        lines += [(carina, main, 4.5)]
        for z in (30.0, 66.0):
            second = (z, 58.0, 95 + side * 44.0)
            lines += [(main, second, 2.6)]
            for y in (40.0, 84.0):
                lines += [(second, (z - 10, y, 95 + side * 56.0), 1.7)]
    return lines


def _mark(mask: np.ndarray, step_mm: tuple[float, ...], tube: Tube, radius_mm: float) -> None:
    """Mark all samples within `radius_mm` of the line of a tube."""
    a, b = np.array(tube[0]), np.array(tube[1])
    box, at = [], []
    for axis, (n, step) in enumerate(zip(mask.shape, step_mm, strict=True)):
        low, high = min(a[axis], b[axis]) - radius_mm, max(a[axis], b[axis]) + radius_mm
        side = slice(max(int(low / step), 0), min(int(high / step) + 2, n))
        box.append(side)
        at.append(((np.arange(n)[side] + 0.5) * step).reshape([-1 if k == axis else 1 for k in range(3)]))
    along = b - a
    t = sum((p - s) * d for p, s, d in zip(at, a, along, strict=True)) / (along @ along)
    t = np.clip(t, 0, 1)
    square = sum((p - s - t * d) ** 2 for p, s, d in zip(at, a, along, strict=True))
    mask[tuple(box)] |= square < radius_mm**2


@lru_cache
def chest(spacing_mm: tuple[float, float, float] = USUAL_MM, noise_hu: float = 15.0) -> Chest:
    """The chest on a grid. Each voxel is the mean of 2 x 2 x 2 samples."""
    shape = tuple(round(f / s) for f, s in zip(FIELD_MM, spacing_mm, strict=True))
    step_mm = tuple(s / 2 for s in spacing_mm)
    z, y, x = np.meshgrid(
        *[(np.arange(2 * n) + 0.5) * s for n, s in zip(shape, step_mm, strict=True)], indexing="ij", sparse=True
    )
    hu = np.where(np.hypot((y - 65) / 60, (x - 95) / 90) < 1, 40, -1000) + np.zeros_like(z, int)
    hu = hu.astype(np.float32)
    lungs = np.zeros(hu.shape, bool)
    for side in (1, -1):
        lungs |= ((z - 45) / 43) ** 2 + ((y - 65) / 42) ** 2 + ((x - 95 - side * 46) / 29) ** 2 < 1
    hu[lungs] = -860
    vessels, walls, airways = (np.zeros(hu.shape, bool) for _ in range(3))
    for tube in _tubes("vessels"):
        _mark(vessels, step_mm, tube, tube[2])
    for tube in _tubes("airways"):
        _mark(walls, step_mm, tube, 1.25 * tube[2] + 0.6)
        _mark(airways, step_mm, tube, tube[2])
    hu[vessels | walls] = 40
    hu[airways] = -990
    vessels &= lungs & ~walls

    def voxels(fine: np.ndarray) -> np.ndarray:
        return fine.reshape(shape[0], 2, shape[1], 2, shape[2], 2).mean((1, 3, 5), dtype=np.float32)

    coarse = voxels(hu) + np.random.default_rng(0).normal(0, noise_hu, shape)
    volume = Volume(np.rint(coarse).astype(np.int16), spacing_mm)
    return Chest(volume, *(voxels(mask) >= 0.5 for mask in (lungs, airways, vessels)))


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b)))
