"""Image figures of a benchmark: truth and methods on one slice, with zooms of image, structure map and error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from uhrct import io
from uhrct.benchmark.config import BenchmarkConfig
from uhrct.benchmark.results import Results
from uhrct.benchmark.runner import picture_file
from uhrct.core.hu import DISPLAY_WINDOWS_HU
from uhrct.evaluation.lungs import lung_mask
from uhrct.evaluation.measures import NOTE, without_padding
from uhrct.evaluation.pictures import ERROR_HU, busiest, pyplot, save_figure
from uhrct.evaluation.structure_error import SMSE_OPERATORS, structure_maps

#: Methods in one figure, beside the truth and the method that all are compared with. More would be too small.
ABREAST = 4
ZOOM_MM = 45.0
COLUMN_INCH = 2.05
COLOURS = ("#ffb000", "#40c0ff")


@dataclass(frozen=True)
class Picture:
    """A column: name, line of scores, image (y, x) in HU, structure map (y, x), error (y, x) in HU or None (truth)."""

    name: str
    scores: str
    hu: np.ndarray
    structure: np.ndarray
    error: np.ndarray | None


def side_by_side(results: Results, config: BenchmarkConfig, place: tuple[str, str, str], path: Path) -> list[Path]:
    """Write one PNG for every few methods, as `path` with a number before the suffix. None without stored pictures."""
    pictures, spacing_mm, z = _pictures(results, config, place)
    if not pictures:
        return []
    truth, *methods = pictures
    ours = [p for p in methods if p.name == config.against]
    others = [p for p in methods if p.name != config.against]
    lung = lung_mask(truth.hu, spacing_mm)  # zooms belong into the lungs, not to the edge of the couch
    where = truth.structure * lung if lung.any() else truth.structure
    zooms = busiest(where, min(round(ZOOM_MM / spacing_mm[0]), min(truth.hu.shape) // 2), count=len(COLOURS))
    protocol, degradation, case = place
    title = f"{case}, slice {z}, {protocol}, {degradation} degradation. {NOTE}"
    parts = np.array_split(np.arange(len(others)), max(1, -(-len(others) // ABREAST)))
    files = []
    for k, part in enumerate(parts, 1):
        files.append(path.with_name(f"{path.stem}-{k}{path.suffix}"))
        _draw([truth, *(others[i] for i in part), *ours], zooms, spacing_mm, title, files[-1])
    return files


def _pictures(
    results: Results, config: BenchmarkConfig, place: tuple[str, str, str]
) -> tuple[list[Picture], tuple[float, float], int]:
    """(truth and methods on the slice that most methods have a picture of, spacing (y, x) in mm, slice number)."""
    protocol, degradation, case = place
    rows = results.of(*place)
    found = []
    for m in results.runs[-1]["methods"]:
        file = picture_file(config.out, protocol, degradation, case, m["identity"])
        if m["protocol"] == protocol and m["name"] in rows and file.is_file():
            with np.load(file) as stored:
                found.append((m["name"], int(stored["slice"]), stored["hu"].astype(np.float64)))
    if not found:
        return [], (1.0, 1.0), 0
    z = max(found, key=lambda f: sum(f[1] == other[1] for other in found))[1]
    volume = io.read(config.data / case)
    spacing_mm = (volume.spacing_mm[1], volume.spacing_mm[2])
    height, width = found[0][2].shape
    truth = volume.hu[z, :height, :width].astype(np.float64)
    pictures = []
    for name, hu in [("truth", truth), *((name, hu) for name, of, hu in found if of == z)]:
        a, b = without_padding(truth, hu)
        structure = structure_maps(b[None], spacing_mm, SMSE_OPERATORS["vc"])[0]
        psnr = rows[name][z]["values"].get("psnr_wide") if name in rows and z in rows[name] else None
        scores = "" if psnr is None else f"PSNR {psnr:.2f} dB"
        pictures.append(Picture(name, scores, b, structure, None if name == "truth" else b - a))
    return pictures, spacing_mm, z


def _draw(
    pictures: Sequence[Picture],
    zooms: Sequence[tuple[int, int, int]],
    spacing_mm: tuple[float, float],
    title: str,
    path: Path,
) -> None:
    """One column per picture: the slice, then image, structure map and error of each zoom; colour bars at the right."""
    plt = pyplot()
    height, width = (n * d for n, d in zip(pictures[0].hu.shape, spacing_mm, strict=True))
    ratios = [height / width, *[1.0] * (3 * len(zooms))]
    figure, axes = plt.subplots(
        len(ratios),
        len(pictures),
        figsize=(COLUMN_INCH * len(pictures) + 0.9, COLUMN_INCH * sum(ratios) + 0.9),
        gridspec_kw={"height_ratios": ratios},
        squeeze=False,
        layout="constrained",
    )
    figure.get_layout_engine().set(w_pad=0.015, h_pad=0.015, wspace=0.01, hspace=0.01)
    kinds = (
        ("image", "gray", DISPLAY_WINDOWS_HU["lung"], "HU"),
        ("structure", "magma", (0.0, 1.0), "V_C"),
        ("error", "seismic", (-ERROR_HU, ERROR_HU), "error (HU)"),
    )
    aspect = spacing_mm[0] / spacing_mm[1]

    def show(row: int, column: int, image: np.ndarray, colours: str, limits: tuple[float, float]) -> Any:
        low, high = limits
        return axes[row, column].imshow(
            image, cmap=colours, vmin=low, vmax=high, interpolation="nearest", aspect=aspect
        )

    for column, p in enumerate(pictures):
        last = show(0, column, p.hu, "gray", DISPLAY_WINDOWS_HU["paper"])
        axes[0, column].set_title(f"{p.name}\n{p.scores}".rstrip(), fontsize=9)
        for (y, x, side), edge in zip(zooms, COLOURS, strict=False):
            axes[0, column].add_patch(plt.Rectangle((x, y), side, side, fill=False, ec=edge, lw=1.2))
    bars = [figure.colorbar(last, ax=list(axes[0]), fraction=0.012, pad=0.005)]
    bars[0].set_label("HU", fontsize=8)
    for k, (y, x, side) in enumerate(zooms):
        for j, (what, colours, limits, unit) in enumerate(kinds):
            row = 1 + len(kinds) * k + j
            for column, p in enumerate(pictures):
                image = {"image": p.hu, "structure": p.structure, "error": p.error}[what]
                if image is None:
                    axes[row, column].axis("off")
                    continue
                last = show(row, column, image[y : y + side, x : x + side], colours, limits)
                for spine in axes[row, column].spines.values():
                    spine.set(edgecolor=COLOURS[k], linewidth=1.4)
            bars.append(figure.colorbar(last, ax=list(axes[row]), fraction=0.012, pad=0.005))
            bars[-1].set_label(unit, fontsize=8)
            axes[row, 0].set_ylabel(f"zoom {k + 1}: {what}", fontsize=9)
        _scale_bar(axes[1 + len(kinds) * k, 0], 10, side, spacing_mm)
    _scale_bar(axes[0, 0], 50, pictures[0].hu.shape[0], spacing_mm)
    for bar in bars:
        bar.ax.tick_params(labelsize=7)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    figure.suptitle(title, fontsize=9)
    save_figure(figure, path)


def _scale_bar(axis: Any, mm: int, rows: int, spacing_mm: tuple[float, float]) -> None:
    """Draw a bar of `mm` into the lower left corner of an image of `rows` rows."""
    y, x = 0.94 * rows, 0.05 * rows
    axis.plot([x, x + mm / spacing_mm[1]], [y, y], color="white", lw=2, solid_capstyle="butt")
    axis.text(x, 0.92 * rows, f"{mm} mm", color="white", fontsize=8, va="bottom")
