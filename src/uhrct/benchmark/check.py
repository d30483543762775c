"""Compare the numbers of a repeated benchmark with the committed numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from uhrct.benchmark.results import Results
from uhrct.evaluation.measures import MEASURES
from uhrct.evaluation.slab import SLAB_MEASURES

#: Beginning of a metric's name -> (absolute, relative) tolerance; the larger one counts. They are about three times the
#: difference between bfloat16 and float32 inside the networks, for both patients, mean and sample, x2 and x4. Threads
#: change less than a tenth of that. Counts in masks change in steps of voxels.
TOLERANCES: dict[str, tuple[float, float]] = {
    "psnr": (0.01, 0),  # dB
    "rmse": (0.03, 0),  # HU
    "mae": (0.02, 0),  # HU
    "ssim": (1e-4, 0),
    "vif": (4e-4, 0),
    "smse": (1e-8, 5e-3),
    "cldice": (0.02, 0),
    "betti": (0.2, 0),  # pieces or loops per crop
    "vessel": (0.01, 1e-4),  # mm, of the reference alone
    "broken": (2.0, 0.05),  # mm
    "invented": (2.0, 0.05),  # mm
    "texture": (4e-3, 0),
    "sfrc": (0.02, 0),  # share of patches
    "consistency": (0.02, 0),  # HU
    "flicker": (5e-3, 0),
}

Row = dict[str, Any]


def disagreements(committed: Results, measured: Results) -> list[str]:
    """One line for each number that differs by more than `TOLERANCES` allow.

    Seconds are not compared. Other weights, cases or constants give one line instead of numbers.

    Example
    -------
    >>> from pathlib import Path
    >>> row = {"protocol": "x2", "degradation": "scanner", "case": "a", "method": "m", "identity": "1", "slice": 7}
    >>> run = {"methods": [{"name": "m", "identity": "1", "protocol": "x2"}], "cases": [], "constants": {}}
    >>> a, b = (Results(Path(), [run], [row | {"values": {"psnr_wide": v}}]) for v in (40.0, 39.0))
    >>> disagreements(a, a), disagreements(a, b)
    ([], ['x2, scanner, a, slice 7, m: psnr_wide is 39, committed 40 (tolerance 0.01)'])
    """
    if not committed.runs:
        return [f"{committed.path}: no committed numbers"]
    before, now = committed.runs[-1], measured.runs[-1]
    for what in ("constants", "cases"):
        if before[what] != now[what]:
            return [f"the {what} are not those of the committed numbers"]
    weights, new_weights = _weights(before), _weights(now)
    other = [key for key, sha256 in weights.items() if new_weights.get(key, sha256) != sha256]
    lines = [
        f"{protocol}, {name}: the committed numbers are of other weights ({weights[name, protocol][:10]})"
        for name, protocol in other
    ]
    old_rows, new_rows = _rows(committed), _rows(measured)
    for where in dict.fromkeys([*old_rows, *new_rows]):
        if (where[4], where[0]) in other:
            continue
        place = f"{where[0]}, {where[1]}, {where[2]}, {where[3]}, {where[4]}"
        if where not in new_rows or where not in old_rows:
            lines.append(f"{place}: not {'measured' if where in old_rows else 'among the committed numbers'}")
            continue
        lines += [f"{place}: {line}" for line in _differences(old_rows[where], new_rows[where])]
    return lines


def tolerance(metric: str, value: float) -> float:
    """Largest difference allowed from a committed value of a metric."""
    absolute, relative = TOLERANCES[next(k for k in TOLERANCES if metric.startswith(k))]
    return max(absolute, relative * abs(value))


def _differences(old: Row, new: Row) -> Iterator[str]:
    for metric in MEASURES | SLAB_MEASURES:
        a, b = old["values"].get(metric), new["values"].get(metric)
        if a is None or b is None:
            if a != b:
                yield f"{metric} is {_shown(b)}, committed {_shown(a)}"
        elif abs(a - b) > tolerance(metric, a):
            yield f"{metric} is {b:g}, committed {a:g} (tolerance {tolerance(metric, a):.2g})"


def _shown(value: float | None) -> str:
    return "undefined" if value is None else f"{value:g}"


def _weights(run: dict[str, Any]) -> dict[tuple[str, str], str]:
    return {(m["name"], m["protocol"]): m.get("weights_sha256", "") for m in run["methods"]}


def _rows(results: Results) -> dict[tuple[str, ...], Row]:
    """(protocol, degradation, case, slice or slab, method) -> row with the weights and settings of the last run."""
    out: dict[tuple[str, ...], Row] = {}
    current = {(m["identity"], m["protocol"]) for m in results.runs[-1]["methods"]}
    for row in [*results.rows, *results.slabs]:
        if (row["identity"], row["protocol"]) in current:
            z = f"slices {row['slab'][0]} to {row['slab'][1] - 1}" if "slab" in row else f"slice {row['slice']}"
            out[row["protocol"], row["degradation"], row["case"], z, row["method"]] = row
    return out
