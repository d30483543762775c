"""Audit a super-resolved scan: grade its vessels and airways, and measure how well it agrees with the scan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from uhrct.audit.agreement import Agreement
from uhrct.audit.evidence import CLEAR_FROM, KINDS, STRUCTURE_FROM, VISIBLE_FROM, Evidence, ScanSlice, slice_evidence
from uhrct.audit.findings import Finding, Worst
from uhrct.audit.grades import DOUBTFUL, GRADES, INFERRED, grade
from uhrct.audit.redraws import Candidates, Redraws
from uhrct.core.errors import InputRefused
from uhrct.core.hu import FLOOR_HU
from uhrct.core.version import __version__
from uhrct.core.volume import Volume
from uhrct.evaluation.fast_lungs import lungs_of
from uhrct.evaluation.measures import NOTE
from uhrct.models.model import stacks
from uhrct.physics.resampling import upsample_stack
from uhrct.structure.lengths import line_lengths
from uhrct.structure.vessels import skeleton
from uhrct.upscaling.plan import Plan

SCHEMA = "uhrct-audit-1"
#: Repeated results of each examined square.
DRAWS = 3
#: Slices that a report pages through.
PAGES = 24
#: Rim of the lungs that is left out: the chest wall gives a response there, and the mask has a voxel of error.
RIM_MM = 1.5
#: Pixels of the scan around the lungs that are looked at too.
MARGIN_PX = 8
#: Window of the pictures.
WINDOW_HU = (-1000.0, 200.0)


@dataclass(frozen=True)
class Page:
    """A fine slice for the report: the result in grey levels (y, x), and the grades of centre lines (-1 elsewhere)."""

    z: int
    grey: np.ndarray
    lines: np.ndarray


class Audit:
    """Takes a result while it is computed, or afterwards, slice by slice.

    Parameters
    ----------
    scan : Volume
        The low-resolution scan.
    plan : Plan
        How the result was computed, or for a result of another program: how it would be computed.
    draws : int
        Repeated results of each square with structures that the scan does not show. 0: none.
    quiet : bool
        Show no progress of the lung mask.
    take_grades : function, optional
        Gets the grades of all fine slices in ascending order, some slices (k, y, x) of int16 at a time: on each centre
        line 1 + the place of its grade in `GRADES`, elsewhere 0.

    Raises
    ------
    InputRefused
        If the result has another spacing than that of the model.

    Notes
    -----
    Vessels and airways are graded inside the lungs alone, 1.5 mm or more from their edge, slice by slice. Parts of a
    structure in neighbouring slices are graded by themselves.
    """

    def __init__(
        self,
        scan: Volume,
        plan: Plan,
        *,
        draws: int = DRAWS,
        quiet: bool = True,
        take_grades: Callable[[np.ndarray], None] = lambda _: None,
    ) -> None:
        if plan.resampled:
            raise InputRefused("an audit needs a result whose voxels are parts of the scan's; use a scale, no spacing")
        self.scan, self.plan, self._take_grades = scan, plan, take_grades
        self.acquisition = replace(plan.acquisition, slice_thickness=min(plan.acquisition.slice_thickness, 1.0))
        self.noise_hu = plan.scan.noise_hu if plan.scan.noise_known else None
        self.lungs = without_rim(lungs_of(scan.hu, scan.spacing_mm, scan.direction, quiet=quiet), scan.spacing_mm[1:])
        with_lungs = np.flatnonzero(self.lungs.any((1, 2)))
        self._axial = abs(float(scan.direction[2, 0])) > 0.5
        self._thirds = _thirds(with_lungs, float(scan.direction[2, 0]))
        shown = np.linspace(0, len(with_lungs) - 1, min(PAGES, len(with_lungs))) if len(with_lungs) else np.zeros(0)
        self._shown = {int(with_lungs[int(k)]) for k in shown}
        self.redraws = Redraws(plan, draws)
        self.agreement = Agreement()
        self.worst = Worst()
        self.pages: list[Page] = []
        self.length_mm = {kind: np.zeros((3, len(GRADES))) for kind in KINDS}
        self.broken_mm, self.merges = 0.0, 0
        self._waiting: list[np.ndarray] = []
        self._next = 0

    def feed(self, first: int, hu: np.ndarray) -> None:
        """Take fine slices (k, y, x) in HU, in ascending order."""
        del first  # slices come in order
        sz = self.plan.model.config.scale[0]
        self._waiting += list(hu)
        while len(self._waiting) >= sz:
            fine, self._waiting = np.stack(self._waiting[:sz]), self._waiting[sz:]
            self._slice(self._next, fine.astype(np.float32))
            self._next += 1

    def findings(self) -> list[Finding]:
        """The structures that deserve a look, the worst first."""
        return self.worst.sorted()

    def report(self) -> dict[str, Any]:
        """The figures as plain values for JSON."""
        kinds = {kind: _lengths(table, thirds=self._axial) for kind, table in self.length_mm.items()}
        return {
            "schema": SCHEMA,
            "uhrct": __version__,
            "note": NOTE,
            "scale": list(self.plan.model.config.scale),
            "lungs_found": bool(self.lungs.any()),
            **kinds,
            "broken_mm": round(self.broken_mm, 1),
            "merges": self.merges,
            "agreement": self.agreement.as_dict(self.noise_hu, self.plan.scan.noise_correlation),
            "assumed": self.plan.assumptions.lines(),
            "warnings": list(self.plan.warnings),
            "findings": [f.as_dict() for f in self.findings()],
        }

    def _slice(self, k: int, fine: np.ndarray) -> None:
        context = self.plan.model.config.context
        around = np.arange(k - context, k + context + 1).clip(0, self.scan.shape[0] - 1)
        scan = torch.from_numpy(self.scan.hu[around].astype(np.float32)).clamp(min=FLOOR_HU)
        y = torch.from_numpy(fine).clamp(min=FLOOR_HU)
        again = self.acquisition.forward(y if self.acquisition.scale[0] > 1 else y[:1])[0]
        self.agreement.add(self.scan.hu[k], again.numpy())
        labels = np.zeros(fine.shape, np.int16)
        if not self.lungs[k].any():
            self._take_grades(labels)
            return
        rows, columns = _box(self.lungs[k])
        sz, sy, sx = self.plan.model.config.scale
        corner = (rows.start * sy, columns.start * sx)
        inside = (slice(corner[0], rows.stop * sy), slice(corner[1], columns.stop * sx))
        stack = stacks(scan, [context], context)[..., rows, columns]
        part = ScanSlice(
            measured=scan[context, rows, columns],
            interpolated=upsample_stack(stack, self.plan.model.config.scale)[0],
            fine=y[:, inside[0], inside[1]],
            lungs=self.lungs[k, rows, columns].repeat(sy, 0).repeat(sx, 1),
            spacing_mm=(self.plan.model_grid.spacing_mm[1], self.plan.model_grid.spacing_mm[2]),
            noise_hu=self.noise_hu or 0.0,
        )
        lines = np.full(part.fine.shape, -1, np.int8)
        candidates = [
            Candidates(kind, j, e, grade(e) == DOUBTFUL)
            for kind, found in slice_evidence(part, self.acquisition).items()
            for j, e in enumerate(found)
        ]
        for c, present in zip(candidates, self.redraws.present(stack, candidates), strict=True):
            self._enter(k, corner, part, c, present, lines[c.fine_slice])
        labels[:, inside[0], inside[1]] = lines + 1
        self._take_grades(labels)
        if k in self._shown:
            middle = sz // 2
            self.pages.append(Page(k * sz + middle, grey(part.fine[middle].numpy()), lines[middle]))

    def _enter(
        self,
        k: int,
        corner: tuple[int, int],
        part: ScanSlice,
        found: Candidates,
        present: np.ndarray,
        lines: np.ndarray,
    ) -> None:
        """Add the structures of one kind in one fine slice to the figures, and draw their grades into `lines`."""
        e, j, kind = found.evidence, found.fine_slice, found.kind
        grades = grade(e, present)
        line = e.segments.line
        lines[line.rows, line.columns] = grades[line.numbers]
        self.length_mm[kind][self._thirds[k]] += np.bincount(grades, e.segments.length_mm, len(GRADES))
        z = k * self.plan.model.config.scale[0] + j
        images = (part.interpolated[j].numpy(), part.fine[j].numpy(), lines)
        self.worst.add(kind, z, corner, e, grades, present, images, part.spacing_mm)
        if kind == "vessels":
            self.broken_mm += _broken_mm(e, part)
            self.merges += _merges(e, grades, part.lungs)


def _lengths(table: np.ndarray, *, thirds: bool) -> dict[str, Any]:
    """Length in mm per grade: in total and, for axial slices, per third of the lung, from above."""
    rows = {"total": table.sum(0)}
    if thirds:
        rows |= dict(zip(("upper", "middle", "lower"), table, strict=True))
    return {
        f"{name}_mm": {g: round(float(mm), 1) for g, mm in zip(GRADES, row, strict=True)} for name, row in rows.items()
    }


def _thirds(with_lungs: np.ndarray, towards_head: float) -> dict[int, int]:
    """Slice -> third of the lung that it lies in, 0: the upper one."""
    if not len(with_lungs):
        return {}
    low, high = int(with_lungs[0]), int(with_lungs[-1])
    place = {int(k): min(2, 3 * (int(k) - low) // (high - low + 1)) for k in with_lungs}
    return {k: 2 - t for k, t in place.items()} if towards_head > 0 else place


def without_rim(lungs: np.ndarray, pixel_mm: tuple[float, ...]) -> np.ndarray:
    """Lungs (z, y, x) without the voxels that are `RIM_MM` or less from the edge in their slice."""
    return np.stack([ndimage.distance_transform_edt(one, sampling=pixel_mm) > RIM_MM for one in lungs])


def _box(lungs: np.ndarray) -> tuple[slice, slice]:
    """The lungs of a slice with a margin."""
    found = ndimage.find_objects(lungs.astype(np.int8))[0]
    rows, columns = (
        slice(max(0, s.start - MARGIN_PX), min(n, s.stop + MARGIN_PX)) for s, n in zip(found, lungs.shape, strict=True)
    )
    return rows, columns


def _broken_mm(evidence: Evidence, part: ScanSlice) -> float:
    """Length of the vessels that one clearly sees in the interpolated scan, and that the result does not have."""
    seen = skeleton((evidence.scan_map >= CLEAR_FROM) & part.lungs)
    kept = ndimage.binary_dilation(evidence.map >= VISIBLE_FROM, np.ones((3, 3)))
    return float(line_lengths(seen, part.spacing_mm)[seen & ~kept].sum())


def _merges(evidence: Evidence, grades: np.ndarray, lungs: np.ndarray) -> int:
    """Doubtful or inferred structures that connect vessels which are separate without them."""
    region = evidence.segments.region
    weak = (grades >= INFERRED)[region.numbers]
    if not weak.any():
        return 0
    here = np.zeros(lungs.shape, bool)
    here[region.rows[weak], region.columns[weak]] = True
    others, _ = ndimage.label((evidence.map >= STRUCTURE_FROM["vessels"]) & lungs & ~here, np.ones((3, 3)))
    bridges, count = ndimage.label(here, np.ones((3, 3)))
    found = 0
    for number, where in enumerate(ndimage.find_objects(bridges, count), 1):
        # at a junction the map has a gap of a voxel or two
        wide = tuple(slice(max(0, s.start - 2), s.stop + 2) for s in where)
        touched = ndimage.binary_dilation(bridges[wide] == number, np.ones((3, 3)), iterations=2)
        found += len(set(np.unique(others[wide][touched])) - {0}) >= 2
    return found


def grey(hu: np.ndarray) -> np.ndarray:
    """Grey levels of HU in `WINDOW_HU`."""
    low, high = WINDOW_HU
    return np.rint((hu - low).clip(0, high - low) * (255 / (high - low))).astype(np.uint8)
