"""Means of a benchmark as markdown, with all patients of a protocol and degradation in one table."""

from __future__ import annotations

import numpy as np

from uhrct.benchmark.results import Results, column
from uhrct.evaluation.measures import MEASURES

#: Column -> metrics that are added up in it.
COLUMNS = {
    "PSNR dB": ("psnr_wide",),
    "SSIM": ("ssim_wide",),
    "VIF": ("vif_wide",),
    "SMSE": ("smse_frangi",),
    "clDice": ("cldice_25",),
    "broken + invented mm": ("broken_mm", "invented_mm"),
}


def summary(results: Results) -> str:
    """One markdown table for each protocol and degradation, with the methods of the last run.

    Means are over the slices where a metric is defined. The best of the methods with most slices is bold. Intervals
    and tests are in `uhrct.benchmark.tables`.

    Example
    -------
    ``print(summary(read_results(Path("results/benchmark.jsonl"))))``
    """
    places = results.places()
    parts = []
    for protocol, degradation in dict.fromkeys(p[:2] for p in places):
        cases = [case for *where, case in places if where == [protocol, degradation]]
        parts.append(f"**{protocol}, {degradation} degradation**\n\n{_table(results, protocol, degradation, cases)}")
    return "\n\n".join(parts) + "\n"


def _table(results: Results, protocol: str, degradation: str, cases: list[str]) -> str:
    by_case = {case: results.of(protocol, degradation, case) for case in cases}
    names = list(dict.fromkeys(name for rows in by_case.values() for name in rows))
    count = {name: max(len(rows.get(name, ())) for rows in by_case.values()) for name in names}
    most = max(count.values())
    head, cells = [""], {name: [_label(name, count[name], most)] for name in names}
    for case, rows in by_case.items():
        for title, metrics in COLUMNS.items():
            head.append(title if title != next(iter(COLUMNS)) else f"{case.split('/')[-1]}: {title}")
            texts = {name: _mean(rows, name, metrics) for name in names}
            numbers = {name: float(t) for name, t in texts.items() if t != "-" and count[name] == most}
            pick = max if MEASURES[metrics[0]].better == "higher" else min
            best = pick(numbers.values(), default=None)
            for name in names:
                cells[name].append(f"**{texts[name]}**" if numbers.get(name, np.nan) == best else texts[name])
    lines = [head, ["---"] * len(head), *cells.values()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _label(name: str, count: int, most: int) -> str:
    return name if count == most else f"{name} ({count} slice{'s' if count > 1 else ''})"


def _mean(rows: dict[str, dict[int, dict[str, object]]], name: str, metrics: tuple[str, ...]) -> str:
    """The mean as text, "-" where the metric is undefined."""
    values = sum(column(rows.get(name, {}), m) * MEASURES[m].printed_times for m in metrics)
    values = np.asarray(values)[~np.isnan(values)]
    return f"{values.mean():.{MEASURES[metrics[0]].decimals}f}" if len(values) else "-"
