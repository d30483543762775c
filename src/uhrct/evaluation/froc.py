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


@dataclass(frozen=True)
class Match:
    """What a detector found in one scan.

    Parameters
    ----------
    best : the best score at each nodule, -inf where nothing was found
    wrong : scores of the false positives
    """

    best: np.ndarray
    wrong: np.ndarray


def froc(
    nodules: Mapping[str, Sequence[Place]],
    found: Mapping[str, Sequence[Place]],
    excluded: Mapping[str, Sequence[Place]] | None = None,
) -> Froc:
    """Sensitivity against false positives per scan, with the matches of `match` and the curve of `curve`.

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
    ignored = excluded or {}
    return curve([match(wanted, found.get(scan, ()), ignored.get(scan, ())) for scan, wanted in nodules.items()])


def match(nodules: Sequence[Place], found: Sequence[Place], excluded: Sequence[Place] = ()) -> Match:
    """Compare the findings in one scan with its nodules.

    A nodule is found by a place inside its radius. Of several such places the one with the highest score counts, the
    others count as neither right nor wrong. So do places inside an excluded finding.

    Example
    -------
    >>> found = [Place((0, 0, 1), score=0.5), Place((0, 1, 0), score=0.9), Place((9, 9, 9), score=0.2)]
    >>> match([Place((0, 0, 0), 6.0)], found)
    Match(best=array([0.9]), wrong=array([0.2]))
    """
    best = np.full(len(nodules), -np.inf)
    wrong = []
    for place in found:
        inside = [k for k, nodule in enumerate(nodules) if _inside(place, nodule)]
        best[inside] = np.maximum(best[inside], place.score)
        if not inside and not any(_inside(place, other) for other in excluded):
            wrong.append(place.score)
    return Match(best, np.array(wrong, float))


def curve(matches: Sequence[Match]) -> Froc:
    """The FROC curve of several scans. Raises `Undefined` if there is no nodule."""
    best = np.concatenate([m.best for m in matches]) if matches else np.zeros(0)
    if not len(best):
        raise Undefined("no nodule in any scan, so there is no sensitivity")
    right = np.sort(best[np.isfinite(best)])
    wrong = np.sort(np.concatenate([m.wrong for m in matches]))
    thresholds = np.unique(np.concatenate([right, wrong]))[::-1]
    # with the highest threshold nothing is found
    sensitivity = np.append(0.0, (len(right) - np.searchsorted(right, thresholds)) / len(best))
    false_positives = np.append(0.0, (len(wrong) - np.searchsorted(wrong, thresholds)) / len(matches))
    steps, last = np.unique(false_positives[::-1], return_index=True)  # the highest sensitivity at each number
    best_at = sensitivity[::-1][last]
    at = {point: float(np.interp(point, steps, best_at)) for point in OPERATING_POINTS}
    return Froc(false_positives, sensitivity, at, float(np.mean(list(at.values()))))


def _inside(place: Place, nodule: Place) -> bool:
    distance_mm = np.linalg.norm(np.subtract(place.centre_mm, nodule.centre_mm))
    return bool(distance_mm <= nodule.diameter_mm / 2)
