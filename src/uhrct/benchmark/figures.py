"""Figures of a benchmark: spread over slices, quality against time, broken and invented vessels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from uhrct.benchmark.results import Results, column
from uhrct.benchmark.tables import median_seconds
from uhrct.evaluation.measures import MEASURES
from uhrct.evaluation.pictures import pyplot, save_figure

#: Metrics of the box plots.
BOXES = ("psnr_wide", "smse_vc", "cldice_25")


def boxes(results: Results, place: tuple[str, str, str], path: Path) -> Path:
    """Box plots over slices, one row per method."""
    plt = pyplot()
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

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
        if metric.startswith("smse") and all((v[~np.isnan(v)] > 0).all() for v in values):
            axis.set_xscale("log")  # the errors of interpolation and networks differ by tens of times
            axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
            axis.xaxis.set_minor_formatter(NullFormatter())
        axis.grid(axis="x", alpha=0.3)
    return save_figure(figure, path)


def against_time(results: Results, place: tuple[str, str, str], path: Path) -> Path:
    """Mean PSNR over the seconds per slice (logarithmic). Names stand at the right, where none covers another."""
    plt = pyplot()
    identities = {m["name"]: m["identity"] for m in results.runs[-1]["methods"] if m["protocol"] == place[0]}
    points = []
    for name, own in results.of(*place).items():
        values = column(own, "psnr_wide")
        seconds = median_seconds(results, identities[name], place[0])
        if seconds is not None and not np.isnan(values).all():
            points.append((float(np.nanmean(values)), max(seconds[0], 1e-4), name))
    figure, axis = plt.subplots(figsize=(9.5, 0.9 + max(3.6, 0.3 * len(points))), layout="constrained")
    levels, times = [p[0] for p in points], [p[1] for p in points]
    margin = 0.12 * (max(levels) - min(levels)) or 1.0
    axis.set(xscale="log", ylim=(min(levels) - margin, max(levels) + margin), xlim=(min(times) / 2, 2 * max(times)))
    heights = _apart(
        [axis.transAxes.inverted().transform(axis.transData.transform((1.0, v)))[1] for v in levels], 0.055
    )
    for (level, time, name), height in zip(points, heights, strict=True):
        colour = "#b03060" if name.startswith("ours") else "#305080"
        axis.plot(time, level, "o", color=colour, zorder=3)
        axis.annotate(
            name,
            (time, level),
            (1.03, height),
            textcoords="axes fraction",
            fontsize=9,
            va="center",
            color=colour,
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.5, "alpha": 0.6, "relpos": (0, 0.5)},
        )
    axis.set(xlabel="seconds per slice (median)", ylabel=f"{MEASURES['psnr_wide'].label} (dB)")
    axis.grid(alpha=0.3)
    return save_figure(figure, path)


def _apart(heights: list[float], least: float) -> list[float]:
    """The heights in their order, moved until they are at least `least` apart.

    Example
    -------
    >>> [round(h, 2) for h in _apart([0.5, 0.52, 0.1], 0.1)]
    [0.46, 0.56, 0.1]
    """
    order = np.argsort(heights, kind="stable")
    out = np.array(heights, float)[order]
    for _ in range(1000):
        gap = least - np.diff(out)
        if (gap <= 1e-6).all():
            break
        push = np.where(gap > 0, gap, 0.0) / 2
        out[:-1] -= push
        out[1:] += push
    back = np.empty_like(out)
    back[order] = out
    return back.tolist()


def vessels(results: Results, place: tuple[str, str, str], path: Path) -> Path:
    """Broken and invented vessel length, in per cent of the reference's vessel length."""
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
    return save_figure(figure, path)


def _rate(rows: dict[int, dict[str, Any]], metric: str) -> float:
    """Per cent, over the slices where both lengths are defined."""
    length, wrong = column(rows, "vessel_mm"), column(rows, metric)
    both = ~(np.isnan(length) | np.isnan(wrong))
    whole = length[both].sum()
    return float(100 * wrong[both].sum() / whole) if whole else 0.0
