"""Decide once, before any computation, how a volume is super-resolved.

The command line, the library, the demo, the evaluation and the description in a DICOM file all read the same `Plan`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from uhrct.core.arguments import choice, number, scale_factors, shown, whole
from uhrct.core.errors import InputRefused, UhrctError
from uhrct.core.volume import Grid, Vector, Volume
from uhrct.models.choice import fast_weights, load_for_scale, nearest_scale, scale_word, target_spacing
from uhrct.models.engines import ENGINES, engine_version, with_engine
from uhrct.models.model import Model
from uhrct.models.precision import inference_dtype
from uhrct.physics.acquisition import Acquisition
from uhrct.physics.scan_properties import LIMITS, ScanProperties
from uhrct.upscaling.assumptions import Assumptions, assume
from uhrct.upscaling.intervals import not_calibrated
from uhrct.upscaling.scan_facts import scan_facts
from uhrct.upscaling.scan_warnings import geometry_warnings, scan_warnings

CONSISTENCY = ("auto", "hard", "off")
#: types that the networks can run in
PRECISIONS = (torch.float32, torch.bfloat16, torch.float16)
QUALITY = ("fast", "standard", "best")
#: An image whose values all lie this close to 0 was normalised, to [0, 1] or [-1, 1] as a rule.
NORMALISED = 2.0
#: input pixels per pass: enough to use the processor, little enough to keep memory small
PIXELS_PER_PASS = 2**17

#: passes of quality "best": axes to flip, and whether to transpose
TURNS: list[tuple[tuple[int, ...], bool]] = [
    (flips, swapped) for swapped in (False, True) for flips in ((), (-2,), (-1,), (-2, -1))
]

#: choose(scale, weights, device) -> model
ChooseModel = Callable[[tuple[int, int, int], str | Path | None, str], Model]


@dataclass(frozen=True, kw_only=True)
class UpscaleSettings:
    """Everything that a caller may choose. The defaults are what we recommend.

    Parameters
    ----------
    scale : int, str or (z, y, x), optional
        In-plane factor (2), or one factor per axis ((5, 1, 1) or "5x1x1"). Default 2, without `target_spacing_mm`.
    target_spacing_mm : float or (z, y, x), optional
        Voxel spacing of the result in mm, instead of a scale: one number for the pixels, or all three.
    weights : str or Path, optional
        Name of shipped weights or a model folder. Default: the shipped weights for the scale.
    device : "auto", "cpu" or "cuda"
    engine : "torch" or "int8"
        "int8" runs the network of the posterior mean in 8-bit integers on a CPU (`uhrct.models.engines`).
    quality : "fast", "standard" or "best"
        "fast" chooses a small network, which exists for x2 and x4 and gives the posterior mean alone. "best" averages
        the posterior mean over eight flips and transpositions, which takes eight times as long.
    steps : int
        1: posterior mean. More: a posterior sample, drawn in this many denoising steps.
    samples : int
        Number of posterior samples to average. Their spread is the uncertainty.
    seed : int
        Selects the samples.
    denoise : float, optional
        Share of the scan's noise to remove, from 0 (keep it) to 1. Default: 0.75.
    consistency : "auto", "hard" or "off"
        Agreement with the measured data. "auto": within the noise of the scan; "hard": exact; "off": no correction.
    structure : bool
        Also compute the structure map of the result.
    interval : bool
        Also compute lower and upper bounds that hold 90 % of the voxels of a scan with fine voxels.
    noise_hu : float, optional
        Standard deviation of the scan's noise in HU. Default: measured in the scan.
    psf_fwhm_mm : float, optional
        In-plane blur of the scan, full width at half maximum in mm, for a scale that makes finer pixels. Default: from
        the header or the voxels, where they tell it.
    slice_thickness_mm : float, optional
        Thickness of the scan's slices in mm, for a scale that makes thinner ones. Default: as stated in the file.
    overrides : dict
        Other scan properties by name and in the units of `ScanProperties`; for experiments.
    skip_air : bool
        Interpolate the air around the body instead of running the networks there. It is faster, and no other voxel
        changes. Only for the posterior mean in one pass.
    tile : int
        Side of a tile in input pixels. Smaller tiles need less memory. The result does not change.
    batch : int, optional
        Slices per pass. Default: as many as keep a pass small. The result does not change.
    precision : torch.dtype, optional
        Type of the networks' inner layers: float32, bfloat16 or float16. Default: the fastest type of the device.

    Raises
    ------
    UhrctError
        If a value is impossible. The message names the argument.
    """

    scale: int | float | str | tuple[int, int, int] | None = None
    target_spacing_mm: float | tuple[float, ...] | None = None
    weights: str | Path | None = None
    device: str = "auto"
    engine: str = "torch"
    quality: str = "standard"
    steps: int = 1
    samples: int = 1
    seed: int = 0
    denoise: float | None = None
    consistency: str = "auto"
    structure: bool = False
    interval: bool = False
    noise_hu: float | None = None
    psf_fwhm_mm: float | None = None
    slice_thickness_mm: float | None = None
    overrides: dict[str, float] = field(default_factory=dict)
    skip_air: bool = True
    tile: int = 512
    batch: int | None = None
    precision: torch.dtype | None = None

    def __post_init__(self) -> None:
        checked: dict[str, Any] = {
            "consistency": choice("consistency", self.consistency, CONSISTENCY),
            "engine": choice("engine", self.engine, ENGINES),
            "quality": choice("quality", self.quality, QUALITY),
            "seed": whole("seed", self.seed, 0, 2**63 - 1),
        }
        for name in ("steps", "samples", "tile", "batch"):
            if (value := getattr(self, name)) is not None:
                checked[name] = whole(name, value, 1)
        for name, high in (("noise_hu", 1e4), ("psf_fwhm_mm", 1e3), ("slice_thickness_mm", 1e3), ("denoise", 1.0)):
            if (value := getattr(self, name)) is not None:
                checked[name] = number(name, value, 0, high)
        if checked.get("slice_thickness_mm") == 0:
            raise UhrctError("`slice_thickness_mm` is 0; give a number above 0")
        if self.scale is not None:
            checked["scale"] = scale_factors("scale", self.scale)
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        _check_types(self)
        if self.steps == 1 and self.samples > 1:
            raise UhrctError("`samples` needs `steps=4` or so: with one step the result is the posterior mean")
        if self.interval and self.steps > 1:
            raise UhrctError("`interval` belongs to the posterior mean; leave `steps` at 1")
        if self.quality == "fast" and self.weights is not None:
            raise UhrctError("`quality='fast'` chooses the weights itself; leave `weights` out")
        if self.scale is not None and self.target_spacing_mm is not None:
            raise UhrctError("`scale` and `target_spacing_mm` exclude each other; give one of them")


def _check_types(settings: UpscaleSettings) -> None:
    """Raise `UhrctError` for weights, precision or overrides that are none."""
    if settings.weights is not None and not isinstance(settings.weights, str | Path):
        raise UhrctError(f"`weights` is {shown(settings.weights)}; give a name from `uhrct models` or a model folder")
    if settings.precision is not None and not (
        isinstance(settings.precision, torch.dtype) and settings.precision in PRECISIONS
    ):
        raise UhrctError(f"`precision` is {shown(settings.precision)}; give one of {', '.join(map(str, PRECISIONS))}")
    if not isinstance(settings.overrides, Mapping):
        raise UhrctError(f"`overrides` is {shown(settings.overrides)}; give a dict such as {{'sharpening': 0.3}}")
    known = [field.name for field in fields(ScanProperties)]
    for name, value in settings.overrides.items():
        if name not in known:
            raise UhrctError(f"`overrides` names {shown(name)}, which is no scan property; known: {', '.join(known)}")
        if not isinstance(value, bool):
            number(f"overrides['{name}']", value)


@dataclass(frozen=True)
class Plan:
    """How one volume will be super-resolved.

    Attributes
    ----------
    settings : UpscaleSettings
    model : Model
        On its device, ready to run.
    model_grid : Grid
        Grid that the model computes: the input's voxels cut by the model's scale.
    grid : Grid
        Grid of the result. It differs from `model_grid` only if a spacing was asked for.
    assumptions : Assumptions
        What the networks are told about the scan, and why.
    acquisition : Acquisition
        How the scan measures the result; used for consistency.
    batch : int
        Input slices per pass.
    facts : dict
        Simple numbers of the scan (`uhrct.upscaling.scan_facts`).
    warnings : tuple of str
        One line for each number of the scan that lies outside the range of the training.
    interval_reasons : tuple of str
        Why the interval is not calibrated for this scan; empty if it is, or if none was asked for.
    """

    settings: UpscaleSettings
    model: Model
    model_grid: Grid
    grid: Grid
    assumptions: Assumptions
    acquisition: Acquisition
    batch: int
    facts: dict[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    interval_reasons: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """One line without voxels, headers and network layers."""
        shape = " x ".join(map(str, self.grid.shape))
        return f"Plan({self.weights_text}, {shape} voxels of {format_mm(self.grid.spacing_mm)})"

    @property
    def weights_text(self) -> str:
        """Scale, weights and device in words."""
        weights = f" by weights {shown(self.model.weights_name)}" if self.model.weights_name else ""
        return f"{self.scale_name}{weights} on {self.device.type}"

    @property
    def scan(self) -> ScanProperties:
        """What the networks are told about the scan."""
        return self.assumptions.scan

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def precision(self) -> torch.dtype:
        """Type of the networks' inner layers."""
        return self.settings.precision or inference_dtype(self.device)

    def autocast(self) -> AbstractContextManager[Any]:
        """The context in which networks run with `precision`."""
        if self.precision == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.precision)

    @property
    def resampled(self) -> bool:
        """Whether the result is resampled from the model's grid to the spacing that was asked for."""
        return self.settings.target_spacing_mm is not None

    @property
    def passes(self) -> int:
        """How often networks run over each slice."""
        s = self.settings
        mean = 0 if self.model.mean is None else len(TURNS) if s.quality == "best" else 1
        return mean + (s.samples * s.steps if s.steps > 1 else 0)

    @property
    def skips_air(self) -> bool:
        """Whether the networks leave out the air around the body."""
        return self.settings.skip_air and self.passes == 1 and self.model.mean is not None

    @property
    def scale_name(self) -> str:
        """The model's scale as text: "x2", "5x1x1"."""
        return scale_word(self.model.config.scale)

    @property
    def computed_in(self) -> str:
        """Everything beside the settings that the last digits of the voxels depend on.

        Two runs on the same scan have the same DICOM UIDs only if this text is the same too.
        """
        how = f"{self.device.type} {str(self.precision).removeprefix('torch.')}, torch {torch.__version__}"
        if self.device.type == "cpu":  # sums are split among threads, and instructions round differently
            how += f", {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
        if self.settings.engine != "torch":
            how += f", mean in {engine_version(self.settings.engine)}"
        return how


