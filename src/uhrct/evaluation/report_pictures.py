"""Pictures of a comparison: slices beside each other, error maps, broken and invented vessels, zooms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from uhrct.core.hu import DISPLAY_WINDOWS_HU, FLOOR_HU, METRIC_WINDOWS_HU
from uhrct.core.volume import Vector, Volume
from uhrct.evaluation.lungs import body_mask
from uhrct.evaluation.measures import VESSEL_THRESHOLD, without_padding
from uhrct.evaluation.pictures import image_source, pyplot
from uhrct.evaluation.places import Place
from uhrct.evaluation.structure_error import SMSE_OPERATORS, structure_maps
from uhrct.structure.lengths import VesselLines, line_lengths, vessel_lines
from uhrct.structure.vessels import vessel_mask

#: Side of a zoom.
ZOOM_MM = 40.0
#: Colours of centre lines: broken, invented, and found in both.
COLOURS = {"broken": "#ff8c00", "invented": "#00d5ff", "found": "#35d05a"}
#: Zooms are numbered, and framed in these colours.
FRAMES = ("#ffd400", "#ff5fa2", "#7ee081", "#6fb7ff")
WIDTH_INCH, DPI = 12.6, 100
#: So many colours show an error as well as more would, in half of the bytes. One of them is white.
ERROR_COLOURS = 31


@dataclass(frozen=True)
class Pictures:
    """The volumes of a comparison on one grid, and how they are shown.

    Attributes
    ----------
    reference : Volume
    tests : name -> Volume
        What is compared with the reference, the test last.
    lungs : array of bool, (z, y, x)
        As the metrics use them.
    lr : Volume, optional
        The low-resolution scan.
    scale : (z, y, x)
        Voxels of the reference per voxel of `lr`.
    error_hu : float
        An error of so many HU has full colour.
    places : the zooms
    """

    reference: Volume
    tests: dict[str, Volume]
    lungs: np.ndarray
    lr: Volume | None
    scale: tuple[int, int, int]
    error_hu: float
    places: Sequence[Place] = ()

    def slices(self, z: int) -> str:
        """Slice `z` of truth, low-resolution scan and tests, with the frames of the zooms in it."""
        low, high, name = self._window(z)
        where = self._body_box(z)
        figure, axes = self._figure([self._height(where)], len(self._columns), title_inch=0.3)
        for axis, column in zip(axes[0], self._columns, strict=True):
            self._show(axis, column, "axial", (z, 0, 0), (low, high))
            axis.set_title(column, fontsize=11)
            _limit(axis, where)
            for k, p in enumerate(self.places):
                if p.z == z:
                    self._frame(axis, k, p)
        figure.suptitle(f"slice {z}, {name} window, {low:.0f} to {high:.0f} HU", fontsize=11)
        _scale_bar(axes[0, 0], self.reference.spacing_mm[2])
        return image_source(figure, dpi=DPI)

    def errors(self, z: int) -> str:
        """Errors in HU, and structure that was lost and added, of each test in slice `z`."""
        spacing_mm = self.reference.spacing_mm[1:]
        where = self._body_box(z)
        pairs = {name: _pair(self.reference.hu[z], volume.hu[z]) for name, volume in self.tests.items()}
        maps = {name: structure_maps(pair, spacing_mm, SMSE_OPERATORS["vc"]) for name, pair in pairs.items()}
        changes = {name: pair[1] - pair[0] for name, pair in maps.items()}
        largest = rounded_up(_percentile(list(changes.values()), self._body(z)), least=0.05)
        shown = (
            (
                "error",
                {name: pair[1] - pair[0] for name, pair in pairs.items()},
                self.error_hu,
                "HU below (blue), above (red) the truth",
            ),
            ("structure (V_C)", changes, largest, "lost (blue), added (red)"),
        )
        figure, axes = self._figure([self._height(where)] * 2, len(pairs), bar_inch=1.0)
        steps = pyplot().get_cmap("seismic", ERROR_COLOURS)
        for row, (what, images, full, label) in zip(axes, shown, strict=True):
            for axis, (name, image) in zip(row, images.items(), strict=True):
                # nearest: smoothing would mix blue and red to a purple that is not in the bar
                how: dict[str, Any] = {"cmap": steps, "vmin": -full, "vmax": full, "interpolation": "nearest"}
                drawn = axis.imshow(image, aspect=self._stretch("axial"), **how)
                axis.set_title(f"{name}: {what}", fontsize=11)
                _limit(axis, where)
            figure.colorbar(drawn, ax=list(row), shrink=0.9, extend="both").set_label(label, fontsize=10)
        _scale_bar(axes[0, 0], self.reference.spacing_mm[2], "black")
        return image_source(figure, dpi=DPI)

    def vessels(self, z: int) -> str | None:
        """Broken and invented vessels of each test in slice `z`, drawn over the truth; None without lung."""
        if not self.lungs[z].any():
            return None
        plt = pyplot()
        where = _box(self.lungs[z], self.reference.spacing_mm[1:])
        stretch = self._stretch("axial")
        figure, axes = self._figure([self._height(where)], len(self.tests), title_inch=0.6)
        low, high = DISPLAY_WINDOWS_HU["lung"]
        for axis, (name, volume) in zip(axes[0], self.tests.items(), strict=True):
            lines = self.lines(volume, z)
            axis.imshow(self.reference.hu[z], cmap="gray", vmin=low, vmax=high + 600, aspect=stretch)
            found = (lines.reference | lines.test) & ~lines.broken & ~lines.invented
            for kind, line in (("found", found), ("invented", lines.invented), ("broken", lines.broken)):
                axis.imshow(
                    _coloured(line, COLOURS[kind], wide=kind != "found"), aspect=stretch, interpolation="nearest"
                )
            _limit(axis, where)
            broken = self.length_mm(lines.reference, lines.broken)
            invented = self.length_mm(lines.test, lines.invented)
            axis.set_title(f"{name}: {broken:.1f} mm broken, {invented:.1f} mm invented", fontsize=11)
        _scale_bar(axes[0, 0], self.reference.spacing_mm[2])
        says = {"broken": "broken: only in the truth", "invented": "invented: only here", "found": "in both"}
        handles = [plt.Line2D([], [], color=COLOURS[kind], lw=3, label=text) for kind, text in says.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=11, frameon=False)
        return image_source(figure, dpi=DPI)

    def lines(self, test: Volume, z: int) -> VesselLines:
        """Centre lines of the vessels in the lungs, those whose lengths the table gives."""
        maps = structure_maps(
            _pair(self.reference.hu[z], test.hu[z]), self.reference.spacing_mm[1:], SMSE_OPERATORS["vc"]
        )
        return vessel_lines(*(vessel_mask(m, self.lungs[z], VESSEL_THRESHOLD) for m in maps))

    def length_mm(self, line: np.ndarray, part: np.ndarray) -> float:
        """Length of a part of a centre line."""
        return float(line_lengths(line, self.reference.spacing_mm[1:])[part].sum())

    def zoom(self, k: int) -> str:
        """Zoom `k`: truth, low-resolution scan, tests, and the error of each test; also a coronal cut if z is finer."""
        p = self.places[k]
        columns, nz, z_mm = self._columns, self.reference.shape[0], self.reference.spacing_mm[0]
        low, high = self._window_at(p)
        heights = {"axial": 1.0}
        if self.scale[0] > 1:
            heights["coronal"] = max(0.15, min(1.0, nz * z_mm / ZOOM_MM))
        figure, axes = self._figure(
            list(heights.values()), len(columns) + len(self.tests), bar_inch=0.9, title_inch=0.3
        )
        for row, cut in zip(axes, heights, strict=True):
            for axis, column in zip(row[: len(columns)], columns, strict=True):
                self._show(axis, column, cut, (p.z, p.y, p.x), (low, high))
            for axis, test in zip(row[len(columns) :], self.tests.values(), strict=True):
                error = self._plane(test, cut, p) - self._plane(self.reference, cut, p)
                how: dict[str, Any] = {"cmap": "seismic", "vmin": -self.error_hu, "vmax": self.error_hu}
                image = axis.imshow(error, interpolation="nearest", aspect=self._stretch(cut), **how)
            for axis in row:
                self._zoom_limit(axis, cut, p)
                for spine in axis.spines.values():
                    spine.set(edgecolor=FRAMES[k % len(FRAMES)], linewidth=2)
            row[0].set_ylabel(cut, fontsize=11)
        for axis, title in zip(axes[0], [*columns, *(f"error: {test}" for test in self.tests)], strict=True):
            axis.set_title(title, fontsize=11)
        _scale_bar(axes[0, 0], self.reference.spacing_mm[2])
        figure.colorbar(image, ax=list(axes[:, -1]), shrink=0.85, extend="both").set_label("HU", fontsize=10)
        figure.suptitle(f"zoom {k + 1}: slice {p.z}, window {low:.0f} to {high:.0f} HU", fontsize=11)
        return image_source(figure, dpi=DPI)

    @property
    def _columns(self) -> list[str]:
        return ["truth", *(["low resolution"] if self.lr is not None else []), *self.tests]

    def _window(self, z: int) -> tuple[float, float, str]:
        """(low, high, name) of the window of a slice: lung where there is lung, else soft tissue."""
        if self.lungs[z].mean() > 0.03:
            return *DISPLAY_WINDOWS_HU["lung"], "lung"
        return *METRIC_WINDOWS_HU["mediastinum"], "soft-tissue"

    def _window_at(self, p: Place) -> tuple[float, float]:
        """(low, high) of the HU around a place, so that the place itself is neither black nor white."""
        y, x = (max(1, round(ZOOM_MM / 4 / s)) for s in self.reference.spacing_mm[1:])
        around = self.reference.hu[p.z, max(p.y - y, 0) : p.y + y + 1, max(p.x - x, 0) : p.x + x + 1]
        low, high = np.percentile(np.nan_to_num(around.astype(np.float32)).clip(FLOOR_HU), (1, 99))
        low, high = 50 * np.floor(low / 50), 50 * np.ceil(high / 50)
        wider = max(0.0, 400 - (high - low)) / 2
        return float(low - wider), float(high + wider)

    def _body(self, z: int) -> np.ndarray:
        """The body in slice `z`; the whole slice if none is found."""
        inside = body_mask(self.reference.hu[z], (self.reference.spacing_mm[1], self.reference.spacing_mm[2]))
        return inside if inside.any() else np.ones_like(inside)

    def _body_box(self, z: int) -> tuple[slice, slice]:
        return _box(self._body(z), self.reference.spacing_mm[1:], 3.0)

    def _height(self, where: tuple[slice, slice]) -> float:
        """Height of a part of a slice, for a width of 1."""
        rows, columns = (w.stop - w.start for w in where)
        return self._stretch("axial") * rows / columns

    def _show(self, axis: Any, column: str, cut: str, at: tuple[int, int, int], window_hu: tuple[float, float]) -> None:
        volume, scale = self.reference, (1, 1, 1)
        if column in self.tests:
            volume = self.tests[column]
        elif column != "truth" and self.lr is not None:
            volume, scale = self.lr, self.scale
        z, y, x = (min(i // s, n - 1) for i, s, n in zip(at, scale, volume.shape, strict=True))
        point = Place(z, y, x, 0.0)
        image = self._plane(volume, cut, point)
        sy, sx = (scale[0] if cut == "coronal" else scale[1]), scale[2]
        extent = (-0.5, image.shape[1] * sx - 0.5, image.shape[0] * sy - 0.5, -0.5)
        axis.imshow(
            image, cmap="gray", vmin=window_hu[0], vmax=window_hu[1], extent=extent, interpolation="nearest",
            aspect=self._stretch(cut),
        )  # fmt: skip

    @staticmethod
    def _plane(volume: Volume, cut: str, p: Place) -> np.ndarray:
        plane = volume.hu[:, p.y] if cut == "coronal" else volume.hu[p.z]
        return np.nan_to_num(plane.astype(np.float32)).clip(FLOOR_HU)

    def _stretch(self, cut: str) -> float:
        z, y, x = self.reference.spacing_mm
        return (z if cut == "coronal" else y) / x

    def _zoom_limit(self, axis: Any, cut: str, p: Place) -> None:
        """Show the square of `ZOOM_MM` around a place. The head is above in a coronal cut."""
        (z, y, x), half = self.reference.spacing_mm, ZOOM_MM / 2
        axis.set_xlim(p.x - half / x, p.x + half / x)
        if cut == "coronal":
            nz = self.reference.shape[0]
            middle = min(max(p.z, half / z - 0.5), nz - half / z - 0.5) if nz * z > ZOOM_MM else (nz - 1) / 2
            reach = min(half / z, nz / 2)
            up = 1 if self.reference.direction[2, 0] > 0 else -1
            axis.set_ylim(middle - up * reach, middle + up * reach)
        else:
            axis.set_ylim(p.y + half / y, p.y - half / y)
        axis.set_facecolor("black")

    def _frame(self, axis: Any, k: int, p: Place) -> None:
        _, y, x = self.reference.spacing_mm
        colour = FRAMES[k % len(FRAMES)]
        corner = (p.x - ZOOM_MM / 2 / x, p.y - ZOOM_MM / 2 / y)
        axis.add_patch(pyplot().Rectangle(corner, ZOOM_MM / x, ZOOM_MM / y, fill=False, ec=colour, lw=1.5))
        axis.annotate(str(k + 1), corner, color=colour, fontsize=11, weight="bold", va="bottom", annotation_clip=False)

    @staticmethod
    def _figure(
        heights: list[float], columns: int, *, bar_inch: float = 0.0, title_inch: float = 0.0
    ) -> tuple[Any, Any]:
        """A figure of the page's width, with one row of axes for each of `heights`, given for a width of 1."""
        width = min((WIDTH_INCH - bar_inch) / columns, 6.0)
        size = (width * columns + bar_inch, width * sum(heights) + 0.32 * len(heights) + title_inch)
        figure, axes = pyplot().subplots(
            *(len(heights), columns),
            figsize=size,
            squeeze=False,
            layout="constrained",
            gridspec_kw={"height_ratios": heights},
        )
        for axis in axes.flat:
            axis.set(xticks=[], yticks=[])
        return figure, axes


