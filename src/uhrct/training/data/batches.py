"""Batches of (LR, HR), made on the device from the training patients there."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from uhrct.core.errors import UhrctError
from uhrct.core.hu import FLOOR_HU
from uhrct.models.dssp import to_channels
from uhrct.models.model import Model
from uhrct.physics.resampling import apply_in_plane, as_tensor, gaussian_matrix, resize_matrix
from uhrct.physics.scan_properties import ScanProperties
from uhrct.training.config import TrainingConfig
from uhrct.training.data.patients import Lungs, Patient
from uhrct.training.data.scanners import acquire, draw_properties

#: LR pixels of margin around a crop, so that PSF, interpolation and structure operator see no cut edge
MARGIN = 6
#: rescaled grids: an image downsampled by this factor is a clean, sharper HR image of another spacing
RESCALE = (1.25, 1.5, 1.75, 2.0)
#: kernel augmentation: share of detail (image minus its blur by 1 pixel) added or taken away
KERNEL = (-0.6, 0.8)
#: noise augmentation of the HR image: standard deviation in HU at most
NOISE_HU = 30.0
#: thin slices are also averaged (through plane) or skipped (neighbours), up to this distance between slices
INCREMENT_MM = 3.0
#: LR slices at both ends of a block for overlapping slabs (through plane)
SPARE = 1
#: share of the items that are shown without some or all of their neighbours: ends of volumes, single slices
WITHOUT_NEIGHBOURS = 0.15


@dataclass(frozen=True)
class Batch:
    """What a training step sees; `spacing_mm` of the LR pixels per item."""

    lr_hu: Tensor  # (B, n, y, x): slice and neighbours
    hr_hu: Tensor  # (B, sz, y', x'): the fine slices inside the middle one
    spacing_mm: list[tuple[float, float]]
    properties: Tensor | None = None  # (B, k): what scan each item is of
    increment_mm: tuple[float, ...] = ()  # between the LR slices of each item
    structure: Tensor | None = None  # (B, sz, y', x'): exact structure map in [0, 1], NaN where it is not known
    lungs: Tensor | None = None  # (B, sz, y', x') bool, where a configuration asks for what is in them
    done: float = 1.0  # share of the training that is over: some terms begin late


@dataclass(frozen=True)
class _Crop:
    """One HR block (slices, y', x') with the spacing of its LR pixels and the increment between its LR slices.

    `lr_hu` (n, y, x) is what was measured there, where the patient is a real pair; `structure` is a block like `hu`,
    where the patient carries its truth; `lungs` are bool.
    """

    hu: Tensor
    spacing_mm: tuple[float, float]
    increment_mm: float
    lr_hu: Tensor | None = None
    structure: Tensor | None = None
    lungs: Tensor | None = None


class BatchMaker:
    """Random crops, flips, rescaled grids, kernels, noise and the degradation, made on the device.

    Everything random comes from ``torch.Generator``s keyed by (seed, step, rank): a resumed training sees the very
    batches that it would have seen.
    """

    def __init__(self, patients: list[Patient], config: TrainingConfig, model: Model) -> None:
        self.patients, self.config = patients, config
        self.acquisition = model.acquisition
        self.sz, self.sy, self.sx = model.config.scale
        self.context = model.config.context
        self.spare = SPARE if self.sz > 1 else 0
        #: HR slices of a block
        self.depth = (2 * (self.context + self.spare) + 1) * self.sz
        self.shares = torch.tensor([p.weight for p in patients])
        #: whether anybody carries an exact structure map
        self.exact = any(p.structure is not None for p in patients)
        #: of each patient, where a term looks at the lungs alone
        self.lungs = [Lungs.of(p) for p in patients] if config.looks_at_lungs else None
        need = (config.crop + 2 * MARGIN) * max(self.sy, self.sx)
        small = [p.name for p in patients if min(p.hu.shape[1:]) < need]
        if small:
            raise UhrctError(f"patient {small[0]}: slices smaller than a crop of {need} pixels; set crop= lower")
        thin = [p.name for p in patients if self.sz > 1 and p.weight and len(p.hu) < self.depth]
        if thin:
            raise UhrctError(f"patient {thin[0]}: fewer than {self.depth} slices; leave it out by corpus_weights")

    def __call__(self, step: int, rank: int = 0) -> Batch:
        """The batch of a step, `config.batch` items."""
        g = torch.Generator().manual_seed((self.config.seed * 1_000_003 + step) * 1009 + rank)
        n_aug = round(self.config.batch * self.config.augmented)
        factor = RESCALE[int(torch.randint(len(RESCALE), (), generator=g))]
        if "grid" not in self.config.augmentations:
            factor = 1.0
        shares = torch.multinomial(self.shares, self.config.batch, replacement=True, generator=g).tolist()
        plain = self.config.batch - n_aug
        crops = [self._crop(k, 1.0 if i < plain else factor, g) for i, k in enumerate(shares)]
        hr = torch.stack([c.hu for c in crops])
        if n_aug:
            hr = torch.cat([hr[:plain], self._vary(hr[plain:], g)])
        scans = [self._scan(c, g) for c in crops]
        lr = acquire(hr, self.acquisition, scans, g, self.spare)
        for i, c in enumerate(crops):
            if c.lr_hu is not None:  # measured, not simulated
                hr[i], lr[i] = c.hu, c.lr_hu
        lr = self._without_neighbours(lr, g)
        middle = (self.context + self.spare) * self.sz
        told = torch.tensor([s.vector() for s in scans], device=hr.device)
        structure = None
        if self.exact:
            nothing = torch.full_like(hr[0], torch.nan)
            structure = torch.stack([nothing if c.structure is None else c.structure for c in crops])
            structure = structure[:, middle : middle + self.sz]
        lungs = None
        if self.lungs is not None:
            lungs = torch.stack([c.lungs for c in crops if c.lungs is not None])[:, middle : middle + self.sz]
        return Batch(
            lr,
            hr[:, middle : middle + self.sz],
            [c.spacing_mm for c in crops],
            told,
            tuple(c.increment_mm for c in crops),
            structure,
            lungs,
        )

    def _scan(self, crop: _Crop, g: torch.Generator) -> ScanProperties:
        clean = ScanProperties(psf_fwhm=self.acquisition.psf_fwhm, increment_mm=crop.increment_mm)
        if crop.lr_hu is not None:
            return clean
        if float(torch.rand((), generator=g)) >= self.config.degraded:
            return clean
        return draw_properties(clean, self.sz > 1, g)

    def _crop(self, number: int, factor: float, g: torch.Generator) -> _Crop:
        """An HR block (with margin) from a patient's grid coarsened in plane by `factor`."""
        p = self.patients[number]
        side = (self.config.crop + 2 * MARGIN) * max(self.sy, self.sx)
        paired = self._is_pair(p)
        source = min(side if paired else round(side * factor), *p.hu.shape[1:])
        y, x = (self._draw(*bounds, g) for bounds in self._corners(p, source))
        slices, increment_mm = self._slices(p, g)

        def block(volume: Tensor, numbers: Tensor) -> Tensor:
            return volume[:, y : y + source, x : x + source][numbers.to(volume.device)].float()

        crop = block(p.hu, slices).unflatten(0, (self.depth, -1)).mean(1)
        measured = structure = lungs = None
        if paired:
            assert p.lr_hu is not None
            thick = slices.unflatten(0, (-1, self.sz))[self.spare : -self.spare, 0] // self.sz
            measured = block(p.lr_hu, thick)
        if p.structure is not None:
            # one voxel that is not known makes an average unknown
            structure = exact_map(block(p.structure, slices)).unflatten(0, (self.depth, -1)).mean(1)
        if self.lungs is not None:
            inside = self.lungs[number].block(slices.unflatten(0, (self.depth, -1))[:, 0], y, x, source, side)
            lungs = inside.to(p.hu.device)
        dy, dx = (s * source / side for s in p.spacing_mm)
        flips = torch.rand(4, generator=g) < 0.5
        flipped = [axis for axis in range(3) if flips[axis]]
        if flips[3]:
            dy, dx = dx, dy

        def turned(volume: Tensor) -> Tensor:
            volume = volume.flip(flipped) if flipped else volume
            return volume.mT if flips[3] else volume

        crop, measured = turned(crop), None if measured is None else turned(measured)
        structure = None if structure is None else turned(structure)
        lungs = None if lungs is None else turned(lungs)
        if source != side:
            shrink = as_tensor(resize_matrix(source, side), crop)
            crop = apply_in_plane(crop, shrink, shrink)
            # the strongest, as in the masks themselves: twigs get thick, but none is lost; NaN stays NaN
            structure = None if structure is None else F.adaptive_max_pool2d(structure, side)
        return _Crop(crop.contiguous(), (dy * self.sy, dx * self.sx), increment_mm, measured, structure, lungs)

    def _is_pair(self, p: Patient) -> bool:
        """Whether the patient's own LR scan is one of this model's scale."""
        wanted = (len(p.hu) // self.sz, p.hu.shape[1] // self.sy, p.hu.shape[2] // self.sx)
        return p.lr_hu is not None and self.sz > 1 and self.sy == self.sx == 1 and tuple(p.lr_hu.shape) == wanted

    def _slices(self, p: Patient, g: torch.Generator) -> tuple[Tensor, float]:
        """(numbers of the patient's slices that a block is made of, increment between its LR slices in mm).

        Through plane some neighbouring slices are averaged into one HR slice; in plane some are skipped. Beyond an
        end the last slice goes on.
        """
        apart = p.spacing_z_mm or 2.5
        most = max(1, int(INCREMENT_MM / apart))
        if self.sz > 1:
            most = max(1, min(most, len(p.hu) // self.depth))
        every = 1 if self._is_pair(p) else self._draw(1, most + 1, g)
        if self.sz == 1:
            z = self._draw(0, len(p.hu), g)
            offset = torch.arange(-self.context, self.context + 1).clamp(-(z // every), (len(p.hu) - 1 - z) // every)
            return z + every * offset, apart * every
        first = self._draw(0, len(p.hu) - self.depth * every + 1, g)
        if self._is_pair(p):  # measured slices begin where they begin
            first -= first % self.sz
        return first + torch.arange(self.depth * every), apart * every * self.sz

    def _without_neighbours(self, lr: Tensor, g: torch.Generator) -> Tensor:
        """Some items as at an end of their volume, where the last slice goes on, or alone."""
        c = self.context
        if not c:
            return lr
        lr = lr.clone()
        for k in range(len(lr)):
            if float(torch.rand((), generator=g)) < WITHOUT_NEIGHBOURS:
                low, high = self._draw(0, c + 1, g), self._draw(c, 2 * c + 1, g)
                lr[k] = lr[k, torch.arange(2 * c + 1).clamp(low, high).to(lr.device)]
        return lr

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
            return (torch.rand(n, 1, 1, 1, generator=g) * (high - low) + low).to(hr.device)

        # drawn in any case, so that trainings with and without differ by nothing else
        detail_share = uniform(*KERNEL)
        if "kernel" in self.config.augmentations:
            blur = as_tensor(gaussian_matrix(side, 1.0), hr)
            hr = hr + detail_share * (hr - apply_in_plane(hr, blur, blur))
        noise = torch.randn(hr.shape, generator=g).to(hr.device)
        sigma_px = float(torch.rand((), generator=g)) * 1.2
        if sigma_px > 0.3:  # below, a sampled Gaussian is the identity
            blur = as_tensor(gaussian_matrix(side, round(sigma_px, 1)), hr)
            noise = apply_in_plane(noise, blur, blur)
            noise = noise / noise.std()
        level = uniform(-NOISE_HU, NOISE_HU).clamp(min=0)  # half of the items stay as they are
        if "noise" not in self.config.augmentations:
            return hr.clamp(min=FLOOR_HU)
        return (hr + level * noise).clamp(min=FLOOR_HU)


def cut_margin(image: Tensor, margin: int) -> Tensor:
    """The inner part of (..., y, x)."""
    return image[..., margin:-margin, margin:-margin]


def exact_map(per_mille: Tensor) -> Tensor:
    """A stored structure map (see `uhrct.training.data.phantoms`) as [0, 1], with NaN for what is not known.

    Example
    -------
    >>> exact_map(torch.tensor([-1.0, 0.0, 500.0]))
    tensor([   nan, 0.0000, 0.5000])
    """
    return torch.where(per_mille < 0, torch.nan, per_mille / 1000)


def hr_crop(hr: Tensor, model: Model) -> Tensor:
    """HR images (B, sz, y', x') without their margin."""
    _, sy, sx = model.config.scale
    return hr[..., MARGIN * sy : -MARGIN * sy, MARGIN * sx : -MARGIN * sx]


def hr_spacing(batch: Batch, model: Model) -> list[tuple[float, float]]:
    """Spacing of the HR pixels (y, x) of each item, in mm."""
    _, sy, sx = model.config.scale
    return [(a / sy, b / sx) for a, b in batch.spacing_mm]


def lr_channels(hr: Tensor, model: Model) -> Tensor:
    """HR (B, sz, y', x'), margin included, to sub-voxel channels (B, sz sy sx, y, x) of the crop."""
    _, sy, sx = model.config.scale
    return cut_margin(to_channels(hr, sy, sx), MARGIN)
