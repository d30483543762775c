"""What a run says about itself: before it, what was assumed of the scan; after it, how far the result agrees."""

from __future__ import annotations

from typing import Any

from uhrct.core.hu import MEAN_OF_NOISE
from uhrct.core.volume import Volume
from uhrct.upscaling.plan import Plan, format_mm


def plan_lines(plan: Plan, volume: Volume) -> list[str]:
    """What the file states about the scan, and what was assumed, a line each."""
    lines = [_scan_line(volume)]
    if plan.resampled:
        own = format_mm(plan.model_grid.spacing_mm)
        lines.append(
            f"nearest scale {plan.scale_name} ({own}), then cubic resampling to {format_mm(plan.grid.spacing_mm)}"
        )
    if plan.model.config.properties:
        lines.append(f"scan properties: {plan.assumptions}")
    return lines


def _scan_line(volume: Volume) -> str:
    """What the file states about the scan."""
    slices, (z_mm, y_mm, x_mm) = volume.shape[0], volume.spacing_mm
    apart = "1 slice" if slices == 1 else f"{slices} slices, {z_mm:.2f} mm apart"
    thickness_mm = volume.slice_thickness_mm
    thick = "thickness not stated" if thickness_mm is None else f"{thickness_mm:.2f} mm thick"
    pixels = f"{y_mm:.2f}" if abs(y_mm - x_mm) < 0.005 else f"{y_mm:.2f} x {x_mm:.2f}"
    return f"scan: {apart}, {thick}, pixels {pixels} mm"


def agreement(plan: Plan, report: dict[str, Any]) -> str:
    """How far the result is from the scan, and what that means.

    A mean absolute difference is compared with that of noise, over the same voxels.
    """
    found_hu, body_hu = report["consistency_hu"], report["consistency_body_hu"]
    if found_hu is None:
        return f"Its difference from the scan was not measured, because {report['consistency_not_measured']}"
    line = f"Through the scanner model it differs from the scan by {found_hu:.1f} HU on average"
    if body_hu is None:
        return line
    line += f", in the body by {body_hu:.1f} HU"
    if "noise" not in plan.assumptions.reasons or not plan.scan.noise_known:
        return line
    noise_hu = MEAN_OF_NOISE * plan.scan.noise_hu
    if body_hu > 1.25 * noise_hu:
        more = f"which is more than the scan's noise alone would give ({noise_hu:.1f} HU)"
        return f"{line}, {more}: fine structure of the scan may be lost; uhrct audit shows where"
    return f"{line}; the scan's noise alone would give {noise_hu:.1f} HU (uhrct audit tells whether edges were lost)"
