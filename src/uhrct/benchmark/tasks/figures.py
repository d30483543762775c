"""Figures of a benchmark of tasks: spread over cases, recall and sensitivity by size, FROC curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from uhrct.benchmark.tasks.config import TRUE_SCAN, TasksConfig
from uhrct.benchmark.tasks.summary import OPERATING_POINT, Estimate, Measured, estimate, measures_of
from uhrct.core.undefined import Undefined
from uhrct.evaluation.froc import OPERATING_POINTS, curve
from uhrct.evaluation.measures import Measure
from uhrct.evaluation.pictures import pyplot, save_figure
from uhrct.evaluation.trees import DIAMETERS_MM

#: metrics of the box plots
BOXES = {
    "nodules": ("froc", "sensitivity_4", "candidates"),
    "vessel_points": ("sensitivity", "specificity", "balanced"),
    "": ("dice", "cldice", "length_detected", "recall_1_2"),
}
#: classes of diameter of nodules
NODULES_MM = (3.0, 5.0, 8.0, np.inf)
COLOURS = {TRUE_SCAN: "#303030", "against": "#b03060", "interpolated": "#305080"}


def drawn(methods: dict[str, Measured], config: TasksConfig) -> dict[str, str]:
    """Method -> colour of the methods in the curves: the true scan, the method `against`, and an interpolation."""
    names = {TRUE_SCAN: TRUE_SCAN, config.file.against: "against"}
    names |= {m.name: "interpolated" for m in config.methods if m.kind == "bicubic"}
    return {name: COLOURS[names[name]] for name in methods if name in names}


def boxes(task: str, methods: dict[str, Measured], title: str, path: Path) -> Path:
    """Box plots over cases, one row per method, with a point for each case."""
    plt = pyplot()
    metrics = BOXES.get(task, BOXES[""])
    names = list(methods)[::-1]
    figure, axes = plt.subplots(
        1, len(metrics), figsize=(13, 1.4 + 0.4 * len(names)), sharey=True, layout="constrained"
    )
    for axis, metric in zip(axes, metrics, strict=True):
        m = measures_of(task)[metric]
        values = [_values(methods[n], metric, m) for n in names]
        axis.boxplot(values, orientation="horizontal", widths=0.6, showfliers=False, medianprops={"color": "#b03060"})
        for k, own in enumerate(values, 1):
            axis.plot(own, np.full(len(own), k), "o", color="#305080", ms=4, alpha=0.7)
        axis.set(xlabel=_wrapped(f"{m.label} ({m.unit})"), yticks=range(1, len(names) + 1), yticklabels=names)
        axis.grid(axis="x", alpha=0.3)
    figure.suptitle(title, fontsize=10)
    return save_figure(figure, path)


def _values(measured: Measured, metric: str, m: Measure) -> np.ndarray:
    values = np.array([measured.value(metric, [case]) for case in measured.rows], float) * m.printed_times
    return values[~np.isnan(values)]


def _wrapped(text: str) -> str:
    """A long label in two lines."""
    middle = text.find(" ", len(text) // 2)
    return text if len(text) < 34 or middle < 0 else f"{text[:middle]}\n{text[middle + 1 :]}"


def by_size(task: str, methods: dict[str, Measured], config: TasksConfig, title: str, path: Path) -> Path:
    """Recall of centre lines by diameter, or sensitivity by diameter of the nodule, with intervals over cases."""
    plt = pyplot()
    figure, axis = plt.subplots(figsize=(7.5, 4.6), layout="constrained")
    edges = NODULES_MM if task == "nodules" else DIAMETERS_MM
    shown = drawn(methods, config)
    points = {name: sized(task, methods[name]) for name in shown}
    there = [k for k in range(len(edges) - 1) if any(not np.isnan(own[k].value) for own in points.values())]
    for k, (name, colour) in enumerate(shown.items()):
        own = [points[name][i] for i in there]
        y = np.array([e.value for e in own])
        # the interval of a proportion may start at its value, and rounding then puts it above
        spread = np.array([[max(e.value - e.low, 0), max(e.high - e.value, 0)] for e in own]).reshape(-1, 2).T
        x = np.arange(len(own)) + 0.12 * (k - (len(shown) - 1) / 2)
        style: dict[str, Any] = {"color": colour, "capsize": 3, "ms": 5, "lw": 1.5, "label": name}
        axis.errorbar(x, 100 * y, 100 * np.nan_to_num(spread), fmt="o-", **style)
    what = "nodule" if task == "nodules" else {"vessels": "vessel", "airways": "lumen"}[task]
    found = f"sensitivity at {OPERATING_POINT:g} false positives per scan (%)"
    axis.set(
        xticks=range(len(there)),
        xticklabels=[_class(edges[k], edges[k + 1]) for k in there],
        xlabel=f"diameter of the {what} (mm)",
        ylabel=found if task == "nodules" else "centre line found (%)",
        ylim=(-3, 103),
        title=title,
    )
    axis.title.set_fontsize(10)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=9)
    return save_figure(figure, path)


def _class(low: float, high: float) -> str:
    """A class of diameters as text.

    Example
    -------
    >>> _class(0.0, 1.0), _class(1.0, 2.0), _class(8.0, np.inf)
    ('below 1', '1 to 2', '8 and more')
    """
    if low == 0:
        return f"below {high:g}"
    return f"{low:g} to {high:g}" if np.isfinite(high) else f"{low:g} and more"


def sized(task: str, measured: Measured) -> list[Estimate]:
    """The recall or the sensitivity in each class of diameters, with its interval over cases."""
    cases = list(measured.rows)

    def recall(k: int, some: Sequence[str]) -> float:
        whole = [measured.rows[c]["whole_mm"][k] for c in some]
        found = [measured.rows[c]["found_mm"][k] for c in some]
        shares = [f / w for f, w in zip(found, whole, strict=True) if w]
        return float(np.mean(shares)) if shares else float("nan")

    def sensitivity(k: int, some: Sequence[str]) -> float:
        try:
            return curve([measured.sized(c, NODULES_MM[k], NODULES_MM[k + 1]) for c in some]).at[OPERATING_POINT]
        except Undefined:
            return float("nan")

    of = sensitivity if task == "nodules" else recall
    classes = len(NODULES_MM if task == "nodules" else DIAMETERS_MM) - 1
    return [estimate(lambda some, k=k: of(k, some), cases) for k in range(classes)]  # type: ignore[misc]


def froc_curves(methods: dict[str, Measured], config: TasksConfig, title: str, path: Path) -> Path | None:
    """Sensitivity over false positives per scan; None if there is no nodule."""
    plt = pyplot()
    figure, axis = plt.subplots(figsize=(7.5, 4.6), layout="constrained")
    colours: dict[str, Any] = drawn(methods, config)
    for name, measured in methods.items():
        try:
            found = curve(list(measured.matches.values()))
        except Undefined:
            plt.close(figure)
            return None
        strong = {"color": colours[name], "lw": 2} if name in colours else {"lw": 1, "alpha": 0.6}
        axis.step(
            found.false_positives,
            100 * found.sensitivity,
            where="post",
            label=f"{name} ({100 * found.score:.1f})",
            **strong,
        )
    axis.set(
        xscale="log",
        xlim=(OPERATING_POINTS[0], OPERATING_POINTS[-1]),
        ylim=(-3, 103),
        xticks=OPERATING_POINTS,
        xticklabels=["1/8", "1/4", "1/2", "1", "2", "4", "8"],
        xlabel="false positives per scan",
        ylabel="sensitivity (%)",
        title=f"{title} (in brackets: FROC score)",
    )
    axis.minorticks_off()
    axis.title.set_fontsize(10)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=9)
    return save_figure(figure, path)
