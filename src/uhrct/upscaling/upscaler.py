"""Whole volumes through a model: slice by slice, in tiles and batches that can't be seen in the result."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uhrct.core.errors import UhrctError
from uhrct.core.hu import FLOOR_HU, INT16, PADDING_HU
from uhrct.core.volume import Grid, Volume
from uhrct.models.choice import load_for_scale, nearest_scale, target_spacing
from uhrct.models.model import Model, inference_dtype, stacks
from uhrct.models.slice_noise import SliceNoise
from uhrct.physics.acquisition import Acquisition
from uhrct.physics.regrid import Regrid
from uhrct.physics.scan_properties import ScanProperties

log = logging.getLogger(__name__)

CONSISTENCY = ("auto", "hard", "off")


@dataclass(frozen=True)
class Slab:
    """Some super-resolved slices from slice `first` on: arrays (k, y, x).

    `hu` is int16 if the input was, else float32; `structure` in [0, 1] (None unless asked for); `sd_hu` is the
    standard deviation between samples (None with fewer than two).
    """

    first: int
    hu: np.ndarray
    structure: np.ndarray | None
    sd_hu: np.ndarray | None


@dataclass(frozen=True)
class _Pass:
    """LR slices `middle` of a volume, with their neighbours, and what is known of the scan."""

    lr: Tensor  # (context + B + context, y, x), HU
    middle: range
    spacing_mm: tuple[float, float, float]
    scan: ScanProperties
    acquisition: Acquisition


@dataclass
class Upscaler:
    """A model with everything that a user may set, ready for volumes.

    Parameters
    ----------
    model : the model (see `load_for_scale`)
    steps : 1 for the posterior mean, more for samples drawn in that many denoising steps
    samples : posterior samples to average; with two or more their spread is the uncertainty
    seed : which samples
    consistency : "auto" agrees with the measured data as far as its noise lets it, "hard" exactly, "off" not
    tile : LR pixels along a tile's side (memory; the result is the same)
    batch : slices per pass (the result is the same)
    structure : also compute the structure map of the result
    spacing_mm : resample the result to exactly this voxel spacing (z, y, x); None: the model's own grid
    told : scan properties in place of estimated ones, such as ``{"noise_hu": 0.0}``
    precision : torch dtype of the networks' inner layers; None: the fastest that the device offers

    Example
    -------
    >>> from uhrct.models.model import Model, ModelConfig
    >>> model = Model(ModelConfig(mean={"image_width": 8, "image_blocks": 1})).eval()
    >>> scan = Volume(np.full((3, 9, 10), -1000, np.int16), spacing_mm=(1.0, 1.4, 1.4))
    >>> [slab.hu.shape for slab in Upscaler(model, batch=2).slabs(scan)]
    [(2, 18, 20), (1, 18, 20)]
    """

    model: Model
    steps: int = 1
    samples: int = 1
    seed: int = 0
    consistency: str = "auto"
    tile: int = 512
    batch: int | None = None
    structure: bool = False
    precision: torch.dtype | None = None
    told: dict[str, float] = field(default_factory=dict)
    spacing_mm: tuple[float, float, float] | None = None
    #: mean abs (A y - x) in HU of the last volume, and how many voxels 16 bits forced to be clipped
    measured: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.consistency not in CONSISTENCY:
            raise UhrctError(f"consistency {self.consistency!r} is not known; choose from {', '.join(CONSISTENCY)}")
        for name in ("steps", "samples", "tile"):
            if getattr(self, name) < 1:
                raise UhrctError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.steps == 1 and self.samples > 1:
            raise UhrctError("the posterior mean (--steps 1) is one image; for several samples use --steps 4")
        if self.steps == 1 and self.model.mean is None:
            raise UhrctError("this model has no posterior-mean network; use --steps 2 or more")
        if self.steps > 1 and self.model.denoiser is None:
            raise UhrctError("this model has no denoiser, so it can't draw samples; use --steps 1")

    def grid(self, volume: Volume) -> Grid:
        """Where the result's voxels lie."""
        own = volume.refined_grid(self.model.config.scale)
        return own if self.spacing_mm is None else own.resampled(self.spacing_mm)

    @property
    def computed_in(self) -> str:
        """Device and precision of the networks' inner layers, which the last digits of the voxels depend on."""
        device = next(self.model.parameters()).device
        dtype = self.precision or inference_dtype(device)
        return f"{device.type} {str(dtype).removeprefix('torch.')}"

    def batch_for(self, volume: Volume) -> int:
        """Slices per pass: `batch`, or as many as keep a pass small."""
        return self.batch or max(1, 2**17 // (volume.shape[1] * volume.shape[2]))

    def scan(self, volume: Volume) -> ScanProperties:
        """What scan this is: geometry from the volume, PSF, kernel and noise estimated, unless told.

        The estimate looks at up to nine slices of the middle of the scan, so that its ends and the part of it that is
        asked for do not matter.
        """
        model, n = self.model, volume.shape[0]
        increment = volume.spacing_mm[0]
        thick = volume.slice_thickness_mm if model.config.scale[0] > 1 else None
        geometry = {
            "slice_thickness": min(max((thick or increment) / increment, 0.2), 4.0),
            "increment_mm": min(increment, 20.0) if n > 1 else 0.0,
        }
        if not model.config.properties:
            return replace(ScanProperties(**geometry), **self.told)
        picked = np.unique(np.linspace(0.1 * (n - 1), 0.9 * (n - 1), 9).round().astype(int))
        slices = torch.from_numpy(volume.hu[picked].astype(np.float32)).clamp(min=FLOOR_HU)
        device = next(model.parameters()).device
        with torch.inference_mode():
            return replace(model.estimate(slices.to(device), **geometry), **self.told)

    def slabs(self, volume: Volume) -> Iterator[Slab]:
        """The super-resolved slices on `grid(volume)` in order of z; memory does not grow with their number.

        Raises
        ------
        UhrctError
            If the volume holds NaN or infinite values, or "hard" consistency is asked for where slabs overlap.
        """
        clipped = 0
        own = volume.refined_grid(self.model.config.scale)
        parts = self.part(volume)
        for slab in parts if self.spacing_mm is None else _regridded(parts, own, self.grid(volume)):
            hu = slab.hu
            if volume.hu.dtype == np.int16:
                whole = np.rint(hu)
                clipped += int(((whole < INT16.min) | (whole > INT16.max)).sum())
                hu = whole.clip(INT16.min, INT16.max).astype(np.int16)
            yield replace(slab, hu=hu)
        self.measured["clipped"] = clipped
        if clipped:
            log.warning("%d voxels beyond 16 bits were clipped", clipped)

    def part(self, volume: Volume, start: int = 0, stop: int | None = None) -> Iterator[Slab]:
        """Super-resolved slices of a part of a volume on the model's own grid, as float32.

        Parameters
        ----------
        start, stop : which slices of the volume to super-resolve (default: all); they come out as in the whole

        Raises
        ------
        UhrctError
            As `slabs`.
        """
        device = next(self.model.parameters()).device
        n, height, width = volume.shape
        sz, sy, sx = self.model.config.scale
        scan = self.scan(volume)
        acquisition = replace(self.model.acquisition, slice_thickness=scan.slice_thickness)
        if self.model.config.properties or "psf_fwhm" in self.told:
            acquisition = replace(acquisition, psf_fwhm=scan.psf_fwhm, sharpening=max(scan.sharpening, 0.0))
        if not acquisition.slice_by_slice and self.consistency == "hard":
            raise UhrctError("slabs overlap (thickness above increment): exact consistency is not offered; use auto")
        noises = [
            SliceNoise(self.seed, k, (sy * sx, height, width), volume.spacing_mm[0] / sz)
            for k in range(self.samples if self.steps > 1 else 0)
        ]
        batch = self.batch_for(volume)
        left: list[float] = []
        self.measured = {}
        end = n if stop is None else min(stop, n)
        context = self.model.config.context
        for first in range(start, end, batch):
            middle = range(first, min(first + batch, end))
            around = np.arange(first - context, middle[-1] + context + 1).clip(0, n - 1)
            source = torch.from_numpy(volume.hu[around].astype(np.float32))
            if not torch.isfinite(source).all():
                raise UhrctError("the scan holds NaN or infinite values; replace them (by -1000 for air) and try again")
            work = _Pass(source.to(device), middle, volume.spacing_mm, scan, acquisition)
            hu, structure, sd, apart = self._slab(work, noises)
            left += apart
            if left:  # slices of nothing but padding have nothing to agree with
                self.measured["consistency_hu"] = float(np.mean(left))
            yield Slab(first * sz, hu, structure, sd)

    def _slab(
        self, work: _Pass, noises: list[SliceNoise]
    ) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None, list[float]]:
        model, spacing, device = self.model, work.spacing_mm[1:], work.lr.device
        sz, sy, sx = model.config.scale
        context = model.config.context
        count = len(work.middle)
        lr = work.lr[context : context + count, None]  # (B, 1, y, x)
        padding = lr <= PADDING_HU
        measured = work.lr.masked_fill(work.lr <= PADDING_HU, FLOOR_HU)
        with torch.inference_mode(), self._autocast(device):
            f = model.features(stacks(measured, range(context, context + count), context), spacing, work.scan)
            measured = measured[context : context + count, None]
            mean = model.mean_hu(f, self.tile)[0] if model.mean is not None else None
            drawn = []
            for noise in noises:

                def stacked(step: int, noise: SliceNoise = noise) -> Tensor:
                    fine = [torch.cat([noise(k * sz + j, step) for j in range(sz)]) for k in work.middle]
                    return torch.stack(fine).to(device)

                drawn.append(model.sample_hu(f, mean, spacing, stacked, self.steps, self.tile))
            drawn = [self._consistent(y, measured, work) for y in drawn]
            if drawn:
                hr = torch.stack(drawn).mean(0)
            else:
                assert mean is not None
                hr = self._consistent(mean, measured, work)
            structure = None
            if self.structure:
                # the operator on the result: nearer to the truth's map than the network's own structure head
                structure = _slices(model.structure_of(hr, (spacing[0] / sy, spacing[1] / sx)))
            sd = torch.stack(drawn).std(0) if len(drawn) > 1 else None
            apart = []
            if work.acquisition.slice_by_slice:  # else an LR slice measures its neighbours too
                difference = (work.acquisition.forward(hr) - measured).abs()
                apart = [float(a[~p].mean()) for a, p in zip(difference, padding, strict=True) if not p.all()]
            hr = torch.where(_nearest(padding, model), _nearest(lr, model), hr)
        return _slices(hr), structure, None if sd is None else _slices(sd), apart

    def _consistent(self, hr: Tensor, lr: Tensor, work: _Pass) -> Tensor:
        acquisition = work.acquisition
        if self.consistency == "off" or not acquisition.slice_by_slice:
            return hr
        if self.consistency == "auto":
            return acquisition.project_within_noise(hr, lr, work.scan.noise_hu)
        return acquisition.project(hr, lr)

    def _autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        dtype = self.precision or inference_dtype(device)
        return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)


