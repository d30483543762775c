"""Training losses (eqs. 6-9), for the posterior-mean network and for the denoiser around it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from uhrct.benchmark.peers.losses import peer_losses
from uhrct.models.model import Features, Model
from uhrct.models.slice_noise import fine_slices_noise
from uhrct.training.config import TrainingConfig
from uhrct.training.data.batches import MARGIN, Batch, cut_margin, lr_channels
from uhrct.training.structure_losses import StructureTerms

#: one step's loss and its parts, for the log
Loss = Callable[[nn.Module, Batch, torch.Generator], tuple[Tensor, dict[str, Tensor]]]


def make_loss(model: Model, config: TrainingConfig) -> Loss | dict[str, Loss]:
    """loss(network, batch, generator) of the configured stage; `network` is the trained part (it may be wrapped).

    For players against one another: name of a part of the network -> its loss, in the order of their turns in a step.
    """
    if config.stage == "peer":
        return peer_losses(model)
    return _mean_loss(model, config) if config.stage == "mean" else _denoiser_loss(model, config)


def _mean_loss(model: Model, config: TrainingConfig) -> Loss:
    terms = StructureTerms(model, config)

    def loss(network: nn.Module, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        f = _cropped(model.features(batch.lr_hu, batch.spacing_mm, batch.properties))
        image, structure = network(f.x, f.prior, properties=f.properties)
        residual = lr_channels((batch.hr_hu - f.up_hu) / model.config.residual_sd_hu, model)
        share = _share(residual, config) * terms.emphasis(batch)

        def pixel(image: Tensor) -> Tensor:
            return _pixel(image - residual, config, share)

        parts = {"pixel": pixel(image)}
        if structure is not None and config.structure_head_weight:
            parts["structure_head"] = config.structure_head_weight * terms.head(structure, batch)
        if batch.done >= config.structure_from:
            parts |= terms(image, pixel, batch, f.up_hu)
        return torch.stack(list(parts.values())).sum(), parts

    return loss


def _denoiser_loss(model: Model, config: TrainingConfig) -> Loss:
    terms = StructureTerms(model, config)

    def loss(network: nn.Module, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        whole = model.features(batch.lr_hu, batch.spacing_mm, batch.properties)
        with torch.no_grad():
            mean = model.mean_hu(whole)[0] if model.mean is not None else None
            x, prior, anchor = model.denoiser_inputs(whole, mean, batch.spacing_mm)
        e = lr_channels((batch.hr_hu - anchor) / model.config.sample_sd_hu, model)
        g = model.diffusion.draw_levels(len(e), generator, e.device)[:, None, None, None]
        n = _noise(e, batch, model, generator)
        z = g.sqrt() * e + (1 - g).sqrt() * n
        predicted, structure = network(
            cut_margin(x, MARGIN), cut_margin(prior, MARGIN), z, g.sqrt().flatten(), properties=whole.properties
        )
        parts = {"pixel": _pixel(predicted - model.diffusion.target(e, n, g), config)}
        if structure is not None and config.structure_head_weight:
            parts["structure_head"] = config.structure_head_weight * terms.head(structure, batch)
        return torch.stack(list(parts.values())).sum(), parts

    return loss


def _noise(e: Tensor, batch: Batch, model: Model, generator: torch.Generator) -> Tensor:
    """Noise as the sampler will draw it: the fine slices inside a thick one share it, as slices along z do."""
    sz = model.config.scale[0]
    fine_mm = [increment / sz for increment in batch.increment_mm]
    return (
        fine_slices_noise((len(e), sz, *e.unflatten(1, (sz, -1)).shape[2:]), fine_mm, generator)
        .flatten(1, 2)
        .to(e.device)
    )


def _pixel(d: Tensor, config: TrainingConfig, share: Tensor | float = 1.0) -> Tensor:
    """L_pixel (eq. 6) of a difference, each item of the batch counted by its `share`."""
    return config.l2_weight * (share * d.square()).mean() + config.l1_weight * (share**0.5 * d.abs()).mean()


def _share(residual: Tensor, config: TrainingConfig) -> Tensor | float:
    """1 / (interpolation's own squared error) per item: a decibel gained counts alike in every crop.

    Without it the crops with metal, a sharp kernel or added noise, which no network can predict, rule the gradient.
    """
    if not config.relative:
        return 1.0
    return 1 / (residual.square().mean((1, 2, 3), keepdim=True) + 0.05)


def _cropped(f: Features) -> Features:
    return Features(cut_margin(f.x, MARGIN), f.up_hu, cut_margin(f.prior, MARGIN), f.properties)
