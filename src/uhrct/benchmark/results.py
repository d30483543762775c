"""The benchmark's result file: JSON lines that outlive an interruption, and what can be read out of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from uhrct.benchmark.config import Method
from uhrct.core.errors import UhrctError

#: what says which measurement a row is, with its `slice`, or its `slab`
KEY = ("identity", "protocol", "degradation", "case")


@dataclass
class Results:
    """A result file: `runs` say with what was measured (the last one counts), `rows` hold a slice and method each.

    `slabs` hold what is measured of neighbouring slices as a volume; their `slab` is (first, stop) in HR slices.
    """

    path: Path
    runs: list[dict[str, Any]] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    slabs: list[dict[str, Any]] = field(default_factory=list)
    #: what is no whole line at the end of the file, in bytes
    broken: int = 0

    @property
    def done(self) -> set[tuple[Any, ...]]:
        """Keys of what is measured."""
        slices = {(*(r[k] for k in KEY), r["slice"]) for r in self.rows}
        return slices | {(*(r[k] for k in KEY), r["slab"]) for r in self.slabs}

    def of(self, protocol: str, degradation: str, case: str) -> dict[str, dict[int, dict[str, Any]]]:
        """Method's name -> slice -> row, of the weights and settings that the last run had, in its order."""
        found = self._at((protocol, degradation, case), self.rows)
        return {name: {r["slice"]: r for r in sorted(rows, key=lambda r: r["slice"])} for name, rows in found.items()}

    def volumes_of(self, protocol: str, degradation: str, case: str) -> dict[str, dict[str, Any]]:
        """Method's name -> row of its slab, as in `of`."""
        return {name: rows[-1] for name, rows in self._at((protocol, degradation, case), self.slabs).items()}

    def _at(self, place: tuple[str, str, str], rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
        methods = {m["identity"]: m["name"] for m in self.runs[-1]["methods"] if m["protocol"] == place[0]}
        out: dict[str, list[dict[str, Any]]] = {name: [] for name in methods.values()}
        for row in rows:
            if (row["protocol"], row["degradation"], row["case"]) == place and row["identity"] in methods:
                out[methods[row["identity"]]].append(row)
        return {name: found for name, found in out.items() if found}

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
                continue
            row = {**record, **{k: record[k] for k in (*KEY, "method", "values", "seconds")}}
            if "slab" in record:
                first, stop = record["slab"]
                results.slabs.append(row | {"slab": (first, stop)})
            else:
                results.rows.append(row | {"slice": record["slice"]})
        except (ValueError, KeyError, TypeError) as e:
            raise UhrctError(f"{path}: line {number} is no benchmark result; mend or move the file") from e
    return results


def measured_before(results: Results, method: Method, protocol: str, cases: list[Any]) -> dict[str, Any] | None:
    """The last run's record of a method whose weights are no longer there, None where its rows would not count.

    They count if the method's settings and the cases' voxels are still those that they were measured with. Weights
    that are there and do not fit are another matter: the method was changed, and old rows would hide it.

    Parameters
    ----------
    cases : as in the run's record, with the hashes of their voxels
    """
    if not results.runs or Path(method.weights.replace("{protocol}", protocol)).exists():
        return None
    last = results.runs[-1]
    if any(c not in last["cases"] for c in cases):
        return None
    for m in last["methods"]:
        same = m["name"] == method.name and m["protocol"] == protocol
        if same and m["identity"] == method.identity(m.get("weights_sha256", "")):
            return m
    return None


def column(rows: dict[int, dict[str, Any]], metric: str, slices: Sequence[int] | None = None) -> np.ndarray:
    """A metric's values over slices, those undefined as NaN."""
    wanted = rows if slices is None else slices
    values = [rows[z]["values"].get(metric) if z in rows else None for z in wanted]
    return np.array([np.nan if v is None else v for v in values], float)