def upscale(
    volume: Volume,
    *,
    scale: int | tuple[int, int, int] | None = None,
    spacing_mm: float | tuple[float, float, float] | None = None,
    weights: str | Path | None = None,
    device: str = "auto",
    **settings: Any,
) -> Volume:
    """Super-resolve a CT volume in memory; `settings` are those of `Upscaler`.

    Parameters
    ----------
    volume : Volume, (z, y, x) HU
    scale : in-plane factor, or factors (z, y, x); default 2
    spacing_mm : instead of a scale, the voxel spacing wanted: in plane, or (z, y, x)
    weights : name of shipped weights or a model folder (None: those that serve the scale)

    Returns
    -------
    Volume
        On the grid whose voxel edges coincide with the input's (with `spacing_mm`: whose first corner does); int16
        if the input was, else float32.

    Raises
    ------
    UhrctError
        If no weights serve the scale, the spacing is no finer than the input's, or the volume holds NaN.

    Example
    -------
    ``hr = uhrct.upscale(uhrct.read("scan.nii.gz"), scale=2)``
    """
    if spacing_mm is not None:
        if scale is not None:
            raise UhrctError("give a scale or a spacing, not both")
        settings["spacing_mm"] = wanted = target_spacing(volume, spacing_mm)
        scale = nearest_scale(volume.spacing_mm, wanted, weights)
    upscaler = Upscaler(load_for_scale(2 if scale is None else scale, weights, device), **settings)
    grid = upscaler.grid(volume)
    hu = np.empty(grid.shape, volume.hu.dtype)
    for slab in upscaler.slabs(volume):
        hu[slab.first : slab.first + len(slab.hu)] = slab.hu
    return volume.on_grid(grid, hu)


