"""A scan before and after: scan, interpolation, result and difference of a few squares, with noise and edges.

There is no truth for a user's own scan. The page shows what changed, not what is right.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np

from uhrct.core.errors import UhrctError
from uhrct.core.files import write_atomic
from uhrct.core.hu import FLOOR_HU, MEAN_OF_NOISE
from uhrct.core.undefined import Undefined
from uhrct.core.volume import Grid, Volume
from uhrct.evaluation.html_report import check_libraries, render
from uhrct.evaluation.measures import NOTE
from uhrct.evaluation.pictures import image_source, pyplot, save_figure
from uhrct.evaluation.real_scans import edge_gradient, noise_hu
from uhrct.evaluation.views import View, choose_views
from uhrct.physics.resampling import resize_matrix

#: Slices that are measured besides the shown ones.
MEASURED = 3
#: Length of the scale bar.
BAR_MM = 10.0
#: of a line above the picture
TITLE_LETTERS = 170
SUFFIXES = (".png", ".html")
#: for the picture; the page says it at greater length
WHERE = "Noise: in the most even soft tissue. The log has the noise of the whole scan, which may be higher."


@dataclass(frozen=True)
class Cut:
    """One slice or coronal cut three times: arrays (rows, columns) in HU, with the spacing of each grid in mm."""

    scan: np.ndarray
    interpolation: np.ndarray
    result: np.ndarray
    scan_mm: tuple[float, float]
    result_mm: tuple[float, float]


@dataclass(frozen=True)
class Figures:
    """Noise in HU of scan, interpolation and result, and edges of the result relative to interpolation. None: not
    defined, for example where there is no even tissue.
    """

    scan_noise_hu: float | None
    interpolation_noise_hu: float | None
    result_noise_hu: float | None
    edges_in_plane: float | None
    edges_across: float | None


class BeforeAfter:
    """Collects the shown slices of a result while it is computed, and draws them beside the scan.

    Parameters
    ----------
    scan : Volume
        The input.
    grid : Grid
        Of the result; its first corner is the scan's.

    Raises
    ------
    UhrctError
        If scipy, jinja2 or matplotlib is missing.

    Example
    -------
    >>> scan = Volume(np.full((1, 80, 80), 40, np.int16), (1.0, 1.0, 1.0))
    >>> before_after = BeforeAfter(scan, scan.refined_grid((1, 2, 2)))
    >>> before_after.feed(0, np.full((1, 160, 160), 40, np.int16))
    >>> before_after.cut(before_after.views[0]).result.shape
    (160, 160)
    """

    def __init__(self, scan: Volume, grid: Grid) -> None:
        check_comparison()
        self.scan, self.grid = scan, grid
        self.in_plane = grid.spacing_mm[2] < scan.spacing_mm[2]
        self.views = choose_views(scan, across=grid.spacing_mm[0] < scan.spacing_mm[0])
        self._steps = [b / a for a, b in zip(scan.spacing_mm, grid.spacing_mm, strict=True)]
        measured = np.linspace(0, scan.shape[0] - 1, MEASURED + 2)[1:-1].round().astype(int)
        slices = {v.index for v in self.views if v.axis == 0} | {int(k) for k in measured}
        self._wanted = {self._fine(0, k): k for k in sorted(slices)}
        self._rows = {self._fine(1, v.index) for v in self.views if v.axis == 1}
        self._slices: dict[int, np.ndarray] = {}
        self._cuts = {row: np.zeros((grid.shape[0], grid.shape[2]), np.float32) for row in self._rows}

    def feed(self, first: int, hu: np.ndarray) -> None:
        """Take slices (k, y, x) of the result, which begin at number `first`."""
        for k, image in enumerate(hu, first):
            if k in self._wanted:
                self._slices[k] = _held(image)
            for row, cut in self._cuts.items():
                cut[k] = _held(image[row])

    def cut(self, view: View) -> Cut:
        """The plane of a view in scan, interpolation and result."""
        return self._cut(view.axis, view.index)

    def figures(self) -> Figures:
        """Medians over the slices that were collected."""
        scan, interpolation, result, edges = [], [], [], []
        scale = max(1, round(1 / self._steps[2]))
        for k in self._wanted.values():
            c = self._cut(0, k)
            with suppress(Undefined):
                ours, theirs = noise_hu(c.result, c.interpolation, scale)
                scan.append(noise_hu(c.scan, c.scan, 1)[0])
                result.append(ours)
                interpolation.append(theirs)
            edges += _ratio(c)
        across = [r for v in self.views if v.axis == 1 for r in _ratio(self.cut(v))]
        return Figures(
            *(_median(values) for values in (scan, interpolation, result, edges if self.in_plane else [], across))
        )

    def sentence(self, body_difference_hu: float | None, scan_noise_hu: float | None = None) -> str:
        """What changed, in words; see `describe`."""
        return describe(self.figures(), body_difference_hu, scan_noise_hu)

    def write(
        self,
        path: Path,
        *,
        body_difference_hu: float | None = None,
        scan_noise_hu: float | None = None,
        assumed: Sequence[str] = (),
    ) -> None:
        """Write a picture (.png) or a page (.html).

        Parameters
        ----------
        body_difference_hu, scan_noise_hu : as in `describe`
        assumed : lines about the scan, for the page

        Raises
        ------
        UhrctError
            If the suffix is another one, or the file cannot be written.
        """
        check_comparison(path)
        figures = self.figures()
        sentence = describe(figures, body_difference_hu, scan_noise_hu)
        if path.suffix.lower() == ".png":
            where = "" if figures.scan_noise_hu is None else f"{WHERE} "
            save_figure(self._figure(self.views, f"{sentence}\n{where}{NOTE}"), path, dpi=100)
            return
        shown = [
            {"name": v.name, "where": self._where(v), "image": image_source(self._figure([v], ""), dpi=90)}
            for v in self.views
        ]
        page = render(
            "before_after.html",
            title="Before and after",
            sentence=sentence,
            views=shown,
            rows=_rows(figures, scan_noise_hu),
            noise_defined=figures.scan_noise_hu is not None,
            assumed=list(assumed),
        )
        write_atomic(path, page)

    def _fine(self, axis: int, index: int) -> int:
        """The slice or row of the result at the middle of one of the scan."""
        return min(int((index + 0.5) / self._steps[axis]), self.grid.shape[axis] - 1)

    def _cut(self, axis: int, index: int) -> Cut:
        fine = self._fine(axis, index)
        result = self._slices[fine] if axis == 0 else self._cuts[fine]
        others = [a for a in range(3) if a != axis]
        along = [self._matrix(a) for a in others]
        weights = self._matrix(axis)[fine]
        used = weights.nonzero()[0]
        plane = np.tensordot(weights[used], _held(self.scan.hu.take(used, axis)), (0, axis))
        interpolation = along[0] @ plane @ along[1].T
        scan_mm, result_mm = ((g.spacing_mm[others[0]], g.spacing_mm[others[1]]) for g in (self.scan.grid, self.grid))
        scan = _held(self.scan.hu.take(index, axis))
        return Cut(scan, _held(interpolation), result, scan_mm, result_mm)

    def _matrix(self, axis: int) -> np.ndarray:
        if abs(self._steps[axis] - 1) < 1e-9:
            return np.eye(self.scan.shape[axis])
        return resize_matrix(self.scan.shape[axis], self.grid.shape[axis], self._steps[axis])

    def _where(self, view: View) -> str:
        low, high = view.window_hu
        # counted from 0, as in the audit and in arrays
        place = f"Slice {view.index}" if view.axis == 0 else f"Coronal cut through row {view.index}"
        return f"{place} of the scan, window {low:.0f} to {high:.0f} HU, scale bar {BAR_MM:.0f} mm"

    def _figure(self, views: Sequence[View], title: str) -> Any:
        """A row for each view: the whole plane, then the square in scan, interpolation, result, and the difference."""
        plt = pyplot()
        figure, axes = plt.subplots(
            len(views),
            5,
            figsize=(15, 3.15 * len(views) + (0.6 if title else 0.0)),
            squeeze=False,
            layout="constrained",
        )
        for line, view in zip(axes, views, strict=True):
            cut = self.cut(view)
            top, left, height, width = view.box_mm
            upside_down = view.axis == 1 and self.scan.direction[2, 0] > 0  # the first slice is that of the feet
            rows = (top, top + height) if upside_down else (top + height, top)
            gray = {"cmap": "gray", "vmin": view.window_hu[0], "vmax": view.window_hu[1]}
            _show(line[0], cut.result, cut.result_mm, **gray)
            line[0].add_patch(plt.Rectangle((left, top), width, height, fill=False, ec="#ffb000", lw=1.5))
            if upside_down:
                line[0].invert_yaxis()
            line[0].set_title(f"{view.name}\n{self._where(view).split(', ')[0]}", fontsize=9)
            parts = ((cut.scan, cut.scan_mm), (cut.interpolation, cut.result_mm), (cut.result, cut.result_mm))
            names = ("scan", "interpolation", "result")
            for axis, (image, mm), name in zip(line[1:4], parts, names, strict=True):
                _show(axis, image, mm, **gray)
                axis.set_title(f"{name}\n{view.window_hu[0]:.0f} to {view.window_hu[1]:.0f} HU", fontsize=9)
                bar_at = [left + width * 0.05, left + width * 0.05 + BAR_MM]
                axis.plot(bar_at, [0.95 * rows[0] + 0.05 * rows[1]] * 2, "#ffb000", lw=3)
            difference = cut.result - cut.interpolation
            inside = _part(difference, cut.result_mm, view.box_mm)
            most = max(10.0, float(np.ceil(np.quantile(np.abs(inside), 0.99) / 10) * 10))
            drawn = _show(line[4], difference, cut.result_mm, cmap="seismic", vmin=-most, vmax=most)
            line[4].set_title("result minus interpolation\nHU", fontsize=9)
            figure.colorbar(drawn, ax=line[4], shrink=0.85)
            for axis in line[1:]:
                axis.set(xlim=(left, left + width), ylim=rows)
        if title:
            lines = [part for line in title.split("\n") for part in wrap(line, TITLE_LETTERS)]
            figure.suptitle("\n".join(lines), fontsize=11)
        return figure


def check_comparison(path: Path | None = None) -> None:
    """Raise `UhrctError` if a library is missing, or the suffix of `path` is not .png or .html."""
    if path is not None and path.suffix.lower() not in SUFFIXES:
        raise UhrctError(
            f"{path.name}: a comparison is a picture (.png) or a page (.html); choose one of these suffixes"
        )
    try:
        import scipy  # noqa: F401
    except ImportError:
        raise UhrctError("a comparison needs scipy: pip install 'uhrct[evaluation]'") from None
    check_libraries()


def describe(figures: Figures, body_difference_hu: float | None, scan_noise_hu: float | None = None) -> str:
    """The figures as sentences.

    Parameters
    ----------
    figures : Figures
    body_difference_hu : mean absolute difference between the scan and the result in the body, measured again by the
        scanner model
    scan_noise_hu : noise that was assumed; it is stated where no even tissue allows a comparison

    Example
    -------
    >>> describe(Figures(17.2, 13.9, 8.8, 1.42, None), 0.31)
    'Noise in soft tissue: scan 17 HU, interpolation 14 HU, result 9 HU. Edges are 1.4 times as steep as after \
interpolation. Through the scanner model the result differs from the scan by 0.3 HU in the body.'
    """
    f, out = figures, []
    if f.scan_noise_hu is not None:
        numbers = zip(
            ("scan", "interpolation", "result"),
            (f.scan_noise_hu, f.interpolation_noise_hu, f.result_noise_hu),
            strict=True,
        )
        out.append("Noise in soft tissue: " + ", ".join(f"{name} {value:.0f} HU" for name, value in numbers) + ".")
    else:
        own = "" if scan_noise_hu is None else f" That of the scan is about {scan_noise_hu:.0f} HU."
        out.append(f"There is no tissue even enough to compare the noise.{own}")
    plane, across = f.edges_in_plane, f.edges_across
    if plane is not None and across is not None:
        out.append(f"Edges are {plane:.1f} (in plane) and {across:.1f} (across slices) times as steep as interpolated.")
    elif plane is not None or across is not None:
        where = "" if across is None else " across slices"
        out.append(f"Edges{where} are {plane or across:.1f} times as steep as after interpolation.")
    if body_difference_hu is not None:
        line = f"Through the scanner model the result differs from the scan by {body_difference_hu:.1f} HU in the body"
        noise = "" if not scan_noise_hu else f"; noise alone would give {MEAN_OF_NOISE * scan_noise_hu:.1f} HU"
        out.append(f"{line}{noise}.")
    return " ".join(out)


def _rows(f: Figures, scan_noise_hu: float | None) -> list[dict[str, str]]:
    def word(value: float | None, unit: str = "") -> str:
        return "not defined" if value is None else f"{value:.2f}{unit}"

    noise = [word(v, " HU") for v in (f.scan_noise_hu, f.interpolation_noise_hu, f.result_noise_hu)]
    if f.scan_noise_hu is None and scan_noise_hu is not None:
        noise[0] = f"{scan_noise_hu:.2f} HU (as assumed)"
    lines: list[tuple[str, ...]] = [("noise in soft tissue", *noise)]
    for what, ratio in (("edges in plane", f.edges_in_plane), ("edges across slices", f.edges_across)):
        if ratio is not None:
            lines.append((what, "", "1", word(ratio)))
    return [dict(zip(("what", "scan", "interpolation", "result"), line, strict=True)) for line in lines]


def _ratio(cut: Cut) -> list[float]:
    ours, theirs = edge_gradient(cut.result, cut.interpolation)
    return [ours / theirs] if theirs > 0 else []


def _median(values: Sequence[float]) -> float | None:
    return float(np.median(values)) if values else None


def _held(hu: np.ndarray) -> np.ndarray:
    return hu.astype(np.float32).clip(min=FLOOR_HU)


def _show(axis: Any, image: np.ndarray, mm: tuple[float, float], **how: Any) -> Any:
    height, width = (n * s for n, s in zip(image.shape, mm, strict=True))
    axis.set(xticks=[], yticks=[])
    return axis.imshow(image, extent=(0, width, height, 0), interpolation="nearest", **how)


def _part(image: np.ndarray, mm: tuple[float, float], box_mm: tuple[float, float, float, float]) -> np.ndarray:
    top, left, height, width = box_mm
    rows, columns = (
        slice(int(first / s), max(int((first + size) / s), int(first / s) + 1))
        for first, size, s in ((top, height, mm[0]), (left, width, mm[1]))
    )
    return image[rows, columns]
