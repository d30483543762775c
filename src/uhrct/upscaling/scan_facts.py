"""Simple numbers of a scan, by which it is compared with the scans of training and calibration."""

from __future__ import annotations

import numpy as np

from uhrct.core.hu import PADDING_HU
from uhrct.core.volume import Volume
from uhrct.physics.kernel_names import kernel_lp_cm
from uhrct.physics.scan_noise import measure_noise

#: HU above which a voxel counts as body (lungs do not), as bone or contrast medium, and as metal
BODY_HU, BRIGHT_HU, METAL_HU = -300.0, 300.0, 3000.0
#: HU of soft tissue, with fat
SOFT_HU = (-150.0, 200.0)
#: slices that are looked at, evenly spaced
SLICES = 9


def scan_facts(volume: Volume, noise: tuple[float, float] | None = None, *, measure: bool = True) -> dict[str, float]:
    """Numbers of a scan. A number that is unknown is left out.

    Parameters
    ----------
    volume : Volume
    noise : (HU, autocorrelation at one pixel), optional
        Noise of the scan, if it is known already.
    measure : bool
        Measure the noise if it is not given.

    Returns
    -------
    dict
        pixel_mm : larger side of a pixel
        slice_mm : distance between slices
        thickness_mm : slice thickness that the file states
        noise_hu, noise_correlation : standard deviation of the noise in even tissue, and its autocorrelation at one
        pixel (in plane)
        kernel_lp_cm : 50 % point of the MTF of the kernel that the header names, in line pairs per cm
        darkest_hu : 1 % quantile
        soft_share : share of the body's voxels with the HU of soft tissue
        body_cm2 : area of the body in a slice (lungs left out), median over slices
        bright_share : share of the body's voxels with the HU of bone or contrast medium
        metal_ppm : voxels above 3000 HU per million of the body's voxels

    Example
    -------
    >>> air = Volume(np.full((1, 40, 40), -1000, np.int16), (5.0, 0.7, 0.7))
    >>> scan_facts(air)["darkest_hu"]
    -1000.0
    """
    z_mm, y_mm, x_mm = volume.spacing_mm
    n = volume.shape[0]
    picked = volume.hu[np.unique(np.linspace(0.1 * (n - 1), 0.9 * (n - 1), SLICES).round().astype(int))]
    facts = {"pixel_mm": max(y_mm, x_mm)}
    if n > 1:
        facts["slice_mm"] = z_mm
    if volume.slice_thickness_mm is not None:
        facts["thickness_mm"] = volume.slice_thickness_mm
    if noise is None and measure:
        found = measure_noise(picked, (y_mm, x_mm))
        noise = (found.sigma_hu, found.autocorrelation[0]) if found.reliable else None
    if noise is not None:
        facts["noise_hu"], facts["noise_correlation"] = noise
    if (kernel := kernel_lp_cm(volume.meta.get("dicom"))) is not None:
        facts["kernel_lp_cm"] = kernel
    seen = picked[picked > PADDING_HU]
    if not len(seen):
        return facts
    facts["darkest_hu"] = float(np.quantile(seen, 0.01))
    inside = seen[seen > BODY_HU]
    facts["soft_share"] = float(((inside > SOFT_HU[0]) & (inside < SOFT_HU[1])).mean()) if len(inside) else 0.0
    areas = (picked > BODY_HU).sum((1, 2)) * y_mm * x_mm / 100
    facts["body_cm2"] = float(np.median(areas))
    facts["bright_share"] = float((inside > BRIGHT_HU).mean()) if len(inside) else 0.0
    facts["metal_ppm"] = float(1e6 * (inside > METAL_HU).mean()) if len(inside) else 0.0
    return facts
