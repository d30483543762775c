"""Repeat the super-resolution of small squares with other noise, to see which structures come again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from uhrct.audit.evidence import STRUCTURE_FROM, Curvature, Evidence
from uhrct.physics.acquisition import correlated_noise
from uhrct.physics.resampling import FWHM_PER_SIGMA
from uhrct.upscaling.plan import Plan

#: Side in pixels of the scan of the squares whose structures are examined, and of the margin around them.
CORE_PX, MARGIN_PX = 48, 8
#: Squares per slice of the scan: more would take longer than the audit may.
SQUARES = 2
#: Shorter segments are not worth the time.
SHORTEST_MM = 1.5


@dataclass(frozen=True)
class Candidates:
    """The segments of one kind in one fine slice, and which of them the scan does not show: (n,) of bool."""

    kind: str
    fine_slice: int
    evidence: Evidence
    weak: np.ndarray


class Redraws:
    """Computes squares of a slice again, each time with more noise in the scan, and as posterior samples if the model
    has a denoiser.

    Parameters
    ----------
    plan : Plan
        How the result was computed.
    draws : int
        How often each square is computed again. 0: never.
    seed : int
    """

    def __init__(self, plan: Plan, draws: int, seed: int = 0) -> None:
        self.plan, self.draws = plan, draws
        self.generator = torch.Generator().manual_seed(seed)
        noise_hu = plan.scan.noise_hu if plan.scan.noise_known else 0.0
        self.added_hu = noise_hu
        self.fwhm_px = _fwhm_px(plan.scan.noise_correlation)
        # two independent noises of equal strength
        self.told = replace(plan.scan, noise_hu=noise_hu * math.sqrt(2))

    def present(self, stack: Tensor, found: Sequence[Candidates]) -> list[np.ndarray]:
        """How many of the repeated results hold each weak segment of a slice of the scan.

        Parameters
        ----------
        stack : (1, 2 context + 1, y, x), HU
            The slice of the scan between its neighbours.
        found : the weak segments of each fine slice and kind

        Returns
        -------
        list of array (n,)
            For each item of `found` shares in [0, 1]; NaN for segments that were not examined.
        """
        out = [np.full(c.evidence.segments.count, np.nan) for c in found]
        left = [c.weak & (c.evidence.segments.length_mm >= SHORTEST_MM) for c in found]
        for _ in range(SQUARES if self.draws else 0):
            square = _next_square(found, left, self.plan.model.config.scale, stack.shape[-2:])
            if square is None:
                break
            spacing_mm = (self.plan.model_grid.spacing_mm[1], self.plan.model_grid.spacing_mm[2])
            results = [Curvature(hr, spacing_mm) for hr in self._results(stack[..., square[0], square[1]])]
            for c, remaining, shares in zip(found, left, out, strict=True):
                self._count(results, square, c, remaining, shares)
        return out

    def _count(
        self,
        results: list[Curvature],
        square: tuple[slice, slice],
        candidates: Candidates,
        left: np.ndarray,
        shares: np.ndarray,
    ) -> None:
        """Enter the shares of all weak segments inside a square, and take them from `left`."""
        _, sy, sx = self.plan.model.config.scale
        fine = tuple(slice(s.start * f, s.stop * f) for s, f in zip(square, (sy, sx), strict=True))
        segments = candidates.evidence.segments
        line, count = segments.line, segments.count
        here = np.ones(len(line.rows), bool)
        for place, part in zip((line.rows, line.columns), fine, strict=True):
            here &= (place >= part.start) & (place < part.stop)
        inside = (np.bincount(line.numbers[here], minlength=count) == segments.voxels) & left
        if not inside.any():
            return
        rows, columns, numbers = line.rows[here] - fine[0].start, line.columns[here] - fine[1].start, line.numbers[here]
        found = np.zeros(count)
        for result in results:
            m = result.map(candidates.kind)[candidates.fine_slice]
            near = ndimage.maximum_filter(m >= STRUCTURE_FROM[candidates.kind], 3)[rows, columns]
            found += np.bincount(numbers[near], minlength=count) >= 0.5 * segments.voxels
        shares[inside] = found[inside] / len(results)
        left &= ~inside

    def _results(self, stack: Tensor) -> Tensor:
        """The repeated results (draws, sz, y, x) of a square, HU. Small squares take less time in one batch."""
        model, plan = self.plan.model, self.plan
        stack = stack.expand(self.draws, *stack.shape[1:])
        noise = self.added_hu * correlated_noise(tuple(stack.shape), self.fwhm_px, self.generator)
        spacing_mm = (plan.model_grid.spacing_mm[1], plan.model_grid.spacing_mm[2])
        coarse_mm = (spacing_mm[0] * model.config.scale[1], spacing_mm[1] * model.config.scale[2])
        with torch.inference_mode(), plan.autocast():
            f = model.features((stack + noise).to(plan.device), coarse_mm, self.told)
            hr = None if model.mean is None else model.mean_hu(f)[0]
            if model.denoiser is not None:
                sz, sy, sx = model.config.scale
                shape = (self.draws, sz * sy * sx, *stack.shape[-2:])

                def draw(step: int) -> Tensor:
                    return torch.randn(shape, generator=self.generator).to(plan.device)

                hr = model.sample_hu(f, hr, coarse_mm, draw)
        assert hr is not None
        return hr.float().cpu()


def _next_square(
    found: Sequence[Candidates], left: list[np.ndarray], scale: tuple[int, int, int], shape: Sequence[int]
) -> tuple[slice, slice] | None:
    """The square of the scan around the longest weak segment that is left, with its margin."""
    lengths = [np.where(w, c.evidence.segments.length_mm, 0.0) for c, w in zip(found, left, strict=True)]
    best = max(range(len(lengths)), key=lambda k: float(lengths[k].max(initial=0.0)))
    if not lengths[best].max(initial=0.0):
        return None
    line = found[best].evidence.segments.line
    mine = line.numbers == int(lengths[best].argmax())
    side = CORE_PX + 2 * MARGIN_PX
    middle = (line.rows[mine].mean() / scale[1], line.columns[mine].mean() / scale[2])
    starts = [max(0, min(round(m - side / 2), n - side)) for m, n in zip(middle, shape, strict=True)]
    return slice(starts[0], min(starts[0] + side, shape[0])), slice(starts[1], min(starts[1] + side, shape[1]))


def _fwhm_px(correlation: float) -> float:
    """Width of the Gaussian filter whose noise has this correlation between neighbouring pixels."""
    if correlation <= 0.01:
        return 0.0
    return min(math.sqrt(-1 / (4 * math.log(min(correlation, 0.95)))), 3.0) * FWHM_PER_SIGMA
