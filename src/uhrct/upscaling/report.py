"""What a run did, as plain values for JSON: input, assumptions, settings, weights, consistency, time.

The keys are a schema: `docs/report.md` describes them, and a change of their meaning changes `SCHEMA`.
"""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

from uhrct.core.version import __version__
from uhrct.core.volume import Grid
from uhrct.upscaling.plan import Plan

SCHEMA = "uhrct-report-1"
NOTE = "Research use only; not a medical device."


def run_report(
    plan: Plan, source: Grid, *, seconds: float, consistency_hu: float | None, clipped: int
) -> dict[str, Any]:
    """The report of one run.

    Parameters
    ----------
    plan : Plan
    source : Grid
        Of the input.
    seconds : float
        Time of the computation.
    consistency_hu : float or None
        Mean |A y - x| in HU.
    clipped : int
        Voxels that did not fit into 16 bits.
    """
    scan = asdict(plan.scan)
    for name, known in (("psf_fwhm", plan.scan.psf_known), ("noise_hu", plan.scan.noise_known)):
        if not known:
            scan[name] = None
    settings = {f.name: getattr(plan.settings, f.name) for f in fields(plan.settings)}
    return {
        "schema": SCHEMA,
        "uhrct": __version__,
        "note": NOTE,
        "input": _grid(source),
        "output": _grid(plan.grid),
        "scale": list(plan.model.config.scale),
        "weights_sha256": plan.model.weights_sha256,
        "computed_in": plan.computed_in,
        "scan_properties": scan,
        "reasons": dict(plan.assumptions.reasons),
        "settings": {name: _plain(value) for name, value in settings.items()},
        "consistency_hu": consistency_hu,
        "clipped_voxels": clipped,
        "seconds": round(seconds, 3),
    }


def _grid(grid: Grid) -> dict[str, Any]:
    return {
        "shape": list(grid.shape),
        "spacing_mm": list(grid.spacing_mm),
        "origin_mm": list(grid.origin_mm),
        "slice_thickness_mm": grid.slice_thickness_mm,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return value if isinstance(value, bool | int | float | str | dict | None) else str(value)