def error_scale_hu(reference: Volume, tests: Sequence[Volume], slices: Sequence[int]) -> float:
    """The error that gets full colour: the 99th percentile in the body in the shown slices, rounded up."""
    spacing_mm = (reference.spacing_mm[1], reference.spacing_mm[2])
    largest = 0.0
    for z in slices:
        inside = body_mask(reference.hu[z], spacing_mm)
        pairs = [_pair(reference.hu[z], test.hu[z]) for test in tests]
        largest = max(largest, _percentile([pair[1] - pair[0] for pair in pairs], inside if inside.any() else ~inside))
    return rounded_up(largest)


def rounded_up(value: float, least: float = 1.0) -> float:
    """The next number that reads well, at least `least`.

    Example
    -------
    >>> [rounded_up(v) for v in (0, 1, 37, 41, 150.1, 960)], rounded_up(0.03, least=0.01)
    ([1.0, 1.0, 40.0, 50.0, 200.0, 1000.0], 0.03)
    """
    value = max(value, least)
    power = 10.0 ** np.floor(np.log10(value))
    return float(next(power * s for s in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if power * s >= value * (1 - 1e-4)))


def _percentile(errors: Sequence[np.ndarray], inside: np.ndarray) -> float:
    """The 99th percentile of the size of errors inside a mask: the largest of several images."""
    return max(float(np.percentile(np.abs(error[inside]), 99)) for error in errors)


