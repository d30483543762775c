"""Candidates for lung nodules: places where a scan is bright like a ball."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from uhrct.core.progress import track
from uhrct.structure.eigenvalues import eigenvalues_3x3
from uhrct.structure.gaussian import hessian_3d
from uhrct.tasks.even_grid import CUBE_MM, EvenGrid

#: diameters of the balls that are looked for; the filter of scale sigma responds most to 2 sqrt(3) sigma
DIAMETERS_MM = (3.0, 4.2, 6.0, 8.5, 12.0)
#: HU that count in full: calcium is no better evidence for a nodule than soft tissue
WINDOW_HU = (-1000.0, 150.0)
#: the weakest response of a candidate. A ground-glass nodule (250 HU above the lung) gives about 60 HU.
LEAST_HU = 25.0
#: candidates may lie this far outside the mask of the lungs, since nodules sit on the pleura
RIM_MM = 3.0
#: cubes of one block along z; its neighbourhood is added, so blocks do not change the result
BLOCK = 64


@dataclass(frozen=True)
class Candidate:
    """A place that may be a nodule.

    Parameters
    ----------
    voxel : (z, y, x) in array coordinates of the scan
    diameter_mm : of the ball that fits best
    response_hu : how clearly it is a bright ball
    """

    voxel: tuple[float, float, float]
    diameter_mm: float
    response_hu: float


def find_candidates(grid: EvenGrid, lungs: np.ndarray, *, most: int = 300, quiet: bool = True) -> list[Candidate]:
    """The strongest bright balls in the lungs.

    Parameters
    ----------
    grid : EvenGrid
    lungs : bool array of the shape of the grid
    most : the number of candidates that are kept

    Returns
    -------
    list of Candidate, the strongest first

    References
    ----------
    Li, Sone, Doi, "Selective enhancement filters for nodules, vessels, and airway walls", Medical Physics 2003,
    doi 10.1118/1.1581411 (dot filter: squared smallest over largest curvature).
    """
    response, size = np.zeros(grid.hu.shape, np.float32), np.zeros(grid.hu.shape, np.int8)
    margin = 4 * math.ceil(_sigma_px(max(DIAMETERS_MM))) + 1
    starts = range(0, grid.hu.shape[0], BLOCK)
    for start in track(starts, "nodules", quiet=quiet):
        if not lungs[start : start + BLOCK].any():
            continue
        low = max(0, start - margin)
        part = grid.hu[low : start + BLOCK + margin].clamp(*WINDOW_HU)
        best, which = dots(part)
        inner = slice(start - low, start - low + min(BLOCK, grid.hu.shape[0] - start))
        response[start : start + BLOCK], size[start : start + BLOCK] = best[inner], which[inner]
    wide = ndimage.distance_transform_edt(~lungs) * CUBE_MM <= RIM_MM if lungs.any() else lungs
    peaks = (response >= LEAST_HU) & wide & (response == ndimage.maximum_filter(response, 3))
    places = np.argwhere(peaks)
    strength = response[peaks]
    order = np.argsort(-strength, kind="stable")
    kept: list[int] = []
    for k in order:
        if len(kept) == most:
            break
        apart = np.linalg.norm((places[kept] - places[k]) * CUBE_MM, axis=1) if kept else np.full(1, np.inf)
        if apart.min() > 0.5 * max(DIAMETERS_MM[size[tuple(places[k])]], 4.0):
            kept.append(int(k))
    return [
        Candidate(_three(grid.to_scan(places[k])), DIAMETERS_MM[size[tuple(places[k])]], round(float(strength[k]), 1))
        for k in kept
    ]


def dots(hu: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """(largest response in HU, number of its diameter) of the dot filter at each cube of (..., z, y, x).

    Example
    -------
    >>> z, y, x = np.mgrid[-12:13, -12:13, -12:13] * CUBE_MM
    >>> ball = torch.from_numpy(np.where(np.sqrt(z**2 + y**2 + x**2) < 3, 0.0, -850.0)).float()
    >>> response, which = dots(ball)
    >>> np.unravel_index(response.argmax(), response.shape) == (12, 12, 12), DIAMETERS_MM[which[12, 12, 12]]
    (True, 6.0)
    """
    best = torch.zeros_like(hu)
    which = torch.zeros_like(hu, dtype=torch.int8)
    for k, diameter_mm in enumerate(DIAMETERS_MM):
        sigma = _sigma_px(diameter_mm)
        low, _, high = eigenvalues_3x3(*hessian_3d(hu, sigma, sigma, sigma))
        response = torch.where(high < 0, high.square() / low.abs().clamp(min=1e-3), 0.0)
        better = response > best
        best = torch.where(better, response, best)
        which[better] = k
    return best.cpu().numpy(), which.cpu().numpy()


def _sigma_px(diameter_mm: float) -> float:
    """Scale of the filter that responds most to a ball: its radius over the root of 3."""
    return diameter_mm / (2 * math.sqrt(3)) / CUBE_MM


def _three(values: np.ndarray) -> tuple[float, float, float]:
    z, y, x = (round(float(v), 2) for v in values)
    return z, y, x
