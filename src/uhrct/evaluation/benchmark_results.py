"""The benchmark's result file: JSON lines that outlive an interruption, and what can be read out of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from uhrct.errors import UhrctError

#: what says which measurement a row is
KEY = ("identity", "protocol", "degradation", "case", "slice")


@dataclass
class Results:
    """A result file: `runs` say with what was measured (the last one counts), `rows` hold a slice and method each."""

    path: Path
    runs: list[dict[str, Any]] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    #: what is no whole line at the end of the file, in bytes
    broken: int = 0

    @property
    def done(self) -> set[tuple[Any, ...]]:
        """Keys of what is measured."""
        return {tuple(r[k] for k in KEY) for r in self.rows}

    def of(self, protocol: str, degradation: str, case: str) -> dict[str, dict[int, dict[str, Any]]]:
        """Method's name -> slice -> row, of the weights and settings that the last run had, in its order."""
        methods = {m["identity"]: m["name"] for m in self.runs[-1]["methods"] if m["protocol"] == protocol}
        out: dict[str, dict[int, dict[str, Any]]] = {name: {} for name in methods.values()}
        for row in self.rows:
            place = (row["protocol"], row["degradation"], row["case"])
            if place == (protocol, degradation, case) and row["identity"] in methods:
                out[methods[row["identity"]]][row["slice"]] = row
        return {name: dict(sorted(rows.items())) for name, rows in out.items() if rows}

    def places(self) -> list[tuple[str, str, str]]:
        """(protocol, degradation, case) that the last run's methods were measured on."""
        current = {m["identity"] for m in self.runs[-1]["methods"]} if self.runs else set()
        return list(
            dict.fromkeys((r["protocol"], r["degradation"], r["case"]) for r in self.rows if r["identity"] in current)
        )


def read_results(path: Path) -> Results:
    """A result file; one that is not there is empty.

    A last line without its end, cut off in the middle of writing, is left out and counted in `broken`.

    Raises
    ------
    UhrctError
        If any other line is no result.
    """
    results = Results(path)
    if not path.exists():
        return results
    blob = path.read_bytes()
    whole = blob[: blob.rfind(b"\n") + 1]
    results.broken = len(blob) - len(whole)
    for number, line in enumerate(whole.decode(errors="replace").splitlines(), 1):
        try:
            record = json.loads(line)
            if "run" in record:
                results.runs.append(record["run"])
            else:
                results.rows.append({**record, **{k: record[k] for k in (*KEY, "method", "values", "seconds")}})
        except (ValueError, KeyError, TypeError) as e:
            raise UhrctError(f"{path}: line {number} is no benchmark result; mend or move the file") from e
    return results


def column(rows: dict[int, dict[str, Any]], metric: str, slices: Sequence[int] | None = None) -> np.ndarray:
    """A metric's values over slices, those undefined as NaN."""
    wanted = rows if slices is None else slices
    values = [rows[z]["values"].get(metric) if z in rows else None for z in wanted]
    return np.array([np.nan if v is None else v for v in values], float)
