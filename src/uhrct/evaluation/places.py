"""Where a test differs most from the truth: places inside the body, for zooms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from uhrct.core.hu import METRIC_WINDOWS_HU
from uhrct.core.volume import Volume
from uhrct.evaluation.lungs import body_mask

#: A place lies deeper than this below the skin: table, clothes and skin say nothing about the quality.
DEPTH_MM = 10.0
#: Errors are smoothed by a Gaussian of this sigma, so that a place is a structure and not one noisy voxel.
SMOOTH_MM = 1.0


@dataclass(frozen=True)
class Place:
    """A voxel (z, y, x) and the smoothed error there, test - reference, in HU."""

    z: int
    y: int
    x: int
    error_hu: float


def worst_places(
    reference: Volume, test: Volume, *, count: int = 3, apart_mm: float = 40.0, ends: int = 0
) -> list[Place]:
    """The places with the largest local error inside the body, the worst first, at most one in a slice.

    Errors count inside the wide window: metal and the air of bowel would else hide all others.

    Parameters
    ----------
    reference, test : volumes on one grid
    count : number of places; fewer where the body is small
    apart_mm : smallest distance of two places
    ends : slices at both ends that do not count, if others are left

    Example
    -------
    >>> y, x = np.mgrid[:100, :100]
    >>> chest = np.where(np.hypot(y - 50, x - 50) < 40, 40.0, -1000.0).astype(np.float32)[None]
    >>> test = chest.copy()
    >>> test[0, 60:64, 50:54] += 100  # inside
    >>> test[0, 11:14, 50:54] += 400  # in the skin
    >>> volumes = (Volume(v, (1.0, 1.0, 1.0)) for v in (chest, test))
    >>> [(p.z, p.y, p.x) for p in worst_places(*volumes, count=1)]
    [(0, 61, 51)]
    """
    _, y_mm, x_mm = reference.spacing_mm
    count_z = reference.shape[0]
    apart_px = (max(1, round(apart_mm / y_mm)), max(1, round(apart_mm / x_mm)))
    found: list[Place] = []
    for z in range(ends, count_z - ends) if count_z > 2 * ends else range(count_z):
        inside = body_mask(reference.hu[z], (y_mm, x_mm), depth_mm=DEPTH_MM)
        if not inside.any():
            continue
        error = smoothed_error(reference.hu[z], test.hu[z], (y_mm, x_mm))
        size = np.where(inside, np.abs(error), 0.0)
        for _ in range(count):  # each may be too near to a worse place of another slice
            y, x = np.unravel_index(int(size.argmax()), size.shape)
            if size[y, x] <= 0:
                break
            found.append(Place(z, int(y), int(x), float(error[y, x])))
            size[max(y - apart_px[0], 0) : y + apart_px[0] + 1, max(x - apart_px[1], 0) : x + apart_px[1] + 1] = 0
    chosen: list[Place] = []
    for place in sorted(found, key=lambda p: -abs(p.error_hu)):
        steps = [np.multiply((place.z - p.z, place.y - p.y, place.x - p.x), reference.spacing_mm) for p in chosen]
        if all(np.linalg.norm(step) >= apart_mm for step in steps) and place.z not in [p.z for p in chosen]:
            chosen.append(place)
    return chosen[:count]


def smoothed_error(reference: np.ndarray, test: np.ndarray, spacing_mm: tuple[float, float]) -> np.ndarray:
    """test - reference of one slice (y, x) in HU inside the wide window, smoothed by `SMOOTH_MM`."""
    from scipy import ndimage  # evaluation extra

    a, b = (np.nan_to_num(np.asarray(v, np.float32)).clip(*METRIC_WINDOWS_HU["wide"]) for v in (reference, test))
    return np.asarray(ndimage.gaussian_filter(b - a, [SMOOTH_MM / s for s in spacing_mm]))
