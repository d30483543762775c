"""Simulates low-resolution scans of many kinds from high-resolution crops."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from uhrct.core.hu import FLOOR_HU
from uhrct.physics.acquisition import Acquisition, correlated_noise, fwhm_of_correlation, sharpened
from uhrct.physics.kernels import Kernel, draw_kernel
from uhrct.physics.noise import add_noise, noise_field
from uhrct.physics.resampling import apply_in_plane, as_tensor
from uhrct.physics.scan_properties import ScanProperties

#: ranges that training covers: PSF in LR pixels, kernel, noise, slab width over slice distance
PSF_FWHM = (0.4, 1.2)
SHARPENING = (0.0, 0.9)
#: PSF and kernel that together pass nearly what bicubic downsampling passes, as body kernels do: all low frequencies,
#: then little. A share of the scans has them, so that the estimator does not mistake them for a wide PSF.
FLAT, FLAT_SHARE = (0.8, 0.3), 0.2
NOISE_HU = (0.0, 60.0)
NOISE_CORRELATION = (0.0, 0.65)
SLICE_THICKNESS = (0.5, 2.5)
#: blur of the slice profile by the scanner; networks are never given it, because no file holds it
SLICE_FWHM = (0.0, 0.4)


def draw_properties(clean: ScanProperties, through_plane: bool, g: torch.Generator) -> ScanProperties:
    """Draw a scan: always a PSF; with probability one half each a kernel, noise and (through plane) a slab width.

    A share `FLAT_SHARE` of the scans has the PSF and kernel `FLAT`.
    """

    def uniform(bounds: tuple[float, float], step: float) -> float:
        low, high = bounds
        value = low + (high - low) * float(torch.rand((), generator=g))
        return round(round(value / step) * step, 4)  # few different values, since their matrices are cached

    coin = torch.rand(3, generator=g) < 0.5
    psf = uniform(PSF_FWHM, 0.05)
    sharpening, noise, correlation = uniform(SHARPENING, 0.01), uniform(NOISE_HU, 0.1), uniform(NOISE_CORRELATION, 0.01)
    thickness = uniform(SLICE_THICKNESS, 0.25)
    psf, sharpening = (psf, sharpening if coin[0] else 0.0)
    if float(torch.rand((), generator=g)) < FLAT_SHARE:
        psf, sharpening = FLAT
    return replace(
        clean,
        psf_fwhm=psf,
        sharpening=sharpening,
        noise_hu=noise if coin[1] else 0.0,
        noise_correlation=correlation if coin[1] else 0.0,
        slice_thickness=thickness if coin[2] and through_plane else clean.slice_thickness,
    )


def acquire(
    hr: Tensor, acquisition: Acquisition, scans: Sequence[ScanProperties], g: torch.Generator, spare: int = 0
) -> Tensor:
    """The LR stacks that the scanners `scans`, one an item, make of HR blocks.

    Parameters
    ----------
    hr : (B, (n + 2 spare) sz, y', x'), HU
    acquisition : gives scale and kind; each item its own PSF and slab width
    spare : LR slices at both ends that are there for the slabs of the others alone

    Returns
    -------
    tensor (B, n, y, x), HU
    """
    sz, sy, sx = acquisition.scale
    own = []
    for s in scans:
        a = replace(acquisition, psf_fwhm=s.psf_fwhm, slice_thickness=s.slice_thickness)
        if s != ScanProperties(psf_fwhm=acquisition.psf_fwhm, increment_mm=s.increment_mm) and sz > 1:
            a = replace(a, slice_fwhm=round(SLICE_FWHM[1] * float(torch.rand((), generator=g)), 1))
        own.append(a)
    lr = hr
    if sz > 1:
        n = hr.shape[1] // sz
        along_z = torch.stack([as_tensor(a.axis_matrix(n, 0)[spare : n - spare], hr) for a in own])
        lr = torch.bmm(along_z, hr.flatten(2)).unflatten(2, hr.shape[2:])
    rows = torch.stack([as_tensor(a.axis_matrix(hr.shape[2] // sy, 1), hr) for a in own])[:, None]
    columns = torch.stack([as_tensor(a.axis_matrix(hr.shape[3] // sx, 2), hr) for a in own])[:, None]
    lr = apply_in_plane(lr, rows, columns)
    return torch.stack([_noisy(sharpened(x, s.sharpening), s, g) for x, s in zip(lr, scans, strict=True)])


def _noisy(x: Tensor, scan: ScanProperties, g: torch.Generator) -> Tensor:
    """Noise of the scan's standard deviation and correlation, another in each slice."""
    if not scan.noise_hu:
        return x
    fwhm_px = round(fwhm_of_correlation(scan.noise_correlation), 1)  # few different values: their matrices are cached
    return x + scan.noise_hu * correlated_noise(tuple(x.shape), fwhm_px, g).to(x.device)


