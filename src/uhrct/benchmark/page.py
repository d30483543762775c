"""One HTML file that shows a benchmark: tables, figures and how it was made; no network, no script."""

from __future__ import annotations

import base64
import html
import json
import re
from pathlib import Path

from uhrct.benchmark.results import Results
from uhrct.benchmark.tables import Table
from uhrct.core.version import __version__
from uhrct.evaluation.page import STYLE
from uhrct.evaluation.summary import NOTE

LIMITS = (
    "What this does not show: few patients, so intervals over slices say nothing of other patients; the degradation "
    "is a model, not a scanner; the peers had minutes on the named device, not the days of their publications."
)
WIDE = (
    "body { max-width: 1400px } .wide { overflow-x: auto } td { white-space: nowrap } b { color: #8a1c4a } "
    ".wide table { font-size: .82rem } .wide th, .wide td { padding: .25rem .32rem } "
    ".wide .small { font-size: .72rem } figure img { width: auto; max-width: 100% }"
)


def page(results: Results, tables: list[Table], figures: list[tuple[str, Path]]) -> str:
    """The page as text; figures are (caption, PNG file)."""
    run = results.runs[-1]
    about = {k: run.get(k) for k in ("time", "commit", "uhrct", "torch", "device", "slices", "cases", "protocols")}
    pictures = "".join(
        f'<figure><img alt="{html.escape(caption)}" src="data:image/png;base64,{_encoded(file)}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        for caption, file in figures
    )
    details = html.escape(
        json.dumps({"run": about, "methods": run["methods"], "constants": run["constants"]}, indent=1)
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Benchmark of CT super-resolution</title><style>{STYLE}{WIDE}</style></head><body>
<h1>Benchmark of CT super-resolution</h1><p class="note">{NOTE}</p>
<p>{html.escape(LIMITS)}</p>
{"".join(_table(t) for t in tables)}
<h2>Figures</h2>{pictures}
<details><summary>How it was made: run, weights, budgets, constants</summary><pre>{details}</pre></details>
<p class="small">uhrct {__version__}. {NOTE}</p>
</body></html>
"""


def _table(table: Table) -> str:
    head, *rows = table.cells
    first = "".join(f"<th>{_text(cell)}</th>" for cell in head)
    body = "".join(
        f"<tr><td>{_text(name)}</td>{''.join(f'<td>{_below(cell)}</td>' for cell in cells)}</tr>"
        for name, *cells in rows
    )
    return (
        f'<h2>{_text(table.title)}</h2><p class="small">{_text(table.note)}</p>'
        f'<div class="wide"><table><tr>{first}</tr>{body}</table></div>'
    )


def _below(cell: str) -> str:
    """The interval, or p, below its value: ten columns then fit on a page."""
    return re.sub(r" ([\[(].*?)(</b>|$)", r'<br><span class="small">\1</span>\2', _text(cell))


def _text(markdown: str) -> str:
    """Escaped, with **bold**."""
    return re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", html.escape(markdown))


def _encoded(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()
