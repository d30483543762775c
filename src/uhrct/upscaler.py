"""Whole volumes through a model: slice by slice, in tiles and batches that can't be seen in the result."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uhrct.acquisition import Acquisition
from uhrct.errors import UhrctError
from uhrct.model import FLOOR_HU, Model, available_models, inference_dtype, model_folder, read_config, stacks
from uhrct.noise import SliceNoise
from uhrct.scan import ScanProperties
from uhrct.volume import PADDING_HU, Grid, Volume

log = logging.getLogger(__name__)

CONSISTENCY = ("auto", "hard", "off")
INT16 = np.iinfo(np.int16)


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
    told : properties of the scan (`uhrct.scan`) in place of estimated ones, such as ``{"noise_hu": 0.0}``
    precision : torch dtype of the networks' inner layers; None: the fastest that the device offers

    Example
    -------
    >>> from uhrct.model import Model, ModelConfig
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
        return volume.refined_grid(self.model.config.scale)

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

    def slabs(self, volume: Volume, start: int = 0, stop: int | None = None) -> Iterator[Slab]:
        """The super-resolved slices in order of z; memory does not grow with their number.

        Parameters
        ----------
        start, stop : the part of the volume's slices to super-resolve (default: all); it equals that part of the whole

        Raises
        ------
        UhrctError
            If the volume holds NaN or infinite values, or "hard" consistency is asked for where slabs overlap.
        """
        device = next(self.model.parameters()).device
        n, height, width = volume.shape
        sz, sy, sx = self.model.config.scale
        scan = self.scan(volume)
        if self.model.config.properties:
            log.info("scan: %s", scan)
        acquisition = replace(self.model.acquisition, slice_thickness=scan.slice_thickness)
        if self.model.config.properties or "psf_fwhm" in self.told:
            acquisition = replace(acquisition, psf_fwhm=scan.psf_fwhm)
        if not acquisition.slice_by_slice and self.consistency == "hard":
            raise UhrctError("slabs overlap (thickness above increment): exact consistency is not offered; use auto")
        noises = [
            SliceNoise(self.seed, k, (sy * sx, height, width), volume.spacing_mm[0] / sz)
            for k in range(self.samples if self.steps > 1 else 0)
        ]
        batch = self.batch_for(volume)
        left: list[float] = []
        self.measured = {"clipped": 0}
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
            yield Slab(first * sz, self._as(volume.hu.dtype, hu), structure, sd)
        if self.measured["clipped"]:
            log.warning("%d voxels beyond 16 bits were clipped", self.measured["clipped"])

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
            drawn = [self._consistent(y, measured, work.acquisition) for y in drawn]
            if drawn:
                hr = torch.stack(drawn).mean(0)
            else:
                assert mean is not None
                hr = self._consistent(mean, measured, work.acquisition)
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

    def _consistent(self, hr: Tensor, lr: Tensor, acquisition: Acquisition) -> Tensor:
        if self.consistency == "off" or not acquisition.slice_by_slice:
            return hr
        if self.consistency == "auto":
            return acquisition.project_within_noise(hr, lr)
        return acquisition.project(hr, lr)

    def _as(self, dtype: np.dtype, hu: np.ndarray) -> np.ndarray:
        if dtype != np.int16:
            return hu
        whole = np.rint(hu)
        outside = int(((whole < INT16.min) | (whole > INT16.max)).sum())
        self.measured["clipped"] += outside
        return whole.clip(INT16.min, INT16.max).astype(np.int16)

    def _autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        dtype = self.precision or inference_dtype(device)
        return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)


def upscale(
    volume: Volume,
    *,
    scale: int | tuple[int, int, int] = 2,
    weights: str | Path | None = None,
    device: str = "auto",
    **settings: Any,
) -> Volume:
    """Super-resolve a CT volume in memory; `settings` are those of `Upscaler`.

    Parameters
    ----------
    volume : Volume, (z, y, x) HU
    scale : in-plane factor, or factors (z, y, x)
    weights : name of shipped weights or a model folder (None: those that serve the scale)

    Returns
    -------
    Volume
        On the grid whose voxel edges coincide with the input's; int16 if the input was, else float32.

    Raises
    ------
    UhrctError
        If no weights serve the scale, or the volume holds NaN.

    Example
    -------
    ``hr = uhrct.upscale(uhrct.read("scan.nii.gz"), scale=2)``
    """
    upscaler = Upscaler(load_for_scale(scale, weights, device), **settings)
    grid = upscaler.grid(volume)
    hu = np.empty(grid.shape, volume.hu.dtype)
    for slab in upscaler.slabs(volume):
        hu[slab.first : slab.first + len(slab.hu)] = slab.hu
    return volume.on_grid(grid, hu)


def load_for_scale(scale: int | tuple[int, int, int], weights: str | Path | None = None, device: str = "auto") -> Model:
    """The model (of a name or folder, or the first shipped one) that serves a scale.

    Raises
    ------
    UhrctError
        If there is none: the message says which scales exist.
    """
    wanted = (1, scale, scale) if isinstance(scale, int) else tuple(scale)
    folders = [model_folder(weights)] if weights is not None else available_models()
    served = {folder: read_config(folder)[0].scale for folder in folders}
    for folder, s in served.items():
        if s == wanted:
            return Model.from_pretrained(folder, pick_device(device))
    there = ", ".join(f"{f.name} ({scale_word(s)})" for f, s in served.items()) or "none"
    raise UhrctError(f"no weights serve scale {scale_word(wanted)}; there are: {there}")


def pick_device(name: str) -> torch.device:
    """ "auto", "cpu" or "cuda" to a device that is there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name not in ("cpu", "cuda"):
        raise UhrctError(f"device {name!r} is not known; choose auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise UhrctError("no CUDA device here; use --device cpu")
    return torch.device(name)


def scale_word(scale: Iterable[int]) -> str:
    """(1, 2, 2) -> "x2", (5, 2, 2) -> "5x2x2"."""
    z, y, x = scale
    return f"x{y}" if z == 1 and y == x else f"{z}x{y}x{x}"


def _nearest(lr: Tensor, model: Model) -> Tensor:
    """(B, 1, y, x) to (B, sz, y sy, x sx), each fine voxel as the LR voxel that it lies in."""
    sz, sy, sx = model.config.scale
    return lr.repeat_interleave(sz, -3).repeat_interleave(sy, -2).repeat_interleave(sx, -1)


def _slices(hr: Tensor) -> np.ndarray:
    """(B, sz, y', x') to (B sz, y', x')."""
    return hr.flatten(0, 1).cpu().numpy()
