"""Losses in the structure domain: O(G_img) against O(y) (eq. 7), topology, and how strongly they pull on the image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from uhrct.core.errors import UhrctError
from uhrct.evaluation.structure_error import SMSE_WINDOW_HU
from uhrct.models.dssp import from_channels, to_channels
from uhrct.models.model import Model
from uhrct.models.surrogate import SHIPPED, Surrogate
from uhrct.structure import StructureOperator
from uhrct.structure.vessels import VESSEL_THRESHOLDS
from uhrct.training.config import TrainingConfig
from uhrct.training.data.batches import Batch, hr_crop, hr_spacing, lr_channels

#: a vessel is where the structure map reaches this, as where broken and invented ones are measured
VESSEL = VESSEL_THRESHOLDS[1]
#: rounds of thinning: centre lines of vessels up to 9 pixels across; wider ones do not break
THINNING = 4
#: how far from that a map still says "perhaps": half the width of the soft step in "lengths"
DOUBT = 0.2

#: mean of O(y)^power in a crop below which there is too little of it to be told in shares
FAINT = 0.002

#: the pixel loss as a function of the network's image channels
Pixel = Callable[[Tensor], Tensor]


class StructureTerms:
    """What a training's configuration asks of the image and of the structure head in the structure domain.

    Images are clamped to the window of the SMSE first: metal and dense bone must not rule. Maps of the image are
    taken of the crop alone, of both images alike, so that its edges cancel. Terms look at a share of the items
    (`structure_items`), since operators cost; on average over steps they pull as if they looked at all.
    """

    def __init__(self, model: Model, config: TrainingConfig) -> None:
        self.model, self.config = model, config
        self.difference = bool(config.structure_image_weight or config.structure_share)
        needed = self.difference or bool(config.topology or config.vessel_weight)
        self.operator = loss_operator(model, config) if needed else None

    def head(self, structure: Tensor, batch: Batch) -> Tensor:
        """|G_struct - O(y)|_1 (eq. 7) of the head's map (B, sz sy sx, y, x); the exact map where it is known."""
        seen = self._seen
        part = _items(batch, seen)
        with torch.no_grad():
            wanted = self.model.structure_of(part.hr_hu, hr_spacing(part, self.model))
            if part.structure is not None:
                wanted = torch.where(part.structure.isnan(), wanted, part.structure)
        return (structure[seen] - lr_channels(wanted, self.model)).abs().mean()

    def emphasis(self, batch: Batch) -> Tensor | float:
        """What each voxel counts in the pixel loss, in channels: 1 + vessel_weight O(y) in the lungs, mean 1."""
        if not self.config.vessel_weight:
            return 1.0
        _, sy, sx = self.model.config.scale
        vessels = self._reference(batch) * in_lungs(batch, self.model)
        weight = to_channels(1 + self.config.vessel_weight * vessels, sy, sx)
        return weight / weight.mean((1, 2, 3), keepdim=True)

    def __call__(self, image: Tensor, pixel: Pixel, batch: Batch, up_hu: Tensor) -> dict[str, Tensor]:
        """The image's terms, each with its gradient already at its strength.

        Parameters
        ----------
        image : (B, sz sy sx, y, x), the network's residual
        pixel : the pixel loss as a function of it, whose gradient the strength is tied to
        up_hu : (B, sz, y', x') interpolation, margin included
        """
        config = self.config
        if not (self.difference or config.topology):
            return {}
        _, sy, sx = self.model.config.scale
        seen = self._plain(len(batch.hr_hu))
        part = _items(batch, seen)
        wanted = self._reference(part)
        # the operator is passed through once, forward and back, on a leaf of its own: its gradient must be known
        # before the step's own backward pass, to be measured against the pixel loss's
        with torch.enable_grad():
            leaf = image.detach()[seen].requires_grad_()
            hr = hr_crop(up_hu[seen], self.model) + from_channels(leaf, sy, sx) * self.model.config.residual_sd_hu
            made = self._map(hr, part)
            values: dict[str, tuple[Tensor, float]] = {}
            if self.difference:
                d = made - wanted
                if self.config.structure_where == "lungs":
                    d = d * in_lungs(part, self.model)
                error, of = ((v.abs() if config.structure_power == 1 else v.square()) for v in (d, wanted))
                if config.relative and config.structure_share:  # no crop with metal rules the others
                    error = error / (of.mean((1, 2, 3), keepdim=True) + FAINT)
                values["structure_image"] = error.mean(), config.structure_share
            if config.topology:
                vessels = reference_vessels(wanted, part, self.model)
                inside = made * torch.maximum(vessels, in_lungs(part, self.model))  # ribs are nobody's invention
                error = topology_loss(config.topology, inside, vessels, config.invented_cost)
                values["topology"] = error, config.topology_share
            whole = image.detach().requires_grad_()
            # of these items in the whole batch's mean; the terms' mean is over these items alone
            pull = torch.autograd.grad(pixel(whole), whole)[0][seen].norm() * (len(image) / len(leaf))
            parts = {}
            for name, (value, share) in values.items():
                (gradient,) = torch.autograd.grad(value, leaf, retain_graph=len(values) > 1)
                if share:  # the log tells the plain term: what it weighs changes from step to step
                    strength = share * pull / gradient.norm().clamp(min=1e-30)
                else:
                    strength = value.new_tensor(config.structure_image_weight)
                    value = strength * value
                parts[name] = _attached(value, strength * gradient, image[seen])
        return parts

    @property
    def _seen(self) -> slice:
        """Every n-th item: the varied ones come last in a batch, and must be among them."""
        return slice(None, None, max(1, round(1 / self.config.structure_items)))

    def _plain(self, items: int) -> slice:
        """As many, of those that come first and are not varied: sharpened ones and noise pull at maps in vain."""
        plain = items - round(items * self.config.augmented)
        wanted = len(range(items)[self._seen])
        step = plain // wanted  # no more than are wanted: operators cost
        return slice(0, step * wanted, step) if step else self._seen

    def _reference(self, batch: Batch) -> Tensor:
        """O(y) on the crop (B, sz, y', x') in [0, 1], without gradient."""
        with torch.no_grad():
            return self._map(hr_crop(batch.hr_hu, self.model), batch)

    def _map(self, hr_hu: Tensor, batch: Batch) -> Tensor:
        assert self.operator is not None
        return self.operator(hr_hu.clamp(*SMSE_WINDOW_HU), hr_spacing(batch, self.model))


