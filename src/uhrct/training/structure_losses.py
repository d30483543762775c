"""Losses in the structure domain: O(G_img) and G_struct against O(y) (eq. 7), and broken and invented vessel length."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from uhrct.core.errors import UhrctError
from uhrct.evaluation.structure_error import SMSE_WINDOW_HU
from uhrct.models.dssp import from_channels
from uhrct.models.model import Model
from uhrct.models.surrogate import SHIPPED, Surrogate
from uhrct.structure import StructureOperator
from uhrct.structure.vessels import VESSEL_THRESHOLDS
from uhrct.training.config import LossSettings
from uhrct.training.data.batch import Batch, hr_crop, hr_spacing, lr_channels

#: a vessel is where the structure map reaches this value, as in the metrics of vessel length
VESSEL = VESSEL_THRESHOLDS[1]
#: rounds of thinning: enough for centre lines of vessels up to 9 pixels wide. Wider vessels do not break.
THINNING = 4
#: half the width of the soft step around VESSEL
DOUBT = 0.2
#: added to the mean of O(y)^power of a crop, so that crops without structure do not count without limit
FAINT = 0.002

#: the pixel loss as a function of the image channels of the network
Pixel = Callable[[Tensor], Tensor]


class StructureTerms:
    """The parts of a loss that compare structure maps.

    Images are clamped to the window of the SMSE first, so that metal and dense bone do not rule. The maps of both
    images are made from the crop alone, so that the effects of its edges cancel. Only a share of the items is looked
    at, since operators are slow; over many steps the average gradient is the same.

    Parameters
    ----------
    model : gives the scale and the operator of the prior
    settings : weights
    plain : share of a batch, at its start, that is not augmented
    """

    def __init__(self, model: Model, settings: LossSettings, plain: float = 1.0) -> None:
        self.model, self.settings, self.plain = model, settings, plain
        self.difference = bool(settings.structure_image or settings.structure_share)
        self.lengths = bool(settings.lengths_share)
        self.operator = loss_operator(model, settings) if self.difference or self.lengths else None

    def head(self, structure: Tensor | None, batch: Batch) -> dict[str, Tensor]:
        """|G_struct - O(y)|_1 (eq. 7) of the structure head's map. Where the exact map is known, it replaces O(y)."""
        weight = self.settings.structure_head
        if structure is None or not weight:
            return {}
        # every n-th item, so that augmented items, which come last, are among them
        seen = slice(None, None, max(1, round(1 / self.settings.structure_items)))
        part = _items(batch, seen)
        with torch.no_grad():
            target = self.model.structure_of(part.hr_hu, hr_spacing(part, self.model.config.scale))
            if part.structure is not None:
                target = torch.where(part.structure.isnan(), target, part.structure)
        error = (structure[seen] - lr_channels(target, self.model.config.scale)).abs().mean()
        return {"structure_head": weight * error}

    def image(
        self, image: Tensor, batch: Batch, anchor_hu: Tensor, sd_hu: float | Tensor, pixel: Pixel | None = None
    ) -> dict[str, Tensor]:
        """The parts that look at the image of the network, each with its gradient at its strength.

        Parameters
        ----------
        image : (B, sz sy sx, y, x), the residual of the network
        anchor_hu : (B, sz, y', x') the image around which it is a residual, margin included
        sd_hu : HU per unit of the residual; one number, or (B, sz, y', x') without margin
        pixel : the pixel loss as a function of `image`; needed where a strength is a share of its gradient
        """
        if self.operator is None:
            return {}
        settings, scale = self.settings, self.model.config.scale
        seen = self._seen(len(image))
        part = _items(batch, seen)
        with torch.no_grad():
            target = self._map(hr_crop(part.hr_hu, scale), part)
        # The operator runs once, forward and back, on a leaf of its own. Its gradient must be known before the backward
        # pass of the step, to compare it with that of the pixel loss.
        with torch.enable_grad():
            leaf = image.detach()[seen].requires_grad_()
            unit = sd_hu[seen] if isinstance(sd_hu, Tensor) else sd_hu
            made = self._map(hr_crop(anchor_hu[seen], scale) + from_channels(leaf, *scale[1:]) * unit, part)
            values: dict[str, tuple[Tensor, float]] = {}
            if self.difference:
                values["structure_image"] = self._difference(made, target), settings.structure_share
            if self.lengths:
                vessels = reference_vessels(target, part, scale)
                inside = made * torch.maximum(vessels, in_lungs(part, scale))  # ribs outside the lungs do not count
                loss = length_loss(inside, vessels, settings.invented_cost)
                values["lengths"] = loss, settings.lengths_share
            parts = {}
            for name, (value, share) in values.items():
                (gradient,) = torch.autograd.grad(value, leaf, retain_graph=len(values) > 1)
                if share:  # the log shows the plain value, because its weight changes from step to step
                    assert pixel is not None, "a share of the pixel loss's gradient needs the pixel loss"
                    gradient = share * _pull(pixel, image, seen) / gradient.norm().clamp(min=1e-30) * gradient
                else:
                    value, gradient = settings.structure_image * value, settings.structure_image * gradient
                parts[name] = _attached(value, gradient, image[seen])
        return parts

    def _difference(self, made: Tensor, target: Tensor) -> Tensor:
        """|O(G_img) - O(y)| or its square. With a share, each item counts relative to its own amount of structure."""
        error, amount = (v.abs() if self.settings.structure_power == 1 else v.square() for v in (made - target, target))
        if self.settings.relative and self.settings.structure_share:
            error = error / (amount.mean((1, 2, 3), keepdim=True) + FAINT)
        return error.mean()

    def _seen(self, items: int) -> slice:
        """Items to look at: those that are not augmented, if there are enough. Maps of noise teach nothing."""
        every = slice(None, None, max(1, round(1 / self.settings.structure_items)))
        plain, count = round(items * self.plain), len(range(items)[every])
        step = plain // count
        return slice(0, step * count, step) if step else every

    def _map(self, hr_hu: Tensor, batch: Batch) -> Tensor:
        assert self.operator is not None
        return self.operator(hr_hu.clamp(*SMSE_WINDOW_HU), hr_spacing(batch, self.model.config.scale))


