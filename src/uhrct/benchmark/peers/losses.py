"""Losses of the peers as published: a norm of the difference for pairs; for GAN-CIRCLE its ensemble without pairs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from uhrct.benchmark.peers.gan_circle import GanCircle, gradient_penalty
from uhrct.benchmark.peers.peer import Peer
from uhrct.models.model import normalised
from uhrct.physics.resampling import upsample_stack
from uhrct.training.data.batch import MARGIN, Batch, Scale, cut_margin, hr_crop

#: weights of GAN-CIRCLE: cycle, identity, joint sparsifying transform, share of the plain TV in it, gradient penalty
CYCLE, IDENTITY, SPARSE, SPARSE_PLAIN, PENALTY = 1.0, 0.5, 0.001, 0.5, 10.0

#: a loss, and its parts for the log
Value = tuple[Tensor, dict[str, Tensor]]


def images(batch: Batch, scale: Scale) -> tuple[Tensor, Tensor, Tensor]:
    """Normalised (x, up, y) of the crops of a batch. `up` is made with the margin, so no edge of a crop shows in it."""
    up, y = (hr_crop(image, scale) for image in (upsample_stack(batch.lr_hu, scale), batch.hr_hu))
    return normalised(cut_margin(batch.lr_hu, MARGIN)), normalised(up), normalised(y)


def paired_loss(peer: Peer, network: nn.Module, batch: Batch, scale: Scale, generator: torch.Generator) -> Value:
    """Mean of |difference|^power between the output of `network` (`peer`, perhaps wrapped) and its target."""
    given, target = peer.task(*images(batch, scale), generator)
    value = (network(*given) - target).abs().pow(peer.power).mean()
    return value, {"pixel": value}


def unpaired(batch: Batch, scale: Scale, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(low, high) images on the fine grid; each `high` comes from another crop than its `low`."""
    _, low, high = images(batch, scale)
    shift = int(torch.randint(1, max(len(high), 2), (), generator=generator))
    return low, high.roll(shift, 0)


def critics_loss(network: nn.Module, batch: Batch, scale: Scale, generator: torch.Generator) -> Value:
    """WGAN-GP of both critics: the negative distance of real and made images, plus the gradient penalty."""
    low, high = unpaired(batch, scale, generator)
    to_high, to_low, critics = _parts(network)
    with torch.no_grad():
        sides = {"high": (high, to_high(low)), "low": (low, to_low(high))}
    distance, penalty = low.new_zeros(()), low.new_zeros(())
    for name, (real, fake) in sides.items():
        distance = distance + critics[name](real).mean() - critics[name](fake).mean()
        penalty = penalty + gradient_penalty(critics[name], real, fake, generator)
    return PENALTY * penalty - distance, {"wasserstein": distance, "penalty": penalty}


def generators_loss(network: nn.Module, batch: Batch, scale: Scale, generator: torch.Generator) -> Value:
    """The generators' ensemble: adversarial, cycle, identity and sparsity losses."""
    low, high = unpaired(batch, scale, generator)
    to_high, to_low, critics = _parts(network)
    made_high, made_low = to_high(low), to_low(high)
    value = {
        "adversarial": -critics["high"](made_high).mean() - critics["low"](made_low).mean(),
        "cycle": CYCLE * ((to_low(made_high) - low).abs().mean() + (to_high(made_low) - high).abs().mean()),
        "identity": IDENTITY * ((to_high(high) - high).abs().mean() + (to_low(low) - low).abs().mean()),
        "sparse": SPARSE * (sparse(made_high, low) + sparse(made_low, high)),
    }
    return torch.stack(list(value.values())).sum(), value


def sparse(made: Tensor, given: Tensor) -> Tensor:
    """Joint sparsifying transform: TV of an image, and TV of its difference from the input.

    The publication takes the difference from the paired image where there is one, and without pairs from the input.
    """
    return SPARSE_PLAIN * _total_variation(made) + (1 - SPARSE_PLAIN) * _total_variation(made - given)


def _total_variation(image: Tensor) -> Tensor:
    """Mean absolute difference of neighbours along y, plus along x."""
    return image.diff(dim=-2).abs().mean() + image.diff(dim=-1).abs().mean()


def _parts(network: nn.Module) -> tuple[nn.Module, nn.Module, nn.ModuleDict]:
    assert isinstance(network, GanCircle)
    return network.generators["to_high"], network.generators["to_low"], network.critics
