"""Batches of low-resolution crops and their truth, made on the device from the training series."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from uhrct.core.errors import UhrctError
from uhrct.core.hu import FLOOR_HU
from uhrct.models.interval import kernel_input
from uhrct.physics.acquisition import Acquisition
from uhrct.physics.resampling import apply_in_plane, as_tensor, gaussian_matrix, resize_matrix
from uhrct.physics.scan_properties import ScanProperties
from uhrct.training.config import DataSettings
from uhrct.training.data.batch import MARGIN, Batch, exact_map
from uhrct.training.data.patients import Lungs, Patient
from uhrct.training.data.scanners import acquire, add_noises, draw_properties, draw_scan, misread, told

#: factors of the rescaled grids. A downsampled image is a cleaner and sharper truth with another spacing.
RESCALE = (1.25, 1.5, 1.75, 2.0)
#: kernel augmentation: share of the detail (image minus its blur by 1 pixel) that is added or taken away
KERNEL = (-0.6, 0.8)
#: noise augmentation of the truth: largest standard deviation in HU
NOISE_HU = 30.0
#: largest distance between slices that averaging (through plane) or skipping (neighbours) of slices may give
INCREMENT_MM = 3.0
#: more LR slices at both ends of a through-plane block, for slabs that overlap
SPARE = 1
#: share of the items without some or all of their neighbours, as at the end of a volume or in a single slice
WITHOUT_NEIGHBOURS = 0.15
#: share of the items whose kernel the interval network is not told
KERNEL_HIDDEN = 0.3
#: share of the items whose scan is made from the denoised series: users' scans can be smooth too, by soft kernels,
#: iterative reconstruction or denoising, and must not look blurred to a network that knows noisy ones only
SMOOTH_SHARE = 0.2
#: distance between slices where a series does not say it
UNKNOWN_SPACING_MM = 2.5


@dataclass(frozen=True)
class _Crop:
    """One block of the truth (slices, y', x'), with the spacing of its LR pixels and slices.

    `lr_hu` (n, y, x) is the measured scan, where the series is a real pair. `structure` and `lungs` have the shape of
    `hu`, where they are known.
    """

    hu: Tensor
    spacing_mm: tuple[float, float]
    increment_mm: float
    lr_hu: Tensor | None = None
    structure: Tensor | None = None
    lungs: Tensor | None = None
    clean: Tensor | None = None
    noise_map: Tensor | None = None  # (directions, y, x) of the LR crop, as it was before `turn`
    turn: Callable[[Tensor], Tensor] = lambda volume: volume


class BatchMaker:
    """Makes the batch of any step: random crops, flips, grids, kernels and noise, then the low-resolution scan of them.

    Everything random comes from a ``torch.Generator`` that is seeded by (seed, step, rank). So a resumed training sees
    the same batches as one that was not interrupted.

    Parameters
    ----------
    patients : training series; `usable` leaves out those that do not fit the scale
    settings : batch size, crop, shares of augmented and degraded items
    acquisition : how a clean LR scan comes from the truth; it holds the scale
    context : neighbours on each side of an LR slice
    lungs : whether batches say where the lungs are
    as_scanned : whether the target is the scan as it is, with all of its noise, whatever share of it shall be removed

    Raises
    ------
    UhrctError
        If slices are smaller than a crop, or no series can be used.
    """

    def __init__(
        self,
        patients: list[Patient],
        settings: DataSettings,
        acquisition: Acquisition,
        *,
        context: int = 0,
        seed: int = 0,
        lungs: bool = False,
        as_scanned: bool = False,
    ) -> None:
        self.as_scanned = as_scanned
        self.settings, self.acquisition, self.context, self.seed = settings, acquisition, context, seed
        self.sz, self.sy, self.sx = acquisition.scale
        self.spare = SPARE if self.sz > 1 else 0
        #: HR slices of a block
        self.depth = (2 * (context + self.spare) + 1) * self.sz
        self.patients, self.left_out = self._usable(patients)
        self.shares = torch.tensor([p.weight for p in self.patients])
        #: whether any series has an exact structure map
        self.exact = any(p.structure is not None for p in self.patients)
        self.lungs = [Lungs.of(p) for p in self.patients] if lungs else None
        need = (settings.crop + 2 * MARGIN) * max(self.sy, self.sx)
        small = [p.name for p in self.patients if min(p.hu.shape[1:]) < need]
        if small:
            raise UhrctError(f"series {small[0]}: slices are smaller than a crop of {need} pixels; set data.crop lower")

    def _usable(self, patients: list[Patient]) -> tuple[list[Patient], list[str]]:
        """The series that can be used, and one line for each reason to leave others out.

        Through plane a series needs enough slices for one block, and thin ones: see `max_slice_spacing_mm`.
        """
        drawn = [p for p in patients if p.weight]
        if self.sz == 1:
            return drawn, []
        most_mm = self.settings.max_slice_spacing_mm
        short = [p.name for p in drawn if len(p.hu) < self.depth]
        thick = [p.name for p in drawn if p.name not in short and (p.spacing_z_mm or UNKNOWN_SPACING_MM) > most_mm]
        reasons = {
            f"fewer than {self.depth} slices": short,
            f"slices more than {most_mm:g} mm apart (data.max_slice_spacing_mm)": thick,
        }
        notes = [f"{len(names)} series left out, {why}: {_some(names)}" for why, names in reasons.items() if names]
        usable = [p for p in drawn if p.name not in {*short, *thick}]
        if not usable:
            raise UhrctError(f"no series can be used at scale {self.acquisition.scale}: {'; '.join(notes)}")
        return usable, notes

    def __call__(self, step: int, rank: int = 0) -> Batch:
        """The batch of a step."""
        settings = self.settings
        g = torch.Generator().manual_seed((self.seed * 1_000_003 + step) * 1009 + rank)
        n_augmented = round(settings.batch * settings.augmented)
        plain = settings.batch - n_augmented
        factor = RESCALE[int(torch.randint(len(RESCALE), (), generator=g))]
        drawn = torch.multinomial(self.shares, settings.batch, replacement=True, generator=g).tolist()
        crops = [self._crop(k, 1.0 if i < plain else factor, g) for i, k in enumerate(drawn)]
        hr = torch.stack([c.hu for c in crops])
        if settings.clean:
            hr, lr, scans, kernels = self._denoised(hr, crops, plain, g)
        else:
            if n_augmented:
                hr = torch.cat([hr[:plain], self._vary(hr[plain:], g)])
            scans = [self._scan(c, g) for c in crops]
            kernels = [None] * len(scans)
            lr = acquire(hr, self.acquisition, scans, g, self.spare)
        for i, c in enumerate(crops):
            if c.lr_hu is not None:  # measured, not simulated
                hr[i], lr[i] = c.hu, c.lr_hu
        first = (self.context + self.spare) * self.sz
        inside = slice(first, first + self.sz)
        kernel = self._kernel(drawn, crops, kernels, g) if self.as_scanned else None
        structure = lungs = None
        if self.exact:
            unknown = torch.full_like(hr[0], torch.nan)
            structure = torch.stack([unknown if c.structure is None else c.structure for c in crops])[:, inside]
        if self.lungs is not None:
            lungs = torch.stack([c.lungs for c in crops if c.lungs is not None])[:, inside]
        return Batch(
            lr_hu=self._without_neighbours(lr, g),
            hr_hu=hr[:, inside],
            spacing_mm=[c.spacing_mm for c in crops],
            properties=torch.tensor([misread(s, g).conditions() for s in scans], device=hr.device),
            scans=tuple(scans),
            increment_mm=tuple(c.increment_mm for c in crops),
            structure=structure,
            lungs=lungs,
            kernel=kernel,
        )

    def _kernel(self, drawn: list[int], crops: list[_Crop], added: list[float | None], g: torch.Generator) -> Tensor:
        """What the interval network is told: the kernel of the scan, or that of the noise that was added to it."""
        shown = torch.rand(len(drawn), generator=g) >= KERNEL_HIDDEN
        rows = []
        for number, c, lp_px, show in zip(drawn, crops, added, shown.tolist(), strict=True):
            fine_mm = max(c.spacing_mm) / max(self.sy, self.sx)
            kernel = self.patients[number].kernel_lp_cm if lp_px is None else 10 * lp_px / fine_mm
            rows.append(kernel_input(kernel if show else None, fine_mm))
        return torch.tensor(rows, device=crops[0].hu.device)

    def _denoised(
        self, hr: Tensor, crops: list[_Crop], plain: int, g: torch.Generator
    ) -> tuple[Tensor, Tensor, list[ScanProperties], list[float | None]]:
        """(targets, LR, scan properties, kernels of added noise). Targets are denoised, in part, or not at all.

        The LR is made from the scan as it is, but for a share `SMOOTH_SHARE` from the denoised one. What is told as
        noise is the difference between that LR, with the noise that was added, and the LR of the denoised scan.
        """
        clean = torch.stack([c.clean for c in crops if c.clean is not None])
        smooth = torch.rand(len(hr), 1, 1, 1, generator=g) < SMOOTH_SHARE
        hr = torch.where(smooth.to(hr.device), clean, hr)
        if plain < len(hr):
            low, high = KERNEL
            share = (torch.rand(len(hr) - plain, 1, 1, 1, generator=g) * (high - low) + low).to(hr.device)
            hr, clean = (torch.cat([v[:plain], _detail(v[plain:], share).clamp(min=FLOOR_HU)]) for v in (hr, clean))
        usual, removed = ScanProperties(psf_fwhm=self.acquisition.psf_fwhm), self.settings.denoised
        scans = [draw_scan(replace(usual, increment_mm=c.increment_mm), removed, self.sz > 1, g) for c in crops]
        # noise that is kept in part, or that the target shall show, must be in the target too
        maps, turns = [c.noise_map for c in crops], [c.turn for c in crops]
        kept = [self.as_scanned or s.denoise < 1 for s in scans]
        levels_hu = [(s.noise_hu, 0.0) if k else (0.0, s.noise_hu) for s, k in zip(scans, kept, strict=True)]
        hr, kernels = add_noises(hr, maps, turns, [level for level, _ in levels_hu], g)
        silent = [replace(s, noise_hu=0.0) for s in scans]
        state = g.get_state()
        lr = acquire(hr, self.acquisition, silent, g, self.spare)
        g.set_state(state)  # the same scanner, down to the slice profile that it draws
        lr_clean = acquire(clean, self.acquisition, silent, g, self.spare)
        lr, _ = add_noises(lr, maps, turns, [level for _, level in levels_hu], g)
        scans = [told(s, a, b) for s, a, b in zip(scans, lr, lr_clean, strict=True)]
        if self.as_scanned:
            return hr, lr, scans, kernels
        removed_share = torch.tensor([s.denoise for s in scans]).to(hr)[:, None, None, None]
        return torch.lerp(hr, clean, removed_share), lr, scans, kernels

    def _scan(self, crop: _Crop, g: torch.Generator) -> ScanProperties:
        """The scan that an item comes from: the clean one, or for a share of the items another one."""
        clean = ScanProperties(psf_fwhm=self.acquisition.psf_fwhm, increment_mm=crop.increment_mm)
        if crop.lr_hu is not None or float(torch.rand((), generator=g)) >= self.settings.degraded:
            return clean
        return draw_properties(clean, self.sz > 1, g)

    def _crop(self, number: int, factor: float, g: torch.Generator) -> _Crop:
        """A block of the truth, with margin, from a series whose grid is made coarser in plane by `factor`."""
        p = self.patients[number]
        side = (self.settings.crop + 2 * MARGIN) * max(self.sy, self.sx)
        paired = self._is_pair(p)
        source = min(side if paired else round(side * factor), *p.hu.shape[1:])
        y, x = (_draw(*bounds, g) for bounds in _corners(p, source))
        slices, increment_mm = self._slices(p, g)

        def block(volume: Tensor, numbers: Tensor) -> Tensor:
            return volume[:, y : y + source, x : x + source][numbers.to(volume.device)].float()

        crop = block(p.hu, slices).unflatten(0, (self.depth, -1)).mean(1)
        measured = structure = lungs = None
        clean = None if p.clean is None else block(p.clean, slices).unflatten(0, (self.depth, -1)).mean(1)
        noise_map = None
        if p.noise_maps is not None:
            middle = p.noise_maps[int(slices[len(slices) // 2])].float()
            noise_map = _cut_map(middle, (y, x), source, p.hu.shape[1:], self.settings.crop + 2 * MARGIN)
        if paired:
            assert p.lr_hu is not None
            thick = slices.unflatten(0, (-1, self.sz))[self.spare : -self.spare, 0] // self.sz
            measured = block(p.lr_hu, thick)
        if p.structure is not None:
            # one unknown voxel makes an average unknown
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

        crop = turned(crop)
        measured, structure, lungs, clean = (
            None if v is None else turned(v) for v in (measured, structure, lungs, clean)
        )
        if source != side:
            shrink = as_tensor(resize_matrix(source, side), crop)
            crop = apply_in_plane(crop, shrink, shrink)
            clean = None if clean is None else apply_in_plane(clean, shrink, shrink)
            # the maximum keeps every twig, though thicker; NaN stays NaN
            structure = None if structure is None else F.adaptive_max_pool2d(structure, side)
        spacing_mm = (dy * self.sy, dx * self.sx)
        return _Crop(crop.contiguous(), spacing_mm, increment_mm, measured, structure, lungs, clean, noise_map, turned)

    def _is_pair(self, p: Patient) -> bool:
        """Whether the measured LR scan of a series has the scale that is trained."""
        wanted = (len(p.hu) // self.sz, p.hu.shape[1] // self.sy, p.hu.shape[2] // self.sx)
        return p.lr_hu is not None and self.sz > 1 and self.sy == self.sx == 1 and tuple(p.lr_hu.shape) == wanted

    def _slices(self, p: Patient, g: torch.Generator) -> tuple[Tensor, float]:
        """(numbers of the slices in a block, distance between its LR slices in mm).

        Through plane some neighbouring slices are averaged into one HR slice. In plane some are skipped, and beyond an
        end of the series its last slice is repeated.
        """
        apart_mm = p.spacing_z_mm or UNKNOWN_SPACING_MM
        most = max(1, int(INCREMENT_MM / apart_mm))
        if self.sz > 1:
            most = max(1, min(most, len(p.hu) // self.depth))
        every = 1 if self._is_pair(p) else _draw(1, most + 1, g)
        if self.sz == 1:
            z = _draw(0, len(p.hu), g)
            offset = torch.arange(-self.context, self.context + 1).clamp(-(z // every), (len(p.hu) - 1 - z) // every)
            return z + every * offset, apart_mm * every
        first = _draw(0, len(p.hu) - self.depth * every + 1, g)
        if self._is_pair(p):  # a block starts where a measured slice starts
            first -= first % self.sz
        return first + torch.arange(self.depth * every), apart_mm * every * self.sz

    def _without_neighbours(self, lr: Tensor, g: torch.Generator) -> Tensor:
        """Some items as at an end of their volume, where the last slice is repeated, or alone."""
        c = self.context
        if not c:
            return lr
        lr = lr.clone()
        for k in range(len(lr)):
            if float(torch.rand((), generator=g)) < WITHOUT_NEIGHBOURS:
                low, high = _draw(0, c + 1, g), _draw(c, 2 * c + 1, g)
                lr[k] = lr[k, torch.arange(2 * c + 1).clamp(low, high).to(lr.device)]
        return lr

    def _vary(self, hr: Tensor, g: torch.Generator) -> Tensor:
        """Another kernel (more or less detail) and more quantum noise, drawn for each item."""
        n, side = hr.shape[0], hr.shape[-1]

        def uniform(low: float, high: float) -> Tensor:
            return (torch.rand(n, 1, 1, 1, generator=g) * (high - low) + low).to(hr.device)

        hr = _detail(hr, uniform(*KERNEL))
        noise = torch.randn(hr.shape, generator=g).to(hr.device)
        sigma_px = float(torch.rand((), generator=g)) * 1.2
        if sigma_px > 0.3:  # below, a sampled Gaussian is the identity
            blur = as_tensor(gaussian_matrix(side, round(sigma_px, 1)), hr)
            noise = apply_in_plane(noise, blur, blur)
            noise = noise / noise.std()
        level_hu = uniform(-NOISE_HU, NOISE_HU).clamp(min=0)  # half of the items get no noise
        return (hr + level_hu * noise).clamp(min=FLOOR_HU)


def _detail(hr: Tensor, share: Tensor) -> Tensor:
    """Another kernel: a share of the detail is added, or taken away where it is negative."""
    blur = as_tensor(gaussian_matrix(hr.shape[-1], 1.0), hr)
    return hr + share * (hr - apply_in_plane(hr, blur, blur))


def _cut_map(maps: Tensor, corner: tuple[int, int], source: int, shape: Any, side: int) -> Tensor:
    """The part of coarse maps (directions, 64, 64) of a whole slice that a crop covers, on `side` x `side` pixels."""
    at = []
    for start, n in zip(corner, shape, strict=True):
        place = start + (torch.arange(side) + 0.5) * source / side
        at.append(2 * place / n - 1)
    grid = torch.stack(torch.meshgrid(*at, indexing="ij")[::-1], -1)[None].to(maps.device)
    return F.grid_sample(maps[None], grid, padding_mode="border", align_corners=False)[0]


def _draw(low: int, high: int, g: torch.Generator) -> int:
    """A whole number from low to high - 1."""
    return int(torch.randint(low, max(high, low + 1), (), generator=g))


def _corners(p: Patient, side: int) -> list[tuple[int, int]]:
    """Bounds of the corner of a crop along y and x, so that its middle lies in the body where the crop fits."""
    out = []
    for n, first, last in ((p.hu.shape[1], *p.body[:2]), (p.hu.shape[2], *p.body[2:])):
        low = min(max(first - side // 2, 0), n - side)
        high = min(max(last - side // 2, low), n - side)
        out.append((low, high + 1))
    return out


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
