"""Simulate a low-resolution scan from a high-resolution one, with the model of the scanner."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from uhrct.core.arguments import choice, number, scale_factors, whole
from uhrct.core.errors import InputRefused, UhrctError
from uhrct.core.hu import FLOOR_HU, PADDING_HU
from uhrct.core.volume import Grid, Volume
from uhrct.physics.acquisition import KINDS, Acquisition
from uhrct.physics.kernels import STANDARD, Kernel
from uhrct.physics.scan_properties import nearly_square


def degrade(
    volume: Volume,
    *,
    scale: Any,
    kind: str = "scanner",
    psf_fwhm_mm: float | None = None,
    kernel: Kernel | None = None,
    slice_thickness_mm: float | None = None,
    noise_hu: float = 0.0,
    seed: int = 0,
) -> Volume:
    """Simulate the low-resolution (LR) scan of a volume. Sides are cropped at their end to a multiple of the scale.

    Padding outside the field of view does not mix with the image: LR voxels that are mostly padding become padding.

    Parameters
    ----------
    volume : Volume
        HU, (z, y, x).
    scale : int, str or (z, y, x)
        HR voxels per LR voxel: 2 in plane, or (5, 1, 1) or "5x1x1" per axis.
    kind : "scanner" or "bicubic"
        See `uhrct.physics.acquisition.Acquisition`.
    psf_fwhm_mm : float, optional
        In-plane PSF, full width at half maximum. Default: 0.6 of the LR pixel.
    kernel : Kernel, optional
        Reconstruction kernel of the LR scan, in place of `psf_fwhm_mm`. The blur of the volume itself is added to it.
    slice_thickness_mm : float, optional
        Thickness of LR slices where `scale[0]` > 1, with the thickness of the volume's own slices counted
        (`slab_width_mm`). Default: LR slices join `scale[0]` slices, from the outer face of the first to that of the
        last.
    noise_hu : float
        Standard deviation, in soft tissue, of noise added to the LR scan. It has the spectrum of `kernel` (default: a
        standard kernel), and is stronger in the middle of the body and behind bone (`uhrct.physics.noise`).
    seed : int
        Selects the noise.

    Raises
    ------
    UhrctError
        If an argument is impossible, the volume is smaller than one LR voxel, or it holds NaN.

    Example
    -------
    >>> hr = Volume(np.full((1, 5, 8), -1000, np.int16), spacing_mm=(1.0, 0.5, 0.5))
    >>> degrade(hr, scale=(1, 2, 2)).shape
    (1, 2, 4)
    """
    import torch

    from uhrct.physics.kernels import apply_kernel
    from uhrct.physics.noise import add_noise

    if not isinstance(volume, Volume):
        raise UhrctError(f"`volume` is a {type(volume).__name__}; give a Volume, such as the result of uhrct.read")
    scale = check_degradation(scale, kind, psf_fwhm_mm, kernel, slice_thickness_mm, noise_hu, seed)
    sz = scale[0]
    z, y, x = (n // s * s for n, s in zip(volume.shape, scale, strict=True))
    if 0 in (z, y, x):
        raise UhrctError(f"a volume of {volume.shape} voxels is too small for scale {scale}")
    cropped = Grid((z, y, x), volume.spacing_mm, volume.origin_mm, volume.direction, volume.slice_thickness_mm)
    grid = cropped.coarsened(scale)
    acquisition = Acquisition(scale, kind)
    if kernel is not None:
        psf_fwhm_mm = 0.0
    if psf_fwhm_mm:
        _, y_mm, x_mm = grid.spacing_mm
        if not nearly_square(y_mm, x_mm):
            raise UhrctError(
                f"`psf_fwhm_mm` needs square pixels; those of the result are {y_mm:.3g} x {x_mm:.3g} mm. Give `kernel`"
            )
    if psf_fwhm_mm is not None:
        acquisition = replace(acquisition, psf_fwhm=psf_fwhm_mm / grid.spacing_mm[1])
    if slice_thickness_mm is not None and sz > 1:
        width_mm = slab_width_mm(volume.grid, slice_thickness_mm)
        acquisition = replace(acquisition, slice_thickness=width_mm / grid.spacing_mm[0])
        grid = replace(grid, slice_thickness_mm=slice_thickness_mm)
    # slices thicker than their distance also average over the voxels of their neighbours
    around = 0 if acquisition.slice_by_slice else int(np.ceil((acquisition.slice_thickness - 1) / 2))
    lr = np.empty(grid.shape, volume.hu.dtype)
    generator = torch.Generator().manual_seed(seed)
    for k in range(grid.shape[0]):
        first, last = max(k - around, 0), min(k + around + 1, grid.shape[0])
        hr = torch.from_numpy(volume.hu[first * sz : last * sz, :y, :x].astype(np.float32))
        if not torch.isfinite(hr).all():
            raise InputRefused("the scan holds NaN or infinite values; replace them (by -1000 for air) and try again")
        padding = hr <= PADDING_HU
        held = hr.masked_fill(padding, FLOOR_HU)
        if kernel is not None:
            held = apply_kernel(held, volume.spacing_mm[1:], kernel)
        out = acquisition.forward(held)[k - first]
        if noise_hu:
            out = add_noise(out, grid.spacing_mm[1:], noise_hu, kernel or STANDARD, generator)
        if padding.any():
            share = replace(acquisition, kind="scanner", psf_fwhm=0.0).forward(padding.float())[k - first]
            out = torch.where(share > 0.5, hr[padding].min(), out)
        if lr.dtype == np.int16:  # noise and the overshoot of bicubic must not wrap around beside clipped metal
            out = out.round().clamp(-(2**15), 2**15 - 1)
        lr[k] = out.numpy()
    return volume.on_grid(grid, lr)


def slab_width_mm(source: Grid, thickness_mm: float) -> float:
    """Width over which slices of `source` are averaged to make slices of a thickness.

    Slices have a thickness of their own. Their mean over a width w along z is as thick as w, plus what one slice is
    thicker than its distance from the next.

    Raises
    ------
    UhrctError
        If the slices of the source are thicker than `thickness_mm`, or all of them together are thinner.

    Example
    -------
    >>> round(slab_width_mm(Grid((95, 512, 512), (0.8, 0.65, 0.65), slice_thickness_mm=1.25), 4.45), 6)
    4.0
    """
    own_mm, distance_mm = source.slice_thickness_mm or source.spacing_mm[0], source.spacing_mm[0]
    if thickness_mm < own_mm - 1e-6:
        raise UhrctError(
            f"`slice_thickness_mm` is {thickness_mm:g}; the slices of the scan are {own_mm:g} mm thick already"
        )
    length_mm = (source.shape[0] - 1) * distance_mm + own_mm
    if thickness_mm > length_mm + 1e-6:
        raise UhrctError(f"`slice_thickness_mm` is {thickness_mm:g}; the whole scan is {length_mm:.0f} mm long")
    return thickness_mm - own_mm + distance_mm


def check_degradation(
    scale: Any,
    kind: str = "scanner",
    psf_fwhm_mm: float | None = None,
    kernel: Kernel | None = None,
    slice_thickness_mm: float | None = None,
    noise_hu: float = 0.0,
    seed: int = 0,
) -> tuple[int, int, int]:
    """The scale as (z, y, x). Raises `UhrctError` for arguments that `degrade` refuses, before a volume is read."""
    factors = scale_factors("scale", scale)
    choice("kind", kind, KINDS)
    number("noise_hu", noise_hu, 0, 1e4)
    whole("seed", seed, 0, 2**63 - 1)
    if psf_fwhm_mm is not None:
        number("psf_fwhm_mm", psf_fwhm_mm, 0, 1e3)
        if factors[1:] == (1, 1):
            raise UhrctError("`psf_fwhm_mm` has no effect where the pixels stay; leave it out, or give `kernel`")
    if psf_fwhm_mm is not None and kernel is not None:
        raise UhrctError("`psf_fwhm_mm` and `kernel` exclude each other; give one of them")
    for name, given in (("psf_fwhm_mm", psf_fwhm_mm is not None), ("kernel", kernel is not None)):
        if given and kind != "scanner":
            raise UhrctError(f"`{name}` needs `kind=scanner`; {kind} downsampling has no PSF")
    if slice_thickness_mm is not None:
        if not number("slice_thickness_mm", slice_thickness_mm, 0, 1e3):
            raise UhrctError("`slice_thickness_mm` is 0; give a number above 0")
        if factors[0] == 1:
            raise UhrctError("`slice_thickness_mm` needs a scale that makes slices thicker, such as `scale=5x1x1`")
    return factors
