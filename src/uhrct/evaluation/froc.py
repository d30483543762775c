"""FROC of a detector, computed as in the challenge LUNA16."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from uhrct.core.undefined import Undefined

#: false positives per scan at which LUNA16 reads the sensitivity
OPERATING_POINTS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True)
class Place:
    """A nodule, or something that a detector found. The centre is in mm."""

    centre_mm: tuple[float, float, float]
    diameter_mm: float = 0.0
    score: float = 0.0


@dataclass(frozen=True)
class Froc:
    """Free-response operating characteristic.

    Parameters
    ----------
    false_positives : mean number per scan at each threshold, ascending
    sensitivity : share of the nodules that are found at each threshold
    at : sensitivity at each of `OPERATING_POINTS`, between two thresholds by linear interpolation as in LUNA16
    score : their mean, the score of LUNA16
    """

    false_positives: np.ndarray
    sensitivity: np.ndarray
    at: dict[float, float]
    score: float


def froc(
    nodules: Mapping[str, Sequence[Place]],
    found: Mapping[str, Sequence[Place]],
    excluded: Mapping[str, Sequence[Place]] | None = None,
) -> Froc:
    """Sensitivity against false positives per scan.

    A nodule is found by a place inside its radius. Of several such places the one with the highest score counts, the
    others count as neither right nor wrong. So do places inside an excluded finding.

    Parameters
    ----------
    nodules : scan -> its nodules. Scans without a nodule must be there too, since their false positives count.
    found : scan -> what the detector found
    excluded : scan -> findings that are neither right nor wrong

    Raises
    ------
    Undefined
        If there is no nodule.

    References
    ----------
    Setio et al., "Validation, comparison, and combination of algorithms ... the LUNA16 challenge", Medical Image
    Analysis 2017, doi 10.1016/j.media.2017.06.015.

    Example
    -------
    >>> nodules = {"a": [Place((0, 0, 0), 6.0)], "b": []}
    >>> found = {"a": [Place((0, 0, 2), score=0.9)], "b": [Place((9, 9, 9), score=0.5)]}
    >>> froc(nodules, found).score
    1.0
    """
    total = sum(len(n) for n in nodules.values())
    if not total:
        raise Undefined("no nodule in any scan, so there is no sensitivity")
    hits: list[float] = []  # the best score at each nodule that was found
    misses: list[float] = []  # scores of false positives
    for scan, wanted in nodules.items():
        ignored = list((excluded or {}).get(scan, ()))
        best: dict[int, float] = {}
        for place in found.get(scan, ()):
            inside = [k for k, nodule in enumerate(wanted) if _inside(place, nodule)]
            for k in inside:
                best[k] = max(best.get(k, -np.inf), place.score)
            if not inside and not any(_inside(place, other) for other in ignored):
                misses.append(place.score)
        hits += best.values()
    thresholds = np.array(sorted({*hits, *misses}, reverse=True))
    right, wrong = np.sort(hits), np.sort(misses)
    # with the highest threshold nothing is found
    sensitivity = np.append(0.0, (len(right) - np.searchsorted(right, thresholds)) / total)
    false_positives = np.append(0.0, (len(wrong) - np.searchsorted(wrong, thresholds)) / len(nodules))
    steps, last = np.unique(false_positives[::-1], return_index=True)  # the highest sensitivity at each number
    best_at = sensitivity[::-1][last]
    at = {point: float(np.interp(point, steps, best_at)) for point in OPERATING_POINTS}
    return Froc(false_positives, sensitivity, at, float(np.mean(list(at.values()))))


def _inside(place: Place, nodule: Place) -> bool:
    distance_mm = np.linalg.norm(np.subtract(place.centre_mm, nodule.centre_mm))
    return bool(distance_mm <= nodule.diameter_mm / 2)
