"""What moves the weights (AdamW, or Muon and AdamW), and the average of the weights that is saved."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from uhrct.training.config import OptimizerSettings
from uhrct.training.muon import Muon, hidden


def make_optimizers(
    network: nn.Module, settings: OptimizerSettings, betas: tuple[float, float] = (0.9, 0.999)
) -> list[torch.optim.Optimizer]:
    """The optimizers of all trainable parameters of a network.

    Biases and other vectors do not decay. With Muon the inner convolutions are Muon's, all else is AdamW's.
    """
    named = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    matrices = hidden(named) if settings.name == "muon" else []
    taken = {id(p) for p in matrices}
    rest = [p for _, p in named if id(p) not in taken]
    groups = [
        {"params": [p for p in rest if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=betas, fused=True)
    return [adamw, *([Muon(matrices, settings.learning_rate, settings.weight_decay)] if matrices else [])]


def average_of(network: nn.Module, ema: float) -> AveragedModel:
    """An exponential moving average of a network, buffers included. A young average forgets its start faster."""

    @torch.no_grad()
    def update(averaged: Sequence[Tensor], current: Sequence[Tensor], steps: Tensor | int) -> None:
        decay = min(ema, (1 + int(steps)) / (10 + int(steps)))
        for old, new in zip(averaged, current, strict=True):
            if old.is_floating_point():
                old.lerp_(new, 1 - decay)
            else:  # the batch counter of a batch normalisation
                old.copy_(new)

    average = AveragedModel(network, multi_avg_fn=update, use_buffers=True)
    average.requires_grad_(False)
    return average


def pace(step: int, done: float, warmup_steps: int) -> float:
    """Factor of the learning rate: a linear rise, then a cosine down to 1 %.

    Example
    -------
    >>> pace(0, 0.0, warmup_steps=4), round(pace(100, 1.0, warmup_steps=4), 4)
    (0.25, 0.01)
    """
    warm = min((step + 1) / warmup_steps, 1.0)
    return warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))
