"""Scores of a model in training on series that it does not train on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from uhrct.core.volume import Volume
from uhrct.evaluation.protocol import CONTEXT, Restore, means, score_slices
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


def restorer(model: Model, sample: bool) -> Restore:
    """A model as a restorer of the slice in the middle: its mean, or one sample with the same noise in every slice."""

    def restore(lr_hu: Tensor, spacing_mm: tuple[float, float, float]) -> Tensor:
        device = next(model.parameters()).device
        c = model.config.context
        stack = lr_hu[None, CONTEXT - c : CONTEXT + c + 1].to(device)
        scan = ScanProperties(psf_fwhm=model.acquisition.psf_fwhm, increment_mm=spacing_mm[0])
        if model.config.conditions:
            scan = with_noise(scan, measure_noise(lr_hu[CONTEXT].numpy(), spacing_mm[1:]))
        f = model.features(stack, spacing_mm[1:], scan)
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
