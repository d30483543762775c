"""What the scan says about each structure of a super-resolved slice.

A result y splits into a part that the scan measured and a part that it could not see: y = A+ A y + (1 - A+ A) y, where
A is the scanner model and A+ its pseudo-inverse. A structure s of y (a short piece of a vessel or an airway) is tested
against the measurement x in three ways:

- *share*: the amplitude with which s fits the scan, <A s, x - A (y - s)> / |A s|². It is 1 if the scan holds the
  structure, and 0 if the scan holds the background alone.
- *strength*: share |A s| / noise, the signal-to-noise ratio of this fit (a matched filter).
- *ridge*: curvature of the interpolated scan across the structure, in standard deviations of this curvature in the
  lungs. Structures in the part that the scan could not see leave no ridge there, although they agree with the scan.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from uhrct.audit.segments import Segments, segments
from uhrct.evaluation.structure_error import SMSE_OPERATORS
from uhrct.physics.acquisition import Acquisition
from uhrct.structure.eigenvalues import eigenvalues_2x2
from uhrct.structure.gaussian import hessian_2d
from uhrct.structure.vesselness import v_c
from uhrct.structure.vessels import VESSEL_THRESHOLDS

#: Threshold of the V_C map for structures of the result, and for those that one can see in the scan.
VISIBLE_FROM, CLEAR_FROM = VESSEL_THRESHOLDS[:2]
#: a voxel belongs to a structure where the map of the result is at least this. A vessel 1.5 mm wide and 400 HU brighter
#: than the lung has 0.15. Airways need more: between bright vessels, lung looks like a dark line.
STRUCTURE_FROM = {"vessels": 0.12, "airways": CLEAR_FROM}
#: Structures wider than this belong to the background.
WIDEST_MM = 7.0
#: Curvature of the interpolated scan is not measured at scales below this, in pixels of the scan.
FINEST_PX = 0.6
#: Pixels are joined for a scale that has at least this many joined pixels.
JOINED_SIGMA_PX = 3.0
#: A scan without noise still has rounding and an approximate scanner model.
LEAST_NOISE_HU = 3.0
#: Both kinds have the scales and the contrast of the operator of the metrics.
OPERATOR = SMSE_OPERATORS["vc"]
KINDS = ("vessels", "airways")
#: An airway is darker than the typical lung by this much. Between two vessels the lung is dark too, but not darker.
DARKER_HU = 60.0


@dataclass(frozen=True)
class Evidence:
    """Segments of one fine slice and what the scan says about each: arrays (n,).

    Attributes
    ----------
    segments : Segments
    visible : mean of the V_C map of the interpolated scan along the segment, in [0, 1]
    share : amplitude with which the structure fits the scan; 1 where it holds it
    strength : signal-to-noise ratio of this fit
    ridge : curvature of the interpolated scan, in standard deviations
    map, scan_map : arrays (y, x)
        V_C maps of the result and of the interpolated scan.
    """

    segments: Segments
    visible: np.ndarray
    share: np.ndarray
    strength: np.ndarray
    ridge: np.ndarray
    map: np.ndarray
    scan_map: np.ndarray


@dataclass(frozen=True)
class ScanSlice:
    """One slice of the scan, its interpolation and its fine slices in the result: tensors on one part of the grid.

    Attributes
    ----------
    measured : (y, x), HU
    interpolated, fine : (sz, y sy, x sx), HU
    lungs : bool array (y sy, x sx)
    spacing_mm : (y, x) of the fine pixels
    noise_hu : standard deviation of the scan's noise
    """

    measured: Tensor
    interpolated: Tensor
    fine: Tensor
    lungs: np.ndarray
    spacing_mm: tuple[float, float]
    noise_hu: float


class Curvature:
    """Eigenvalues of the Hessian of fine slices (sz, y, x) at each scale, from which all maps are made.

    Scales of many pixels are computed on pixels that are joined by two or four, which takes a fraction of the time. The
    maps then differ from exact ones by less than .03 in 99.9 % of the pixels (rider0117, pixels of 0.17 mm).

    Parameters
    ----------
    spacing_mm : (y, x)
    finest_mm : smaller scales are replaced by this one
    """

    def __init__(self, hu: Tensor, spacing_mm: tuple[float, float], finest_mm: float = 0.0) -> None:
        scales = sorted({max(sigma_mm, finest_mm) for sigma_mm in OPERATOR.sigma_mm})
        image = -(hu.float() - hu.float().mean())
        self._shape = image.shape[-2:]
        self._pairs = []
        for sigma_mm in scales:
            sigma_px = [sigma_mm / mm for mm in spacing_mm]
            join = next((n for n in (4, 2) if min(sigma_px) >= n * JOINED_SIGMA_PX), 1)
            joined = _joined(image, join)
            self._pairs.append(eigenvalues_2x2(*hessian_2d(joined, *([s / join] for s in sigma_px))))

    def map(self, kind: str) -> np.ndarray:
        """V_C map in [0, 1] of "vessels" (bright) or "airways" (dark)."""
        pairs = self._pairs if kind == "vessels" else [(-large, -small) for small, large in self._pairs]
        o = OPERATOR
        return self._largest([v_c(pair, c=o.contrast_hu, k1=o.k1, k2=o.k2) for pair in pairs])

    def ridge(self, kind: str) -> np.ndarray:
        """Largest curvature across bright or dark ridges, HU."""
        return self._largest([large if kind == "vessels" else -small for small, large in self._pairs])

    def _largest(self, images: list[Tensor]) -> np.ndarray:
        """Maximum over scales, at the size of the slices."""
        return np.asarray(reduce(torch.maximum, [_apart(image, self._shape) for image in images]))


def _joined(image: Tensor, join: int) -> Tensor:
    """Means of squares of `join` pixels; the last ones are filled up with the edge."""
    if join == 1:
        return image
    below, right = (-n % join for n in image.shape[-2:])
    padded = torch.nn.functional.pad(image[None], (0, right, 0, below), mode="replicate")
    return torch.nn.functional.avg_pool2d(padded, join)[0]


def _apart(image: Tensor, shape: torch.Size) -> Tensor:
    """Back from joined pixels to (sz, y, x), by linear interpolation."""
    if image.shape[-2:] == shape:
        return image
    factor = -(-shape[-1] // image.shape[-1])
    fine = torch.nn.functional.interpolate(image[None], scale_factor=factor, mode="bilinear")[0]
    return fine[..., : shape[0], : shape[1]]


def structure_mask(maps: np.ndarray, hu: np.ndarray, lungs: np.ndarray, kind: str) -> np.ndarray:
    """Voxels of vessels or airways in fine slices: arrays (sz, y, x); `lungs` is (y, x)."""
    mask = (maps >= STRUCTURE_FROM[kind]) & lungs
    if kind == "airways":
        mask &= hu < np.median(hu[:, lungs]) - DARKER_HU
    return mask


def slice_evidence(part: ScanSlice, acquisition: Acquisition) -> dict[str, list[Evidence]]:
    """The evidence for vessels and airways, one item for each fine slice of a slice of the scan.

    Parameters
    ----------
    part : ScanSlice
    acquisition : Acquisition
        The scanner model A of this slice alone.
    """
    coarse_mm = part.spacing_mm[0] * acquisition.scale[1]
    fine = Curvature(part.fine, part.spacing_mm)
    scan = Curvature(part.interpolated, part.spacing_mm, FINEST_PX * coarse_mm)
    hu, measured = _seen_by(acquisition, part.fine), _seen_by(acquisition, part.measured[None])
    residual = acquisition.adjoint(measured - acquisition.forward(hu)).numpy()
    return {kind: _of_kind(part, acquisition, fine, scan, residual, kind) for kind in KINDS}


def _of_kind(
    part: ScanSlice, acquisition: Acquisition, fine: Curvature, scan: Curvature, residual: np.ndarray, kind: str
) -> list[Evidence]:
    """`residual`: what the result lacks of the scan, A^T (x - A y), (sz, y, x) in HU."""
    sign = 1.0 if kind == "vessels" else -1.0
    hu, maps = part.fine.numpy(), fine.map(kind)
    found = [segments(mask, part.spacing_mm) for mask in structure_mask(maps, hu, part.lungs, kind)]
    structures = np.stack([_structure(sign * y, f, part.spacing_mm) for y, f in zip(hu, found, strict=True)])
    share, strength = _fits(sign * structures, residual, part.noise_hu, acquisition, found)
    visible, ridges = scan.map(kind), scan.ridge(kind)
    coarse_mm = part.spacing_mm[0] * acquisition.scale[1]
    out = []
    for k, f in enumerate(found):
        typical, spread = _spread(ridges[k][part.lungs])
        # curvature is correlated over about two pixels of the scan
        independent = np.maximum(1, f.length_mm / (2 * coarse_mm))
        ridge = (f.mean(ridges[k]) - typical) / spread * np.sqrt(independent)
        seen = f.mean_of(f.largest_near(visible[k]))  # a line may lie one voxel beside its place in the scan
        out.append(Evidence(f, seen, share[k], strength[k], ridge, maps[k], visible[k]))
    return out


def _structure(hu: np.ndarray, found: Segments, spacing_mm: tuple[float, float]) -> np.ndarray:
    """What stands out of its surroundings (a white top hat), on the regions of the segments alone."""
    if not found.count:
        return np.zeros(hu.shape, np.float32)
    size = [2 * max(1, round(WIDEST_MM / 2 / mm)) + 1 for mm in spacing_mm]
    where = (found.region.rows, found.region.columns)
    out = np.zeros(hu.shape, np.float32)
    out[where] = hu[where] - ndimage.grey_opening(hu, size)[where]
    return out


def _fits(
    structures: np.ndarray, residual: np.ndarray, noise_hu: float, acquisition: Acquisition, found: list[Segments]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """(share, strength) of the segments of each fine slice.

    The sums over all structures are exact except that a structure is also compared with its neighbours: <A s, A t> of
    touching structures s and t counts for both.
    """
    itself = acquisition.adjoint(acquisition.forward(_seen_by(acquisition, torch.from_numpy(structures)))).numpy()
    noise_hu = max(noise_hu, LEAST_NOISE_HU)
    shares, strengths = [], []
    for k, f in enumerate(found):
        energy = np.maximum(f.total(structures[k] * itself[k]), 1e-9)
        share = 1 + f.total(structures[k] * residual[k]) / energy
        shares.append(share)
        strengths.append(share * np.sqrt(energy) / noise_hu)
    return shares, strengths


def _seen_by(acquisition: Acquisition, slices: Tensor) -> Tensor:
    """Slices as the scanner model takes them; without a scale along z it looks at one."""
    return (slices if acquisition.scale[0] > 1 else slices[:1]).float()


def _spread(values: np.ndarray) -> tuple[float, float]:
    """Median, and standard deviation from the median absolute deviation, which structures hardly change."""
    typical = float(np.median(values))
    return typical, max(1.4826 * float(np.median(np.abs(values - typical))), 1e-3)
