"""Choose parts of a scan that are worth looking at: lung vessels, bone, soft tissue, and a cut across the slices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from uhrct.core.hu import DISPLAY_WINDOWS_HU, FLOOR_HU, METRIC_WINDOWS_HU, PADDING_HU
from uhrct.core.volume import Volume
from uhrct.evaluation.lungs import body_mask, lung_mask

#: Side of the square that is shown large.
SIDE_MM = 40.0
#: Skin, table and clothes lie outside of this depth.
DEPTH_MM = 10.0
#: The pleura is an edge, not a vessel.
FROM_PLEURA_MM = 6.0
#: So many slices are searched, at about so many mm per pixel.
SEARCHED, SEARCH_MM = 24, 1.5
#: A cut across fewer millimetres shows nothing.
SHORTEST_CUT_MM = 15.0


@dataclass(frozen=True)
class View:
    """A square of one slice or one coronal cut of a scan.

    Attributes
    ----------
    name : what it shows
    axis : 0 for a slice, 1 for a coronal cut
    index : number of the slice or row
    box_mm : (top, left, height, width) from the first corner of the plane, in mm
    window_hu : (low, high) shown as black and white
    """

    name: str
    axis: int
    index: int
    box_mm: tuple[float, float, float, float]
    window_hu: tuple[float, float]


def choose_views(scan: Volume, *, across: bool = False) -> list[View]:
    """The squares with most detail of lung vessels, bone and soft tissue, inside the body.

    Parameters
    ----------
    scan : Volume
    across : bool
        Also a coronal cut, if the scan is long enough.

    Returns
    -------
    list of View
        At least one: the middle of the scan, if nothing else is found.
    """
    best: dict[str, tuple[float, View]] = {}
    for k in np.unique(np.linspace(0, len(scan.hu) - 1, SEARCHED).round().astype(int)):
        for view, score in _views_of(scan.hu[k], (scan.spacing_mm[1], scan.spacing_mm[2]), int(k)):
            if score > best.get(view.name, (0.0, view))[0]:
                best[view.name] = (score, view)
    views = [best[name][1] for name in _KINDS if name in best] or [_middle(scan)]
    length_mm = len(scan.hu) * scan.spacing_mm[0]
    if across and length_mm >= SHORTEST_CUT_MM:
        views.append(_coronal(scan, views[0], length_mm))
    return views


#: name -> (window of the picture, HU whose gradients count)
_KINDS: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {
    "lung vessels": (DISPLAY_WINDOWS_HU["lung"], (-1000.0, 0.0)),
    "bone": (DISPLAY_WINDOWS_HU["bone"], (150.0, 1500.0)),
    "soft tissue": (METRIC_WINDOWS_HU["mediastinum"], (-150.0, 250.0)),
}


def _views_of(hu: np.ndarray, spacing_mm: tuple[float, float], k: int) -> Iterator[tuple[View, float]]:
    """The best square of each kind in one slice, with its score."""
    from scipy import ndimage

    block = [max(1, round(SEARCH_MM / s)) for s in spacing_mm]
    shape = [n // b * b for n, b in zip(hu.shape, block, strict=True)]
    padding = hu <= PADDING_HU
    held = np.where(padding, FLOOR_HU, hu)[: shape[0], : shape[1]].astype(np.float32)
    small = held.reshape(shape[0] // block[0], block[0], shape[1] // block[1], block[1]).mean((1, 3))
    mm = (spacing_mm[0] * block[0], spacing_mm[1] * block[1])
    side = [min(round(SIDE_MM / m), n) for m, n in zip(mm, small.shape, strict=True)]
    if min(side) < 4:
        return
    body = body_mask(small, mm)
    inner = body_mask(small, mm, depth_mm=DEPTH_MM)
    lungs = _deep(lung_mask(small, mm), mm, FROM_PLEURA_MM)
    soft = inner & (small > -200) & (small < 300)
    #: name -> (where gradients count, what must fill the square, to which share)
    places = {
        "lung vessels": (lungs, lungs, 0.6),
        "bone": (inner, small > -200, 0.7),
        "soft tissue": (soft, soft, 0.95),
    }
    for name, (window, counted) in _KINDS.items():
        place, filled, share = places[name]
        image = small.clip(*counted)
        if name == "soft tissue":  # organs, not noise
            image = ndimage.gaussian_filter(image, [2.0 / m for m in mm])
        detail = np.hypot(*np.gradient(image)) * place
        score = _box_sums(detail, side)
        score = np.where(_box_sums(filled, side) >= share * side[0] * side[1], score, 0)
        score = np.where(_box_sums(body, side) >= 0.99 * side[0] * side[1], score, 0)
        top, left = np.unravel_index(int(score.argmax()), score.shape)
        if score[top, left] > 0:
            box = (float(top * mm[0]), float(left * mm[1]), side[0] * mm[0], side[1] * mm[1])
            yield View(name, 0, k, box, window), float(score[top, left])


def _deep(mask: np.ndarray, spacing_mm: tuple[float, float], depth_mm: float) -> np.ndarray:
    from scipy import ndimage

    return ndimage.distance_transform_edt(np.pad(mask, 1), sampling=spacing_mm)[1:-1, 1:-1] > depth_mm


def _box_sums(image: np.ndarray, side: list[int]) -> np.ndarray:
    """Sum over each box (y, x) that lies inside the image."""
    total = np.pad(image.astype(np.float64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    h, w = side
    return total[h:, w:] - total[:-h, w:] - total[h:, :-w] + total[:-h, :-w]


def _middle(scan: Volume) -> View:
    size = [n * s for n, s in zip(scan.shape[1:], scan.spacing_mm[1:], strict=True)]
    side = [min(SIDE_MM, s) for s in size]
    box = ((size[0] - side[0]) / 2, (size[1] - side[1]) / 2, side[0], side[1])
    return View("middle of the scan", 0, len(scan.hu) // 2, box, DISPLAY_WINDOWS_HU["wide"])


def _coronal(scan: Volume, seen: View, length_mm: float) -> View:
    """A cut through the middle of a square that was chosen."""
    top, left, height, width = seen.box_mm
    row = min(int((top + height / 2) / scan.spacing_mm[1]), scan.shape[1] - 1)
    tall = min(SIDE_MM, length_mm)
    centre = (seen.index + 0.5) * scan.spacing_mm[0]
    first = min(max(centre - tall / 2, 0.0), length_mm - tall)
    return View(f"{seen.name}, across slices", 1, row, (first, left, tall, width), seen.window_hu)
