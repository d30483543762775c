"""A small chest with a trachea that divides four times and a few vessels: HU and exact masks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from uhrct.core.volume import Volume

#: z towards the head, y towards the back, x towards the left; size of the field in mm
FIELD_MM = (90.0, 130.0, 190.0)


@dataclass(frozen=True)
class Chest:
    volume: Volume
    lungs: np.ndarray
    airways: np.ndarray
    vessels: np.ndarray


def _tubes(kind: str) -> list[tuple[tuple[float, float, float], tuple[float, float, float], float]]:
    """(start, end, radius) in mm from the first corner."""
    if kind == "vessels":
        lines = []
        for side in (1, -1):
            root = (42.0, 65.0, 95 + side * 26.0)
            for k, end in enumerate(((15, 40, 70), (20, 92, 66), (66, 45, 66), (72, 88, 60), (44, 66, 78))):
                lines.append((root, (end[0], end[1], 95.0 + side * end[2]), 2.4 - 0.35 * k))
        return lines
    carina = (60.0, 65.0, 95.0)
    lines = [((95.0, 65.0, 95.0), carina, 7.0)]
    for side in (1, -1):
        main = (50.0, 65.0, 95 + side * 32.0)
        lines += [(carina, main, 4.5)]
        for z in (30.0, 66.0):
            second = (z, 58.0, 95 + side * 52.0)
            lines += [(main, second, 2.6)]
            for y in (36.0, 82.0):
                lines += [(second, (z - 10, y, 95 + side * 66.0), 1.7)]
    return lines


def _radial(at: tuple[np.ndarray, ...], start: tuple[float, ...], end: tuple[float, ...]) -> np.ndarray:
    """Distance in mm from a piece of line."""
    a, b = np.array(start), np.array(end)
    along = b - a
    t = sum((p - s) * d for p, s, d in zip(at, a, along, strict=True)) / (along @ along)
    t = np.clip(t, 0, 1)
    return np.sqrt(sum((p - s - t * d) ** 2 for p, s, d in zip(at, a, along, strict=True)))


@lru_cache
def chest(spacing_mm: tuple[float, float, float] = (1.5, 1.0, 1.0), noise_hu: float = 15.0) -> Chest:
    """The chest on a grid. Each voxel is the mean of 2 x 2 x 2 samples."""
    shape = tuple(round(f / s) for f, s in zip(FIELD_MM, spacing_mm, strict=True))
    axes = [(np.arange(2 * n) + 0.5) * s / 2 for n, s in zip(shape, spacing_mm, strict=True)]
    at = tuple(np.meshgrid(*axes, indexing="ij", sparse=True))
    z, y, x = at
    body = np.hypot((y - 65) / 60, (x - 95) / 90) < 1
    hu = np.where(body, 40.0, -1000.0) + 0 * z
    lungs = np.zeros(hu.shape, bool)
    for side in (1, -1):
        lungs |= np.sqrt(((z - 45) / 43) ** 2 + ((y - 65) / 48) ** 2 + ((x - 95 - side * 50) / 31) ** 2) < 1
    hu[lungs] = -860
    masks = {}
    for kind in ("vessels", "airways"):
        distance = [(_radial(at, a, b), r) for a, b, r in _tubes(kind)]
        masks[kind] = np.any([d < r for d, r in distance], 0)
        if kind == "vessels":
            hu[masks[kind]] = 40
        else:
            hu[np.any([d < 1.25 * r + 0.6 for d, r in distance], 0)] = 20  # the walls
            hu[masks[kind]] = -990
    masks["vessels"] &= lungs & (hu == 40)

    def voxels(fine: np.ndarray) -> np.ndarray:
        return fine.reshape(shape[0], 2, shape[1], 2, shape[2], 2).mean((1, 3, 5))

    coarse = voxels(hu) + np.random.default_rng(0).normal(0, noise_hu, shape)
    volume = Volume(np.rint(coarse).astype(np.int16), spacing_mm)
    return Chest(volume, *(voxels(m.astype(float)) >= 0.5 for m in (lungs, masks["airways"], masks["vessels"])))


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b)))
