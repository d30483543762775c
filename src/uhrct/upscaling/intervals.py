"""Intervals around the result: widths from the interval network, times the calibrated factor of the tissue."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from uhrct.core.hu import INT16
from uhrct.models.calibration import TISSUES, Calibration
from uhrct.models.interval import LEVEL
from uhrct.upscaling.assumptions import DENOISE

#: side in mm of the square over which the result is averaged to tell the tissue
SMOOTH_MM = 3.0
#: numbers of a scan that are compared with the calibration scans, with name and unit
COMPARED = {
    "pixel_mm": ("pixel spacing", "mm"),
    "thickness_mm": ("slice thickness", "mm"),
    "noise_hu": ("noise", "HU"),
    "kernel_lp_cm": ("kernel", "lp/cm"),
}
#: settings with which intervals are calibrated
CALIBRATED_SETTINGS: dict[str, tuple[Any, ...]] = {
    "engine": ("torch",),
    "quality": ("standard",),
    "consistency": ("auto",),
    "denoise": (None, DENOISE),
    "target_spacing_mm": (None,),
}


def tissue_of(hr_hu: Tensor, scale: tuple[int, int, int], lr_spacing_mm: tuple[float, float]) -> Tensor:
    """The number in `TISSUES` of each voxel of a result (B, sz, y', x'), by its mean over a square of about 3 mm.

    The squares consist of whole input pixels, so the tissue is the same for all voxels inside one.
    """
    _, sy, sx = scale
    coarse = F.avg_pool2d(hr_hu.float(), (sy, sx))
    sides = [2 * max(round((SMOOTH_MM / mm - 1) / 2), 0) + 1 for mm in lr_spacing_mm]
    pad = (sides[1] // 2, sides[1] // 2, sides[0] // 2, sides[0] // 2)
    smooth = F.avg_pool2d(F.pad(coarse, pad, mode="replicate"), tuple(sides), 1)
    edges = torch.tensor([end for _, end in TISSUES[:-1]], device=hr_hu.device)
    return torch.bucketize(smooth, edges).repeat_interleave(sy, -2).repeat_interleave(sx, -1)


def calibrated(
    below: Tensor, above: Tensor, hr_hu: Tensor, factors: list[float] | None, scale: Any, lr_spacing_mm: Any
) -> tuple[Tensor, Tensor]:
    """Widths times the factor of the tissue (`TISSUES`); as they are without factors."""
    if factors is None:
        return below, above
    factor = torch.tensor(factors, device=below.device)[tissue_of(hr_hu, scale, lr_spacing_mm)]
    return below * factor, above * factor


def bounds_hu(hu: np.ndarray, below: np.ndarray, above: np.ndarray, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """(lower, upper) float32, with lower <= result <= upper.

    Parameters
    ----------
    hu : result, not rounded yet;  below, above : widths in HU, at least 0
    dtype : of the result. For int16 the bounds are whole numbers that int16 holds, rounded outward.

    Example
    -------
    >>> one = np.ones(1, np.float32)
    >>> [float(bound[0]) for bound in bounds_hu(40.4 * one, 10 * one, 10 * one, np.dtype(np.int16))]
    [30.0, 51.0]
    """
    lower, upper = hu - below, hu + above
    if dtype == np.int16:
        lower, upper = np.floor(lower).clip(INT16.min, INT16.max), np.ceil(upper).clip(INT16.min, INT16.max)
    return lower.astype(np.float32), upper.astype(np.float32)


def not_calibrated(
    calibration: Calibration | None, facts: Mapping[str, float], settings: Mapping[str, Any]
) -> list[str]:
    """Why the interval of a scan is not calibrated, each reason in a few words with its number; empty if it is."""
    if calibration is None:
        return ["the weights hold no calibration"]
    reasons = []
    for name, (words, unit) in COMPARED.items():
        value, (low, high) = facts.get(name), calibration.ranges.get(name, (-np.inf, np.inf))
        if value is not None and not low <= value <= high:
            reasons.append(f"{words} {value:.3g} {unit}, calibrated on {low:.3g} to {high:.3g} {unit}")
    for name, allowed in CALIBRATED_SETTINGS.items():
        if (value := settings[name]) not in allowed:
            reasons.append(f"{name} is {value}, calibrated with {allowed[-1] or 'none'}")
    return reasons


def interval_report(calibration: Calibration | None, kernel_known: bool, reasons: list[str]) -> dict[str, Any]:
    """What the run report says about an interval."""
    out: dict[str, Any] = {"level": LEVEL, "calibrated": not reasons, "not_calibrated_because": reasons}
    if calibration is not None:
        out |= {
            "kernel_known": kernel_known,
            "calibration_patients": calibration.patients,
            "simulated_degradations": list(calibration.degradations),
            "tissues": {
                name: {
                    "factor": t.factor,
                    "coverage_of_calibration_patients": [min(t.coverage), max(t.coverage)],
                    "guaranteed_level_for_a_new_patient": t.guaranteed,
                }
                for name, t in calibration.of(kernel_known).items()
            },
        }
    return out
