"""Scores of a model in training, on patients that it does not see."""

from __future__ import annotations

import torch
from torch import Tensor

from uhrct.evaluation.protocol import means, score_slices
from uhrct.model import Model
from uhrct.resampling import upsample
from uhrct.training.config import TrainingConfig
from uhrct.training.patients import Patient
from uhrct.volume import Volume


@torch.no_grad()
def validate(model: Model, patients: list[Patient], config: TrainingConfig) -> dict[str, dict[str, float]]:
    """Per patient: PSNR, SMSE and the like of the stage's output (mean, or one sample), and against bicubic."""
    device = next(model.parameters()).device
    _, sy, sx = model.config.scale

    def restore(lr_hu: Tensor, spacing_mm: tuple[float, float]) -> Tensor:
        f = model.features(lr_hu[None].to(device), spacing_mm)
        mean = None if model.mean is None else model.mean_hu(f)[0]
        if config.stage == "mean":
            assert mean is not None
            return mean[0]
        shape = (1, sy * sx, *lr_hu.shape)

        def noise(step: int) -> Tensor:
            return torch.randn(shape, generator=torch.Generator().manual_seed(step)).to(device)

        return model.sample_hu(f, mean, spacing_mm, noise)[0]

    out = {}
    for p in patients:
        volume = Volume(p.hu.cpu().numpy(), (1.0, *p.spacing_mm))
        methods = {"bicubic": lambda lr, _: upsample(lr, sy, sx), "model": restore}
        score = means(score_slices(volume, methods, model.acquisition, config.validation_slices))
        out[p.name] = score["model"] | {
            "gain_db": score["model"]["psnr_wide"] - score["bicubic"]["psnr_wide"],
            "smse_ratio": score["bicubic"]["smse_frangi"] / max(score["model"]["smse_frangi"], 1e-12),
        }
    return out
