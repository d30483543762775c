"""Airways: region growing from the trachea with rising thresholds, then thin branches as dark tubes. Leaks are cut."""

from __future__ import annotations

import numpy as np
from scipy import ndimage  # evaluation extra

from uhrct.core.errors import InputRefused
from uhrct.core.hu import FLOOR_HU
from uhrct.core.upright import Upright
from uhrct.evaluation.fast_lungs import fast_lung_mask
from uhrct.structure.operator import StructureOperator
from uhrct.tasks.boxes import box_of
from uhrct.tasks.found import Found
from uhrct.tasks.leaks import without_leaks
from uhrct.tasks.trachea import trachea
from uhrct.tasks.tubes import FULL, SLAB, tube_map

#: Smoothing before thresholds, at usual noise. It grows with the noise.
SMOOTH_MM, USUAL_NOISE_HU, MOST_SMOOTH_MM = 0.35, 25.0, 0.8
#: Thresholds of the growth, as shares of the way from the HU of the trachea to the HU of the lungs.
SHARES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
#: A growth that fills more than this share of the lungs has burst through a wall: it is not even examined.
BURST_SHARE = 0.1
#: Nor is one used of which more than this share had to be cut.
MOST_CUT = 0.15
#: Thin branches: dark tubes in the lungs.
SIGMA_MM, CONTRAST_HU, TUBE_FROM, DARKER_HU = (0.5, 0.8, 1.2, 1.8), 60.0, 0.2, 40.0
#: Half of the way from air to the wall.
WALL_HU = -500.0
LEAST_DIFFERENCE_HU = 40.0  # between trachea and lungs
MARGIN_MM = 20.0  # around the lungs: the mediastinum lies inside, the table does not
FEWEST_SLICES = 10


def segment_airways(
    hu: np.ndarray,
    spacing_mm: tuple[float, float, float],
    direction: np.ndarray,
    *,
    small: bool = True,
    slab: int = SLAB,
    quiet: bool = True,
) -> Found:
    """Lumen of trachea and bronchi.

    Parameters
    ----------
    hu : array (z, y, x), HU
    spacing_mm : (z, y, x)
    direction : array (3, 3)
        As in `Volume`.
    small : bool
        Extend the tree by thin branches, which the structure operator finds.
    slab : int
        Slices that are computed together.
    quiet : bool
        False shows progress.

    Raises
    ------
    InputRefused
        If there are too few slices, no lungs or no trachea.

    References
    ----------
    Growth with control of explosion: Mori et al., ICPR 1996, vol. 3, pp. 528-532. Leaks found per branch: Tschirren et
    al., IEEE TMI 2005, doi 10.1109/TMI.2005.857654. Several thresholds per front: van Ginneken et al., MICCAI 2008,
    LNCS 5241, pp. 219-226. Comparison: Lo et al., IEEE TMI 2012, doi 10.1109/TMI.2012.2209674.
    """
    turn = Upright.of(direction)
    image, mm = turn.turned(hu), turn.spacing(spacing_mm)
    if len(image) < FEWEST_SLICES:
        raise InputRefused(f"{len(image)} slices: airways are followed through {FEWEST_SLICES} slices or more")
    lungs = fast_lung_mask(image, mm, quiet=quiet)
    if not lungs.any():
        raise InputRefused("no lungs found; airways need a CT of the chest")
    seed = trachea(image, lungs, mm)
    box = _box(lungs, seed, mm)
    part = Part(np.ascontiguousarray(image[box]), seed[box], lungs[box], mm)
    difference_hu = part.lungs_hu - part.trachea_hu
    thresholds = {"trachea_hu": part.trachea_hu, "lungs_hu": part.lungs_hu, "noise_hu": part.noise_hu}
    report = Found(seed, thresholds)
    if difference_hu < LEAST_DIFFERENCE_HU:
        report.warnings.append("the lungs are almost as dark as the trachea: bronchi are hardly told from lung")
    tree = _to_the_wall(_grown(part, thresholds), part)
    if small and difference_hu >= LEAST_DIFFERENCE_HU:
        tree = _with_tubes(part, tree, thresholds, slab, quiet)
    mask = np.zeros(image.shape, bool)
    mask[box] = _filled(tree, part)
    report.mask = np.ascontiguousarray(turn.back(mask))
    return report


