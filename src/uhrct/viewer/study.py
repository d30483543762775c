"""What the page shows: volumes, overlays, a surface and findings, as a whole or as a box in full resolution."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from uhrct.core.errors import InputRefused, UhrctError
from uhrct.core.hu import DISPLAY_WINDOWS_HU, METRIC_WINDOWS_HU
from uhrct.core.volume import Volume
from uhrct.viewer.findings import GRADE_COLOURS, Finding
from uhrct.viewer.mesh import Mesh
from uhrct.viewer.nifti import nifti_bytes
from uhrct.viewer.overlay import Overlay
from uhrct.viewer.region import (
    LONGEST_SIDE,
    Region,
    Three,
    aligned,
    coarse_step,
    cut,
    parsed_box,
    region_on,
    shared_region,
)

#: Voxels of all panes together. NiiVue needs four bytes of graphics memory and two more of main memory for each.
MOST_VOXELS = 168e6
#: Voxels of one pane: 512 x 512 x 300 still fits.
MOST_VOXELS_OF_A_PANE = 84e6
#: Sides (z, y, x) of a box in full resolution, in voxels of the result, unless another is asked for.
BOX = (64, 256, 256)
MOST_PANES = 4
#: HU from which a voxel belongs to the body, to find its middle.
_BODY_HU = -500
#: Keys 1 to 3 of the page.
WINDOWS_HU = {
    "lung": DISPLAY_WINDOWS_HU["lung"],
    "soft tissue": METRIC_WINDOWS_HU["mediastinum"],
    "bone": DISPLAY_WINDOWS_HU["bone"],
}


@dataclass(frozen=True)
class Pane:
    """A volume with its label: scan, result or truth. Names of files never reach the page."""

    label: str
    volume: Volume


@dataclass(frozen=True)
class View:
    """A region of the result, and the same place in every pane."""

    region: Region
    panes: tuple[Region, ...]
    #: whether it is a box that was asked for
    box: bool = False

    @property
    def full(self) -> bool:
        """Whether all panes show their voxels as they are."""
        return all(part.step == (1, 1, 1) for part in self.panes)


@dataclass(frozen=True)
class Study:
    """Volumes of the same patient on grids with the same directions.

    Parameters
    ----------
    panes : sequence of Pane
        The first one with the label "result" is the reference: boxes and findings are in its voxels.
    overlays : sequence of Overlay
        Maps that are drawn over the result, one at a time.
    mesh : (corners in mm, triangles), optional
    findings : list of Finding
    most_voxels : float, optional
        Voxels that one pane may show. By default it follows from the number of panes.

    Raises
    ------
    InputRefused
        If a volume has other directions than the result, or no place in common with it.
    """

    panes: Sequence[Pane]
    overlays: Sequence[Overlay] = ()
    mesh: Mesh | None = None
    findings: Sequence[Finding] = field(default_factory=list)
    most_voxels: float | None = None

    def __post_init__(self) -> None:
        for name, volume in self._named():
            if not np.allclose(volume.direction, self.result.direction, atol=1e-3):
                raise InputRefused(f"the {name} has other axis directions than the result; panes cannot be linked")
        if min(self.common.size) < 1:
            raise InputRefused(
                "the volumes have no place in common; are they of one patient and one frame of reference?"
            )
        for k, overlay in enumerate(self.overlays):
            if min(region_on(self.common, self.result.grid, overlay.volume.grid).size) < 1:
                raise InputRefused(f"overlay {k + 1} lies elsewhere than the result")

    def _named(self) -> list[tuple[str, Volume]]:
        overlays = [(f"overlay {k + 1}", o.volume) for k, o in enumerate(self.overlays)]
        return [(p.label, p.volume) for p in self.panes] + overlays

    @cached_property
    def reference(self) -> int:
        """Number of the pane that shows the result."""
        return next(k for k, p in enumerate(self.panes) if p.label.startswith("result"))

    @property
    def result(self) -> Volume:
        """The volume in whose voxels boxes and findings are given."""
        return self.panes[self.reference].volume

    @cached_property
    def common(self) -> Region:
        """The part of the result that all panes hold."""
        return shared_region(self.result.grid, [p.volume.grid for p in self.panes])

    @property
    def limit(self) -> float:
        """Voxels that one pane may show."""
        if self.most_voxels is not None:
            return self.most_voxels
        return min(MOST_VOXELS_OF_A_PANE, MOST_VOXELS / (len(self.panes) + bool(self.overlays)))

    def whole(self, most_voxels: float = math.inf) -> View:
        """Everything that all panes hold, as coarse as the limit needs, or as `most_voxels` per pane."""
        region = self.common
        steps: list[Three] = []
        for pane in self.panes:
            part = region_on(region, self.result.grid, pane.volume.grid)
            steps.append(coarse_step(part, pane.volume.spacing_mm, min(self.limit, most_voxels)))
        step = steps[self.reference]
        grids = [(p.volume.grid, s) for p, s in zip(self.panes, steps, strict=True)]
        region = aligned(Region(region.start, region.stop, step), self.result.grid, grids, within=region, grow=False)
        parts = [
            Region(part.start, part.stop, s)
            for (grid, s) in grids
            for part in [region_on(region, self.result.grid, grid)]
        ]
        return View(region, tuple(parts))

    def box(self, region: Region) -> View:
        """A region of the result in full resolution. It grows to whole voxels of the coarser volumes.

        Raises
        ------
        UhrctError
            If it is too large for a browser, or lies outside of a volume.
        """
        within = self.common
        start = tuple(max(a, b) for a, b in zip(region.start, within.start, strict=True))
        stop = tuple(min(a, b) for a, b in zip(region.stop, within.stop, strict=True))
        if any(b <= a for a, b in zip(start, stop, strict=True)):
            raise UhrctError("`box` lies where not all volumes have voxels; choose another")
        region = Region(_three(start), _three(stop))
        grids = [(p.volume.grid, (1, 1, 1)) for p in self.panes]
        region = aligned(region, self.result.grid, grids, within=within, grow=True)
        parts = [region_on(region, self.result.grid, grid) for grid, _ in grids]
        for part in parts:
            if math.prod(part.size) > self.limit or max(part.size) > LONGEST_SIDE:
                z, y, x = part.size
                raise UhrctError(
                    f"`box` has {z} x {y} x {x} voxels; a pane shows at most {self.limit / 1e6:.0f} million, and "
                    f"{LONGEST_SIDE} along an axis; give a smaller one"
                )
        return View(region, tuple(parts), box=True)

    def box_around(self, place: Sequence[int]) -> View:
        """A box around a voxel of the result, moved so that it stays inside, of the usual size or as large as fits."""
        sides = BOX
        while True:
            try:
                return self.box(self._around(place, sides))
            except UhrctError:
                if max(sides) == 1:
                    raise
                sides = _three(max(1, side // 2) for side in sides)

    def _around(self, place: Sequence[int], sides: Three) -> Region:
        start, stop = [], []
        for axis, side in enumerate(sides):
            low, high = self.common.start[axis], self.common.stop[axis]
            side = min(side, high - low)
            first = min(max(low, int(place[axis]) - side // 2), high - side)
            start.append(first)
            stop.append(first + side)
        return Region(_three(start), _three(stop))

    def first(self, box: str | None = None, *, small: bool = False) -> View:
        """The view to start with.

        Parameters
        ----------
        box : ``z0:z1,y0:y1,x0:x1`` in voxels of the result, optional
        small : without `box`, show a box of the usual size, not everything

        Raises
        ------
        UhrctError
            As `parsed_box` and `Study.box`.
        """
        if box is not None:
            return self.box(parsed_box(box, self.result.shape))
        return self.box_around(self.middle) if small else self.whole()

    @cached_property
    def middle(self) -> Three:
        """A voxel of the result in the middle of the body, or the worst finding if there is one."""
        if self.findings:
            return self.findings[0].place
        return body_middle(self.result, self.common)

    def describe(self, view: View) -> dict[str, Any]:
        """What the page needs to know about a view, without any name of a file or patient."""
        inside = self.middle if _inside(self.middle, view.region) else body_middle(self.result, view.region)
        return {
            "panes": [self._pane(k, part) for k, part in enumerate(view.panes)],
            "reference": self.reference,
            "text": self._text(view),
            "full": view.full,
            "region": [list(view.region.start), list(view.region.stop)],
            "place": list(inside),
            "affine": self.result.affine.tolist(),
            "windows": [{"name": name, "low": low, "high": high} for name, (low, high) in WINDOWS_HU.items()],
            "overlays": [o.as_dict() for o in self.overlays],
            "mesh": self.mesh is not None,
            "findings": [
                {
                    "grade": f.grade,
                    "colour": GRADE_COLOURS[f.grade],
                    "text": f"{f.kind}, {f.length_mm:.1f} mm",
                    "place": list(f.place),
                }
                for f in self.findings
            ],
        }

    def image(self, number: int, view: View) -> bytes:
        """The NIfTI bytes of a pane."""
        return nifti_bytes(cut(self.panes[number].volume, view.panes[number]))

    def overlay(self, number: int, view: View) -> bytes:
        """The NIfTI bytes of an overlay. Labels are picked, not averaged; grades, which are lines, become wider."""
        overlay = self.overlays[number]
        part = region_on(view.region, self.result.grid, overlay.volume.grid)
        step = coarse_step(part, overlay.volume.spacing_mm, math.prod(view.panes[self.reference].shown))
        part = Region(part.start, part.stop, step)
        if not overlay.labels:
            return nifti_bytes(cut(overlay.volume, part))
        shown = _largest_label(overlay.volume, part)
        return nifti_bytes(shown if overlay.kind != "grades" else _wide(shown))

    def _pane(self, number: int, part: Region) -> dict[str, Any]:
        volume = self.panes[number].volume
        spacing = [s * k for s, k in zip(volume.spacing_mm, part.step, strict=True)]
        return {
            "label": self.panes[number].label,
            "size": f"{' x '.join(map(str, part.shown))}, {' x '.join(f'{s:.3g}' for s in spacing)} mm",
            "full": part.step == (1, 1, 1),
        }

    def _text(self, view: View) -> str:
        """One or two sentences: what is shown, and how to see more."""
        z, y, x = (f"{a}:{b}" for a, b in zip(view.region.start, view.region.stop, strict=True))
        everything = view.region.start == (0, 0, 0) and view.region.stop == self.result.shape
        if view.full:
            part = (
                "The whole volume" if everything else f"A part of the volume (box {z},{y},{x} in voxels of the result)"
            )
            return f"{part} in full resolution."
        coarse = [
            f"{pane.label}: {_times(part.step)}{', rounded to 1 HU' * (pane.volume.hu.dtype == np.int16)}"
            for pane, part in zip(self.panes, view.panes, strict=True)
            if part.step != (1, 1, 1)
        ]
        what = "The whole volume" if everything else "The part that all volumes hold"
        return (
            f"{what}, coarser than it is. HU are means of blocks of voxels ({'; '.join(coarse)}). "
            "Full resolution here (key f) and --box show a part in full resolution."
        )


def body_middle(volume: Volume, region: Region) -> Three:
    """The middle of the voxels above -500 HU in the middle slice of a region; the middle of the region if all is air.

    Example
    -------
    >>> hu = np.full((3, 8, 8), -1000, np.int16); hu[:, 4:, 2:5] = 40
    >>> body_middle(Volume(hu, (1.0, 1.0, 1.0)), Region((0, 0, 0), (3, 8, 8)))
    (1, 6, 3)
    """
    z = (region.start[0] + region.stop[0]) // 2
    plane = volume.hu[z : z + 1][0, region.start[1] : region.stop[1], region.start[2] : region.stop[2]] > _BODY_HU
    place = [z]
    for axis, start in ((1, region.start[1]), (0, region.start[2])):
        counts = plane.sum(axis)
        # rows with a little body only are the table
        found = np.flatnonzero(counts > 0.1 * counts.max())
        place.append(start + int((found[0] + found[-1] + 1) // 2 if len(found) else len(counts) // 2))
    return place[0], place[1], place[2]


def _largest_label(volume: Volume, part: Region) -> Volume:
    """The largest label of each block: a thin line of a bad grade stays visible."""
    grid = cut(volume, part)
    if part.step == (1, 1, 1):
        return grid
    slices = [slice(a, a + n * s) for a, n, s in zip(part.start, part.shown, part.step, strict=True)]
    z, y, x = part.shown
    blocks = volume.hu[slices[0]][:, slices[1], slices[2]].reshape(z, part.step[0], y, part.step[1], x, part.step[2])
    return Volume(blocks.max((1, 3, 5)), grid.spacing_mm, grid.origin_mm, grid.direction)


def _wide(lines: Volume) -> Volume:
    """Lines of one voxel that become three voxels wide in each slice. Where two meet, the worse grade wins.

    >>> _wide(Volume(np.array([[[0, 0, 1, 0, 4]]], np.int16), (1.0, 1.0, 1.0))).hu.ravel().tolist()
    [0, 1, 1, 4, 4]
    """
    out = lines.hu.copy()
    for axis in (1, 2):
        thin = np.moveaxis(out.copy(), axis, 0)
        wide = np.moveaxis(out, axis, 0)
        np.maximum(wide[1:], thin[:-1], out=wide[1:])
        np.maximum(wide[:-1], thin[1:], out=wide[:-1])
    return Volume(out, lines.spacing_mm, lines.origin_mm, lines.direction)


def _three(values: Iterable[int]) -> Three:
    z, y, x = values
    return z, y, x


def _inside(place: Three, region: Region) -> bool:
    return all(a <= k < b for k, a, b in zip(place, region.start, region.stop, strict=True))


def _times(step: Three) -> str:
    return " x ".join(str(s) for s in step)
