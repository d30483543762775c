"""Simulates low-resolution scans of many kinds from high-resolution crops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from uhrct.physics.acquisition import Acquisition, correlated_noise, sharpened
from uhrct.physics.resampling import apply_in_plane, as_tensor
from uhrct.physics.scan_properties import ScanProperties

#: ranges that training covers: PSF in LR pixels, kernel, noise, slab width over slice distance
PSF_FWHM = (0.4, 1.2)
SHARPENING = (0.0, 0.9)
#: PSF and kernel that together pass nearly what bicubic downsampling passes, as body kernels do: all low frequencies,
#: then little. A share of the scans has them, so that the estimator does not mistake them for a wide PSF.
FLAT, FLAT_SHARE = (0.8, 0.3), 0.2
NOISE_HU = (0.0, 60.0)
NOISE_FWHM = (0.0, 1.8)
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
    sharpening, noise, correlation = uniform(SHARPENING, 0.01), uniform(NOISE_HU, 0.1), uniform(NOISE_FWHM, 0.1)
    thickness = uniform(SLICE_THICKNESS, 0.25)
    psf, sharpening = (psf, sharpening if coin[0] else 0.0)
    if float(torch.rand((), generator=g)) < FLAT_SHARE:
        psf, sharpening = FLAT
    return replace(
        clean,
        psf_fwhm=psf,
        sharpening=sharpening,
        noise_hu=noise if coin[1] else 0.0,
        noise_fwhm=correlation if coin[1] and correlation > 0.7 else 0.0,  # below, a sampled Gaussian is the identity
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
    return x + scan.noise_hu * correlated_noise(tuple(x.shape), scan.noise_fwhm, g).to(x.device)
