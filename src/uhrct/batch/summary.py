"""What became of a cohort, as JSON and as a page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from uhrct.batch.ledger import DONE, STATES, Ledger
from uhrct.core.files import write_atomic, write_json
from uhrct.core.version import __version__
from uhrct.evaluation.html_report import render
from uhrct.evaluation.measures import NOTE

SCHEMA = "uhrct-batch-1"
SUMMARY = "uhrct-summary"


def summary(ledger: Ledger) -> dict[str, Any]:
    """The ledger as plain values for JSON (docs/batch.md)."""
    return {
        "schema": SCHEMA,
        "uhrct": __version__,
        "note": NOTE,
        "counts": ledger.counts(),
        "series": [_entry(row) for row in ledger.rows()],
    }


def sentence(counts: dict[str, int]) -> str:
    """How many series are in which state.

    Example
    -------
    >>> sentence({"done": 3, "failed": 1, "set aside": 0, "running": 0, "waiting": 0})
    '4 series: 3 done, 1 failed'
    """
    total = sum(counts.values())
    return f"{total} series: {', '.join(f'{counts[s]} {s}' for s in STATES if counts[s]) or 'nothing to do'}"


def write_summary(ledger: Ledger) -> tuple[Path, Path]:
    """Write `uhrct-summary.json` and `.html` beside the ledger; return their paths."""
    found = summary(ledger)
    json_path, html_path = (ledger.path.with_name(SUMMARY + suffix) for suffix in (".json", ".html"))
    write_json(json_path, found)
    rows = [_shown(entry) for entry in found["series"]]
    write_atomic(
        html_path,
        render(
            "batch.html",
            package="uhrct.batch",
            title="Super-resolution of a cohort",
            sentence=sentence(found["counts"]),
            series=rows,
        ),
    )
    return json_path, html_path


def _entry(row: dict[str, Any]) -> dict[str, Any]:
    kept = ("name", "path", "uid", "output", "state", "fingerprint", "kills", "started", "ended", "seconds", "error")
    return {key: row[key] for key in kept} | {"report": json.loads(row["report"]) if row["report"] else None}


def _shown(entry: dict[str, Any]) -> dict[str, str]:
    report = entry["report"] if entry["state"] == DONE and entry["report"] else {}
    consistency = report.get("consistency_hu")
    return {
        "name": entry["name"],
        "state": entry["state"],
        "shape": " x ".join(map(str, report.get("output", {}).get("shape", []))),
        "seconds": "" if entry["seconds"] is None else f"{entry['seconds']:.1f}",
        "consistency": "" if consistency is None else f"{consistency:.1f} HU",
        "remarks": entry["error"] or "; ".join(report.get("warnings", [])),
    }
