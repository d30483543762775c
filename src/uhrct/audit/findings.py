"""The structures that deserve a look, worst first, with what a picture of them needs."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from uhrct.audit.evidence import Evidence
from uhrct.audit.grades import DOUBTFUL, GRADES, INFERRED

#: Findings that a report shows.
SHOWN = 12
#: Side of the picture of a finding.
SIDE_MM = 32.0
#: Shorter segments are counted, but not shown: most are the ends of a wide vessel.
SHORTEST_MM = 1.0
#: A chain of weak segments counts as one finding if its pieces are so near.
NEAR_MM = 6.0


@dataclass(frozen=True, order=True)
class Finding:
    """A doubtful or inferred structure, and its surroundings in scan and result: arrays of HU and of grades."""

    weight: float  # the sorting key: doubtful before inferred, long before short
    z: int
    y: int
    x: int
    kind: str = field(compare=False)
    grade: int = field(compare=False)
    length_mm: float = field(compare=False)
    share: float = field(compare=False)
    strength: float = field(compare=False)
    ridge: float = field(compare=False)
    present: float | None = field(compare=False)
    scan: np.ndarray = field(compare=False, repr=False)
    result: np.ndarray = field(compare=False, repr=False)
    lines: np.ndarray = field(compare=False, repr=False)

    def as_dict(self) -> dict[str, Any]:
        """The finding without its pictures."""
        return {
            "kind": self.kind,
            "grade": GRADES[self.grade],
            "slice": self.z,
            "row": self.y,
            "column": self.x,
            "length_mm": round(self.length_mm, 2),
            "amplitude_in_scan": round(self.share, 3),
            "signal_to_noise": round(self.strength, 2),
            "ridge_in_scan_sd": round(self.ridge, 2),
            "present_in_redraws": self.present,
        }


class Worst:
    """Keeps the worst findings of a scan, so that memory does not grow with the number of slices."""

    def __init__(self, count: int = SHOWN) -> None:
        self.count = count
        self._heap: list[Finding] = []

    def add(
        self,
        kind: str,
        z: int,
        corner: tuple[int, int],
        evidence: Evidence,
        grades: np.ndarray,
        present: np.ndarray,
        images: tuple[np.ndarray, np.ndarray, np.ndarray],
        spacing_mm: tuple[float, float],
    ) -> None:
        """Take the weak segments of a fine slice.

        Parameters
        ----------
        z, corner : fine slice, and place (y, x) of the upper left corner of the arrays in it
        images : interpolated scan, result (y, x) in HU, and grade on each voxel of a centre line (-1 elsewhere)
        """
        weak = np.flatnonzero((grades >= INFERRED) & (evidence.segments.length_mm >= SHORTEST_MM))
        for k in weak[np.argsort(-evidence.segments.length_mm[weak])]:
            length_mm = float(evidence.segments.length_mm[k])
            weight = length_mm + (1000.0 if grades[k] == DOUBTFUL else 0.0)
            if len(self._heap) == self.count and weight <= self._heap[0].weight:
                continue
            line = evidence.segments.line
            mine = line.numbers == k
            y, x = round(line.rows[mine].mean()), round(line.columns[mine].mean())
            place = (z, y + corner[0], x + corner[1])
            if any(_near(f, place, spacing_mm) for f in self._heap):
                continue
            crops = [_crop(image, (y, x), spacing_mm) for image in images]
            seen = None if np.isnan(present[k]) else float(present[k])
            found = Finding(
                weight,
                *place,
                kind=kind,
                grade=int(grades[k]),
                length_mm=length_mm,
                share=float(evidence.share[k]),
                strength=float(evidence.strength[k]),
                ridge=float(evidence.ridge[k]),
                present=seen,
                scan=crops[0],
                result=crops[1],
                lines=crops[2],
            )
            heapq.heappush(self._heap, found)
            if len(self._heap) > self.count:
                heapq.heappop(self._heap)

    def sorted(self) -> list[Finding]:
        """The worst first."""
        return sorted(self._heap, reverse=True)


def _near(found: Finding, place: tuple[int, int, int], spacing_mm: tuple[float, float]) -> bool:
    z, y, x = place
    return found.z == z and np.hypot((found.y - y) * spacing_mm[0], (found.x - x) * spacing_mm[1]) < NEAR_MM


def _crop(image: np.ndarray, middle: tuple[int, int], spacing_mm: tuple[float, float]) -> np.ndarray:
    """A square of `SIDE_MM` around a place; a smaller one at the edge of the image."""
    cut = []
    for m, n, mm in zip(middle, image.shape, spacing_mm, strict=True):
        half = max(4, round(SIDE_MM / 2 / mm))
        start = max(0, min(m - half, n - 2 * half))
        cut.append(slice(start, min(start + 2 * half, n)))
    return image[cut[0], cut[1]].copy()