def make_plan(
    volume: Volume, settings: UpscaleSettings, model: Model | None = None, choose_model: ChooseModel = load_for_scale
) -> Plan:
    """Choose model, output grid, scan properties and batches for a volume.

    Parameters
    ----------
    volume : Volume
    settings : UpscaleSettings
    model : Model, optional
        Use this model instead of choosing one by scale.
    choose_model : callable
        Loads the model for a scale; a caller may keep models in memory this way.

    Raises
    ------
    UhrctError
        If there are no weights for the scale, the spacing is not finer than the scan's, or the model cannot do what
        was asked.
    """
    if not isinstance(volume, Volume):
        raise UhrctError(f"`volume` is a {type(volume).__name__}; give a Volume, such as the result of uhrct.read")
    seen = volume.hu if isinstance(volume.hu, np.ndarray) else volume.hu[:: max(len(volume.hu) // 8, 1)]
    low, high = seen.min(), seen.max()
    if -NORMALISED <= low < high <= NORMALISED:
        raise InputRefused(
            f"all values lie between {low:.3g} and {high:.3g}, so they are no HU; undo the normalisation first "
            "(air is -1000 HU, water 0 HU)"
        )
    spacing_mm = None if settings.target_spacing_mm is None else target_spacing(volume, settings.target_spacing_mm)
    fast = settings.quality == "fast"
    if model is None:
        scale = scale_factors("scale", settings.scale or 2)
        if spacing_mm is not None:
            scale = nearest_scale(volume.spacing_mm, spacing_mm, settings.weights, fast)
        model = choose_model(scale, fast_weights(scale) if fast else settings.weights, settings.device)
    if settings.steps == 1 and model.mean is None:
        raise UhrctError("these weights have no network for the posterior mean; use `steps=2` or more")
    if settings.quality == "best" and model.mean is None:
        raise UhrctError("these weights have no network for the posterior mean; `quality='best'` needs one")
    if settings.steps > 1 and model.denoiser is None:
        raise UhrctError("these weights have no denoiser and cannot draw samples; use `steps=1`")
    if settings.interval and model.interval is None:
        raise UhrctError("these weights have no interval network; use other weights, or train its stage `interval`")
    if settings.denoise is not None and not model.config.properties:
        raise UhrctError("these weights cannot be told how much noise to remove; leave `denoise` out")
    given = _given(volume, settings, model)
    assumptions = assume(volume, model, given, settings.denoise)
    scan = assumptions.scan
    acquisition = replace(model.acquisition, slice_thickness=scan.slice_thickness)
    if model.config.properties or "psf_fwhm" in given:
        acquisition = replace(acquisition, psf_fwhm=scan.psf_fwhm, sharpening=max(scan.sharpening, 0.0))
    if settings.consistency == "hard" and not acquisition.slice_by_slice:
        raise UhrctError(
            "`consistency='hard'` does not work where slices overlap (thicker than their distance); use auto"
        )
    if settings.consistency == "hard" and not scan.psf_known:
        raise UhrctError(
            "`consistency='hard'` needs the blur of the scan, which is unknown; give `psf_fwhm_mm`, or use auto"
        )
    model_grid = volume.refined_grid(model.config.scale)
    noise = (scan.noise_hu, scan.noise_correlation) if scan.noise_known and model.config.properties else None
    facts = scan_facts(volume, noise, measure=not model.config.properties)
    reasons = not_calibrated(model.calibration, facts, vars(settings)) if settings.interval else []
    warnings = [*geometry_warnings(volume), *scan_warnings(facts, scan, model.config.scale)]
    if reasons:
        warnings.append(f"the interval is not calibrated for this scan: {'; '.join(reasons)}")
    return Plan(
        settings=settings,
        model=with_engine(model, settings.engine),
        model_grid=model_grid,
        grid=model_grid if spacing_mm is None else model_grid.resampled(spacing_mm),
        assumptions=assumptions,
        acquisition=acquisition,
        batch=settings.batch or max(1, PIXELS_PER_PASS // (volume.shape[1] * volume.shape[2])),
        facts=facts,
        warnings=tuple(warnings),
        interval_reasons=tuple(reasons),
    )


def _given(volume: Volume, settings: UpscaleSettings, model: Model) -> dict[str, Any]:
    """What the caller knows about the scan, in the scan's own pixels and slice distances."""
    z_mm, y_mm, _ = volume.spacing_mm
    known: dict[str, Any] = dict(settings.overrides)
    axis_of = {"slice_thickness": 0, "psf_fwhm": 1}  # what is said about an axis that the model keeps is not told
    for name, key, unit in (
        ("psf_fwhm_mm", "psf_fwhm", y_mm),
        ("noise_hu", "noise_hu", 1.0),
        ("slice_thickness_mm", "slice_thickness", z_mm),
    ):
        # models that keep the slices learned with one thickness, and the result is as thick as the file says
        unused = key in axis_of and model.config.scale[axis_of[key]] == 1
        if (value := getattr(settings, name)) is not None and not unused:
            low, high = LIMITS[key]
            known[key] = number(name, value, low * unit, high * unit) / unit
    return known


def format_mm(spacing_mm: Vector) -> str:
    """A spacing as text: "2.500 x 0.350 x 0.350 mm (z, y, x)"."""
    return " x ".join(f"{s:.3f}" for s in spacing_mm) + " mm (z, y, x)"