def _items(batch: Batch, seen: slice) -> Batch:
    """Some items of a batch, with what structure terms look at."""
    structure = None if batch.structure is None else batch.structure[seen]
    lungs = None if batch.lungs is None else batch.lungs[seen]
    return Batch(batch.lr_hu[seen], batch.hr_hu[seen], batch.spacing_mm[seen], structure=structure, lungs=lungs)


def loss_operator(model: Model, config: TrainingConfig) -> StructureOperator | Surrogate:
    """The operator of the losses: the model's own with another kind or contrast, or a learned one.

    Raises
    ------
    UhrctError
        For an operator that does not exist, and a contrast for a surrogate, which has its own.
    """
    kind, contrast_hu = config.structure_operator, config.structure_contrast_hu
    if kind == "surrogate" or kind.endswith(".safetensors"):
        if contrast_hu:
            raise UhrctError("structure_contrast_hu: a surrogate has that of its training; leave it out")
        device = next(model.parameters()).device
        return Surrogate.load(SHIPPED if kind == "surrogate" else kind).to(device)
    own = model.operator
    return replace(own, kind=kind or own.kind, contrast_hu=contrast_hu or own.contrast_hu)


def in_lungs(batch: Batch, model: Model) -> Tensor:
    """1 in the lungs, 0 elsewhere, (B, sz, y', x') on the crop: ribs, skin and the table answer operators too.

    The table above all: a term that took it for a vessel spoilt PSNR and SMSE there (docs/experiments.md).
    """
    assert batch.lungs is not None, "a batch for terms in the lungs must tell where they are"
    return hr_crop(batch.lungs, model).to(batch.hr_hu.dtype)


