"""The exact centre lines of phantoms, and the part of a mask around the wider ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from uhrct.core.volume import Volume
from uhrct.evaluation.trees import CentreLine

#: trees of a phantom that make a mask
TREES = {"airways": ("airway",), "vessels": ("artery", "vein")}
#: distance between points on the centre lines
POINT_MM = 0.5


def phantom_points(truth: Path, task: str, volume: Volume) -> CentreLine:
    """Points on the exact centre lines of a phantom, on the grid of its image.

    Parameters
    ----------
    truth : `truth.npz` of the phantom (docs/phantom.md)
    task : "vessels" or "airways"
    """
    voxel, length, diameter = [], [], []
    with np.load(truth) as stored:
        for kind in TREES[task]:
            end, parent = stored[f"{kind}_position_mm"], stored[f"{kind}_parent"]
            child = np.flatnonzero(parent >= 0)
            start = end[parent[child]]
            along = end[child] - start
            long_mm = np.linalg.norm(along, axis=1)
            count = np.maximum(1, np.ceil(long_mm / POINT_MM)).astype(int)
            part = np.repeat(np.arange(len(child)), count)
            step = np.arange(len(part)) - np.repeat(np.cumsum(count) - count, count) + 0.5
            place = start[part] + along[part] * (step / count[part])[:, None]
            voxel.append(np.rint((place - np.array(volume.origin_mm)[::-1]) / volume.spacing_mm).astype(int))
            length.append((long_mm / count)[part])
            diameter.append(2 * stored[f"{kind}_radius_mm"][child][part])
    return CentreLine(np.concatenate(voxel), np.concatenate(length), np.concatenate(diameter))


def wide_part(
    mask: np.ndarray, points: CentreLine, spacing_mm: tuple[float, float, float], least_mm: float
) -> np.ndarray:
    """The voxels of a mask (z, y, x) whose nearest point of the centre lines has at least this diameter.

    Example
    -------
    >>> points = CentreLine(np.array([[0, 0, 0], [0, 0, 3]]), np.ones(2), np.array([1.0, 2.0]))
    >>> wide_part(np.ones((1, 1, 5), bool), points, (1.0, 1.0, 1.0), 1.5).astype(int).tolist()
    [[[0, 0, 1, 1, 1]]]
    """
    from scipy.spatial import cKDTree  # evaluation extra

    voxel = np.argwhere(mask)
    _, nearest = cKDTree(points.voxel * np.array(spacing_mm)).query(voxel * np.array(spacing_mm))
    kept = voxel[points.diameter_mm[nearest] >= least_mm]
    wide = np.zeros_like(mask)
    wide[tuple(kept.T)] = True
    return wide
