"""The calibration of a model's intervals: factors on the widths, and what is known about them.

It lies beside the weights as `calibration.json` and holds for these weights only.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt

from uhrct.core.errors import UhrctError
from uhrct.core.files import write_json
from uhrct.models.settings import Settings, checked

CALIBRATION = "calibration.json"
SCHEMA = "uhrct-calibration-1"
#: tissues, each with its own factor, by the HU of the smoothed result: (name, HU at which it ends)
TISSUES: tuple[tuple[str, float], ...] = (
    ("air", -950.0),
    ("lung", -500.0),
    ("soft tissue", 150.0),
    ("bone", float("inf")),
)
Share = Annotated[float, Field(ge=0, le=1)]


class TissueCalibration(Settings):
    """One tissue."""

    #: both widths are multiplied by it
    factor: PositiveFloat
    #: share of the voxels outside, mean over the calibration patients
    miss: Share
    #: at least this share of a new patient's voxels is expected inside: 1 - (n miss + 1) / (n + 1)
    guaranteed: Share
    #: share inside in each calibration patient, sorted
    coverage: tuple[Share, ...]


class Calibration(Settings):
    """Factors for the widths of the intervals of one set of weights."""

    format: str = SCHEMA
    weights_sha256: str
    #: share of the voxels that the intervals shall hold
    level: Share
    patients: PositiveInt
    slices: PositiveInt
    #: how low-resolution scans were simulated; real pairs of scans do not exist
    degradations: tuple[str, ...]
    #: for scans whose kernel is known from the header, and for others
    kernel_known: dict[str, TissueCalibration]
    kernel_unknown: dict[str, TissueCalibration]
    #: lowest and highest value of `uhrct.upscaling.scan_facts` among the calibration scans, as they are and degraded
    ranges: dict[str, tuple[float, float]]

    def of(self, kernel_known: bool) -> dict[str, TissueCalibration]:
        """The tissues, for scans with or without a known kernel."""
        return self.kernel_known if kernel_known else self.kernel_unknown

    def factors(self, kernel_known: bool) -> list[float]:
        """The factor of each of `TISSUES`."""
        return [self.of(kernel_known)[name].factor for name, _ in TISSUES]


def guaranteed_level(miss: float, patients: int) -> float:
    """Expected share of a new patient's voxels inside, if calibration patients miss a share `miss` on average.

    Conformal risk control: patients are exchangeable, and no patient misses more than all voxels.

    References
    ----------
    Angelopoulos, Bates, Fisch, Lei, Schuster, "Conformal risk control", arXiv 2208.02814, theorem 1.

    Example
    -------
    >>> round(guaranteed_level(0.1, 16), 3), round(guaranteed_level(0.1, 1000), 3)
    (0.847, 0.899)
    """
    return 1 - (patients * miss + 1) / (patients + 1)


def load_calibration(folder: Path, weights_sha256: str) -> Calibration | None:
    """The calibration in a model folder, or None if there is none.

    Raises
    ------
    UhrctError
        If it cannot be read, or was made for other weights.
    """
    file = folder / CALIBRATION
    if not file.is_file():
        return None
    try:
        raw = json.loads(file.read_text())
    except (ValueError, OSError, RecursionError) as error:
        raise UhrctError(f"{file}: not readable as JSON; make it again with `uhrct calibrate {folder}`") from error
    found = checked(Calibration, raw, str(file))
    missing = {name for name, _ in TISSUES} - (found.kernel_known.keys() & found.kernel_unknown.keys())
    if found.format != SCHEMA or missing:
        raise UhrctError(f"{file}: not a calibration of this version; make it again with `uhrct calibrate {folder}`")
    if found.weights_sha256 != weights_sha256:
        raise UhrctError(
            f"{file}: made for other weights ({found.weights_sha256[:12]}, not {weights_sha256[:12]}); "
            f"make it again with `uhrct calibrate {folder}`"
        )
    return found


def save_calibration(calibration: Calibration, folder: Path) -> None:
    """Write the calibration beside the weights."""
    write_json(folder / CALIBRATION, calibration.as_dict())
