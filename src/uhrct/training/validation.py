"""Scores of a model in training on series that it does not train on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from uhrct.core.volume import Volume
from uhrct.evaluation.protocol import CONTEXT, Restore, degraded_stack, evenly_spaced, means, score_slices
from uhrct.models.interval import kernel_input
from uhrct.models.model import Model
from uhrct.physics.acquisition import Acquisition
from uhrct.physics.resampling import upsample_stack
from uhrct.physics.scan_noise import measure_noise, with_noise
from uhrct.physics.scan_properties import ScanProperties
from uhrct.training.data.batches import UNKNOWN_SPACING_MM
from uhrct.training.data.patients import Patient


def volume_of(patient: Patient) -> Volume:
    """The voxels of a series on the CPU."""
    return Volume(patient.hu.cpu().numpy(), (patient.spacing_z_mm or UNKNOWN_SPACING_MM, *patient.spacing_mm))


@torch.no_grad()
def scores(restore: Restore, patient: Patient, acquisition: Acquisition, slices: int) -> dict[str, float]:
    """PSNR, SMSE and others of a restorer over evenly spaced slices, and its gain over interpolation."""
    methods: dict[str, Restore] = {
        "interpolation": lambda lr, _: upsample_stack(lr, acquisition.scale),
        "model": restore,
    }
    mean = means(score_slices(volume_of(patient), methods, acquisition, slices))
    ours, base = mean["model"], mean["interpolation"]
    return ours | {
        "gain_db": ours["psnr_wide"] - base["psnr_wide"],
        "smse_ratio": base["smse_frangi"] / max(ours["smse_frangi"], 1e-12),
    }


def score_line(values: dict[str, float]) -> str:
    """The most important scores in words."""
    return (
        f"{values['psnr_wide']:.2f} dB ({values['gain_db']:+.2f} over interpolation), "
        f"SMSE x 1000 {1000 * values['smse_frangi']:.4f} (interpolation / {values['smse_ratio']:.1f})"
    )


@torch.no_grad()
def interval_scores(model: Model, patient: Patient, slices: int) -> dict[str, float]:
    """Share of voxels inside the interval before calibration, and its median width, over evenly spaced slices."""
    volume, c = volume_of(patient), model.config.context
    device = next(model.parameters()).device
    kernel = torch.tensor([kernel_input(patient.kernel_lp_cm, max(patient.spacing_mm))])
    inside, widths = [], []
    for k in evenly_spaced(volume.shape[0] // model.config.scale[0], slices):
        hr, lr = degraded_stack(volume, model.acquisition, k)
        stack = lr[None, CONTEXT - c : CONTEXT + c + 1].to(device)
        lr_mm = tuple(d * s for d, s in zip(volume.spacing_mm, model.config.scale, strict=True))
        f = model.features(stack, lr_mm[1:], _scan(model, lr, lr_mm))
        mean = model.mean_hu(f)[0]
        below, above = model.interval_hu(f, mean, kernel)
        error = hr.to(device) - mean[0]
        inside.append(((error >= -below[0]) & (error <= above[0])).float().mean())
        widths.append((below + above).median())
    return {"coverage": float(torch.stack(inside).mean()), "width_hu": float(torch.stack(widths).mean())}


def interval_line(values: dict[str, float]) -> str:
    """The scores of an interval in words."""
    return f"{100 * values['coverage']:.1f} % of the voxels inside, median width {values['width_hu']:.0f} HU"


def _scan(model: Model, lr_hu: Tensor, lr_mm: tuple[float, ...]) -> ScanProperties:
    """What the model is told about the slices of a degraded stack."""
    scan = ScanProperties(psf_fwhm=model.acquisition.psf_fwhm, increment_mm=lr_mm[0])
    if model.config.properties:
        scan = with_noise(scan, measure_noise(lr_hu[CONTEXT].numpy(), (lr_mm[1], lr_mm[2])))
    return scan


def restorer(model: Model, sample: bool) -> Restore:
    """A model as a restorer of the slice in the middle: its mean, or one sample with the same noise in every slice."""

    def restore(lr_hu: Tensor, spacing_mm: tuple[float, float, float]) -> Tensor:
        device = next(model.parameters()).device
        c = model.config.context
        stack = lr_hu[None, CONTEXT - c : CONTEXT + c + 1].to(device)
        f = model.features(stack, spacing_mm[1:], _scan(model, lr_hu, spacing_mm))
        mean = None if model.mean is None else model.mean_hu(f)[0]
        if not sample:
            assert mean is not None
            return mean[0]
        sz, sy, sx = model.config.scale
        shape = (1, sz * sy * sx, *lr_hu.shape[1:])
        return model.sample_hu(f, mean, spacing_mm[1:], white_noise(shape, device))[0]

    return restore


def white_noise(shape: tuple[int, ...], device: torch.device) -> Callable[[int], Tensor]:
    """step -> N(0, 1), the same in every call."""
    return lambda step: torch.randn(shape, generator=torch.Generator().manual_seed(step)).to(device)
