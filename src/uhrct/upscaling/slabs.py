"""Compute the planned result slab by slab, so that memory does not grow with the number of slices."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uhrct.core.errors import InputRefused, UhrctError
from uhrct.core.hu import INT16, PADDING_HU
from uhrct.core.volume import Grid, Volume
from uhrct.models.interval import kernel_input
from uhrct.models.model import Features, Model, stacks
from uhrct.models.slice_noise import SliceNoise
from uhrct.models.tiling import Box
from uhrct.physics.field_of_view import continued, outside_view
from uhrct.physics.regrid import Regrid
from uhrct.upscaling.air import around_all, inside, occupied
from uhrct.upscaling.intervals import bounds_hu, calibrated
from uhrct.upscaling.plan import TURNS, Plan

log = logging.getLogger(__name__)

#: in input pixels; below it the rim of a tile costs more than the tile
SMALLEST_TILE = 48

#: advance(n): is told that n input slices are done; a fraction while the networks run on a slab
Advance = Callable[[float], None]


@dataclass(frozen=True)
class Slab:
    """Neighbouring slices of the result: arrays (k, y, x).

    Attributes
    ----------
    first : int
        Number of the first slice.
    hu : array
        int16 if the input was, else float32.
    structure : array or None
        Structure map in [0, 1], if it was asked for.
    sd_hu : array or None
        Standard deviation between samples, if there are at least two.
    lower, upper : array or None
        Bounds in HU, float32, if an interval was asked for. For int16 results they are whole numbers.
    below, above : array or None
        Widths of the interval in HU, on the way to the bounds.
    residual_hu : tuple of float
        Mean |A y - x| of each input slice that this slab covers: how far the result is from the measured data. Empty
        where slices overlap or the PSF is unknown.
    clipped : int
        Voxels that did not fit into 16 bits and were clipped.
    """

    first: int
    hu: np.ndarray
    structure: np.ndarray | None = None
    sd_hu: np.ndarray | None = None
    lower: np.ndarray | None = None
    upper: np.ndarray | None = None
    below: np.ndarray | None = None
    above: np.ndarray | None = None
    residual_hu: tuple[float, ...] = ()
    clipped: int = 0


def compute_slabs(plan: Plan, volume: Volume, advance: Advance | None = None) -> Iterator[Slab]:
    """The result on `plan.grid`, in ascending z, in the type of the input.

    Parameters
    ----------
    plan : Plan;  volume : Volume
    advance : callable, optional
        Is called with the number of input slices that were done since the last call, for a progress bar.

    Raises
    ------
    UhrctError
        If the volume holds NaN or infinite values.
    """
    for warning in plan.warnings:
        log.warning("%s", warning)
    slabs = compute_part(plan, volume, advance=advance)
    if plan.resampled:
        slabs = _regridded(slabs, plan.model_grid, plan.grid)
    clipped = 0
    for slab in slabs:
        if slab.below is not None and slab.above is not None:
            lower, upper = bounds_hu(slab.hu, slab.below, slab.above, volume.hu.dtype)
            slab = replace(slab, lower=lower, upper=upper, below=None, above=None)
        if volume.hu.dtype == np.int16:
            whole = np.rint(slab.hu)
            outside = int(((whole < INT16.min) | (whole > INT16.max)).sum())
            slab = replace(slab, hu=whole.clip(INT16.min, INT16.max).astype(np.int16), clipped=outside)
            clipped += outside
        yield slab
    if clipped:
        log.warning("%d voxels beyond 16 bits were clipped", clipped)


def compute_part(
    plan: Plan, volume: Volume, start: int = 0, stop: int | None = None, advance: Advance | None = None
) -> Iterator[Slab]:
    """The result of the input slices `start` to `stop`, on the model's grid, as float32, with widths for bounds.

    The slices are the same as in the result of the whole volume.
    """
    n, height, width = volume.shape
    sz, sy, sx = plan.model.config.scale
    s = plan.settings
    noises = [
        SliceNoise(s.seed, k, (sy * sx, height, width), volume.spacing_mm[0] / sz, thick=sz > 1)
        for k in range(s.samples if s.steps > 1 else 0)
    ]
    end = n if stop is None else min(stop, n)
    context = plan.model.config.context
    first = start
    while first < end:
        middle = range(first, min(first + plan.batch, end))
        around = np.arange(first - context, middle[-1] + context + 1).clip(0, n - 1)
        lr = torch.from_numpy(volume.hu[around].astype(np.float32))
        if not torch.isfinite(lr).all():
            raise InputRefused("the scan holds NaN or infinite values; replace them by HU (-1000 is air)")
        passes = _Passes(len(middle) / plan.passes, advance)
        try:
            slab = _compute_slab(plan, lr.to(plan.device), middle, volume.spacing_mm[1:], noises, passes.passed)
        except torch.OutOfMemoryError:
            passes.take_back()
            plan = _smaller(plan, len(middle), max(volume.shape[1:]))
            continue
        yield slab
        first = middle[-1] + 1


class _Passes:
    """Tells `advance` after each network pass how many slices it is worth."""

    def __init__(self, worth: float, advance: Advance | None) -> None:
        self.worth, self.advance, self.count = worth, advance, 0

    def passed(self) -> None:
        self.count += 1
        if self.advance is not None:
            self.advance(self.worth)

    def take_back(self) -> None:
        """The passes so far were in vain."""
        if self.advance is not None and self.count:
            self.advance(-self.worth * self.count)


def _smaller(plan: Plan, slices: int, side: int) -> Plan:
    """A plan that needs half the memory of the GPU, after one that needed too much. The result is the same."""
    tile = min(plan.settings.tile, side)
    if slices > 1:
        plan = replace(plan, batch=slices // 2)
    elif tile > SMALLEST_TILE:
        plan = replace(plan, settings=replace(plan.settings, tile=tile // 2))
    else:
        raise UhrctError("the GPU has too little memory for one tile; use --device cpu")
    if plan.device.type == "cuda":
        torch.cuda.empty_cache()
    where = f"{plan.batch} slice(s) per pass, in tiles of {min(plan.settings.tile, side)} pixels"
    log.warning("the memory of the GPU is full; from here on %s", where)
    return plan


def _compute_slab(
    plan: Plan,
    around: Tensor,
    middle: range,
    spacing_mm: tuple[float, ...],
    noises: list[SliceNoise],
    passed: Callable[[], None],
) -> Slab:
    """`around`: the input slices `middle` with their neighbours, (context + B + context, y, x), HU."""
    model, context, count = plan.model, plan.model.config.context, len(middle)
    sz, sy, sx = model.config.scale
    lr = around[context : context + count, None]  # (B, 1, y, x)
    boxes: list[Box] = []
    if plan.skips_air:  # a slice counts with its neighbours, because fine slices reach half-way to them
        every, beside = occupied(around), min(context, 1)
        boxes = [around_all(every[k - beside : k + beside + 1]) for k in range(context, context + count)]
    unseen = outside_view(around)
    padding = unseen[context : context + count, None]
    around = continued(around, unseen)
    measured = around[context : context + count, None]
    with torch.inference_mode(), plan.autocast():
        stack = stacks(around, range(context, context + count), context)
        f = model.features(stack, spacing_mm, plan.scan)
        f = replace(f, box=around_all(boxes) if boxes else None)
        mean = None if model.mean is None else _mean_hu(plan, f, stack, spacing_mm, passed)
        if noises:
            draws = (_sample(plan, f, mean, middle, spacing_mm, noise, passed) for noise in noises)
            samples = torch.stack([_consistent(plan, y, measured) for y in draws])
            hr = samples.mean(0)
        else:
            assert mean is not None
            if boxes:  # a slice must not depend on the others of its pass
                mean = torch.where(inside(boxes, mean.shape[-2:], sy, sx).to(mean.device), mean, f.up_hu)
            hr = _consistent(plan, mean, measured)
        structure = None
        if plan.settings.structure:
            # the operator on the result is nearer to the truth's map than the network's own structure head
            structure = model.structure_of(hr, (spacing_mm[0] / sy, spacing_mm[1] / sx))
        sd_hu = samples.std(0) if len(noises) > 1 else None
        below = above = None
        if plan.settings.interval:
            assert mean is not None
            kernel = plan.facts.get("kernel_lp_cm")
            told = torch.tensor([kernel_input(kernel, max(spacing_mm) / max(sy, sx))])
            below, above = calibrated(
                *model.interval_hu(f, mean, told, plan.settings.tile),
                hr,
                None if model.calibration is None else model.calibration.factors(kernel is not None),
                model.config.scale,
                spacing_mm,
            )
        residual_hu: tuple[float, ...] = ()
        # where slices overlap, an input slice also measures its neighbours; an unknown PSF measures nothing
        if plan.acquisition.slice_by_slice and plan.scan.psf_known:
            difference = (plan.acquisition.forward(hr) - measured).abs()
            pairs = zip(difference, padding, strict=True)
            residual_hu = tuple(float(d[~p].mean()) for d, p in pairs if not p.all())
        if not torch.isfinite(hr).all():
            raise UhrctError("the network returned NaN or infinite values; its weights are damaged or do not fit")
        outside = repeated(padding, model)
        hr = torch.where(outside, repeated(lr, model), hr)
        maps = {"structure": structure, "sd_hu": sd_hu, "below": below, "above": above}
        shown = {name: _slices(m.masked_fill(outside, 0.0)) for name, m in maps.items() if m is not None}
    return _slab(middle[0] * sz, _slices(hr), shown, residual_hu)


def _slab(first: int, hu: np.ndarray, maps: dict[str, np.ndarray], residual_hu: tuple[float, ...]) -> Slab:
    structure, sd_hu, below, above = (maps.get(name) for name in ("structure", "sd_hu", "below", "above"))
    return Slab(first, hu, structure, sd_hu, below=below, above=above, residual_hu=residual_hu)


def _mean_hu(
    plan: Plan, f: Features, stack: Tensor, spacing_mm: tuple[float, ...], passed: Callable[[], None]
) -> Tensor:
    """The posterior mean (B, sz, y', x') of stacks with features `f`.

    Quality "best" averages over the eight flips and transpositions of the slices. A network is not quite indifferent
    to them, so their mean has a smaller error.
    """
    model, tile = plan.model, plan.settings.tile
    total = model.mean_hu(f, tile)[0]
    passed()
    if plan.settings.quality != "best":
        return total
    for flips, swapped in TURNS[1:]:
        turned = stack.flip(flips).mT if swapped else stack.flip(flips)
        turned_mm = tuple(reversed(spacing_mm)) if swapped else spacing_mm
        hr = model.mean_hu(model.features(turned.contiguous(), turned_mm, plan.scan), tile)[0]
        total = total + (hr.mT if swapped else hr).flip(flips)
        passed()
    return total / len(TURNS)


def _sample(
    plan: Plan,
    f: Any,
    mean: Tensor | None,
    middle: range,
    spacing_mm: tuple[float, ...],
    noise: SliceNoise,
    passed: Callable[[], None],
) -> Tensor:
    sz = plan.model.config.scale[0]

    def stacked(step: int) -> Tensor:
        fine = [torch.cat([noise(k * sz + j, step) for j in range(sz)]) for k in middle]
        return torch.stack(fine).to(plan.device)

    return plan.model.sample_hu(f, mean, spacing_mm, stacked, plan.settings.steps, plan.settings.tile, passed)


def _consistent(plan: Plan, hr: Tensor, lr: Tensor) -> Tensor:
    mode, acquisition = plan.settings.consistency, plan.acquisition
    if mode == "off" or not acquisition.slice_by_slice:
        return hr
    if mode == "auto":
        if not (plan.scan.noise_known and plan.scan.psf_known):
            return hr  # a projection would take noise for signal, or restore the blur of another scanner
        return acquisition.project_within_noise(hr, lr, plan.scan.noise_hu)
    return acquisition.project(hr, lr)


def _regridded(slabs: Iterator[Slab], source: Grid, target: Grid) -> Iterator[Slab]:
    """Slabs resampled to another grid. The maps beside the image are resampled in the same way."""
    regrids: dict[str, Regrid] = {}
    done = 0
    residual_hu: tuple[float, ...] = ()
    for slab in slabs:
        residual_hu += slab.residual_hu
        out: dict[str, np.ndarray] = {}
        for name in ("hu", "structure", "sd_hu", "below", "above"):
            if getattr(slab, name) is not None:
                regrid = regrids.setdefault(name, Regrid(source, target, padded=name == "hu"))
                out[name] = regrid.feed(getattr(slab, name))
        if "structure" in out:  # cubic weights overshoot
            out["structure"] = out["structure"].clip(0, 1)
        for name in ("sd_hu", "below", "above"):
            if name in out:
                out[name] = out[name].clip(min=0)
        if len(out["hu"]):
            outside = out["hu"] <= PADDING_HU
            maps = {name: np.where(outside, np.float32(0), m) for name, m in out.items() if name != "hu"}
            yield _slab(done, out["hu"], maps, residual_hu)
            done += len(out["hu"])
            residual_hu = ()


def repeated(lr: Tensor, model: Model) -> Tensor:
    """(B, 1, y, x) -> (B, sz, y sy, x sx): each fine voxel as the input voxel that it lies in."""
    sz, sy, sx = model.config.scale
    return lr.repeat_interleave(sz, -3).repeat_interleave(sy, -2).repeat_interleave(sx, -1)


def _slices(hr: Tensor) -> np.ndarray:
    """(B, sz, y, x) -> (B sz, y, x)."""
    return hr.flatten(0, 1).cpu().numpy()
