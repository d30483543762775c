"""Maps that are drawn over a result: what kind of map a volume is, and its colours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from uhrct.core.errors import InputRefused
from uhrct.core.volume import Volume
from uhrct.viewer.findings import GRADE_COLOURS

#: More different whole numbers are no labels.
_MOST_LABELS = 16
#: Weaker structures, and shares of the range of other maps, are transparent.
_TRANSPARENT_BELOW = 0.05
#: Colours of labels after the four of the grades.
_MORE_COLOURS = ("#b388ff", "#ff8a3d", "#7dd34f", "#e36bd0", "#c9b18f", "#6f9ceb")
#: Voxels from which the range of a large map is found.
_SAMPLE = 10_000_000
_ONE_MASK = "mask"
KINDS = {
    "structure": "structure map, 0 to 1",
    "grades": "audit grades (widened)",
    "labels": "labels",
    _ONE_MASK: "mask",
}


@dataclass(frozen=True)
class Overlay:
    """A map with its name on the page, range of values, and colours: a colour map, or one colour per label."""

    volume: Volume
    name: str
    kind: str
    low: float
    high: float
    colormap: str = ""
    labels: tuple[tuple[str, str], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """What the page needs beside the voxels."""
        return {
            "name": self.name,
            "low": self.low,
            "high": self.high,
            "colormap": self.colormap,
            "labels": [{"name": name, "colour": colour} for name, colour in self.labels],
        }


def overlay_of(volume: Volume) -> Overlay:
    """Find out by its values what kind of map a volume is.

    Whole numbers 0 to 4 are the grades of `uhrct audit --grades`, unless there is only the number 1: a mask. Other
    whole numbers up to 16 are labels. Values from 0 to 1 are a structure map. Other values are an uncertainty in HU.

    Raises
    ------
    InputRefused
        If all values are zero, or the volume is a scan.

    Example
    -------
    >>> overlay_of(Volume(np.array([[[0.0, 0.4, 0.9]]]), (1.0, 1.0, 1.0))).name
    'structure map, 0 to 1'
    """
    low, high = float(volume.hu.min()), float(volume.hu.max())
    if low < 0:
        raise InputRefused(f"holds values from {low:g} to {high:g}: a scan, no map; give bounds as `interval`")
    if high == 0:
        raise InputRefused("all values are zero, there is nothing to draw")
    whole = volume.hu.dtype == np.int16 or not (volume.hu != np.rint(volume.hu)).any()
    if whole and high <= _MOST_LABELS:
        return _labels(volume, int(high))
    if high <= 1:
        return Overlay(volume, KINDS["structure"], "structure", _TRANSPARENT_BELOW, 1.0, "warm")
    return uncertainty(volume)


def uncertainty(volume: Volume, name: str = "uncertainty in HU") -> Overlay:
    """A map in HU. Its colours reach from a twentieth of the 99th percentile of values above zero to this value."""
    sample = volume.hu.ravel()[:: max(1, volume.hu.size // _SAMPLE)]
    if not (sample > 0).any():
        sample = volume.hu
    above = sample[sample > 0]
    if not above.size:
        raise InputRefused("all values are zero, there is nothing to draw")
    high = float(f"{np.percentile(above, 99):.2g}")
    return Overlay(volume, name, "uncertainty", _TRANSPARENT_BELOW * high, high, "viridis")


def between(lower: Volume, upper: Volume) -> Volume:
    """The distance of two bounds, as `uhrct upscale --uncertainty` writes them.

    Raises
    ------
    InputRefused
        If the grids differ, or the first bound is above the second.
    """
    if lower.shape != upper.shape or not np.allclose(lower.affine, upper.affine, atol=1e-3):
        raise InputRefused("the two bounds lie on different grids")
    width = upper.hu.astype(np.float32)
    width -= lower.hu
    if width.min() < 0:
        raise InputRefused("the lower bound is above the upper one; give LOWER first")
    return Volume(width, upper.spacing_mm, upper.origin_mm, upper.direction)


def _labels(volume: Volume, high: int) -> Overlay:
    volume = Volume(volume.hu.astype(np.int16), volume.spacing_mm, volume.origin_mm, volume.direction)
    if high == 1:
        return Overlay(volume, KINDS[_ONE_MASK], _ONE_MASK, 0, 1, labels=(("mask", GRADE_COLOURS["inferred"]),))
    if high <= len(GRADE_COLOURS):
        return Overlay(volume, KINDS["grades"], "grades", 0, high, labels=tuple(GRADE_COLOURS.items()))
    colours = (*GRADE_COLOURS.values(), *_MORE_COLOURS)
    labels = tuple((f"label {k + 1}", colours[k % len(colours)]) for k in range(high))
    return Overlay(volume, KINDS["labels"], "labels", 0, high, labels=labels)
