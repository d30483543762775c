"""Write a planned result to files, slab by slab."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from uhrct import io
from uhrct.core.notes import collected_warnings
from uhrct.core.progress import Progress
from uhrct.core.purpose import NOTE
from uhrct.core.version import __version__
from uhrct.core.volume import Volume
from uhrct.upscaling.body_residual import BodyResidual
from uhrct.upscaling.plan import Plan, format_mm
from uhrct.upscaling.report import run_report
from uhrct.upscaling.slabs import compute_slabs


def write_result(
    plan: Plan,
    volume: Volume,
    output: Path,
    *,
    structure: Path | None = None,
    lower: Path | None = None,
    upper: Path | None = None,
    spread: Path | None = None,
    dicom: io.DicomOptions | None = None,
    overwrite: bool = False,
    listeners: Sequence[Callable[[int, np.ndarray], None]] = (),
    quiet: bool = False,
    on_progress: Callable[[float], None] | None = None,
) -> dict[str, Any]:
    """Compute the result of a plan and write it. Each file appears only when it is complete.

    Parameters
    ----------
    output : Path
        File or DICOM folder of the result.
    structure, lower, upper, spread : Path, optional
        Files of the structure map, of the bounds of the interval, and of the standard deviation between samples.
    dicom, overwrite
        As for `uhrct.io.open_writer`.
    listeners : functions
        Each gets every part of the result too: number of its first slice, HU (k, y, x).
    quiet : bool
        Show no progress.
    on_progress : function, optional
        Gets the share of the work that is done, from 0 to 1, also if quiet.

    Returns
    -------
    dict
        The report of the run (`uhrct.upscaling.report`).

    Raises
    ------
    UhrctError
        If the volume holds NaN, or a file cannot be written.
    """
    begin = time.monotonic()
    residuals: list[float] = []
    body = BodyResidual(plan, volume)
    clipped = 0
    how: dict[str, Any] = {"source": volume, "derivation": derivation(plan), "dicom": dicom, "overwrite": overwrite}
    progress = Progress("upscale", volume.shape[0], unit="slices", quiet=quiet, announce=work_in_words(plan))
    done = 0.0

    def advance(slices: float) -> None:
        nonlocal done
        done += slices
        progress.advance(slices)
        if on_progress is not None:
            on_progress(done / volume.shape[0])

    with ExitStack() as stack:
        warnings = stack.enter_context(collected_warnings())
        writers = {"image": stack.enter_context(io.open_writer(output, plan.grid, dtype=volume.hu.dtype, **how))}
        maps = {"structure": structure, "lower": lower, "upper": upper, "spread": spread}
        for quantity, path in maps.items():
            if path is not None:
                writers[quantity] = stack.enter_context(io.open_map_writer(path, plan.grid, quantity, **how))
        stack.enter_context(progress)
        for slab in compute_slabs(plan, volume, advance):
            writers["image"].write(slab.hu)
            for listen in listeners:
                listen(slab.first, slab.hu)
            parts = {"structure": slab.structure, "lower": slab.lower, "upper": slab.upper, "spread": slab.sd_hu}
            for quantity, values in parts.items():
                if quantity in writers:
                    writers[quantity].write(np.asarray(values, np.float32))
            residuals += slab.residual_hu
            body.feed(slab)
            clipped += slab.clipped
    seconds = time.monotonic() - begin
    return run_report(
        plan,
        volume.grid,
        seconds=seconds,
        residual_hu=residuals,
        body_residual_hu=body.mean_hu,
        clipped=clipped,
        warnings=warnings,
        writers=writers,
    )


def bound_paths(path: Path) -> tuple[Path, Path]:
    """The files or folders of lower and upper bounds, beside each other.

    Example
    -------
    >>> [p.name for p in bound_paths(Path("ct.nii.gz"))], [p.name for p in bound_paths(Path("bounds"))]
    (['ct-lower.nii.gz', 'ct-upper.nii.gz'], ['bounds-lower', 'bounds-upper'])
    """
    suffix = io.paths.output_suffix(path)
    stem = path.name[: len(path.name) - len(suffix)]
    return path.with_name(f"{stem}-lower{suffix}"), path.with_name(f"{stem}-upper{suffix}")


def work_in_words(plan: Plan) -> str:
    """The amount of work, for an estimate of its time: "8 samples of 120 slices"."""
    s, slices = plan.settings, plan.model_grid.shape[0] // plan.model.config.scale[0]
    if s.steps > 1:
        return f"{s.samples} sample{'s' * (s.samples > 1)} of {slices} slices"
    return f"{slices} slices" + (", quality best" if s.quality == "best" else "")


def derivation(plan: Plan) -> io.Derivation:
    """What a DICOM file says about the result, and the key of its UIDs: an equal key means equal voxels."""
    s = plan.settings
    mode = "posterior mean"
    if s.steps > 1:
        mode = f"mean of {s.samples} posterior sample(s), {s.steps} steps"
    weights = plan.model.weights_sha256[:16]
    if s.quality != "standard":
        mode += f", quality {s.quality}"
    what = f"{plan.scale_name}, weights {weights}, {mode}, seed {s.seed}, consistency {s.consistency}"
    if plan.skips_air:
        what += ", air around the body interpolated"
    if plan.resampled:
        what += f", resampled to {format_mm(plan.grid.spacing_mm)}"
    if plan.model.config.properties:
        what += f", scan properties: {plan.assumptions}"
    what += f", {plan.computed_in}"
    if s.interval and plan.model.calibration is not None:
        factors = plan.model.calibration.factors("kernel_lp_cm" in plan.facts)
        what += f", interval factors {' '.join(f'{factor:.3f}' for factor in factors)}"
    # a DICOM description is cut at 1024 characters, so what matters most comes first
    warnings = f" Warning: {'; '.join(plan.warnings)}." if plan.warnings else ""
    return io.Derivation(
        description=f"uhrct {__version__} super-resolution. {NOTE}{warnings} How: {what}.",
        key=f"{__version__} {what} {plan.scan!r}",  # the words are rounded
        suffix=plan.scale_name,
        reach_mm=_reach_mm(plan),
    )


def _reach_mm(plan: Plan) -> float:
    """How far beyond its own faces a slice of the result draws on the scan."""
    config, fine_mm, out_mm = plan.model.config, plan.model_grid.spacing_mm[0], plan.grid.spacing_mm[0]
    reach_mm = config.context * config.scale[0] * fine_mm
    if abs(out_mm / fine_mm - 1) > 1e-6:  # cubic resampling reads two slices of the coarser grid on each side
        reach_mm += 2 * max(fine_mm, out_mm) - out_mm / 2
    return reach_mm
