"""One HTML file that shows a benchmark: tables, figures and how it was made. It needs no network and no script."""

from __future__ import annotations

import base64
import html
import json
import re
from pathlib import Path

from uhrct.benchmark.results import Results
from uhrct.benchmark.tables import Table
from uhrct.evaluation.html_report import render

LIMITS = (
    "Limits: there are few patients, and intervals over slices say nothing about other patients. A model makes the "
    "degradation, not a scanner. The peers were trained for minutes on the named device, not for days as published."
)


def html_report(results: Results, tables: list[Table], figures: list[tuple[str, Path]]) -> str:
    """The page as text. `figures` are (caption, PNG file)."""
    run = results.runs[-1]
    about = {k: run.get(k) for k in ("time", "commit", "uhrct", "torch", "device", "slices", "cases", "protocols")}
    details = {"run": about, "methods": run["methods"], "constants": run["constants"]}
    return render(
        "benchmark.html",
        package="uhrct.benchmark",
        title="Benchmark of CT super-resolution",
        limits=LIMITS,
        tables=tables,
        figures=[
            {"caption": caption, "png": base64.b64encode(file.read_bytes()).decode()} for caption, file in figures
        ],
        details=json.dumps(details, indent=1),
        bold=_bold,
        two_lines=_two_lines,
    )


class _Html(str):
    """Text that is HTML already. Templates insert it without escaping it again."""

    def __html__(self) -> str:
        return self


def _bold(markdown: str) -> _Html:
    """Escaped text in which **this** is bold.

    Example
    -------
    >>> _bold("**a** < b")
    '<b>a</b> &lt; b'
    """
    return _Html(re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", html.escape(markdown)))


def _two_lines(cell: str) -> _Html:
    """The same, with the interval or the p value below its number: ten columns then fit on a page."""
    return _Html(re.sub(r" ([\[(].*?)(</b>|$)", r'<br><span class="small">\1</span>\2', _bold(cell)))
