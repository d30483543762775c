"""Losses of the peers, as published: pairs by a norm of the difference, GAN-CIRCLE by its ensemble without pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from uhrct.benchmark.peers import GanCircle
from uhrct.benchmark.peers.gan_circle import gradient_penalty
from uhrct.models.model import Model, normalised
from uhrct.physics.resampling import upsample_stack
from uhrct.training.data.batches import MARGIN, Batch, cut_margin

if TYPE_CHECKING:
    from uhrct.training.losses import Loss

#: GAN-CIRCLE's weights: cycle, identity, joint sparsifying transform, its share of the plain TV, gradient penalty
CYCLE, IDENTITY, SPARSE, SPARSE_PLAIN, PENALTY = 1.0, 0.5, 0.001, 0.5, 10.0


def peer_losses(model: Model) -> Loss | dict[str, Loss]:
    """The loss of `model.peer`, or of each of its players."""
    if isinstance(model.peer, GanCircle):
        return {"critics": _critics_loss(model), "generators": _generators_loss(model)}
    return _paired_loss(model)


def images(batch: Batch, model: Model) -> tuple[Tensor, Tensor, Tensor]:
    """Normalised (x, up, y) of a batch's crops without their margin, so that no cut edge shows in `up`."""
    _, sy, sx = model.config.scale
    up = upsample_stack(batch.lr_hu, model.config.scale)
    x, (up, y) = (
        cut_margin(batch.lr_hu, MARGIN),
        (image[..., MARGIN * sy : -MARGIN * sy, MARGIN * sx : -MARGIN * sx] for image in (up, batch.hr_hu)),
    )
    return normalised(x), normalised(up), normalised(y)


def _paired_loss(model: Model) -> Loss:
    peer = model.peer
    assert peer is not None

    def loss(network: nn.Module, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        given, wanted = peer.task(*images(batch, model), generator)
        value = (network(*given) - wanted).abs().pow(peer.power).mean()
        return value, {"pixel": value}

    return loss


def unpaired(batch: Batch, model: Model, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(low, high) images on the fine grid, each `high` from another crop than its `low`."""
    _, low, high = images(batch, model)
    shift = int(torch.randint(1, max(len(high), 2), (), generator=generator))
    return low, high.roll(shift, 0)


def _critics_loss(model: Model) -> Loss:
    def loss(network: nn.Module, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        low, high = unpaired(batch, model, generator)
        to_high, to_low, critics = _parts(network)
        with torch.no_grad():
            sides = {"high": (high, to_high(low)), "low": (low, to_low(high))}
        distance, penalty = low.new_zeros(()), low.new_zeros(())
        for name, (real, fake) in sides.items():
            distance = distance + critics[name](real).mean() - critics[name](fake).mean()
            penalty = penalty + gradient_penalty(critics[name], real, fake, generator)
        return PENALTY * penalty - distance, {"wasserstein": distance, "penalty": penalty}

    return loss


def _generators_loss(model: Model) -> Loss:
    def loss(network: nn.Module, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        low, high = unpaired(batch, model, generator)
        to_high, to_low, critics = _parts(network)
        made_high, made_low = to_high(low), to_low(high)
        value = {
            "adversarial": -critics["high"](made_high).mean() - critics["low"](made_low).mean(),
            "cycle": CYCLE * ((to_low(made_high) - low).abs().mean() + (to_high(made_low) - high).abs().mean()),
            "identity": IDENTITY * ((to_high(high) - high).abs().mean() + (to_low(low) - low).abs().mean()),
            "sparse": SPARSE * (sparse(made_high, low) + sparse(made_low, high)),
        }
        return torch.stack(list(value.values())).sum(), value

    return loss


def sparse(made: Tensor, given: Tensor) -> Tensor:
    """Joint sparsifying transform: TV of an image and of its difference from what it was made of.

    The publication takes the difference from the paired image where there is one; without pairs, from the input.
    """
    return SPARSE_PLAIN * _total_variation(made) + (1 - SPARSE_PLAIN) * _total_variation(made - given)


def _total_variation(image: Tensor) -> Tensor:
    """Mean absolute difference of neighbours along y, plus along x."""
    return image.diff(dim=-2).abs().mean() + image.diff(dim=-1).abs().mean()


def _parts(network: nn.Module) -> tuple[nn.Module, nn.Module, nn.ModuleDict]:
    assert isinstance(network, GanCircle)
    critics = network.critics
    return network.generators["to_high"], network.generators["to_low"], critics
