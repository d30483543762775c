"""What a run did, as plain values for JSON: input, assumptions, settings, weights, consistency, time, files.

The keys are a schema: `docs/report.md` describes them, and a change of their meaning changes `SCHEMA`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from uhrct.core.purpose import NOTE
from uhrct.core.version import __version__
from uhrct.core.volume import Grid
from uhrct.io import SlabWriter
from uhrct.models.folder import weights_name
from uhrct.upscaling.intervals import interval_report
from uhrct.upscaling.plan import Plan

SCHEMA = "uhrct-report-2"


def run_report(
    plan: Plan,
    source: Grid,
    *,
    seconds: float,
    residual_hu: Sequence[float],
    body_residual_hu: float | None,
    clipped: int,
    warnings: Sequence[str],
    writers: Mapping[str, SlabWriter] | None = None,
) -> dict[str, Any]:
    """The report of one run.

    Parameters
    ----------
    plan : Plan
    source : Grid
        Of the input.
    seconds : float
        Time of the computation.
    residual_hu : sequence of float
        Mean |A y - x| in HU of each slice where it was measured.
    body_residual_hu : float or None
        The same over the voxels of the body (`uhrct.upscaling.body_residual`).
    clipped : int
        Voxels that did not fit into 16 bits.
    warnings : sequence of str
        What was logged as a warning during the run.
    writers : mapping, optional
        What was written: "image", "structure", "lower", "upper", "spread" -> its writer.
    """
    scan = asdict(plan.scan)
    for name, known in (("psf_fwhm", plan.scan.psf_known), ("noise_hu", plan.scan.noise_known)):
        if not known:
            scan[name] = None
    settings = {f.name: getattr(plan.settings, f.name) for f in fields(plan.settings)}
    if settings["weights"] is not None:
        settings["weights"] = weights_name(Path(settings["weights"]))  # a report names no folders
    return {
        "schema": SCHEMA,
        "uhrct": __version__,
        "note": NOTE,
        "input": _grid(source),
        "output": _grid(plan.grid),
        "scale": list(plan.model.config.scale),
        "weights": {"name": plan.model.weights_name, "sha256": plan.model.weights_sha256},
        "computed_in": plan.computed_in,
        "scan_properties": _plain(scan),
        "reasons": dict(plan.assumptions.reasons),
        "scan_facts": _plain(dict(plan.facts)),
        "interval": _interval(plan),
        "settings": _plain(settings),
        "consistency_hu": float(np.mean(residual_hu)) if residual_hu else None,
        "consistency_body_hu": body_residual_hu,
        "consistency_not_measured": None if residual_hu else not_measured(plan),
        "clipped_voxels": clipped,
        "seconds": round(seconds, 3),
        "warnings": list(warnings),
        "files": [
            {
                "content": content,
                "series_instance_uid": writer.series_uid or None,
                "sop_instance_uids": list(writer.instance_uids),
            }
            for content, writer in (writers or {}).items()
        ],
    }


def not_measured(plan: Plan) -> str:
    """Why a run that measured no consistency could not do so.

    Where slices overlap, an input slice also measures its neighbours. An unknown blur is an unknown scanner model.
    """
    if not plan.scan.psf_known:
        return "the blur of the scan is unknown"
    return "all slices are padding" if plan.acquisition.slice_by_slice else "slices overlap"


def _interval(plan: Plan) -> dict[str, Any] | None:
    if not plan.settings.interval:
        return None
    return interval_report(plan.model.calibration, "kernel_lp_cm" in plan.facts, list(plan.interval_reasons))


def _grid(grid: Grid) -> dict[str, Any]:
    return {
        "shape": list(grid.shape),
        "spacing_mm": list(grid.spacing_mm),
        "origin_mm": list(grid.origin_mm),
        "slice_thickness_mm": grid.slice_thickness_mm,
    }


def _plain(value: Any) -> Any:
    """Values that JSON knows, also inside a dictionary or a tuple."""
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(part) for part in value]
    if isinstance(value, np.generic):
        return value.item()
    return value if isinstance(value, bool | int | float | str | None) else str(value)