def loss_operator(model: Model, settings: LossSettings) -> StructureOperator | Surrogate:
    """The operator of the loss: that of the model with another kind or contrast, or a surrogate.

    Raises
    ------
    UhrctError
        For an operator that does not exist, and for a contrast beside a surrogate, which has its own.
    """
    kind, contrast_hu = settings.structure_operator, settings.structure_contrast_hu
    if kind == "surrogate" or kind.endswith(".safetensors"):
        if contrast_hu:
            raise UhrctError("structure_contrast_hu: a surrogate has the contrast of its training; leave it out")
        return Surrogate.load(SHIPPED if kind == "surrogate" else kind).to(next(model.parameters()).device)
    own = model.operator
    return replace(own, kind=kind or own.kind, contrast_hu=contrast_hu or own.contrast_hu)


def in_lungs(batch: Batch, scale: tuple[int, int, int]) -> Tensor:
    """1 in the lungs, 0 elsewhere, (B, sz, y', x') of the crop. Ribs, skin and table answer the operators too."""
    assert batch.lungs is not None, "the length loss needs batches with lungs"
    return hr_crop(batch.lungs, scale).to(batch.hr_hu.dtype)


def reference_vessels(target: Tensor, batch: Batch, scale: tuple[int, int, int]) -> Tensor:
    """Vessels in the lungs, 0 or 1, (B, sz, y', x'): where O(y) shows one and the exact map, if known, agrees.

    Twigs that the exact map knows but y does not show are left out. A network could only invent them.
    """
    shown = (target >= VESSEL).to(target.dtype)
    vessels = shown * in_lungs(batch, scale)
    if batch.structure is None:
        return vessels
    exact = hr_crop(batch.structure, scale)
    return torch.where(exact.isnan(), vessels, shown * (exact >= 0.5))


