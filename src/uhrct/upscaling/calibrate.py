"""Calibrate the intervals of a model on patients that it never saw, and try intervals on scans whose truth is known.

Truth and low-resolution scan come from one high-resolution scan, whose low-resolution scan is simulated. One patient
gives one score for each tissue: the share of its voxels outside, as a function of a factor on the widths. So the claim
is about a new patient, not about a new voxel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from uhrct import io
from uhrct.core.errors import UhrctError
from uhrct.core.hu import FLOOR_HU, PADDING_HU
from uhrct.core.progress import track
from uhrct.core.volume import Volume
from uhrct.evaluation.protocol import evenly_spaced
from uhrct.models.calibration import TISSUES, Calibration, TissueCalibration, guaranteed_level
from uhrct.models.interval import LEVEL
from uhrct.models.model import Model
from uhrct.physics.degrade import degrade
from uhrct.physics.kernel_names import kernel_lp_cm
from uhrct.upscaling.intervals import COMPARED, bounds_hu, tissue_of
from uhrct.upscaling.plan import Plan, UpscaleSettings, make_plan
from uhrct.upscaling.scan_facts import scan_facts
from uhrct.upscaling.slabs import compute_part

#: simulated low-resolution scans: name -> (kind, PSF in pixels that the networks are told, whether the interval network
#: is told the kernel). A header that names a kernel gives both PSF and kernel; of bicubic downsampling no PSF is known.
DEGRADATIONS: dict[str, tuple[str, float | None, bool]] = {
    "scanner, PSF and kernel told": ("scanner", 0.6, True),
    "bicubic, kernel told": ("bicubic", None, True),
    "scanner, nothing told": ("scanner", None, False),
    "bicubic, nothing told": ("bicubic", None, False),
}
#: slices of one series that are used, at most
SLICES = 8
#: factors at which the share outside is counted
FACTORS = np.concatenate([[0.0], np.geomspace(0.02, 100.0, 2000)])
#: patients without this many voxels of a tissue give no score for it
FEWEST_VOXELS = 1000


@dataclass(frozen=True)
class Trial:
    """One slice with known truth. Arrays (sz, y, x); only `valid` voxels count, the others are padding.

    Attributes
    ----------
    kernel_known : whether the interval network was told the kernel
    truth, hu, below, above : HU; `hu` is the result, not rounded
    tissue, true_tissue : numbers in `TISSUES`, by the result and by the truth
    """

    degradation: str
    kernel_known: bool
    plan: Plan
    truth: np.ndarray
    hu: np.ndarray
    below: np.ndarray
    above: np.ndarray
    tissue: np.ndarray
    true_tissue: np.ndarray
    valid: np.ndarray

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """(lower, upper), as they are written."""
        return bounds_hu(self.hu, self.below, self.above, np.dtype(np.int16))


def trials(model: Model, volume: Volume, count: int = SLICES) -> Iterator[Trial]:
    """Degrade evenly spaced slices of a scan in each way of `DEGRADATIONS`, and upscale them with default settings.

    The kernel that the interval network is told is that of the truth: a user's fine scan would have the kernel of the
    coarse one. Without a known kernel there are only the trials where nothing is told.

    Raises
    ------
    UhrctError
        If the scan has too few slices for the scale.
    """
    sz, sy, sx = model.config.scale
    if volume.shape[0] < sz:
        raise UhrctError(f"a scan of {volume.shape[0]} slices is too short for scale {model.config.scale}")
    n = volume.shape[0] // sz
    around = model.config.context if n > 1 else 0
    rows, columns = volume.shape[1] // sy * sy, volume.shape[2] // sx * sx
    kernel = kernel_lp_cm(volume.meta.get("dicom"))
    for k in evenly_spaced(n, count):
        numbers = np.arange(k - around, k + around + 1).clip(0, n - 1)
        hu = volume.hu[(numbers[:, None] * sz + np.arange(sz)).flatten(), :rows, :columns]
        block = replace(volume, hu=hu, meta={})
        truth = hu[around * sz : (around + 1) * sz].astype(np.float32)
        for name, (kind, psf, told) in DEGRADATIONS.items():
            if told and kernel is None:
                continue
            lr = replace(degrade(block, scale=model.config.scale, kind=kind), meta={})
            settings = UpscaleSettings(interval=True, overrides={} if psf is None else {"psf_fwhm": psf})
            plan = make_plan(lr, settings, model)
            if told and kernel is not None:
                plan = replace(plan, facts=plan.facts | {"kernel_lp_cm": kernel})
            [slab] = compute_part(plan, lr, around, around + 1)
            assert slab.below is not None
            assert slab.above is not None
            tissue, true_tissue = (
                tissue_of(torch.from_numpy(image)[None], model.config.scale, lr.spacing_mm[1:])[0].numpy()
                for image in (slab.hu.clip(min=FLOOR_HU), truth.clip(min=FLOOR_HU))
            )
            maps = (truth, slab.hu, slab.below, slab.above, tissue, true_tissue)
            yield Trial(name, told, plan, *maps, (truth > PADDING_HU) & (slab.below > 0))


def calibrate(model: Model, root: Path, *, quiet: bool = False) -> Calibration:
    """Find the factor of each tissue, so that intervals hold 90 % of the voxels of the mean patient.

    Parameters
    ----------
    model : Model
        With an interval network, and without a calibration.
    root : Path
        Folder of DICOM series. Series with one PatientID are one patient.
    quiet : bool
        Show no progress.

    Raises
    ------
    UhrctError
        If the model has no interval network, or there are fewer than nine patients: 90 % cannot be stated for them.
    """
    series = [s for s in io.inspect(root) if not s.problem]
    counts: dict[bool, dict[str, np.ndarray]] = {True: {}, False: {}}
    ranges: dict[str, list[float]] = {}
    slices = 0
    for s in track(series, "calibrate", quiet=quiet):
        volume = io.read(root, series=str(s.number))
        header = (volume.meta.get("dicom") or [{}])[0]
        patient = str(header.get("PatientID") or s.uid or s.path)
        _widen(ranges, scan_facts(volume))
        slices += min(SLICES, volume.shape[0] // model.config.scale[0])
        for trial in trials(model, volume):
            empty = np.zeros((len(TISSUES), len(FACTORS)), np.int64)
            counts[trial.kernel_known].setdefault(patient, empty)[:] += _outside(trial)
            _widen(ranges, trial.plan.facts)
    return Calibration(
        weights_sha256=model.weights_sha256,
        level=LEVEL,
        patients=len(counts[False]),
        slices=slices,
        degradations=tuple(DEGRADATIONS),
        kernel_known=_tissues(list(counts[True].values())),
        kernel_unknown=_tissues(list(counts[False].values())),
        ranges={name: (values[0], values[1]) for name, values in ranges.items()},
    )


def _outside(trial: Trial) -> np.ndarray:
    """For each tissue and factor: number of voxels that need a larger factor, (tissues, factors); factor 0: all.

    The bounds are whole numbers, rounded outward, and so is the truth. It lies inside if it differs from the result by
    less than one HU more than the width.
    """
    error = (trial.truth - trial.hu)[trial.valid]
    below, above = trial.below[trial.valid], trial.above[trial.valid]
    needed = np.maximum((-error - 1) / below, (error - 1) / above).clip(min=1e-6)
    out = np.zeros((len(TISSUES), len(FACTORS)), np.int64)
    for tissue in range(len(TISSUES)):
        values = np.sort(needed[trial.tissue[trial.valid] == tissue])
        out[tissue] = len(values) - np.searchsorted(values, FACTORS, "left")
    return out


def _tissues(patients: list[np.ndarray]) -> dict[str, TissueCalibration]:
    """The smallest factors that miss at most a tenth on average over patients, from counts (tissues, factors)."""
    tissues = {}
    for number, (name, _) in enumerate(TISSUES):
        counts = np.array([p[number] for p in patients if p[number, 0] >= FEWEST_VOXELS])
        # with fewer than nine patients, even intervals that miss nothing state less than 90 %
        if guaranteed_level(0.0, len(counts)) < LEVEL - 1e-9:
            raise UhrctError(f"only {len(counts)} patients with {name}; a level of 90 % needs nine or more")
        miss = counts / counts[:, :1]
        at = int(np.argmax(miss.mean(0) <= 1 - LEVEL))
        mean_miss = float(miss[:, at].mean())
        tissues[name] = TissueCalibration(
            factor=round(float(FACTORS[at]), 4),
            miss=round(mean_miss, 5),
            guaranteed=round(guaranteed_level(mean_miss, len(counts)), 4),
            coverage=tuple(round(float(c), 4) for c in np.sort(1 - miss[:, at])),
        )
    return tissues


def _widen(ranges: dict[str, list[float]], facts: dict[str, float]) -> None:
    for name in COMPARED:
        if name in facts:
            low, high = ranges.get(name, [np.inf, -np.inf])
            ranges[name] = [min(low, facts[name]), max(high, facts[name])]