def _regridded(slabs: Iterator[Slab], source: Grid, target: Grid) -> Iterator[Slab]:
    """Slabs on another grid; the maps beside the image go the same way."""
    regrids: dict[str, Regrid] = {}
    done = 0
    for slab in slabs:
        out = {}
        for name in ("hu", "structure", "sd_hu"):
            if getattr(slab, name) is not None:
                regrid = regrids.setdefault(name, Regrid(source, target, padded=name == "hu"))
                out[name] = regrid.feed(getattr(slab, name))
        if "structure" in out:  # cubic weights overshoot
            out["structure"] = out["structure"].clip(0, 1)
        if "sd_hu" in out:
            out["sd_hu"] = out["sd_hu"].clip(min=0)
        if len(out["hu"]):
            yield Slab(done, out["hu"], out.get("structure"), out.get("sd_hu"))
            done += len(out["hu"])


def _nearest(lr: Tensor, model: Model) -> Tensor:
    """(B, 1, y, x) to (B, sz, y sy, x sx), each fine voxel as the LR voxel that it lies in."""
    sz, sy, sx = model.config.scale
    return lr.repeat_interleave(sz, -3).repeat_interleave(sy, -2).repeat_interleave(sx, -1)


def _slices(hr: Tensor) -> np.ndarray:
    """(B, sz, y', x') to (B sz, y', x')."""
    return hr.flatten(0, 1).cpu().numpy()
