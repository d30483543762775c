"""The summary of a comparison as text, for the terminal and the HTML report."""

from __future__ import annotations

from uhrct.evaluation.compare import Comparison
from uhrct.evaluation.measures import MEASURES, VOLUME_MEASURES, Measure


def rows(result: Comparison) -> list[dict[str, str]]:
    """Rows of the summary table: column -> text."""
    out = []
    count = len(result.slices)
    for name in result.names():
        m, mean, worst = MEASURES[name], result.mean(name), result.worst(name)
        defined = len(result.defined(name))
        out.append(
            {
                "metric": m.label,
                "mean": _number(m, mean, result.reason(name)),
                "unit": m.unit,
                "better": m.better,
                "worst": "" if worst is None else f"{_number(m, worst[1])} (slice {worst[0]})",
                "slices": f"{defined} of {count}" + (f" ({result.reason(name)})" if 0 < defined < count else ""),
            }
        )
    for name, value in result.volume.values.items():
        m = VOLUME_MEASURES[name]
        shown = _number(m, value, result.reason(name))
        out.append(
            {"metric": m.label, "mean": shown, "unit": m.unit, "better": m.better, "worst": "", "slices": "volume"}
        )
    return out


def _number(m: Measure, value: float | None, reason: str = "") -> str:
    return f"undefined ({reason})" if value is None else f"{value * m.printed_times:.{m.decimals}f}"
