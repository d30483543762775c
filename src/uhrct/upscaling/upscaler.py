"""Super-resolve volumes in memory: `upscale` for one, `Upscaler` for many with the same settings."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from uhrct.core.arguments import scale_factors, shown
from uhrct.core.errors import UhrctError
from uhrct.core.notes import collected_warnings
from uhrct.core.volume import Volume
from uhrct.models.choice import fast_weights, folder_for_scale, load_for_scale, pick_device
from uhrct.models.engines import engine_version
from uhrct.models.model import Model
from uhrct.upscaling.body_residual import BodyResidual
from uhrct.upscaling.inputs import as_volume
from uhrct.upscaling.plan import Plan, UpscaleSettings, make_plan
from uhrct.upscaling.report import run_report
from uhrct.upscaling.slabs import Slab, compute_slabs

#: progress(slices that are done, all slices)
Progress = Callable[[float, int], None]


@dataclass(frozen=True)
class Result:
    """What `Upscaler` returns for a volume.

    Attributes
    ----------
    volume : Volume
        The super-resolved scan.
    structure : Volume or None
        Structure map in [0, 1], if it was asked for.
    lower, upper : Volume or None
        Bounds in HU that are meant to hold 90 % of the voxels, if `interval` was asked for.
    spread : Volume or None
        Standard deviation between samples in HU, if there are at least two.
    plan : Plan
        How it was computed.
    consistency_hu : float or None
        Mean |A y - x|: how far the result is from the measured data (None where slices overlap, or the PSF is unknown).
    report : dict
        What was done and the warnings about it, as plain values for JSON (`uhrct.upscaling.report`, `docs/report.md`).
    """

    volume: Volume
    structure: Volume | None
    lower: Volume | None
    upper: Volume | None
    spread: Volume | None
    plan: Plan
    consistency_hu: float | None
    report: dict[str, Any]

    @property
    def uncertainty(self) -> tuple[Volume, Volume] | Volume | None:
        """(`lower`, `upper`) with `interval`, `spread` with several samples, None without either.

        The two exclude each other: the interval belongs to the posterior mean, the spread to samples.
        """
        return self.spread if self.lower is None or self.upper is None else (self.lower, self.upper)

    def __repr__(self) -> str:
        """One line without voxels, headers and network layers."""
        extra = [name for name in ("structure", "lower", "upper", "spread") if getattr(self, name) is not None]
        return f"Result({self.volume!r}, {self.plan.weights_text}{''.join(f', {name}' for name in extra)})"


class Upscaler:
    """Super-resolve several volumes with the same settings. Weights are loaded once.

    ``Upscaler(...)(volume)`` gives a `Result`, which holds `volume`, `structure`, `lower`, `upper`, `spread`,
    `uncertainty`, `plan`, `consistency_hu` and `report`. Warnings about the scan are in ``report["warnings"]``.

    Parameters
    ----------
    model : Model, optional
        Use this model instead of choosing one by scale.
    **settings
        The fields of `uhrct.upscaling.plan.UpscaleSettings`: `scale`, `target_spacing_mm`, `weights`, `device`,
        `steps`, `samples`, `seed`, `consistency`, `structure`, `interval`,
        `noise_hu`, `psf_fwhm_mm`, `slice_thickness_mm`, ...

    Raises
    ------
    UhrctError
        If a setting is unknown or impossible, or `model` is no Model.

    Example
    -------
    >>> from uhrct.models.model import Model, ModelConfig
    >>> model = Model(ModelConfig(mean={"image_width": 8, "image_blocks": 1})).eval()
    >>> scan = Volume(np.full((3, 9, 10), -1000, np.int16), spacing_mm=(1.0, 1.4, 1.4))
    >>> upscaler = Upscaler(model, batch=2)
    >>> [slab.hu.shape for slab in upscaler.slabs(scan)]
    [(2, 18, 20), (1, 18, 20)]
    >>> upscaler(scan).volume.spacing_mm
    (1.0, 0.7, 0.7)
    """

    def __init__(self, model: Model | None = None, **settings: Any) -> None:
        known = [field.name for field in fields(UpscaleSettings)]
        for name in settings:
            if name not in known:
                close = get_close_matches(name, known, 1)
                hint = f"did you mean `{close[0]}`?" if close else f"known: {', '.join(known)}"
                raise UhrctError(f"there is no setting `{name}`; {hint}")
        if model is not None and not isinstance(model, Model):
            raise UhrctError(f"`model` is {shown(model)}; give a Model, or choose one by `scale=2` or `weights='x2'`")
        self.settings = UpscaleSettings(**settings)
        self.model = model
        self._loaded: dict[tuple[Any, ...], Model] = {}

    def check(self) -> None:
        """Ask whether the settings can work on this machine, before there is a volume.

        Raises
        ------
        UhrctError
            If no weights serve the scale, or a device or a library is missing.
        """
        wanted = self.settings
        pick_device(wanted.device)
        engine_version(wanted.engine)
        if self.model is None and wanted.target_spacing_mm is None:
            scale = scale_factors("scale", wanted.scale or 2)
            folder_for_scale(scale, fast_weights(scale) if wanted.quality == "fast" else wanted.weights)

    def plan(self, volume: Volume) -> Plan:
        """Decide how a volume will be super-resolved. Raises `UhrctError` if it cannot be."""
        return make_plan(volume, self.settings, self.model, self._choose_model)

    def slabs(self, volume: Volume) -> Iterator[Slab]:
        """The result slab by slab, in ascending z. Memory does not grow with the number of slices."""
        return compute_slabs(self.plan(volume), volume)

    def __call__(self, volume: Volume, progress: Progress | None = None) -> Result:
        """Super-resolve a volume.

        Parameters
        ----------
        volume : Volume
        progress : callable, optional
            ``progress(done, slices)`` is called after each pass of a network: how many of the input slices are done.

        Raises
        ------
        UhrctError
            If there are no weights for the scale, the spacing is not finer than the scan's, or the volume holds NaN.
        """
        with collected_warnings() as texts:
            return self._result(volume, texts, progress)

    def _result(self, volume: Volume, texts: list[str], progress: Progress | None) -> Result:
        """`texts`, the warnings, fills up during the computation."""
        begin = time.monotonic()
        plan = self.plan(volume)
        clipped = 0
        arrays: dict[str, np.ndarray] = {}
        residuals: list[float] = []
        body = BodyResidual(plan, volume)
        done = 0.0

        def advance(slices: float) -> None:
            nonlocal done
            done += slices
            if progress is not None:
                progress(done, volume.shape[0])

        for slab in compute_slabs(plan, volume, advance):
            for name in ("hu", "structure", "lower", "upper", "sd_hu"):
                part = getattr(slab, name)
                if part is not None:
                    whole = arrays.setdefault(name, np.empty(plan.grid.shape, part.dtype))
                    whole[slab.first : slab.first + len(part)] = part
            residuals += slab.residual_hu
            body.feed(slab)
            clipped += slab.clipped
        structure, lower, upper, spread = (
            volume.on_grid(plan.grid, arrays[name].astype(np.float32)) if name in arrays else None
            for name in ("structure", "lower", "upper", "sd_hu")
        )
        seconds = time.monotonic() - begin
        report = run_report(
            plan,
            volume.grid,
            seconds=seconds,
            residual_hu=residuals,
            body_residual_hu=body.mean_hu,
            clipped=clipped,
            warnings=texts,
        )
        fine = volume.on_grid(plan.grid, arrays["hu"])
        return Result(fine, structure, lower, upper, spread, plan, report["consistency_hu"], report)

    def _choose_model(self, scale: tuple[int, int, int], weights: str | Path | None, device: str) -> Model:
        key = (scale, weights, device)
        if key not in self._loaded:
            self._loaded[key] = load_for_scale(scale, weights, device)
        return self._loaded[key]


def upscale(
    image: Any, *, spacing_mm: Any = None, affine: Any = None, progress: Progress | None = None, **settings: Any
) -> Any:
    """Super-resolve a CT volume. `Upscaler` does the same for several volumes, and gives more: see `Result`.

    Parameters
    ----------
    image : Volume, str or Path, nibabel image, SimpleITK image, or array (z, y, x)
        HU. A path is read with `uhrct.read`. The axes of an array are (z, y, x), also with `affine`: transpose the
        array of a nibabel image, ``np.asanyarray(image.dataobj).T``.
    spacing_mm : (z, y, x), optional
        Voxel spacing of an array.
    affine : (4, 4) array, optional
        Instead of `spacing_mm`: matrix from voxel numbers (x, y, z) to mm in RAS, as nibabel has it. The array itself
        is (z, y, x). A Python warning tells if its shape looks like (x, y, z).
    progress : callable, optional
        ``progress(done, slices)`` is told how many of the input slices are done.
    **settings
        `scale` (2, 4 or factors (z, y, x), default 2) or `target_spacing_mm`; `denoise` (0 to 1), `quality` ("fast",
        "standard", "best"), `weights`, `device`, `steps`, `samples`, `seed`, `consistency`, `noise_hu`, `psf_fwhm_mm`,
        `slice_thickness_mm`, `tile`, `batch`. `uhrct.upscaling.plan.UpscaleSettings` describes them. `structure` and
        `interval`, which add outputs, need `Upscaler`.

    Returns
    -------
    The same kind as `image`; a Volume for a path.
        Its grid has voxel edges that coincide with the input's (with `target_spacing_mm`: the first corner does).
        Floating-point input gives float32, also if its values are whole. Integer input gives whole HU in the same
        type, or in int16 or int32 if some do not fit. A nibabel image whose header scales integers counts as floating
        point. A path gives what `uhrct.read` makes of the file: int16 for whole numbers that fit, else float32.

    Warns
    -----
    UserWarning
        For each number of the scan that lies outside the range of the training.

    Raises
    ------
    UhrctError
        If the image is none of these or holds NaN, there are no weights for the scale, the spacing is not finer than
        the scan's, or a setting adds an output.

    Example
    -------
    ``fine = uhrct.upscale("scan.nii.gz", scale=2)``

    >>> from uhrct.models.model import Model, ModelConfig
    >>> model = Model(ModelConfig(mean={"image_width": 8, "image_blocks": 1})).eval()
    >>> upscale(np.full((1, 8, 8), -1000, np.int16), spacing_mm=(1.0, 1.0, 1.0), model=model).shape
    (1, 16, 16)
    """
    for name, outputs in (("structure", ".structure"), ("interval", ".lower and .upper")):
        if settings.get(name):
            raise UhrctError(
                f"`{name}` adds an output that uhrct.upscale cannot return; "
                f"result = uhrct.Upscaler({name}=True)(volume) has it as result{outputs}"
            )
    upscaler = Upscaler(**settings)
    volume, back = as_volume(image, spacing_mm, affine)
    result = upscaler(volume, progress)
    for text in dict.fromkeys(result.report["warnings"]):
        warnings.warn(text, UserWarning, stacklevel=2)
    return back(result.volume)