def length_loss(made: Tensor, vessels: Tensor, invented_cost: float = 1.0) -> Tensor:
    """Share of the vessels that is broken, plus what is invented: a soft form of `uhrct.structure.lengths`.

    Parameters
    ----------
    made : (B, c, y, x), structure map of the image, made soft by a step around `VESSEL`
    vessels : (B, c, y, x), 0 or 1
    invented_cost : weight of what lies farther than a pixel from every vessel, over the area of the vessel tubes

    Example
    -------
    >>> line = torch.zeros(1, 1, 9, 16); line[..., 3:6, :] = 1
    >>> broken = line.clone(); broken[..., 8:] = 0
    >>> [round(length_loss(m, line).item(), 2) for m in (line, broken)]
    [0.0, 0.5]
    """
    with torch.no_grad():
        # a pixel on each side of the centre line, whose exact place is noise
        tube = dilate(skeleton(vessels)) * vessels
    shown = soft_step(made)
    kept = ((tube * shown).sum() + 1e-3) / (tube.sum() + 1e-3)
    # a batch without vessels counts as one with a pixel of them, so that it still costs to invent
    invented = (shown * (1 - dilate(vessels))).sum() / tube.sum().clamp(min=1)
    return 1 - kept + invented_cost * invented


def soft_step(made: Tensor) -> Tensor:
    """0 well below `VESSEL`, 1 well above it, smooth between.

    Example
    -------
    >>> [round(v, 2) for v in soft_step(torch.tensor([0.0, VESSEL, 0.5])).tolist()]
    [0.0, 0.5, 1.0]
    """
    t = ((made - VESSEL) / (2 * DOUBT) + 0.5).clamp(0, 1)
    return t * t * (3 - 2 * t)


def erode(mask: Tensor) -> Tensor:
    """Minimum over a pixel and its four neighbours."""
    along_y = -F.max_pool2d(-mask, (3, 1), 1, (1, 0))
    return torch.minimum(along_y, -F.max_pool2d(-mask, (1, 3), 1, (0, 1)))


def dilate(mask: Tensor) -> Tensor:
    """Maximum over a pixel and its eight neighbours."""
    return F.max_pool2d(F.max_pool2d(mask, (3, 1), 1, (1, 0)), (1, 3), 1, (0, 1))


def skeleton(mask: Tensor) -> Tensor:
    """Centre lines of a soft mask (B, c, y, x) in [0, 1]: what openings remove, over several rounds of thinning.

    References
    ----------
    The soft skeleton of Shit et al., CVPR 2021, doi 10.1109/CVPR46437.2021.01629.

    Example
    -------
    >>> bar = torch.zeros(1, 1, 7, 9); bar[..., 2:5, :] = 1
    >>> skeleton(bar)[0, 0, :, 4].tolist()
    [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]
    """
    line = torch.zeros_like(mask)
    for _ in range(THINNING + 1):
        thinner = erode(mask)
        lost = F.relu(mask - dilate(thinner))
        line = line + F.relu(lost - line * lost)
        mask = thinner
    return line


def _items(batch: Batch, seen: slice) -> Batch:
    """Some items of a batch, with the fields that structure parts need."""
    structure, lungs = (None if v is None else v[seen] for v in (batch.structure, batch.lungs))
    return Batch(batch.lr_hu[seen], batch.hr_hu[seen], batch.spacing_mm[seen], structure=structure, lungs=lungs)


def _pull(pixel: Pixel, image: Tensor, seen: slice) -> Tensor:
    """Norm of the gradient of the pixel loss at the items `seen`, as if the loss were the mean over them alone."""
    whole = image.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(pixel(whole), whole)
    return gradient[seen].norm() * (len(image) / len(gradient[seen]))


def _attached(value: Tensor, gradient: Tensor, image: Tensor) -> Tensor:
    """A number that is `value` and whose gradient with respect to `image` is `gradient`."""
    return value.detach() + ((image - image.detach()) * gradient).sum()
