"""Scores of a mask of vessels or airways: overlap, length and branches of the tree that are detected, leaks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from uhrct.core.errors import UhrctError
from uhrct.structure.lengths import branch_labels, line_lengths
from uhrct.structure.vessels import skeleton

#: ATM'22: a branch is detected if this share of its centre line lies in the mask.
BRANCH_SHARE = 0.8
#: A shorter piece of centre line counts as no branch.
SHORTEST_BRANCH_MM = 3.0
#: What is marked farther away from the tree is a leak. A wall that is marked too is none.
LEAK_FROM_MM = 2.0
#: Recall is given for vessels and lumens of these diameters.
DIAMETERS_MM = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 10.0, np.inf)
#: slices whose distances are computed together
SLAB = 32


@dataclass(frozen=True)
class CentreLine:
    """Points on the centre lines of a tree.

    Parameters
    ----------
    voxel : int array (n, 3), (z, y, x)
    length_mm : (n,), length of centre line that a point stands for
    diameter_mm : (n,)
    """

    voxel: np.ndarray
    length_mm: np.ndarray
    diameter_mm: np.ndarray

    def inside(self, mask: np.ndarray) -> CentreLine:
        """The points inside a mask (z, y, x). Points outside the array are left out."""
        ok = np.flatnonzero(((self.voxel >= 0) & (self.voxel < mask.shape)).all(1))
        ok = ok[mask[tuple(self.voxel[ok].T)]]
        return CentreLine(self.voxel[ok], self.length_mm[ok], self.diameter_mm[ok])


@dataclass(frozen=True)
class TreeReference:
    """The true tree, with everything that does not depend on the mask that is scored.

    Parameters
    ----------
    mask : bool (z, y, x)
    spacing_mm : (z, y, x)
    ignored : bool (z, y, x), voxels that are neither right nor wrong; None: there are none
    line : bool (z, y, x), centre line of the mask
    length_mm : (n,), length of each voxel of this line
    branches : (n,), number of the branch of each voxel of this line, 0 for none
    near : bool (z, y, x), voxels within `LEAK_FROM_MM` of the mask
    points : centre line with diameters
    """

    mask: np.ndarray
    spacing_mm: tuple[float, float, float]
    ignored: np.ndarray | None
    line: np.ndarray
    length_mm: np.ndarray
    branches: np.ndarray
    near: np.ndarray
    points: CentreLine

    @classmethod
    def of(
        cls,
        mask: np.ndarray,
        spacing_mm: tuple[float, float, float],
        *,
        ignored: np.ndarray | None = None,
        points: CentreLine | None = None,
    ) -> TreeReference:
        """Prepare a reference.

        Parameters
        ----------
        mask, ignored : bool (z, y, x)
        spacing_mm : (z, y, x)
        points : centre line with exact diameters; None: that of the mask, whose diameters are whole voxels

        Raises
        ------
        UhrctError
            If the mask is empty.
        """
        from scipy import ndimage  # evaluation extra

        if not mask.any():
            raise UhrctError("the reference mask is empty; there is nothing to detect")
        line = np.zeros(mask.shape, bool)
        box = ndimage.find_objects(mask.astype(np.uint8))[0]
        padded = np.pad(mask[box], 1)  # thinning treats the border as background
        line[box] = skeleton(padded)[1:-1, 1:-1, 1:-1]
        inner = line[box]
        length_mm = line_lengths(inner, spacing_mm)[inner]
        if points is None:
            depth_mm = ndimage.distance_transform_edt(padded, sampling=spacing_mm)[1:-1, 1:-1, 1:-1]
            points = CentreLine(np.argwhere(line), length_mm, 2 * depth_mm[inner])
        near = within(mask, LEAK_FROM_MM, spacing_mm)
        branches = _long_branches(branch_labels(inner)[inner], length_mm)
        return cls(mask, spacing_mm, ignored, line, length_mm, branches, near, points)


def _long_branches(branch: np.ndarray, length_mm: np.ndarray) -> np.ndarray:
    """Numbers from 1 for the branches that are long enough, 0 for the others; (n,) for the voxels of a centre line."""
    kept = np.bincount(branch, length_mm) >= SHORTEST_BRANCH_MM
    kept[0] = False
    return np.where(kept, np.cumsum(kept), 0)[branch]


def within(mask: np.ndarray, reach_mm: float, spacing_mm: tuple[float, ...]) -> np.ndarray:
    """Voxels whose centre is within a distance of that of a voxel of the mask (z, y, x).

    It is computed slab by slab: a distance transform of a whole chest needs 60 bytes per voxel.

    Example
    -------
    >>> mask = np.zeros((70, 1, 1), bool); mask[[0, 31]] = True
    >>> np.flatnonzero(within(mask, 2.0, (1.0, 1.0, 1.0))).tolist()
    [0, 1, 2, 29, 30, 31, 32, 33]
    """
    from scipy import ndimage  # evaluation extra

    out = np.zeros(mask.shape, bool)
    margin = int(reach_mm / spacing_mm[0]) + 1
    for first in range(0, len(mask), SLAB):
        low = max(0, first - margin)
        part = mask[low : first + SLAB + margin]
        if part.any():
            far_mm = ndimage.distance_transform_edt(~part, sampling=spacing_mm)[first - low :][:SLAB]
            out[first : first + SLAB] = far_mm <= reach_mm
    return out


@dataclass(frozen=True)
class TreeScores:
    """Scores of a mask. None: undefined.

    Parameters
    ----------
    values : dice, cldice, precision, sensitivity (shares of voxels), length_detected and branches_detected (shares),
        leak_ml, recall_1_2 (share of the centre line of vessels with a diameter of 1 to 2 mm)
    found_mm, whole_mm : length of centre line that is found, and that there is, for each class of `DIAMETERS_MM`
    """

    values: dict[str, float | None]
    found_mm: list[float]
    whole_mm: list[float]


def score_tree(found: np.ndarray, reference: TreeReference) -> TreeScores:
    """Compare a mask with the true tree.

    Length and branches detected are those of ATM'22: the share of the centre line of the reference that lies in the
    mask, and the share of branches of which 80 % do. For the recall by diameter, a point of a centre line is found
    where the mask is within one voxel (diagonals count), since the centre line of a thin vessel need not pass through
    the centres of its voxels.

    Parameters
    ----------
    found : bool (z, y, x)
    reference : TreeReference

    Raises
    ------
    UhrctError
        On unequal shapes.

    References
    ----------
    Zhang et al., "Multi-site, multi-domain airway tree modeling (ATM'22)", Medical Image Analysis 2023,
    doi 10.1016/j.media.2023.102957.

    Example
    -------
    >>> tree = np.zeros((5, 20, 30), bool); tree[1:4, 9:12, 2:28] = True
    >>> half = tree & (np.arange(30) < 15)
    >>> scores = score_tree(half, TreeReference.of(tree, (1.0, 1.0, 1.0)))
    >>> scores.values["dice"], scores.values["precision"], scores.values["branches_detected"]
    (0.6667, 1.0, 0.0)
    """
    from scipy import ndimage  # evaluation extra

    truth = reference.mask
    if found.shape != truth.shape:
        raise UhrctError(f"mask of shape {found.shape} does not fit a reference of shape {truth.shape}")
    if reference.ignored is not None:
        found = found & ~reference.ignored
    both, size = np.count_nonzero(found & truth), np.count_nonzero(found)
    length_mm = reference.length_mm
    hit = found[reference.line]
    values: dict[str, float | None] = {
        "dice": dice(truth, found),
        "cldice": _cldice(found, reference),
        "precision": both / size if size else None,
        "sensitivity": both / np.count_nonzero(truth),
        "length_detected": float(length_mm[hit].sum() / length_mm.sum()),
        "branches_detected": _branches_detected(reference, hit),
        "leak_ml": float(np.count_nonzero(found & ~reference.near) * np.prod(reference.spacing_mm) / 1000),
    }
    points = reference.points
    near = ndimage.binary_dilation(found, np.ones((3, 3, 3)))
    which = np.digitize(points.diameter_mm, DIAMETERS_MM) - 1
    classes = len(DIAMETERS_MM) - 1
    whole = np.bincount(which, points.length_mm, minlength=classes)
    reached = near[tuple(points.voxel.T)]
    right = np.bincount(which[reached], points.length_mm[reached], minlength=classes)
    thin = DIAMETERS_MM.index(1.0)
    values["recall_1_2"] = float(right[thin] / whole[thin]) if whole[thin] else None
    rounded = {name: None if v is None else round(float(v), 4) for name, v in values.items()}
    return TreeScores(rounded, np.round(right, 1).tolist(), np.round(whole, 1).tolist())


def dice(reference: np.ndarray, test: np.ndarray) -> float:
    """Dice coefficient of two masks; NaN if both are empty.

    Example
    -------
    >>> dice(np.array([1, 1, 0, 0], bool), np.array([1, 0, 1, 0], bool))
    0.5
    """
    size = int(reference.sum()) + int(test.sum())
    return 2 * int((reference & test).sum()) / size if size else float("nan")


def _cldice(found: np.ndarray, reference: TreeReference) -> float:
    """clDice as `structure.vessels.cldice`, with the centre line of the reference computed once."""
    line = skeleton(found)
    if not line.any():
        return 0.0
    precision, sensitivity = float(reference.mask[line].mean()), float(found[reference.line].mean())
    total = precision + sensitivity
    return 2 * precision * sensitivity / total if total else 0.0


def _branches_detected(reference: TreeReference, hit: np.ndarray) -> float | None:
    branch = reference.branches
    count = np.bincount(branch)[1:]
    if not len(count):
        return None
    right = np.bincount(branch, hit, minlength=len(count) + 1)[1:]
    return float((right >= BRANCH_SHARE * count).mean())
