"""The losses of the posterior-mean network, of the denoiser (eqs. 6-9 of the paper) and of the interval around it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from uhrct.core.errors import UhrctError
from uhrct.models.interval import LEVEL, widths_hu
from uhrct.models.model import Features, Model
from uhrct.models.slice_noise import fine_slices_noise
from uhrct.training.config import LossSettings
from uhrct.training.data.batch import MARGIN, Batch, cut_margin, hr_crop, lr_channels
from uhrct.training.structure_losses import StructureTerms


class MeanLoss:
    """The loss of the posterior-mean network: L_pixel of the residual of interpolation, and the structure parts.

    Parameters
    ----------
    model : gives the inputs and the targets of its `mean` network
    settings : weights
    plain : share of a batch, at its start, that is not augmented; structure parts look there first
    """

    def __init__(self, model: Model, settings: LossSettings, plain: float = 1.0) -> None:
        self.model, self.settings = model, settings
        self.structure = StructureTerms(model, settings, plain)
        self.teacher = teacher_of(model, settings.teacher) if settings.teacher else None

    def __call__(
        self, network: nn.Module, batch: Batch, generator: torch.Generator, done: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        model, settings = self.model, self.settings
        f = _cropped(model.features(batch.lr_hu, batch.spacing_mm, batch.properties))
        image, structure = network(f.x, f.prior, properties=f.properties)
        sd_hu = model.config.residual_sd_hu
        residual = lr_channels((batch.hr_hu - f.up_hu) / sd_hu, model.config.scale)
        share = _relative(residual) if settings.relative else 1.0
        target = residual
        if self.teacher is not None:
            taught = lr_channels((taught_hu(self.teacher, batch, generator) - f.up_hu) / sd_hu, model.config.scale)
            target = torch.lerp(residual, taught, settings.teacher_share)

        def pixel(image: Tensor) -> Tensor:
            return _pixel(image - target, settings, share)

        parts = {"pixel": pixel(image), **self.structure.head(structure, batch)}
        if done >= settings.structure_from:
            parts |= self.structure.image(image, batch, f.up_hu, sd_hu, pixel)
        with torch.no_grad():  # for the log alone: where interpolation stands in the unit of `pixel`
            interpolation = {"interpolation": pixel(torch.zeros_like(image))}
        return torch.stack(list(parts.values())).sum(), parts | interpolation


def teacher_of(model: Model, name: str) -> Model:
    """The model `name`, whose mean network teaches that of `model`. Raises `UhrctError` if it does not fit."""
    teacher = Model.from_pretrained(name).to(next(model.parameters()).device).eval().requires_grad_(False)
    same = ("scale", "context", "properties", "acquisition")
    if teacher.mean is None or any(getattr(teacher.config, key) != getattr(model.config, key) for key in same):
        raise UhrctError(
            f"loss.teacher={name}: take a model with a mean network and with the {', '.join(same)} of this one"
        )
    return teacher


@torch.no_grad()
def taught_hu(teacher: Model, batch: Batch, generator: torch.Generator) -> Tensor:
    """The teacher's image of a batch, in HU.

    Each call mirrors the batch in y, x, both or neither, by chance. Over many steps the target is thus the mean over
    the mirrored images, which is better than one of them.
    """
    drawn = torch.randint(2, (2,), generator=generator)
    axes = [axis for axis, mirrored in zip((-2, -1), drawn.tolist(), strict=True) if mirrored]
    f = teacher.features(batch.lr_hu.flip(axes), batch.spacing_mm, batch.properties)
    return teacher.mean_hu(f)[0].flip(axes)


class DenoiserLoss:
    """The loss of the denoiser: L_pixel of its prediction, and the paper's structure parts of the image it means.

    Parameters
    ----------
    model, settings, plain : as for `MeanLoss`; its mean network, if any, stays as it is
    """

    def __init__(self, model: Model, settings: LossSettings, plain: float = 1.0) -> None:
        self.model, self.settings = model, settings
        self.structure = StructureTerms(model, settings, plain)

    def __call__(
        self, network: nn.Module, batch: Batch, generator: torch.Generator, done: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        model, settings = self.model, self.settings
        with torch.no_grad():
            f = model.features(batch.lr_hu, batch.spacing_mm, batch.properties)
            mean = model.mean_hu(f)[0] if model.mean is not None else None
            x, prior, anchor = model.denoiser_inputs(f, mean, batch.spacing_mm)
            sd_hu = model.residual_sd_hu(f, anchor).expand_as(anchor)
        e = lr_channels((batch.hr_hu - anchor) / sd_hu, model.config.scale)
        g = model.diffusion.draw_levels(len(e), generator, e.device)[:, None, None, None]
        n = _noise(e, batch, model.config.scale[0], generator)
        z = g.sqrt() * e + (1 - g).sqrt() * n
        x, prior = cut_margin(x, MARGIN), None if prior is None else cut_margin(prior, MARGIN)
        predicted, structure = network(x, prior, z, g.sqrt().flatten(), properties=f.properties)
        parts = {
            "pixel": _pixel(predicted - model.diffusion.target(e, n, g), settings),
            **self.structure.head(structure, batch),
        }
        if settings.structure_image and done >= settings.structure_from:
            estimate = model.diffusion.split(predicted, z, g)[0]
            parts |= self.structure.image(estimate, batch, anchor, hr_crop(sd_hu, model.config.scale))
        return torch.stack(list(parts.values())).sum(), parts


class IntervalLoss:
    """The loss of the interval network: pinball loss of its two widths, divided by the width.

    The division makes a quiet region count as much as an edge. It does not move the optimum, because the divisor
    depends on the input alone (it has no gradient).

    Parameters
    ----------
    model : gives the inputs, and the mean network, which stays as it is
    settings, plain : as for the other losses; not used

    References
    ----------
    Koenker, Bassett, "Regression quantiles", Econometrica 1978, doi 10.2307/1913643.
    """

    def __init__(self, model: Model, settings: LossSettings, plain: float = 1.0) -> None:
        self.model = model

    def __call__(
        self, network: nn.Module, batch: Batch, generator: torch.Generator, done: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        model = self.model
        with torch.no_grad():
            f = model.features(batch.lr_hu, batch.spacing_mm, batch.properties)
            mean = model.mean_hu(f)[0]
            inputs = cut_margin(model.interval_inputs(f, mean), MARGIN)
        assert batch.kernel is not None
        below, above = widths_hu(network(inputs, properties=batch.kernel)[0])
        error = lr_channels(batch.hr_hu - mean, model.config.scale)
        tail = (1 - LEVEL) / 2
        parts = {"below": _pinball(-error, below, tail), "above": _pinball(error, above, tail)}
        with torch.no_grad():  # for the log alone
            covered = {"coverage": ((error >= -below) & (error <= above)).float().mean()}
        return torch.stack(list(parts.values())).sum(), parts | covered


def _pinball(error: Tensor, width: Tensor, tail: float) -> Tensor:
    """Pinball loss of a width that `error` shall exceed with probability `tail`, relative to the width."""
    d = error - width
    return (torch.maximum((1 - tail) * d, -tail * d) / width.detach()).mean()


def _noise(e: Tensor, batch: Batch, sz: int, generator: torch.Generator) -> Tensor:
    """Noise as the sampler draws it: neighbouring fine slices share a part of it."""
    fine_mm = [increment / sz for increment in batch.increment_mm]
    shape = (len(e), sz, *e.unflatten(1, (sz, -1)).shape[2:])
    return fine_slices_noise(shape, fine_mm, generator).flatten(1, 2).to(e.device)


def _pixel(d: Tensor, settings: LossSettings, share: Tensor | float = 1.0) -> Tensor:
    """L_pixel (eq. 6) of a difference, with a weight `share` for each item."""
    return settings.l2 * (share * d.square()).mean() + settings.l1 * (share**0.5 * d.abs()).mean()


def _relative(residual: Tensor) -> Tensor:
    """1 / (mean squared error of interpolation) of each item, so that a gained decibel counts the same in every crop.

    Without it, crops with metal, a sharp kernel or added noise, which no network can predict, rule the gradient.
    """
    return 1 / (residual.square().mean((1, 2, 3), keepdim=True) + 0.05)


def _cropped(f: Features) -> Features:
    prior = None if f.prior is None else cut_margin(f.prior, MARGIN)
    return Features(cut_margin(f.x, MARGIN), f.up_hu, prior, f.properties)