def _limit(axis: Any, where: tuple[slice, slice]) -> None:
    """Show these rows and columns of a slice."""
    rows, columns = where
    axis.set(xlim=(columns.start - 0.5, columns.stop - 0.5), ylim=(rows.stop - 0.5, rows.start - 0.5))


def _pair(reference: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Both slices as the metrics see them."""
    both = [np.nan_to_num(x.astype(np.float64), nan=FLOOR_HU, posinf=3071, neginf=FLOOR_HU) for x in (reference, test)]
    return np.stack(without_padding(*both))


def _box(mask: np.ndarray, spacing_mm: Vector | tuple[float, ...], margin_mm: float = 8.0) -> tuple[slice, slice]:
    """The rows and columns that hold a mask, with a margin."""
    out = []
    for axis, step in enumerate(spacing_mm):
        index = np.flatnonzero(mask.any(1 - axis))
        margin = round(margin_mm / step)
        out.append(slice(max(int(index[0]) - margin, 0), min(int(index[-1]) + margin + 1, mask.shape[axis])))
    return out[0], out[1]


def _coloured(line: np.ndarray, colour: str, wide: bool) -> np.ndarray:
    """RGBA of a centre line, three pixels wide where it should be noticed."""
    from matplotlib.colors import to_rgba
    from scipy import ndimage

    mask = ndimage.binary_dilation(line, np.ones((3, 3))) if wide else line
    out = np.zeros((*line.shape, 4))
    out[mask] = to_rgba(colour, 1.0 if wide else 0.8)
    return out


def _scale_bar(axis: Any, pixel_mm: float, colour: str = "white") -> None:
    """A bar of a round length in mm, about a quarter of the image, in the lower left corner."""
    from matplotlib.patheffects import withStroke

    left, right = axis.get_xlim()
    bottom, top = axis.get_ylim()
    length_mm = max(s for s in (1, 2, 5, 10, 20, 50, 100) if s <= max(0.3 * abs(right - left) * pixel_mm, 1))
    x, y = left + 0.04 * (right - left), bottom + 0.05 * (top - bottom)
    other = "black" if colour == "white" else "white"
    outline = [withStroke(linewidth=2.5, foreground=other)]
    bar = {"color": colour, "lw": 3, "path_effects": [withStroke(linewidth=5, foreground=other)]}
    axis.plot([x, x + length_mm / pixel_mm], [y, y], **bar)
    text = {"color": colour, "fontsize": 10, "weight": "bold", "path_effects": outline}
    axis.annotate(f"{length_mm} mm", (x, y), (0, 4), textcoords="offset points", **text)
    axis.set(xlim=(left, right), ylim=(bottom, top))