#: of `draw_scan`: share with the usual PSF where noise is removed, and where it is kept, as in benchmarks; ranges of
#: the others and the share of the wider range
USUAL_SHARE, USUAL_KEPT_SHARE, NARROW, WIDE, WIDE_SHARE = 0.35, 0.7, (0.4, 1.0), (1.0, 1.6), 0.35
#: share of the items that keep a part of their noise
BETWEEN = 0.3
#: share of the denoised items with added noise, and its range in HU (log-uniform)
NOISE_SHARE, SCAN_NOISE_HU = 0.6, (3.0, 80.0)
#: range of pixel sizes at which noise is simulated: kernels then look as they do in users' scans
NOISE_PIXEL_MM = (0.5, 1.0)
#: share of the items that are told their PSF, and their noise
PSF_KNOWN, NOISE_KNOWN = 0.5, 0.85
#: relative error of the noise and of the PSF that are told
NOISE_ERROR, PSF_ERROR = 0.15, 0.05
#: share of the noisy items whose noise has streaks
STREAKS = 0.3


def draw_scan(clean: ScanProperties, denoised: float, through_plane: bool, g: torch.Generator) -> ScanProperties:
    """Draw the scan of an item: PSF, kernel, slab width, the wish to remove noise, noise, and what is known."""

    def uniform(bounds: tuple[float, float], step: float) -> float:
        low, high = bounds
        return round(round((low + (high - low) * float(torch.rand((), generator=g))) / step) * step, 4)

    coin = torch.rand(9, generator=g).tolist()
    narrow, wide = uniform(NARROW, 0.05), uniform(WIDE, 0.05)
    # the wish of some items lies between the two
    between = 0 < denoised < 1 and coin[2] < BETWEEN
    denoise = round(coin[2] / BETWEEN, 3) if between else float(coin[8] < denoised)
    usual = coin[0] < (USUAL_SHARE if denoise else USUAL_KEPT_SHARE)
    psf = clean.psf_fwhm if usual else wide if coin[1] < WIDE_SHARE else narrow
    sharpening, thickness = uniform(SHARPENING, 0.05), uniform(SLICE_THICKNESS, 0.25)
    low, high = (math.log(v) for v in SCAN_NOISE_HU)
    noise = math.exp(uniform((low, high), 1e-4))
    return replace(
        clean,
        psf_fwhm=psf,
        sharpening=sharpening if coin[3] < 0.25 and not usual else 0.0,
        slice_thickness=thickness if coin[4] < 0.4 and through_plane else clean.slice_thickness,
        denoise=denoise,
        noise_hu=noise if denoise and coin[5] < NOISE_SHARE else 0.0,
        psf_known=coin[6] < PSF_KNOWN,
        noise_known=coin[7] < NOISE_KNOWN,
    )


