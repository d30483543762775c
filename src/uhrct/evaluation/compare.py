"""Compare two volumes by every metric, slice by slice, on grids that must agree."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from uhrct.core.errors import InputRefused
from uhrct.core.hu import PADDING_HU
from uhrct.core.progress import track
from uhrct.core.undefined import Undefined, undefined
from uhrct.core.upright import Upright
from uhrct.core.version import __version__
from uhrct.core.volume import Grid, Volume
from uhrct.evaluation.consistency import consistency
from uhrct.evaluation.flicker import flicker
from uhrct.evaluation.lungs import lung_mask
from uhrct.evaluation.measures import MEASURES, NOTE, VOLUME_MEASURES, Scores, constants, score_all
from uhrct.evaluation.rim import RIM_PX, padding_and_rim
from uhrct.physics.acquisition import Acquisition
from uhrct.structure.topology import CROP, betti_error_sums

#: Tolerances for what file formats round: NIfTI stores float32, DICOM stores decimal strings.
SPACING_SHARE, PLACE_MM, ANGLE_DEGREES = 1e-4, 0.01, 0.1

SCHEMA = "uhrct-evaluate-1"


def check_grids(reference: Grid, test: Grid) -> None:
    """Raise unless the voxels of both grids lie at the same places. The message says how they differ, and by how much.

    Example
    -------
    >>> check_grids(Grid((4, 8, 8), (1, 0.7, 0.7)), Grid((4, 8, 8), (1, 0.7, 0.8)))
    Traceback (most recent call last):
    ...
    uhrct.core.errors.InputRefused: grids differ: spacing (1, 0.7, 0.7) against (1, 0.7, 0.8) mm, by up to 0.1 mm.
    Nothing is resampled here; bring both to one grid first
    """
    differences = []
    if reference.shape != test.shape:
        differences.append(f"shape {reference.shape} against {test.shape} voxels (z, y, x)")
    spacing = np.subtract(reference.spacing_mm, test.spacing_mm)
    if (np.abs(spacing) > SPACING_SHARE * np.asarray(reference.spacing_mm)).any():
        differences.append(
            f"spacing {_shown(reference.spacing_mm)} against {_shown(test.spacing_mm)} mm, "
            f"by up to {np.abs(spacing).max():.2g} mm"
        )
    shift = float(np.linalg.norm(np.subtract(reference.origin_mm, test.origin_mm)))
    if shift > PLACE_MM:
        differences.append(
            f"origin {_shown(reference.origin_mm)} against {_shown(test.origin_mm)} mm (L, P, S), by {shift:.3g} mm"
        )
    cosines = np.einsum("ij,ij->j", reference.direction, test.direction).clip(-1, 1)
    angle = math.degrees(math.acos(float(cosines.min())))
    if angle > ANGLE_DEGREES:
        differences.append(f"direction of axes, by {angle:.3g} degrees")
    if differences:
        raise InputRefused(
            f"grids differ: {'; '.join(differences)}. Nothing is resampled here; bring both to one grid first"
        )


def acquisition_between(hr: Grid, lr: Grid, kind: str = "scanner", *, psf_fwhm_mm: float | None = None) -> Acquisition:
    """The acquisition model from an HR grid to an LR grid over the same region. The spacings give its scale.

    At its far ends the LR grid may lack HR voxels that do not fill a whole LR voxel, as `uhrct degrade` writes it.

    Raises
    ------
    UhrctError
        If no whole scale fits, or the grids lie at different places.
    """
    ratios = np.divide(lr.spacing_mm, hr.spacing_mm)
    z, y, x = (max(1, round(float(r))) for r in ratios)
    scale = (z, y, x)
    shape = tuple(n // s for n, s in zip(hr.shape, scale, strict=True))
    expected = f"the LR must have {shape} voxels of {_shown(np.multiply(hr.spacing_mm, scale))} mm at the same corner"
    if (np.abs(ratios / scale - 1) > SPACING_SHARE).any() or shape != lr.shape:
        raise InputRefused(
            f"LR of {lr.shape} voxels of {_shown(lr.spacing_mm)} mm is no whole fraction of the reference's "
            f"{hr.shape} of {_shown(hr.spacing_mm)} mm; {expected}"
        )
    shift = float(np.linalg.norm(np.subtract(hr.corner_mm, lr.corner_mm)))
    if shift > PLACE_MM or not np.allclose(hr.direction, lr.direction, atol=math.radians(ANGLE_DEGREES)):
        raise InputRefused(f"LR and reference lie {shift:.3g} mm apart or are turned; {expected}")
    if scale == (1, 1, 1):
        raise InputRefused("LR and reference have one grid; the LR must be the scan that the test was made from")
    if psf_fwhm_mm is None:
        return Acquisition(scale, kind)
    return Acquisition.from_mm(scale, lr_spacing_mm=lr.spacing_mm, psf_fwhm_mm=psf_fwhm_mm)


@dataclass
class Comparison:
    """Every metric per slice and of the volume. Means are over the slices where a metric is defined."""

    slices: list[Scores]
    volume: Scores
    acquisition: Acquisition | None = None
    #: lungs of the reference, (z, y, x) of bool
    lungs: np.ndarray | None = None
    #: whether voxels beside padding count
    count_padding: bool = False

    def names(self) -> list[str]:
        """The metrics that were computed, in the order of tables."""
        return [m for m in MEASURES if any(m in s.values for s in self.slices)]

    def defined(self, name: str) -> list[tuple[int, float]]:
        """(slice, value) for each slice where the metric is defined."""
        return [(z, v) for z, s in enumerate(self.slices) if (v := s.values.get(name)) is not None]

    def mean(self, name: str) -> float | None:
        """Mean over the slices where the metric is defined; None without any."""
        values = [v for _, v in self.defined(name)]
        return math.fsum(values) / len(values) if values else None

    def worst(self, name: str) -> tuple[int, float] | None:
        """(slice, value) of the slice farthest from the perfect value."""
        key = {"higher": lambda v: v, "lower": lambda v: -v, "1": lambda v: -abs(math.log(max(v, 1e-12)))}
        better = MEASURES[name].better
        values = self.defined(name)
        return min(values, key=lambda p: key[better](p[1])) if values and better else None

    def reason(self, name: str) -> str:
        """The most frequent reason why a metric is undefined."""
        reasons = [s.reasons[name] for s in (*self.slices, self.volume) if name in s.reasons]
        return max(dict.fromkeys(reasons), key=reasons.count) if reasons else ""

    def as_dict(self) -> dict[str, Any]:
        """Everything for JSON. None means undefined; the reason is stored beside it."""
        return {
            "schema": SCHEMA,
            "uhrct": __version__,
            "note": NOTE,
            "constants": constants() | {"acquisition": _described(self.acquisition)},
            "rim_left_out_px": 0 if self.count_padding else RIM_PX,
            "measures": {
                n: {"label": m.label, "better": m.better, "unit": "" if m.printed_times != 1 else m.unit}
                for n, m in (MEASURES | VOLUME_MEASURES).items()
            },
            "means": {
                n: {"mean": self.mean(n), "slices_defined": len(self.defined(n)), "slices": len(self.slices)}
                | ({} if len(self.defined(n)) == len(self.slices) else {"undefined": self.reason(n)})
                for n in self.names()
            },
            "volume": _with_reasons(self.volume),
            "slices": [{"slice": z} | _with_reasons(s) for z, s in enumerate(self.slices)],
        }


def compare(
    reference: Volume,
    test: Volume,
    *,
    lr: Volume | None = None,
    acquisition: Acquisition | None = None,
    count_padding: bool = False,
    lungs: np.ndarray | None = None,
    label: str = "evaluate",
    quiet: bool = True,
) -> Comparison:
    """All metrics of `test` against `reference`.

    Parameters
    ----------
    reference, test : volumes on one grid
    lr : the scan that `test` was made from
    acquisition : how `lr` arises from the reference (default: `acquisition_between`)
    count_padding : whether voxels beside the padding of the reference count. By default a rim of `RIM_PX` is left out
    lungs : lungs of the reference, of an earlier comparison (default: `lung_mask`)
    label : name of the progress
    quiet : False shows progress

    Raises
    ------
    UhrctError
        If the grids differ.

    Example
    -------
    >>> hr = Volume(np.random.default_rng(0).normal(-800, 50, (2, 64, 64)).astype(np.float32), (1.0, 0.7, 0.7))
    >>> result = compare(hr, hr.on_grid(hr.grid, hr.hu + 16))
    >>> f"{result.mean('rmse_hu'):.1f}", result.mean("cldice_50"), result.reason("cldice_50")
    ('16.0', None, 'no lung in the reference')
    """
    check_grids(reference.grid, test.grid)
    if lr is not None and acquisition is None:
        acquisition = acquisition_between(reference.grid, lr.grid)
    if not count_padding:
        reference, test = without_rim(reference, test)
    if (inside := lungs) is None:
        turn = Upright.of(reference.direction)
        axial = lung_mask(turn.turned(reference.hu), turn.spacing(reference.spacing_mm), quiet=quiet)
        inside = turn.back(axial)
    measured = None if lr is None or acquisition is None else _ConsistencyOf(test, lr, acquisition)
    slab = _Betti3D(inside)
    slices = []
    for z in track(range(reference.shape[0]), label, quiet=quiet):
        scores = score_all(reference.hu[z], test.hu[z], reference.spacing_mm[1:], lung=inside[z])
        if measured is not None:
            measured.add(scores, z)
        slab.add(scores.vessels, z)
        scores.vessels = None  # do not keep the masks of a whole study in memory
        slices.append(scores)
    volume = Scores()
    volume.take(["flicker"], lambda: [flicker(reference.hu, test.hu, reference.spacing_mm)])
    volume.take(["betti0_error_3d", "betti1_error_3d"], slab.errors)
    return Comparison(slices, volume, acquisition, inside, count_padding)


def without_rim(reference: Volume, test: Volume) -> tuple[Volume, Volume]:
    """Both volumes as padding where the reference is padding, and in the rim around it (`uhrct.evaluation.rim`)."""
    rim = padding_and_rim(reference.hu)
    if not rim.any():
        return reference, test
    lowest = reference.hu[reference.hu <= PADDING_HU].min()
    held = [np.where(rim, lowest.astype(v.hu.dtype), v.hu) for v in (reference, test)]
    return replace(reference, hu=held[0]), replace(test, hu=held[1])


class _ConsistencyOf:
    """The consistency of each LR slice, assigned to all HR slices in it."""

    def __init__(self, test: Volume, lr: Volume, acquisition: Acquisition) -> None:
        self.test, self.lr, self.acquisition = test, lr, acquisition
        self.last: tuple[int, Scores] = (-1, Scores())

    def add(self, scores: Scores, z: int) -> None:
        sz = self.acquisition.scale[0]
        k = z // sz
        if k != self.last[0]:
            of_slab = Scores()
            hr, x = self.test.hu[k * sz : (k + 1) * sz], self.lr.hu[k : k + 1]
            if not self.acquisition.slice_by_slice:
                of_slab.take(["consistency_hu"], lambda: undefined("slabs of this acquisition overlap"))
            elif not len(x):
                of_slab.take(["consistency_hu"], lambda: undefined("the LR does not reach this slice"))
            else:
                sr, measured = (hr, x) if sz > 1 else (hr[0], x[0])
                of_slab.take(["consistency_hu"], lambda: [consistency(sr, measured, self.acquisition)])
            self.last = k, of_slab
        scores.values |= self.last[1].values
        scores.reasons |= self.last[1].reasons


class _Betti3D:
    """Betti errors of volumes, computed in slabs as thick as a crop, so that memory stays small."""

    def __init__(self, inside: np.ndarray) -> None:
        self.inside = inside
        self.slabs: list[tuple[np.ndarray, np.ndarray]] = []
        self.pieces = self.tunnels = self.count = 0

    def add(self, vessels: tuple[np.ndarray, np.ndarray] | None, z: int) -> None:
        empty = np.zeros(self.inside.shape[1:], bool)
        self.slabs.append(vessels or (empty, empty))
        if len(self.slabs) == CROP or z == len(self.inside) - 1:
            a, b = (np.stack(masks) for masks in zip(*self.slabs, strict=True))
            (pieces, tunnels), count = betti_error_sums(a, b, self.inside[z + 1 - len(a) : z + 1])
            self.pieces, self.tunnels, self.count = self.pieces + pieces, self.tunnels + tunnels, self.count + count
            self.slabs = []

    def errors(self) -> tuple[float, float]:
        if len(self.inside) < 2:
            raise Undefined("one slice is no volume")
        if not self.count:
            raise Undefined("no lung in the reference")
        return self.pieces / self.count, self.tunnels / self.count


def _with_reasons(scores: Scores) -> dict[str, Any]:
    return scores.values | ({"undefined": scores.reasons} if scores.reasons else {})


def _described(acquisition: Acquisition | None) -> dict[str, Any] | None:
    if acquisition is None:
        return None
    scanner = {"psf_fwhm_lr_px": acquisition.psf_fwhm, "slice_fwhm_lr": acquisition.slice_fwhm}
    return {"scale": list(acquisition.scale), "kind": acquisition.kind} | (
        scanner if acquisition.kind == "scanner" else {}
    )


def _shown(values: Any) -> str:
    return f"({', '.join(f'{float(v):.6g}' for v in values)})"
