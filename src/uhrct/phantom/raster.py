"""Draw capsules into voxels, each in its own small box. A formula gives the partial volume, without supersampling."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CHUNK = 3_000_000  # voxels of boxes at once: some tens of MB


@dataclass(frozen=True)
class Lattice:
    """Voxel centres of a slab: ``first_mm + spacing_mm * k`` for k below `shape`, (z, y, x)."""

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    first_mm: tuple[float, float, float]


def profile(distance: np.ndarray, radius: np.ndarray, width: float) -> np.ndarray:
    """Share of a voxel inside a thin cylinder, at `distance` from its axis.

    The profile is a linear ramp of `width` at the surface, or a lower cone where the cylinder is thinner than the ramp.
    Its integral over the cross-section is pi r^2 for every r, so thin vessels neither gain nor lose mass.

    Parameters
    ----------
    distance, radius : arrays that broadcast, mm
    width : of the voxel with its point-spread function, mm
    """
    r2 = radius**2
    ramp = np.sqrt(np.maximum(r2 - width**2 / 12, width**2 / 4))
    height = np.minimum(r2 / (width**2 / 3), 1)
    return height * np.clip(0.5 - (distance - ramp) / width, 0, 1)


def draw_capsules(
    start_mm: np.ndarray,
    end_mm: np.ndarray,
    radius_mm: np.ndarray,
    lattice: Lattice,
    *,
    width_mm: float,
    within_mm: float | None = None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Union of capsules on a slab.

    Parameters
    ----------
    start_mm, end_mm : (n, 3), z y x;  radius_mm : (n,)
    width_mm : of the voxel with its point-spread function
    within_mm : if given, also the mask of voxels whose centre lies within max(radius, `within_mm`) of an axis

    Returns
    -------
    share of each voxel inside (float32, shape of the slab); the mask or None
    """
    share = np.zeros(lattice.shape, np.float32)
    mask = None if within_mm is None else np.zeros(lattice.shape, bool)
    step, first = np.array(lattice.spacing_mm), np.array(lattice.first_mm)
    limit = np.maximum(radius_mm, within_mm or 0.0)
    reach = np.maximum(np.maximum(radius_mm, width_mm / 2) + width_mm / 2, limit)[:, None]
    low = np.ceil((np.minimum(start_mm, end_mm) - reach - first) / step).astype(int)
    high = np.floor((np.maximum(start_mm, end_mm) + reach - first) / step).astype(int)
    shape = np.array(lattice.shape)
    low, high = np.maximum(low, 0), np.minimum(high, shape - 1)
    here = np.flatnonzero((low <= high).all(1))
    size = high[here] - low[here] + 1
    side = -(-size // 2) * 2
    for box in np.unique(side, axis=0):
        members = here[(side == box).all(1)]
        count = max(1, CHUNK // int(np.prod(box)))
        for k in range(0, len(members), count):
            some = members[k : k + count]
            _draw_boxes(
                start_mm[some],
                end_mm[some],
                radius_mm[some],
                limit[some],
                low[some],
                box,
                lattice,
                width_mm,
                share,
                mask,
            )
    return share, mask


def _draw_boxes(
    start: np.ndarray,
    end: np.ndarray,
    radius: np.ndarray,
    limit: np.ndarray,
    low: np.ndarray,
    box: np.ndarray,
    lattice: Lattice,
    width: float,
    share: np.ndarray,
    mask: np.ndarray | None,
) -> None:
    """Draw capsules whose boxes have equal sides, all at once, in arrays (n, z, y, x)."""
    index, offset = [], []
    for axis in range(3):
        i = low[:, axis, None] + np.arange(box[axis])
        index.append(i)
        at = lattice.first_mm[axis] + i * lattice.spacing_mm[axis] - start[:, axis, None]
        offset.append(_on_axis(at.astype(np.float32), axis))
    along = (end - start).astype(np.float32)
    square = np.maximum((along**2).sum(1), 1e-9)
    column = (slice(None), None, None, None)
    t = sum(offset[a] * along[:, a][column] for a in range(3)) / square[column]
    t = np.clip(t, 0, 1)
    distance = np.sqrt(sum((offset[a] - t * along[:, a][column]) ** 2 for a in range(3)))
    inside = profile(distance, radius.astype(np.float32)[column], width)
    fits = [_on_axis(i < n, a) for a, (i, n) in enumerate(zip(index, lattice.shape, strict=True))]
    valid = fits[0] & fits[1] & fits[2]
    _, ny, nx = lattice.shape
    z, y, x = (_on_axis(i, a) for a, i in enumerate(index))
    flat = (z * ny + y) * nx + x
    drawn = valid & (inside > 0)
    np.maximum.at(share.reshape(-1), flat[drawn], inside[drawn].astype(np.float32))
    if mask is not None:
        mask.reshape(-1)[flat[valid & (distance <= limit.astype(np.float32)[column])]] = True


def _on_axis(values: np.ndarray, axis: int) -> np.ndarray:
    """(n, k) as (n, k, 1, 1), (n, 1, k, 1) or (n, 1, 1, k)."""
    return np.expand_dims(values, tuple(1 + a for a in range(3) if a != axis))
