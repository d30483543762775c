"""Batches of (LR, HR), made on the device from the training patients there."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from uhrct.errors import UhrctError
from uhrct.model import FLOOR_HU, Model
from uhrct.networks import to_channels
from uhrct.resampling import apply_in_plane, as_tensor, gaussian_matrix, resize_matrix
from uhrct.training.config import TrainingConfig
from uhrct.training.patients import Patient

#: LR pixels of margin around a crop, so that PSF, interpolation and structure operator see no cut edge
MARGIN = 6
#: rescaled grids: an image downsampled by this factor is a clean, sharper HR image of another spacing
RESCALE = (1.25, 1.5, 1.75, 2.0)
#: kernel augmentation: share of detail (image minus its blur by 1 pixel) added or taken away
KERNEL = (-0.6, 0.8)
#: noise augmentation: standard deviation in HU at most
NOISE_HU = 30.0


@dataclass(frozen=True)
class Batch:
    """What a training step sees; HR images (B, y, x) in HU, `spacing_mm` of the LR pixels per item."""

    lr_hu: Tensor
    hr_hu: Tensor
    spacing_mm: list[tuple[float, float]]


class BatchMaker:
    """Random crops, flips, rescaled grids, kernels, noise and the degradation, made on the device.

    Everything random comes from ``torch.Generator``s keyed by (seed, step, rank): a resumed training sees the very
    batches that it would have seen.
    """

    def __init__(self, patients: list[Patient], config: TrainingConfig, model: Model) -> None:
        self.patients, self.config = patients, config
        self.acquisition = model.acquisition
        _, self.sy, self.sx = model.config.scale
        self.shares = torch.tensor([p.weight for p in patients])
        need = (config.crop + 2 * MARGIN) * max(self.sy, self.sx)
        small = [p.name for p in patients if min(p.hu.shape[1:]) < need]
        if small:
            raise UhrctError(f"patient {small[0]}: slices smaller than a crop of {need} pixels; set crop= lower")

    def __call__(self, step: int, rank: int = 0) -> Batch:
        """The batch of a step, `config.batch` items."""
        g = torch.Generator().manual_seed((self.config.seed * 1_000_003 + step) * 1009 + rank)
        n_aug = round(self.config.batch * self.config.augmented)
        parts = [self._plain(self.config.batch - n_aug, 1.0, g)]
        if n_aug:
            factor = RESCALE[int(torch.randint(len(RESCALE), (), generator=g))]
            hr, spacing = self._plain(n_aug, factor, g)
            parts.append((self._vary(hr, g), spacing))
        hr = torch.cat([p[0] for p in parts])
        spacing = [s for p in parts for s in p[1]]
        lr = self.acquisition.forward(hr)
        return Batch(lr, hr, spacing)

    def _plain(self, n: int, factor: float, g: torch.Generator) -> tuple[Tensor, list[tuple[float, float]]]:
        """`n` HR crops (with margin) from grids coarsened by `factor`, and the spacing of their LR pixels."""
        side = (self.config.crop + 2 * MARGIN) * max(self.sy, self.sx)
        crops, spacing = [], []
        for k in torch.multinomial(self.shares, max(n, 1), replacement=True, generator=g)[:n].tolist():
            p = self.patients[k]
            longest = min(p.hu.shape[1:])
            source = min(round(side * factor), longest)
            z, y, x = (self._draw(*bounds, g) for bounds in ((0, p.hu.shape[0]), *self._corners(p, source)))
            crop = p.hu[z, y : y + source, x : x + source].float()
            dy, dx = (s * source / side for s in p.spacing_mm)
            flips = torch.rand(3, generator=g) < 0.5
            if flips[0]:
                crop = crop.flip(0)
            if flips[1]:
                crop = crop.flip(1)
            if flips[2]:
                crop, dy, dx = crop.T, dx, dy
            if source != side:
                shrink = as_tensor(resize_matrix(source, side), crop)
                crop = apply_in_plane(crop, shrink, shrink)
            crops.append(crop)
            spacing.append((dy * self.sy, dx * self.sx))
        empty = torch.empty(0, side, side, device=self.patients[0].hu.device)
        return torch.stack(crops) if crops else empty, spacing

    @staticmethod
    def _draw(low: int, high: int, g: torch.Generator) -> int:
        return int(torch.randint(low, max(high, low + 1), (), generator=g))

    @staticmethod
    def _corners(p: Patient, side: int) -> list[tuple[int, int]]:
        """Bounds of a crop's corner along y and x, such that its middle lies within the body where it fits."""
        out = []
        for n, first, last in ((p.hu.shape[1], *p.body[:2]), (p.hu.shape[2], *p.body[2:])):
            low = min(max(first - side // 2, 0), n - side)
            high = min(max(last - side // 2, low), n - side)
            out.append((low, high + 1))
        return out

    def _vary(self, hr: Tensor, g: torch.Generator) -> Tensor:
        """Another kernel (detail amplified or damped) and quantum noise of another level, per item."""
        n, side = hr.shape[0], hr.shape[-1]

        def uniform(low: float, high: float) -> Tensor:
            return (torch.rand(n, 1, 1, generator=g) * (high - low) + low).to(hr.device)

        blur = as_tensor(gaussian_matrix(side, 1.0), hr)
        hr = hr + uniform(*KERNEL) * (hr - apply_in_plane(hr, blur, blur))
        noise = torch.randn(hr.shape, generator=g).to(hr.device)
        sigma_px = float(torch.rand((), generator=g)) * 1.2
        if sigma_px > 0.3:  # below, a sampled Gaussian is the identity
            blur = as_tensor(gaussian_matrix(side, round(sigma_px, 1)), hr)
            noise = apply_in_plane(noise, blur, blur)
            noise = noise / noise.std()
        level = uniform(-NOISE_HU, NOISE_HU).clamp(min=0)  # half of the items stay as they are
        return (hr + level * noise).clamp(min=FLOOR_HU)


def cut_margin(image: Tensor, margin: int) -> Tensor:
    """The inner part of (..., y, x)."""
    return image[..., margin:-margin, margin:-margin]


def lr_channels(hr: Tensor, model: Model) -> Tensor:
    """HR (B, y, x), margin included, to sub-voxel channels (B, sy sx, y, x) of the crop."""
    _, sy, sx = model.config.scale
    return cut_margin(to_channels(hr[:, None], sy, sx), MARGIN)
