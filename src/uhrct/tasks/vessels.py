"""Vessels in the lungs: the structure operator with two thresholds (hysteresis)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import ndimage  # evaluation extra

from uhrct.core.errors import InputRefused
from uhrct.core.upright import Upright
from uhrct.evaluation.fast_lungs import lungs_of
from uhrct.structure.operator import StructureOperator
from uhrct.tasks.airways import large_airways
from uhrct.tasks.boxes import box_of
from uhrct.tasks.found import Found
from uhrct.tasks.tubes import FULL, SLAB, dimensions, tube_map

#: Scales for vessels with a radius up to about 4 mm; wider ones are found by their HU.
SIGMA_MM, CONTRAST_HU = (0.7, 1.2, 2.0), 150.0
#: A vessel is connected, above the lower threshold of the map, and somewhere above the upper one.
LOWER, UPPER = 0.12, 0.4
#: A voxel of a vessel is denser than the lungs by this much. The map alone is wider than the vessel.
DENSER_HU = 110.0
#: Denser voxels belong to a wide vessel if they touch a thin one.
WIDE_FROM_HU = -300.0
#: The rim of the lungs is left out: chest wall and partial volume.
RIM_MM = 1.0
SMALLEST_MM3 = 12.0
#: Wall of an airway, with the partial volume of its lumen: no vessel is looked for there.
WALL_MM = 2.0


def segment_vessels(
    hu: np.ndarray,
    spacing_mm: tuple[float, float, float],
    direction: np.ndarray,
    *,
    slab: int = SLAB,
    quiet: bool = True,
) -> Found:
    """Arteries and veins inside the lungs.

    Parameters
    ----------
    hu : array (z, y, x), HU
    spacing_mm : (z, y, x)
    direction : array (3, 3)
        As in `Volume`. Airways, whose walls are no vessels, are followed from the head.
    slab : int
        Slices that are computed together.
    quiet : bool
        False shows progress.

    Raises
    ------
    InputRefused
        If there are no lungs.

    References
    ----------
    The operator: Chu et al., MICCAI 2023, doi 10.1007/978-3-031-43999-5_25. Hysteresis: Canny, IEEE TPAMI 1986,
    doi 10.1109/TPAMI.1986.4767851. Comparison of such methods: Rudyanto et al., Medical Image Analysis 2014,
    doi 10.1016/j.media.2014.07.003.
    """
    axes = Upright.of(direction).axes
    if axes != (0, 1, 2):  # below, slices are axial
        turned, (z_mm, y_mm, x_mm) = np.ascontiguousarray(hu.transpose(axes)), (spacing_mm[axis] for axis in axes)
        found = segment_vessels(turned, (z_mm, y_mm, x_mm), direction[:, axes], slab=slab, quiet=quiet)
        return replace(found, mask=np.ascontiguousarray(found.mask.transpose(np.argsort(axes))))
    lungs = lungs_of(hu, spacing_mm, direction, quiet=quiet)
    if not lungs.any():
        raise InputRefused("no lungs found; vessels are looked for inside them")
    box = box_of(lungs)
    inside = without_rim(lungs[box], spacing_mm)
    airways = large_airways(hu, lungs, spacing_mm, direction)
    if airways is not None:
        inside &= ~_near(airways[box], spacing_mm)
    image = hu[box]
    lungs_hu = float(np.median(image[lungs[box]]))
    # outside the lungs lies even lung, so that the chest wall gives no response
    even = np.where(inside, np.clip(image, lungs_hu - 150, 200), lungs_hu).astype(np.float32)
    operator = StructureOperator("vc", SIGMA_MM, CONTRAST_HU, ndim=3)
    tubes = tube_map(even, spacing_mm, operator, slab=slab, what="vessels", quiet=quiet)
    mask = _hysteresis(tubes, even, inside, lungs_hu, spacing_mm)
    thresholds = {"lower": LOWER, "upper": UPPER, "lungs_hu": lungs_hu, "denser_than_hu": lungs_hu + DENSER_HU}
    report = Found(np.zeros(hu.shape, bool), thresholds)
    report.mask[box] = mask
    if airways is None:
        report.warnings.append("no trachea, or few slices: walls of airways were not left out and may count as vessels")
    if dimensions(even.shape, spacing_mm) == 2:
        report.warnings.append("thick or few slices: each slice was searched alone, so fissures may count as vessels")
    return report


def _near(airways: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """Airways and their walls."""
    if not airways.any():
        return airways
    margin = tuple(int(WALL_MM / s) + 1 for s in spacing_mm)
    box = box_of(airways, (margin[0], margin[1], margin[2]))
    near = airways.copy()
    near[box] = ndimage.distance_transform_edt(~airways[box], sampling=spacing_mm) <= WALL_MM
    return near


def without_rim(lungs: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """Eroded in each slice by at least a voxel. The faces of the image do not erode."""
    across = max(RIM_MM, max(spacing_mm[1:]))
    reach = [int(across / s + 1e-6) for s in spacing_mm[1:]]
    y, x = np.ogrid[-reach[0] : reach[0] + 1, -reach[1] : reach[1] + 1]
    disc = (y * spacing_mm[1]) ** 2 + (x * spacing_mm[2]) ** 2 <= across**2 + 1e-6
    return np.asarray(ndimage.binary_erosion(lungs, disc[None], border_value=1))


def _hysteresis(
    tubes: np.ndarray,
    hu: np.ndarray,
    inside: np.ndarray,
    lungs_hu: float,
    spacing_mm: tuple[float, float, float],
) -> np.ndarray:
    possible = ((tubes >= LOWER * FULL) & (hu > lungs_hu + DENSER_HU)) | (hu > WIDE_FROM_HU)
    possible &= inside
    pieces, n = ndimage.label(possible, np.ones((3, 3, 3)))
    sure = np.zeros(n + 1, bool)
    sure[np.unique(pieces[possible & (tubes >= UPPER * FULL)])] = True
    sure[0] = False
    large = np.bincount(pieces.ravel(), minlength=n + 1) * float(np.prod(spacing_mm)) >= SMALLEST_MM3
    return np.asarray((sure & large)[pieces])
