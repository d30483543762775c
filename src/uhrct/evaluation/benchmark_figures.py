"""Figures of a benchmark: spread over slices, quality against time, vessels lost and invented, images side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from uhrct import formats
from uhrct.evaluation.benchmark import picture_file
from uhrct.evaluation.benchmark_config import BenchmarkConfig
from uhrct.evaluation.benchmark_results import Results, column
from uhrct.evaluation.benchmark_tables import median_seconds
from uhrct.evaluation.lungs import lung_mask
from uhrct.evaluation.measures import MEASURES, without_padding
from uhrct.evaluation.structure_error import SMSE_OPERATORS, structure_maps
from uhrct.report import DISPLAY_HU, Panel, busiest, comparison, pyplot

#: what is drawn as boxes
BOXES = ("psnr_wide", "smse_vc", "cldice_25")


def boxes(results: Results, place: tuple[str, str, str], path: Path) -> Path:
    """Box plots over slices, a method a row."""
    plt = pyplot()
    rows = results.of(*place)
    names = list(rows)[::-1]
    figure, axes = plt.subplots(1, len(BOXES), figsize=(13, 0.9 + 0.32 * len(names)), sharey=True, layout="constrained")
    for axis, metric in zip(axes, BOXES, strict=True):
        m = MEASURES[metric]
        values = [column(rows[n], metric) * m.printed_times for n in names]
        axis.boxplot(
            [v[~np.isnan(v)] for v in values], orientation="horizontal", widths=0.6, medianprops={"color": "#b03060"}
        )
        axis.set(
            xlabel=f"{m.label}{f' ({m.unit})' if m.unit else ''}", yticks=range(1, len(names) + 1), yticklabels=names
        )
        axis.grid(axis="x", alpha=0.3)
    return _saved(plt, figure, path)


def against_time(results: Results, place: tuple[str, str, str], path: Path) -> Path:
    """Mean PSNR over the seconds that a slice takes, logarithmic."""
    plt = pyplot()
    identities = {m["name"]: m["identity"] for m in results.runs[-1]["methods"] if m["protocol"] == place[0]}
    figure, axis = plt.subplots(figsize=(7.5, 4.6), layout="constrained")
    for name, own in results.of(*place).items():
        values = column(own, "psnr_wide")
        seconds = median_seconds(results, identities[name], place[0])
        if seconds is None or np.isnan(values).all():
            continue
        mean = float(np.nanmean(values))
        axis.plot(max(seconds[0], 1e-4), mean, "o", color="#b03060" if name.startswith("ours") else "#305080")
        axis.annotate(f" {name}", (max(seconds[0], 1e-4), mean), fontsize=8, va="center")
    axis.set(xscale="log", xlabel="seconds per slice (median)", ylabel=f"{MEASURES['psnr_wide'].label} (dB)")
    axis.margins(x=0.25)
    axis.grid(alpha=0.3)
    return _saved(plt, figure, path)


def vessels(results: Results, place: tuple[str, str, str], path: Path) -> Path:
    """Broken and invented vessel length per length of the reference's vessels."""
    plt = pyplot()
    rows = results.of(*place)
    names = list(rows)[::-1]
    figure, axis = plt.subplots(figsize=(7.5, 0.9 + 0.36 * len(names)), layout="constrained")
    for k, (metric, colour, offset) in enumerate((("broken_mm", "#305080", 0.2), ("invented_mm", "#b03060", -0.2))):
        rates = [_rate(rows[n], metric) for n in names]
        axis.barh(np.arange(len(names)) + offset, rates, 0.38, color=colour, label=MEASURES[metric].label, zorder=2 + k)
    axis.set(yticks=range(len(names)), yticklabels=names, xlabel="% of the reference's vessel length")
    axis.grid(axis="x", alpha=0.3)
    axis.legend(fontsize=8)
    return _saved(plt, figure, path)


def _rate(rows: dict[int, dict[str, Any]], metric: str) -> float:
    """Per cent over the slices where both lengths are defined."""
    length, wrong = column(rows, "vessel_mm"), column(rows, metric)
    both = ~(np.isnan(length) | np.isnan(wrong))
    whole = length[both].sum()
    return float(100 * wrong[both].sum() / whole) if whole else 0.0


def side_by_side(results: Results, config: BenchmarkConfig, place: tuple[str, str, str], path: Path) -> Path | None:
    """Truth and methods on one slice: image, error, two zooms with their structure maps; None without pictures."""
    protocol, degradation, case = place
    rows = results.of(*place)
    found = []
    for m in results.runs[-1]["methods"]:
        file = picture_file(config.out, protocol, degradation, case, m["identity"])
        if m["protocol"] == protocol and m["name"] in rows and file.is_file():
            with np.load(file) as stored:
                found.append((m["name"], int(stored["slice"]), stored["hu"].astype(np.float64)))
    if not found:
        return None
    z = max(found, key=lambda f: sum(f[1] == other[1] for other in found))[1]
    volume = formats.read(config.data / case)
    shown = [(name, hu) for name, of, hu in found if of == z]
    height, width = shown[0][1].shape
    truth = volume.hu[z, :height, :width].astype(np.float64)
    panels = []
    for name, hu in [("truth", truth), *shown]:
        a, b = without_padding(truth, hu)
        structure = structure_maps(np.stack([b, b]), tuple(volume.spacing_mm[1:]), SMSE_OPERATORS["vc"])[0]
        psnr = rows[name][z]["values"].get("psnr_wide") if name in rows and z in rows[name] else None
        scores = "" if psnr is None else f"PSNR {psnr:.2f} dB"
        panels.append(Panel(name, b, structure, scores, None if name == "truth" else b - a))
    lung = lung_mask(truth, tuple(volume.spacing_mm[1:]))  # else the edge of the couch is busiest
    zooms = busiest(panels[0].structure * lung if lung.any() else panels[0].structure, max(width // 6, 16))
    title = f"{case}, slice {z}, {protocol}, {degradation} degradation."
    return comparison(panels, path, window_hu=DISPLAY_HU["paper"], zooms=zooms, title=title)


def _saved(plt: Any, figure: Any, path: Path) -> Path:
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