def draw_noise_kernel(g: torch.Generator) -> tuple[Kernel, float]:
    """(kernel of the noise of a reconstruction, size in mm of the pixels on which it is drawn)."""
    kernel = draw_kernel(g)
    pixel = NOISE_PIXEL_MM[0] + (NOISE_PIXEL_MM[1] - NOISE_PIXEL_MM[0]) * float(torch.rand((), generator=g))
    return kernel, round(pixel, 2)


def add_scan_noise(
    image: Tensor,
    relative: Tensor | None,
    turn: Callable[[Tensor], Tensor],
    sigma_hu: float,
    g: torch.Generator,
    drawn: tuple[Kernel, float] | None = None,
) -> Tensor:
    """A stack (n, y, x) with the noise of a reconstruction, another in each slice.

    `relative` (directions, y', x') holds the noise maps of the crop before it was flipped and transposed by `turn`.
    `drawn` is the kernel and the pixel size; None: they are drawn here.
    """
    kernel, pixel = drawn or draw_noise_kernel(g)
    shape = tuple(image.shape)
    if relative is None:
        return image + sigma_hu * noise_field(shape, (pixel, pixel), kernel, g).to(image.device)
    maps = F.interpolate(relative.cpu()[None], shape[1:], mode="bilinear")[0]
    if float(torch.rand((), generator=g)) < STREAKS:
        zero = torch.zeros(shape[1:])
        noise = torch.stack([add_noise(zero, (pixel, pixel), sigma_hu, kernel, g, maps) for _ in range(shape[0])])
    else:
        noise = sigma_hu * noise_field(shape, (pixel, pixel), kernel, g) * maps.square().mean(0).sqrt()
    # a scanner clips at the floor of its range, so air outside the body has little noise
    return (image + turn(noise.to(image.device))).clamp(min=FLOOR_HU)


def add_noises(
    images: Tensor,
    maps: list[Tensor | None],
    turns: list[Callable[[Tensor], Tensor]],
    sigmas_hu: list[float],
    g: torch.Generator,
) -> tuple[Tensor, list[float | None]]:
    """(stacks (B, n, y, x) with `add_scan_noise`; 50 % points of the kernels of that noise, in line pairs per pixel).

    Where the standard deviation is 0 there is no noise, and no kernel.
    """
    out, kernels = list(images), list[float | None]()
    for k, sigma_hu in enumerate(sigmas_hu):
        kernels.append(None)
        if sigma_hu:
            kernel, pixel_mm = drawn = draw_noise_kernel(g)
            out[k] = add_scan_noise(images[k], maps[k], turns[k], sigma_hu, g, drawn)
            kernels[k] = kernel.mtf50_lp_cm / 10 * pixel_mm
    return torch.stack(out), kernels


def told(scan: ScanProperties, lr: Tensor, lr_clean: Tensor) -> ScanProperties:
    """The scan with the noise that a robust measurement in its voxels would find."""
    middle = len(lr) // 2
    d = (lr - lr_clean)[middle]
    inside = lr_clean[middle] > -500
    if inside.float().mean() < 0.02:
        inside = torch.ones_like(inside)
    values = d[inside]
    sigma = 1.4826 * float((values - values.median()).abs().median())
    bound = d.clamp(-4 * sigma, 4 * sigma) if sigma > 0 else d
    power = float((bound[:, 1:] * bound[:, :-1]).mean() + (bound[1:] * bound[:-1]).mean()) / 2
    correlation = power / max(float(bound.square().mean()), 1e-6)
    return replace(scan, noise_hu=min(sigma, 200.0), noise_correlation=min(max(correlation, -0.5), 0.95))


def misread(scan: ScanProperties, g: torch.Generator) -> ScanProperties:
    """The scan with errors as a measurement has them, so that networks do not trust what they are told too much."""
    noise, psf = torch.randn(2, generator=g).tolist()
    noise_hu = min(scan.noise_hu * math.exp(NOISE_ERROR * noise), 200.0)
    return replace(scan, noise_hu=noise_hu, psf_fwhm=scan.psf_fwhm * math.exp(PSF_ERROR * psf))
