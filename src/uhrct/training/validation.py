"""Scores of a model in training, on patients that it does not see."""

from __future__ import annotations

import torch
from torch import Tensor

from uhrct.core.volume import Volume
from uhrct.evaluation.protocol import CONTEXT, means, score_slices
from uhrct.models.model import Model
from uhrct.physics.resampling import upsample_stack
from uhrct.physics.scan_properties import ScanProperties
from uhrct.training.config import TrainingConfig
from uhrct.training.data.patients import Patient


@torch.no_grad()
def validate(model: Model, patients: list[Patient], config: TrainingConfig) -> dict[str, dict[str, float]]:
    """Per patient: PSNR, SMSE and the like of the stage's output (mean, or one sample), and against interpolation."""
    out = {}
    for p in patients:
        volume = Volume(p.hu.cpu().numpy(), (p.spacing_z_mm or 2.5, *p.spacing_mm))
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