def reference_vessels(wanted: Tensor, batch: Batch, model: Model) -> Tensor:
    """Vessels in the lungs, 0 or 1, (B, sz, y', x'): where O(y) shows one, and the exact map, if any, agrees.

    What the exact map knows and y does not show (twigs thinner than a voxel) is not asked for: no image would be
    better than y itself, and what can't be seen would have to be invented.
    """
    shown = (wanted >= VESSEL).to(wanted.dtype)
    vessels = shown * in_lungs(batch, model)
    if batch.structure is None:
        return vessels
    exact = hr_crop(batch.structure, model)
    return torch.where(exact.isnan(), vessels, shown * (exact >= 0.5))


def topology_loss(kind: str, made: Tensor, vessels: Tensor, invented_cost: float = 1.0) -> Tensor:
    """1 - skeleton recall ("recall"), 1 - soft clDice ("cldice"), or broken and invented ("lengths"), over a batch.

    Parameters
    ----------
    made : (B, c, y, x), structure map of the image; it belongs to a vessel as far as it comes up to the threshold.
        For "lengths" it does by a soft step at the threshold: what is well above or below is settled and pulls no more
    vessels : (B, c, y, x), 0 or 1
    invented_cost : for "lengths", what is invented counts so many times

    Returns
    -------
    A number. "lengths": the share of the reference's tubes that is broken, plus what is shown farther than a pixel
    from every vessel, over the tubes' area as well: the two that `uhrct.structure.lengths` measures, made soft

    References
    ----------
    Skeleton recall: Kirchhoff et al., ECCV 2024, doi 10.48550/arXiv.2404.03010. Soft clDice and the soft skeleton:
    Shit et al., CVPR 2021, doi 10.1109/CVPR46437.2021.01629.

    Example
    -------
    >>> line = torch.zeros(1, 1, 9, 16); line[..., 3:6, :] = 1
    >>> broken = line.clone(); broken[..., 8:] = 0
    >>> [round(topology_loss("recall", m, line).item(), 2) for m in (line, broken)]
    [0.0, 0.5]
    """
    with torch.no_grad():
        line = skeleton(vessels)
        tube = dilate(line) * vessels  # a pixel to each side: where exactly the centre lies is noise
    if kind == "lengths":
        shown = soft_step(made)
        # at least a pixel's worth of vessel, so that a batch without any can tell what it invents
        invented = (shown * (1 - dilate(vessels))).sum() / tube.sum().clamp(min=1)
        return 1 - _share_within(tube, shown) + invented_cost * invented
    member = (made / VESSEL).clamp(max=1)
    if kind == "recall":
        return 1 - _share_within(tube, member)
    found, true = _share_within(line, member), _share_within(skeleton(member), vessels)
    return 1 - 2 * found * true / (found + true)


def soft_step(made: Tensor) -> Tensor:
    """0 well below the threshold of a vessel, 1 well above it, smooth between.

    Example
    -------
    >>> [round(v, 2) for v in soft_step(torch.tensor([0.0, VESSEL, 0.5])).tolist()]
    [0.0, 0.5, 1.0]
    """
    t = ((made - VESSEL) / (2 * DOUBT) + 0.5).clamp(0, 1)
    return t * t * (3 - 2 * t)


def _share_within(lines: Tensor, mask: Tensor) -> Tensor:
    """Share of the lines that lies within the mask; 1 where there are none."""
    return ((lines * mask).sum() + 1e-3) / (lines.sum() + 1e-3)


def erode(mask: Tensor) -> Tensor:
    """Minimum over a pixel and its four neighbours."""
    along_y = -F.max_pool2d(-mask, (3, 1), 1, (1, 0))
    return torch.minimum(along_y, -F.max_pool2d(-mask, (1, 3), 1, (0, 1)))


def dilate(mask: Tensor) -> Tensor:
    """Maximum over a pixel and its eight neighbours."""
    return F.max_pool2d(F.max_pool2d(mask, (3, 1), 1, (1, 0)), (1, 3), 1, (0, 1))


def skeleton(mask: Tensor) -> Tensor:
    """Centre lines of a soft mask (B, c, y, x) in [0, 1]: what openings take away, round after round.

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


def _attached(value: Tensor, gradient: Tensor, image: Tensor) -> Tensor:
    """A number that is `value` and whose gradient with respect to `image` is `gradient`."""
    return value.detach() + ((image - image.detach()) * gradient).sum()
