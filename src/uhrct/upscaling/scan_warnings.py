"""One line for each number of a scan that lies outside the range of the training.

Each limit is a range of the training itself, or the range of the sixteen calibration patients
(`benchmarks/scan_warnings.py` measures both). A new patient who is like the calibration patients exceeds the largest
of sixteen values with a probability of 1/17. That is the smallest false-alarm rate that sixteen patients can state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf

from uhrct.core.volume import Volume
from uhrct.io.info import orientation_of
from uhrct.physics.scan_properties import ScanProperties, nearly_square

#: pixels of the training scans as they are, and the largest factor by which training makes them coarser
TRAINING_PIXEL_MM, TRAINING_RESCALE = (0.541, 0.977), 2.0
#: distance between the slices of the training scans; and largest one that averaging of slices gives (through plane)
TRAINING_SLICE_MM, TRAINING_FINE_SLICE_MM = (0.399, 14.0), 3.0
#: in-plane PSF in pixels, and slice thickness divided by the distance of slices (through plane)
TRAINING_PSF_PX, TRAINING_THICKNESS = (0.4, 1.6), (0.5, 2.5)


@dataclass(frozen=True)
class Limit:
    """A range of one number of `uhrct.upscaling.scan_facts`.

    Attributes
    ----------
    what : the number in words; ``{}`` is its value
    low, high : the range
    unit : with a space before it
    factor : from the number to what is printed
    hint : what may be the reason; "" if the number says it
    source : "training" or "calibration"
    """

    what: str
    low: float
    high: float
    unit: str
    factor: float = 1.0
    hint: str = ""
    source: str = "training"

    def warning(self, value: float) -> str | None:
        """The line for a value, or None inside the range."""
        if self.low <= value <= self.high:
            return None
        low, high = (_number(self.factor * v) for v in (self.low, self.high))
        if self.low == -inf:
            span = f"at most {high}{self.unit}"
        elif self.high == inf:
            span = f"at least {low}{self.unit}"
        else:
            span = f"{low} to {high}{self.unit}"
        said = self.what.format(f"{_number(self.factor * value)}{self.unit}")
        usual = "the weights were trained on" if self.source == "training" else "the calibration scans have"
        return f"{said}; {usual} {span}" + (f" ({self.hint})" if self.hint else "")


#: limits that do not depend on the model, by the name of the number
LIMITS: dict[str, Limit] = {
    "darkest_hu": Limit(
        "the darkest voxels (1 %) have {}", -inf, -970.0, " HU", hint="not a CT, values not in HU, or no air around"
    ),
    "soft_share": Limit(
        "{} of the body has the HU of soft tissue", 0.69, inf, " %", 100.0, "not a CT, or values not in HU"
    ),
    "body_cm2": Limit("a slice shows {} of body", 233.0, inf, " cm2", hint="a head or limb, or a small field of view"),
    "bright_share": Limit(
        "{} of the body is brighter than 300 HU", -inf, 0.184, " %", 100.0, "much bone or contrast medium"
    ),
    "metal_ppm": Limit(
        "{} of the body is brighter than 3000 HU", -inf, 900.0, " %", 1e-4, "metal", source="calibration"
    ),
    "noise_hu": Limit("noise {}", -inf, 83.0, " HU"),
    "noise_correlation": Limit(
        "noise of neighbouring pixels correlates by {}", -0.17, 0.85, "", hint="an unusual kernel, or resampled pixels"
    ),
    "kernel_lp_cm": Limit("the kernel has 50 % contrast at {}", 2.8, 8.5, " lp/cm"),
}


def limits(scale: tuple[int, int, int]) -> dict[str, Limit]:
    """All limits for a model of a scale (z, y, x)."""
    low, high = TRAINING_PIXEL_MM
    slices = TRAINING_SLICE_MM
    if scale[0] > 1:
        slices = (scale[0] * TRAINING_SLICE_MM[0], scale[0] * TRAINING_FINE_SLICE_MM)
    return LIMITS | {
        "pixel_mm": Limit("pixel spacing {}", low, TRAINING_RESCALE * high * scale[1], " mm"),
        "slice_mm": Limit("slices are {} apart", *slices, " mm"),
    }


def geometry_warnings(volume: Volume) -> list[str]:
    """One line for what the voxels of a scan are and those of the training were not.

    Example
    -------
    >>> import numpy as np
    >>> geometry_warnings(Volume(np.zeros((4, 8, 8), np.int16), (1.0, 0.5, 0.9)))
    ['the pixels are 0.5 x 0.9 mm; the weights were trained on square ones']
    """
    lines = []
    plane = orientation_of(volume.direction)
    if plane in ("sagittal", "coronal"):
        lines.append(
            f"the slices are {plane}; the weights were trained on axial slices, so the result may be wrong; "
            "docs/upscale.md shows how to turn a file"
        )
    _, y_mm, x_mm = volume.spacing_mm
    if not nearly_square(y_mm, x_mm):
        lines.append(f"the pixels are {y_mm:.3g} x {x_mm:.3g} mm; the weights were trained on square ones")
    return lines


def scan_warnings(facts: Mapping[str, float], scan: ScanProperties, scale: tuple[int, int, int]) -> list[str]:
    """One line for each number outside its range: the number, then the range.

    Parameters
    ----------
    facts : of the scan (`uhrct.upscaling.scan_facts.scan_facts`)
    scan : what the networks are told
    scale : of the model, (z, y, x)

    Example
    -------
    >>> scan_warnings({"pixel_mm": 0.7, "noise_hu": 95.2}, ScanProperties(), (1, 2, 2))
    ['noise 95.2 HU; the weights were trained on at most 83 HU']
    """
    lines = [limit.warning(facts[name]) for name, limit in limits(scale).items() if name in facts]
    low, high = TRAINING_PSF_PX
    if scan.psf_known and not low <= scan.psf_fwhm < high:  # the table of kernels gives the largest value at most
        more = " or more" if scan.psf_fwhm >= high else ""
        lines.append(f"PSF {scan.psf_fwhm:.3g} pixels{more}; the weights were trained on {low} to {high} pixels")
    if scale[0] > 1:
        thick = Limit("slices are {} times as thick as their distance", *TRAINING_THICKNESS, "")
        lines.append(thick.warning(scan.slice_thickness))
        if scan.increment_mm == 0:  # a single slice
            lines.append(f"one slice has no neighbours; nothing in the scan shows how the {scale[0]} new slices differ")
    return [line for line in lines if line is not None]


def _number(value: float) -> str:
    """Three digits, or a whole number from 1000 on.

    >>> _number(0.6453), _number(32767.0)
    ('0.645', '32767')
    """
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