def large_airways(
    hu: np.ndarray, lungs: np.ndarray, spacing_mm: tuple[float, float, float], direction: np.ndarray
) -> np.ndarray | None:
    """Lumen of trachea and large bronchi, without the search for thin branches; None without a trachea.

    Parameters
    ----------
    hu : array (z, y, x), HU
    lungs : array of bool, same shape
    spacing_mm, direction : as in `Volume`
    """
    turn = Upright.of(direction)
    image, mm, inside = turn.turned(hu), turn.spacing(spacing_mm), turn.turned(lungs)
    if len(image) < FEWEST_SLICES:
        return None
    try:
        seed = trachea(image, inside, mm)
    except InputRefused:
        return None
    box = _box(inside, seed, mm)
    part = Part(np.ascontiguousarray(image[box]), seed[box], inside[box], mm)
    mask = np.zeros(image.shape, bool)
    mask[box] = _to_the_wall(_grown(part, {}), part)
    return np.ascontiguousarray(turn.back(mask))


def _box(lungs: np.ndarray, seed: np.ndarray, mm: tuple[float, ...]) -> tuple[slice, slice, slice]:
    z, y, x = (int(MARGIN_MM / m) for m in mm)
    return box_of(lungs | seed, (z, y, x))


class Part:
    """The part of a scan around lungs and trachea, and what the air in the trachea says about its noise."""

    def __init__(self, hu: np.ndarray, seed: np.ndarray, lungs: np.ndarray, mm: tuple[float, float, float]) -> None:
        self.hu, self.seed, self.lungs, self.mm = np.clip(hu, int(FLOOR_HU), 200), seed, lungs, mm
        inner = ndimage.binary_erosion(seed, iterations=2)
        self.noise_hu = float(hu[inner if inner.any() else seed].std())
        self.smooth_mm = float(np.clip(SMOOTH_MM * self.noise_hu / USUAL_NOISE_HU, SMOOTH_MM, MOST_SMOOTH_MM))
        sigmas = [self.smooth_mm / s for s in mm]
        self.air = np.asarray(ndimage.gaussian_filter(self.hu.astype(np.float32), sigmas, truncate=3.0))
        self.trachea_hu, self.lungs_hu = float(np.median(self.air[seed])), float(np.median(self.air[lungs]))


def _connected(mask: np.ndarray, seed: np.ndarray) -> np.ndarray:
    pieces, n = ndimage.label(mask, np.ones((3, 3, 3)))
    wanted = np.zeros(n + 1, bool)
    wanted[np.unique(pieces[seed])] = True
    wanted[0] = False
    return wanted[pieces]


def _grown(part: Part, thresholds: dict[str, float]) -> np.ndarray:
    """The union of the growths of all thresholds, each without its leaks."""
    tree, used = part.seed.copy(), []
    for share in SHARES:
        threshold = part.trachea_hu + share * max(part.lungs_hu - part.trachea_hu, LEAST_DIFFERENCE_HU)
        grown = _connected((part.air < threshold) | part.seed, part.seed)
        if grown.sum() > BURST_SHARE * part.lungs.sum():
            break
        kept = without_leaks(grown, part.seed, part.mm)
        if np.count_nonzero(grown & ~kept) > MOST_CUT * np.count_nonzero(grown & ~part.seed):
            continue  # between so many leaks some small ones are not seen
        tree |= kept
        used.append(threshold)
    if used:
        thresholds |= {"lowest_hu": used[0], "highest_hu": used[-1]}
    return tree


def _to_the_wall(tree: np.ndarray, part: Part) -> np.ndarray:
    """Wide branches reach to the half height of their wall: one more layer of voxels."""
    layer = ndimage.binary_dilation(ndimage.binary_opening(tree)) & (part.air < WALL_HU)
    return tree | layer


def _filled(tree: np.ndarray, part: Part) -> np.ndarray:
    """A hole is lumen, but a vessel between two bronchi is none."""
    return tree | (ndimage.binary_fill_holes(tree) & (part.air < part.lungs_hu))


def _with_tubes(part: Part, tree: np.ndarray, thresholds: dict[str, float], slab: int, quiet: bool) -> np.ndarray:
    """The tree with thin branches: discs are counted from its surface."""
    contrast_hu = CONTRAST_HU * max(1.0, part.noise_hu / USUAL_NOISE_HU)
    operator = StructureOperator("vc", SIGMA_MM, contrast_hu, polarity="dark", ndim=3)
    dark_hu = part.lungs_hu - max(DARKER_HU, part.noise_hu)
    box = box_of(part.lungs)
    tubes = tube_map(part.hu[box], part.mm, operator, slab=slab, what="airways", quiet=quiet)
    candidates = tree.copy()
    candidates[box] |= (tubes >= TUBE_FROM * FULL) & (part.air[box] < dark_hu) & part.lungs[box]
    thresholds |= {"tube_from": TUBE_FROM, "tube_contrast_hu": contrast_hu, "tube_below_hu": dark_hu}
    return without_leaks(_connected(candidates, tree), tree, part.mm)
