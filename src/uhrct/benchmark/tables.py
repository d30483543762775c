"""Markdown tables of a benchmark: means with bootstrap intervals, paired tests with Holm's correction, cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from uhrct.benchmark.config import BenchmarkConfig
from uhrct.benchmark.results import Results, column
from uhrct.core.purpose import NOTE
from uhrct.core.undefined import Undefined
from uhrct.evaluation.measures import MEASURES
from uhrct.evaluation.slab import SLAB_MEASURES
from uhrct.evaluation.statistics import holm, interval, paired_test

_ALL = MEASURES | SLAB_MEASURES
#: A difference counts as shown where the corrected p value is below this.
ALPHA = 0.05

Rows = dict[str, dict[int, dict[str, Any]]]


@dataclass(frozen=True)
class Table:
    """A heading, a note, and cells as text. The first row names the columns."""

    title: str
    note: str
    cells: list[list[str]]

    def markdown(self) -> str:
        """The table as markdown."""
        head, *rows = (f"| {' | '.join(c)} |" for c in self.cells)
        rule = "|" + "---|" * len(self.cells[0])
        return "\n".join([f"### {self.title}", "", self.note, "", head, rule, *rows, ""])


def tables(results: Results, config: BenchmarkConfig) -> list[Table]:
    """Scores and tests for each protocol, degradation and case, and the cost of every method."""
    out = []
    for protocol, degradation, case in results.places():
        rows = results.of(protocol, degradation, case)
        title = f"{case}, {protocol}, {degradation} degradation"
        out.append(_scores(title, rows, config))
        if config.against in rows and len(rows) > 1:
            out.append(_tests(title, rows, config))
        if volumes := results.volumes_of(protocol, degradation, case):
            out.append(_volumes(title, volumes))
    return [*out, _cost(results)]


def markdown(results: Results, config: BenchmarkConfig) -> str:
    """All tables in one text."""
    run = results.runs[-1]
    head = (
        f"Made from `{results.path.name}` by `uhrct benchmark --report`: commit {run['commit'][:10]}, {run['device']}, "
        f"{run['time']}.\n{NOTE}\n"
    )
    return "\n".join([head, *(t.markdown() for t in tables(results, config))])


def _scores(title: str, rows: Rows, config: BenchmarkConfig) -> Table:
    cells = [["method", "slices", *(_heading(m) for m in config.metrics)]]
    best = {m: _best(rows, m) for m in config.metrics}
    for name, own in rows.items():
        line = []
        for metric in config.metrics:
            text = _mean(column(own, metric), metric)
            line.append(f"**{text}**" if name in best[metric] else text)
        cells.append([name, str(len(own)), *line])
    note = (
        "Mean [95 % bootstrap interval over the slices of this one patient; it says nothing about other patients]. "
        "Bold: best mean of the methods with most slices."
    )
    return Table(title, note, cells)


def _mean(values: np.ndarray, metric: str) -> str:
    """Text "mean [low, high]", with the number of slices if the metric is undefined on some."""
    m = _ALL[metric]
    defined = values[~np.isnan(values)] * m.printed_times
    if not len(defined):
        return "undefined"
    text = f"{defined.mean():.{m.decimals}f}"
    try:
        low, high = interval(defined)
        text += f" [{low:.{m.decimals}f}, {high:.{m.decimals}f}]"
    except Undefined:
        pass
    return text if len(defined) == len(values) else f"{text} ({len(defined)} slices)"


def _best(rows: Rows, metric: str) -> set[str]:
    """Names of the methods with the best printed mean, among those with values on most slices."""
    m = _ALL[metric]
    defined = {n: (v := column(own, metric))[~np.isnan(v)] for n, own in rows.items()}
    most = max(len(v) for v in defined.values())
    if not most or not m.better:
        return set()
    badness = {"higher": lambda v: -v, "lower": lambda v: v, "1": lambda v: abs(v - 1)}[m.better]
    means = {
        n: badness(round(float(v.mean()) * m.printed_times, m.decimals)) for n, v in defined.items() if len(v) == most
    }
    return {n for n, v in means.items() if v == min(means.values())}


def _tests(title: str, rows: Rows, config: BenchmarkConfig) -> Table:
    """Mean paired differences from the method `config.against`, with p values."""
    others = [name for name in rows if name != config.against]
    cells = [["method", *(_heading(m) for m in config.metrics)], *([name] for name in others)]
    for metric in config.metrics:
        pairs = [_pairs(rows[config.against], rows[name], metric) for name in others]
        corrected = iter(holm([paired_test(*p) for p in pairs if len(p[0])]))
        m = _ALL[metric]
        for line, (ours, theirs) in zip(cells[1:], pairs, strict=True):
            if not len(ours):
                line.append("undefined")
                continue
            p = next(corrected)
            difference = float(np.mean(theirs - ours)) * m.printed_times
            line.append(f"{difference:+.{m.decimals}f} (p {_p(p)}{'' if p < ALPHA else ', n.s.'})")
    note = (
        f"Mean difference from **{config.against}** on common slices. p: Wilcoxon's signed-rank test, corrected by "
        "Holm over the methods of a column (n.s.: no difference shown at 0.05). Slices of one patient are alike, so p "
        "is too small for statements about other patients."
    )
    return Table(f"{title}: against {config.against}", note, cells)


def _volumes(title: str, rows: dict[str, dict[str, Any]]) -> Table:
    """Values of neighbouring slices judged as a volume, one per method."""
    best = {m: _best({name: {0: row} for name, row in rows.items()}, m) for m in SLAB_MEASURES}
    cells = [["method", "HR slices", *(_heading(m) for m in SLAB_MEASURES)]]
    for name, row in rows.items():
        first, stop = row["slab"]
        line = []
        for metric in SLAB_MEASURES:
            text = _mean(column({0: row}, metric), metric)
            line.append(f"**{text}**" if name in best[metric] else text)
        cells.append([name, f"{first} to {stop - 1}", *line])
    note = (
        "Neighbouring slices as one volume: one value per method, so no interval. Flicker should be at most 1.05. "
        "Lower is not better: blurred images have the lowest flicker."
    )
    return Table(f"{title}: as a volume", note, cells)


def _pairs(a: dict[int, Any], b: dict[int, Any], metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Values of both methods on the slices where both are defined."""
    common = [z for z in a if z in b]
    x, y = column(a, metric, common), column(b, metric, common)
    both = ~(np.isnan(x) | np.isnan(y))
    return x[both], y[both]


