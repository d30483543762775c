"""What a run assumes about the scan, and why: said by the caller, said by the file, measured in the voxels, or unknown.

Nothing is guessed in silence. Every number that the networks are told has a reason, which the log, the run report and
the DICOM description repeat.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from uhrct.core.volume import Volume
from uhrct.models.estimator import Reading
from uhrct.models.model import Model
from uhrct.physics.kernel_names import named_kernel
from uhrct.physics.kernels import Kernel
from uhrct.physics.scan_noise import NoiseMeasurement, measure_noise, with_noise
from uhrct.physics.scan_properties import SILENT_HU, ScanProperties

#: share of the noise that is removed unless the caller says otherwise. Of .5, .75 and 1 it looked best on validation
#: scans: at 1 the rest of the noise becomes single strokes on an even ground.
DENOISE = 0.75
#: slices from which noise and PSF are found
ESTIMATION_SLICES = 9
#: FWHM of the Gaussian that blurs like a pixel, in pixels
PIXEL_FWHM = 0.68
#: typical FWHM of the scans that the networks learned from, in their own (fine) pixels: median over patients and
#: kernels of the training corpus, by `uhrct.physics.kernel_names`
TARGET_FWHM = 1.5
#: the table of kernels is right within about 10 %, and too wide a PSF makes halos
CAUTION = 0.8
#: an estimated PSF wider than the usual one is used to this part. Scans look wider than they are where their anatomy is
#: smoother than that of the training scans, and too wide a PSF costs more than too narrow a one: told .9 for 1.0 pixels
#: rider0117 gained .2 dB and tcga_ay_4070 lost .4 (x4)
ESTIMATE_CAUTION = 0.7
#: above this expected error in pixels, an estimated PSF is not used
LARGEST_PSF_ERROR = 0.25
#: pixels in mm up to which the noise of even tissue agrees within 15 % with regions picked by hand, in 50 slices of
#: .54 to .98 mm. In coarser pixels anatomy looks like noise, and the network is right.
FINE_PIXEL_MM = 1.0
#: network and even tissue disagree strongly if 10 HU + noise differs by this factor; its logarithm is what networks are
#: told. On fine pixels of train and validation the network usually reads too little, by a factor up to 1.4: it learned
#: to tell the noise that was added to scans which had some already. Beyond lie streaks and noise above 80 HU, which it
#: never learned; there even tissue is right.
STRONG_DISAGREEMENT = 1.45
#: overlapping patches of even tissue, in all slices, that may overrule the network. Three smooth slices of train with
#: 100 to 160 patches were measured 3 times too high
CHECK_PATCHES = 300
#: range of the training: edge enhancement
LARGEST_SHARPENING = 0.9
#: range of the training, in pixels
PSF_RANGE = (0.4, 1.6)
#: what the networks can be told: slice thickness in slice distances, and the distance
THICKNESS_RANGE, LARGEST_INCREMENT_MM = (0.2, 4.0), 20.0


@dataclass(frozen=True)
class Assumptions:
    """Scan properties, and for each group of them where the numbers come from.

    Attributes
    ----------
    scan : ScanProperties
    reasons : dict
        A few words for ``blur``, ``noise``, ``slices`` and ``denoise``.
    through_plane : bool
        Whether the model makes thinner slices. If not, the networks are not told the thickness of the slices.

    Example
    -------
    >>> scan = ScanProperties(psf_known=False, noise_hu=14.0, noise_correlation=0.4, increment_mm=0.0)
    >>> print(Assumptions(scan, {"blur": "no kernel in the file", "noise": "measured"}))
    blur (PSF) unknown (no kernel in the file); noise 14.0 HU with correlation 0.40 of neighbours (measured); one slice
    """

    scan: ScanProperties
    reasons: dict[str, str]
    through_plane: bool = False

    def __str__(self) -> str:
        return "; ".join(self.lines())

    def lines(self) -> list[str]:
        """Each property with its reason."""
        s = self.scan
        thick = f", {s.slice_thickness * s.increment_mm:.2f} mm thick" if self.through_plane else ""
        words = {
            "blur": f"PSF {s.psf_fwhm:.2f} pixels" if s.psf_known else "blur (PSF) unknown",
            "noise": f"noise {s.noise_hu:.1f} HU" if s.noise_known else "noise unknown",
            "slices": f"slices {s.increment_mm:.2f} mm apart{thick}" if s.increment_mm else "one slice",
            "denoise": f"removes {100 * s.denoise:.0f} % of noise",
        }
        if s.noise_known and s.noise_hu >= SILENT_HU:
            words["noise"] += f" with correlation {s.noise_correlation:.2f} of neighbours"
        if s.sharpening:
            words["blur"] += f" with {s.sharpening:.2f} of edge enhancement"
        if "denoise" not in self.reasons and not s.denoise:
            del words["denoise"]  # weights that have no such wish
        return [f"{w} ({self.reasons[k]})" if k in self.reasons else w for k, w in words.items()]


def assume(volume: Volume, model: Model, given: dict[str, Any], denoise: float | None) -> Assumptions:
    """Find out what a model must be told about a scan.

    Parameters
    ----------
    volume : Volume
    model : Model
        Says which properties it takes, and may hold an estimator.
    given : dict
        What the caller says, by the names of `ScanProperties`. It wins over everything else.
    denoise : float or None
        Share of the noise to remove, from 0 to 1. None: `DENOISE`.

    Returns
    -------
    Assumptions
        Noise and blur come from up to nine evenly spaced slices, so they do not depend on the ends of the scan.
    """
    n, increment_mm = volume.shape[0], volume.spacing_mm[0]
    through_plane = model.config.scale[0] > 1
    thickness_mm = (volume.slice_thickness_mm if through_plane else None) or increment_mm
    scan = ScanProperties(
        slice_thickness=min(max(thickness_mm / increment_mm, THICKNESS_RANGE[0]), THICKNESS_RANGE[1]),
        increment_mm=min(increment_mm, LARGEST_INCREMENT_MM) if n > 1 else 0.0,
    )
    reasons = {"slices": _thickness_reason(volume, model)}
    picked = np.unique(np.linspace(0.1 * (n - 1), 0.9 * (n - 1), ESTIMATION_SLICES).round().astype(int))
    if model.config.properties:
        scan, found = _measured(scan, volume, picked, model, given)
        reasons |= found | {"denoise": "default" if denoise is None else "your choice"}
        scan = replace(scan, denoise=DENOISE if denoise is None else denoise)
    known = {
        "psf_known": scan.psf_known or "psf_fwhm" in given,
        "noise_known": scan.noise_known or "noise_hu" in given,
    }
    scan = replace(scan, **known | given)
    said = {"psf_fwhm": "blur", "slice_thickness": "slices"}
    if not model.config.properties:
        said["noise_hu"] = "noise"
    chosen = {said[name]: "your choice" for name in given if name in said}
    return Assumptions(scan, reasons | chosen, through_plane)


def _thickness_reason(volume: Volume, model: Model) -> str:
    if volume.shape[0] == 1:
        return "said by the file"
    if model.config.scale[0] == 1:
        return "their thickness is not used, because this scale keeps the slices"
    if volume.slice_thickness_mm is None:
        return "assumed, because the file states no thickness"
    times = volume.slice_thickness_mm / volume.spacing_mm[0]
    if not THICKNESS_RANGE[0] <= times <= THICKNESS_RANGE[1]:
        return f"the file says {volume.slice_thickness_mm:.2f} mm thick, which is beyond what the networks can be told"
    if volume.spacing_mm[0] > LARGEST_INCREMENT_MM:
        return f"the file says {volume.spacing_mm[0]:.2f} mm apart, which is beyond what the networks can be told"
    return "said by the file"


def _measured(
    scan: ScanProperties, volume: Volume, picked: np.ndarray, model: Model, given: dict[str, Any]
) -> tuple[ScanProperties, dict[str, str]]:
    """The scan with the blur that its header or its voxels tell, and the noise that its voxels show."""
    factor = model.config.scale[1]
    kernel, why = _header_kernel(volume)
    wanted = {"psf_fwhm", "noise_hu", "noise_correlation"} - given.keys()
    reading = None
    if model.estimator is not None and wanted:
        slices = torch.from_numpy(volume.hu[picked].astype(np.float32))
        with torch.inference_mode():
            reading = model.estimator.read(slices.to(next(model.parameters()).device))
    if factor == 1:
        reasons = {"blur": "not used, because the pixels stay"}
    elif "psf_fwhm" in given:
        reasons = {"blur": "your choice"}
    elif kernel is not None:
        scan = replace(scan, psf_fwhm=psf_of_kernel(kernel, volume.spacing_mm[1], factor))
        reasons = {"blur": why}
    elif reading is not None and reading.psf_error <= LARGEST_PSF_ERROR:
        usual = ScanProperties().psf_fwhm
        width = min(reading.psf_fwhm, usual + ESTIMATE_CAUTION * max(reading.psf_fwhm - usual, 0.0))
        width = min(max(width, PSF_RANGE[0]), PSF_RANGE[1])
        scan = replace(scan, psf_fwhm=round(width, 3), sharpening=round(min(reading.sharpening, LARGEST_SHARPENING), 3))
        reasons = {"blur": f"measured by a network, expected error {reading.psf_error:.2f}; {why}"}
    else:
        scan = replace(scan, psf_known=False)
        reasons = {"blur": why}
    if {"noise_hu", "noise_correlation"} <= given.keys():
        return scan, reasons | {"noise": "your choice"}
    scan, why = _noise(scan, volume, picked, reading)
    if "noise_hu" not in given:
        return scan, reasons | {"noise": why}
    # the correlation is a property of the kernel: it stays what the voxels show
    why = why.split(", expected error")[0]  # that of the noise
    source = why if scan.noise_known else f"assumed: {why}"
    return scan, reasons | {"noise": f"your choice; its correlation {source}"}


def _noise(
    scan: ScanProperties, volume: Volume, picked: np.ndarray, reading: Reading | None
) -> tuple[ScanProperties, str]:
    """The scan with the noise and the correlation that its voxels show, and how they were found."""
    slices, pixel_mm = volume.hu[picked], volume.spacing_mm[1:]
    if reading is None:
        even = measure_noise(slices, pixel_mm)
        return with_noise(scan, even), f"measured: {even.reason}" if even.reliable else even.reason
    typical = _typical_slice(slices, pixel_mm) if max(pixel_mm) <= FINE_PIXEL_MM else None
    if typical is not None and _disagree(typical.sigma_hu, reading.noise_hu):
        unused = f"the network, which reads {reading.noise_hu:.1f} HU, is not used"
        return with_noise(scan, typical), f"measured: {typical.reason}; {unused}"
    noise_hu, correlation = round(reading.noise_hu, 2), round(reading.noise_correlation, 3)
    scan = replace(scan, noise_hu=noise_hu, noise_correlation=correlation)
    return scan, f"measured by a network, expected error {100 * reading.noise_error:.0f} %"


def _typical_slice(slices: np.ndarray, pixel_mm: tuple[float, float]) -> NoiseMeasurement | None:
    """Noise of even tissue in the slice of median noise; None if all slices hold too little of it.

    Measured together, slices of the shoulders would outvote the others: noise makes tissue look even.
    """
    measured = [noise for noise in (measure_noise(hu, pixel_mm) for hu in slices) if noise.reliable]
    if sum(noise.patches for noise in measured) < CHECK_PATCHES:
        return None
    return sorted(measured, key=lambda noise: noise.sigma_hu)[len(measured) // 2]


def _disagree(even_hu: float, network_hu: float) -> bool:
    low, high = sorted((even_hu, network_hu))
    return 10 + high > STRONG_DISAGREEMENT * (10 + low)


def psf_of_kernel(kernel: Kernel, pixel_mm: float, factor: int) -> float:
    """The PSF, in the networks' sense, of a scan that was reconstructed with a kernel.

    The networks learned on scans made from finer ones: the PSF blurs an image that has a blur of its own, and pixels
    average. Squares of widths add up. What pixel and finer scan take of the kernel's width is subtracted.

    Parameters
    ----------
    kernel : Kernel;  pixel_mm : of the scan;  factor : in-plane scale of the model

    Returns
    -------
    float
        FWHM in pixels, within the range of the training.

    Example
    -------
    >>> psf_of_kernel(Kernel(4.2, 7.2), 0.645, 2)
    1.02
    """
    width = kernel.psf_fwhm_mm / pixel_mm
    rest = width**2 - PIXEL_FWHM**2 - (TARGET_FWHM / factor) ** 2
    return round(min(max(CAUTION * math.sqrt(max(rest, 0.0)), PSF_RANGE[0]), PSF_RANGE[1]), 2)


def _header_kernel(volume: Volume) -> tuple[Kernel | None, str]:
    """(kernel that the DICOM header names or None, why)."""
    headers = volume.meta.get("dicom")
    if not headers:
        return None, "the file names no kernel"
    if "DERIVED" in (headers[0].get("ImageType") or ()):
        return None, "a derived image; the kernel in its header is that of its source"
    size = headers[0].get("PixelSpacing")
    if size and abs(volume.spacing_mm[1] - float(size[0])) > 0.01 * volume.spacing_mm[1]:
        return None, "the pixels are not those of the header, so neither is the kernel"
    name = headers[0].get("ConvolutionKernel")
    found = named_kernel(headers[0].get("Manufacturer"), name)
    if found is None:
        return None, f"kernel {_plain(name)} is not in the table" if name else "the header names no kernel"
    return found.kernel, f"from kernel {_plain(name)} in the header: 50 % contrast at {found.kernel.mtf50_lp_cm} lp/cm"


def _plain(name: Any) -> str:
    """A header value that is safe to print."""
    text = name if isinstance(name, str) else str(name[0])
    return re.sub(r"[^\w\[+./ -]", "?", text)[:16]
