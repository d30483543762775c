"""Does the result measure as the scan? HU bias per tissue, and whether the residual A y - x looks like noise."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import ndimage

from uhrct.core.errors import InputRefused
from uhrct.core.hu import PADDING_HU

#: tissue -> HU of its even parts
TISSUES_HU = {"lung": (-960.0, -600.0), "soft tissue": (-150.0, 150.0), "bone": (250.0, 1500.0)}
#: Even parts: the blurred scan changes by less than this within 3 pixels (bone is never as even as the others).
EVEN_HU = {"lung": 60.0, "soft tissue": 40.0, "bone": 200.0}
#: Share of the pixels that count as edges.
EDGES = 0.02
#: The residual at edges may be this many times as large as in even soft tissue and still pass for noise.
NOISE_LIKE = 1.5
#: A result correlates with its scan more than this; the next slice of the same patient correlates less.
SAME_SCAN = 0.97


@dataclass
class Agreement:
    """Sums over the slices of a scan.

    Attributes
    ----------
    sums : tissue -> [sum of A y - x, number of pixels]
    """

    sums: dict[str, list[float]] = field(default_factory=lambda: {name: [0.0, 0] for name in TISSUES_HU})
    _absolute: list[float] = field(default_factory=list)
    _even: list[float] = field(default_factory=list)
    _edges: list[float] = field(default_factory=list)
    _neighbours: list[float] = field(default_factory=list)
    _moments: np.ndarray = field(default_factory=lambda: np.zeros(6))

    def add(self, measured: np.ndarray, result: np.ndarray) -> None:
        """Take a slice of the scan x and the result as the scanner would measure it, A y: arrays (y, x) in HU."""
        known = measured > PADDING_HU
        if known.sum() < 64:
            return
        x, ay = measured.astype(np.float64), result.astype(np.float64)
        a, b = x[known], ay[known]
        self._moments += [len(a), a.sum(), b.sum(), (a * a).sum(), (b * b).sum(), (a * b).sum()]
        residual = np.where(known, ay - x, 0.0)
        self._absolute.append(float(np.abs(residual[known]).mean()))
        smooth = ndimage.gaussian_filter(np.where(known, x, -1000.0), 1.5)
        change = ndimage.maximum_filter(smooth, 7) - ndimage.minimum_filter(smooth, 7)
        soft = np.zeros_like(known)
        for name, (low, high) in TISSUES_HU.items():
            inside = known & (smooth >= low) & (smooth <= high) & (change <= EVEN_HU[name])
            self.sums[name][0] += float(residual[inside].sum())
            self.sums[name][1] += int(inside.sum())
            soft = inside if name == "soft tissue" else soft
        body = known & (smooth > -900)
        if soft.sum() < 100 or body.sum() < 100:
            return
        steep = body & (change >= np.quantile(change[body], 1 - EDGES))
        self._even.append(float(np.sqrt((residual[soft] ** 2).mean())))
        self._edges.append(float(np.sqrt((residual[steep] ** 2).mean())))
        pairs = soft[:, 1:] & soft[:, :-1]
        product, square = residual[:, 1:] * residual[:, :-1], residual**2
        variance = float(square[soft].mean())
        if pairs.any() and variance > 0:
            self._neighbours.append(float(product[pairs].mean()) / variance)

    def check(self) -> None:
        """Raise `InputRefused` if the slices so far cannot be a result of this scan."""
        correlation = self.correlation()
        if correlation is not None and correlation < SAME_SCAN:
            raise InputRefused(
                f"the two volumes do not show the same scan: measured again, HIGH differs from LOW by "
                f"{np.mean(self._absolute):.0f} HU on average (correlation {correlation:.2f}); "
                "give the result of this scan"
            )

    def correlation(self) -> float | None:
        """Correlation of x and A y over all voxels; None for constant images."""
        n, a, b, aa, bb, ab = self._moments
        if not n:
            return None
        variances = (aa / n - (a / n) ** 2) * (bb / n - (b / n) ** 2)
        return None if variances <= 1e-6 else float((ab / n - a * b / n**2) / np.sqrt(variances))

    def as_dict(self, noise_hu: float | None, noise_correlation: float) -> dict[str, Any]:
        """The figures as plain values; None where there is nothing to measure."""
        even, edges = _mean(self._even), _mean(self._edges)
        ratio = None if not even or edges is None else edges / even
        return {
            "residual_hu": _mean(self._absolute),
            "residual_in_soft_tissue_hu": even,
            "scan_noise_hu": noise_hu,
            "residual_at_edges_over_soft_tissue": ratio,
            "residual_correlation_of_neighbours": _mean(self._neighbours),
            "scan_noise_correlation_of_neighbours": noise_correlation if noise_hu is not None else None,
            "residual_looks_like_noise": None if ratio is None else bool(ratio <= NOISE_LIKE),
            "bias_hu": {name: total / n if n >= 100 else None for name, (total, n) in self.sums.items()},
        }


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None