def _p(p: float) -> str:
    return f"{p:.2g}" if p >= 0.001 else "< 0.001"


def _cost(results: Results) -> Table:
    cells = [
        [
            "method",
            "protocol",
            "training, CPU minutes (steps)",
            "parameters, M",
            "passes",
            "multiply-adds per LR pixel, M",
            "s per slice (median)",
            "CPU s per slice (median)",
        ]
    ]
    for m in results.runs[-1]["methods"]:
        seconds = median_seconds(results, m["identity"], m["protocol"])
        if seconds is None:
            continue
        budget = m.get("budget")
        trained = "unknown" if m.get("weights") else "-"
        if budget:
            trained = f"{budget['cpu_minutes']:.0f} ({budget['steps']})"
        learned = ["-"] * 3
        if "parameters" in m:
            learned = [f"{m['parameters'] / 1e6:.2f}", str(m["passes"]), f"{m['macs_per_lr_px'] / 1e6:.2f}"]
        times = [f"{s:.3g}" for s in seconds]
        cells.append([m["name"], m["protocol"], trained, *learned, *times])
    note = (
        "Times are medians over slices, so the first pass (warm-up) does not count. Wall-clock times are valid on an "
        "idle machine only. Training minutes are the processor time of all trainings of a model (wall-clock time where "
        "a log has no other)."
    )
    return Table("Cost", note, cells)


def median_seconds(results: Results, identity: str, protocol: str) -> tuple[float, float] | None:
    """Median (wall, processor) seconds per slice; None without rows."""
    mine = [r for r in results.rows if r["identity"] == identity and r["protocol"] == protocol]
    if not mine:
        return None
    return float(np.median([r["seconds"] for r in mine])), float(np.median([r["cpu_seconds"] for r in mine]))


def _heading(metric: str) -> str:
    m = _ALL[metric]
    arrow = {"higher": " ↑", "lower": " ↓", "1": " → 1"}.get(m.better, "")
    return f"{m.label}{f' ({m.unit})' if m.unit else ''}{arrow}"
