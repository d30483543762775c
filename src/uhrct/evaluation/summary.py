"""The summary of a comparison as text, for the terminal and the HTML report."""

from __future__ import annotations

import math

from uhrct.evaluation.compare import Comparison
from uhrct.evaluation.measures import MEASURES, VOLUME_MEASURES, Measure


def rows(result: Comparison, baseline: Comparison | None = None) -> list[dict[str, str]]:
    """Rows of the summary table: column -> text.

    A baseline adds two columns: its mean, and the mean difference over the slices where both are defined.
    """
    out = []
    count = len(result.slices)
    for name in result.names():
        m, mean, worst = MEASURES[name], result.mean(name), result.worst(name)
        defined = len(result.defined(name))
        out.append(
            {
                "metric": m.label,
                "mean": _number(m, mean, result.reason(name)),
                **_against(m, result.defined(name), name, baseline),
                "unit": m.unit,
                "better": m.better,
                "worst": "" if worst is None else f"{_number(m, worst[1])} (slice {worst[0]})",
                "slices": f"{defined} of {count}" + (f" ({result.reason(name)})" if 0 < defined < count else ""),
            }
        )
    for name, value in result.volume.values.items():
        m = VOLUME_MEASURES[name]
        shown = _number(m, value, result.reason(name))
        mine = [] if value is None else [(0, value)]
        out.append(
            {
                "metric": m.label,
                "mean": shown,
                **_against(m, mine, name, baseline),
                "unit": m.unit,
                "better": m.better,
                "worst": "",
                "slices": "volume",
            }
        )
    return out


def _against(m: Measure, mine: list[tuple[int, float]], name: str, baseline: Comparison | None) -> dict[str, str]:
    """The columns "baseline" and "difference" of a metric with values (slice, value)."""
    if baseline is None:
        return {}
    if name in VOLUME_MEASURES:
        value = baseline.volume.values.get(name)
        theirs = [] if value is None else [(0, value)]
    else:
        value, theirs = baseline.mean(name), baseline.defined(name)
    both = [(v, dict(theirs)[z]) for z, v in mine if z in dict(theirs)]
    columns = {"baseline": _number(m, value, baseline.reason(name)), "difference": ""}
    if both:
        mean, other = (math.fsum(values) / len(both) for values in zip(*both, strict=True))
        times = m.printed_times
        columns["difference"] = f"{(mean - other) * times:+.{m.decimals}f}{_verdict(m, mean, other)}"
    return columns


def _verdict(m: Measure, mean: float, other: float) -> str:
    if not m.better or f"{(mean - other) * m.printed_times:.{m.decimals}f}".strip("-0.") == "":
        return ""
    distance = {"higher": lambda v: -v, "lower": lambda v: v, "1": lambda v: abs(math.log(max(v, 1e-12)))}[m.better]
    return " better" if distance(mean) < distance(other) else " worse"


def _number(m: Measure, value: float | None, reason: str = "") -> str:
    return f"undefined ({reason})" if value is None else f"{value * m.printed_times:.{m.decimals}f}"
