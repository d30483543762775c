"""Scores of a model in training, on patients that it does not see."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from uhrct.evaluation.protocol import CONTEXT, degraded_stack, evenly_spaced, means, score_slices
from uhrct.model import Model
from uhrct.resampling import upsample_stack
from uhrct.scan import ESTIMATED, ScanProperties
from uhrct.training.config import TrainingConfig
from uhrct.training.degrade import draw_properties
from uhrct.training.patients import Patient
from uhrct.volume import Volume


@torch.no_grad()
def validate(model: Model, patients: list[Patient], config: TrainingConfig) -> dict[str, dict[str, float]]:
    """Per patient: PSNR, SMSE and the like of the stage's output (mean, or one sample), and against interpolation.

    For the estimator: mean absolute errors of what it estimates.
    """
    out = {}
    for p in patients:
        volume = Volume(p.hu.cpu().numpy(), (p.spacing_z_mm or 2.5, *p.spacing_mm))
        if config.stage == "estimator":
            out[p.name] = _estimates(model, volume, config)
            continue
        methods = {
            "interpolation": lambda lr, _: upsample_stack(lr, model.config.scale),
            "model": lambda lr, spacing_mm: _restore(model, config.stage, lr, spacing_mm),
        }
        score = means(score_slices(volume, methods, model.acquisition, config.validation_slices))
        out[p.name] = score["model"] | {
            "gain_db": score["model"]["psnr_wide"] - score["interpolation"]["psnr_wide"],
            "smse_ratio": score["interpolation"]["smse_frangi"] / max(score["model"]["smse_frangi"], 1e-12),
        }
    return out


def _restore(model: Model, stage: str, lr_hu: Tensor, spacing_mm: tuple[float, float, float]) -> Tensor:
    device = next(model.parameters()).device
    c = model.config.context
    stack = lr_hu[None, CONTEXT - c : CONTEXT + c + 1].to(device)
    sz, sy, sx = model.config.scale
    if stage == "peer":
        fine = (1, 1, lr_hu.shape[1] * sy, lr_hu.shape[2] * sx)
        return model.peer_hu(stack, lambda step: _noise(fine, step).to(device))[0]
    scan = ScanProperties(psf_fwhm=model.acquisition.psf_fwhm, increment_mm=spacing_mm[0])
    f = model.features(stack, spacing_mm[1:], scan)
    mean = None if model.mean is None else model.mean_hu(f)[0]
    if stage == "mean":
        assert mean is not None
        return mean[0]
    shape = (1, sz * sy * sx, *lr_hu.shape[1:])
    return model.sample_hu(f, mean, spacing_mm[1:], lambda step: _noise(shape, step).to(device))[0]


def _noise(shape: tuple[int, ...], step: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(step))


def _estimates(model: Model, volume: Volume, config: TrainingConfig) -> dict[str, Any]:
    """Mean absolute errors of `Model.estimate` over scans that differ in everything."""
    from uhrct.training.degrade import acquire

    device = next(model.parameters()).device
    g = torch.Generator().manual_seed(0)
    slices = evenly_spaced(volume.shape[0] // model.config.scale[0], config.validation_slices)
    errors = []
    for _ in range(12):
        scan = draw_properties(ScanProperties(), False, g)
        truths = [degraded_stack(volume, model.acquisition, k)[0][None] for k in slices]
        lr = torch.cat([acquire(hr, model.acquisition, [scan], g)[:, 0] for hr in truths])
        estimated = model.estimate(lr.to(device))
        error = [abs(getattr(estimated, name) - getattr(scan, name)) for name in ESTIMATED]
        errors.append(
            [e if name != "noise_fwhm" or scan.noise_hu else np.nan for name, e in zip(ESTIMATED, error, strict=True)]
        )
    # the correlation of noise that is not there has no error
    return {f"{name}_mae": float(v) for name, v in zip(ESTIMATED, np.nanmean(errors, 0), strict=True)}
