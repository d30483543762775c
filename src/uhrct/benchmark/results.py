"""The result file of a benchmark: JSON lines, of which an interruption can cut off the last one only."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from uhrct.benchmark.config import Method
from uhrct.core.errors import UhrctError
from uhrct.core.version import __version__

#: These keys, with `slice` or `slab`, identify a row.
KEY = ("identity", "protocol", "degradation", "case")


@dataclass
class Results:
    """A result file. `runs` describe the measurements (the last one counts); a row holds one slice by one method.

    `slabs` are rows of neighbouring slices that were judged as a volume; their `slab` is (first, stop) in HR slices.
    """

    path: Path
    runs: list[dict[str, Any]] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    slabs: list[dict[str, Any]] = field(default_factory=list)
    #: bytes of an incomplete line at the end of the file
    broken: int = 0

    @property
    def done(self) -> set[tuple[Any, ...]]:
        """Keys of all rows."""
        slices = {(*(r[k] for k in KEY), r["slice"]) for r in self.rows}
        return slices | {(*(r[k] for k in KEY), r["slab"]) for r in self.slabs}

    def of(self, protocol: str, degradation: str, case: str) -> dict[str, dict[int, dict[str, Any]]]:
        """Method -> slice -> row, for the weights and settings of the last run, in its order."""
        found = self._at((protocol, degradation, case), self.rows)
        return {name: {r["slice"]: r for r in sorted(rows, key=lambda r: r["slice"])} for name, rows in found.items()}

    def volumes_of(self, protocol: str, degradation: str, case: str) -> dict[str, dict[str, Any]]:
        """Method -> row of its slab, as in `of`."""
        return {name: rows[-1] for name, rows in self._at((protocol, degradation, case), self.slabs).items()}

    def _at(self, place: tuple[str, str, str], rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
        methods = {m["identity"]: m["name"] for m in self.runs[-1]["methods"] if m["protocol"] == place[0]}
        out: dict[str, list[dict[str, Any]]] = {name: [] for name in methods.values()}
        for row in rows:
            if (row["protocol"], row["degradation"], row["case"]) == place and row["identity"] in methods:
                out[methods[row["identity"]]].append(row)
        return {name: found for name, found in out.items() if found}

    def places(self) -> list[tuple[str, str, str]]:
        """(protocol, degradation, case) of all rows of the last run's methods."""
        current = {m["identity"] for m in self.runs[-1]["methods"]} if self.runs else set()
        return list(
            dict.fromkeys((r["protocol"], r["degradation"], r["case"]) for r in self.rows if r["identity"] in current)
        )


def read_results(path: Path) -> Results:
    """Read a result file. A missing file gives empty results.

    An incomplete last line is left out and counted in `broken`.

    Raises
    ------
    UhrctError
        If another line is no result.
    """
    results = Results(path)
    lines, results.broken = read_lines(path)
    for number, record in enumerate(lines, 1):
        try:
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
            raise no_result(path, number) from e
    return results


def read_lines(path: Path) -> tuple[list[Any], int]:
    """(the records of a file of JSON lines, bytes of an incomplete last line). A missing file has none.

    Raises
    ------
    UhrctError
        If a complete line is no JSON.
    """
    if not path.exists():
        return [], 0
    blob = path.read_bytes()
    whole = blob[: blob.rfind(b"\n") + 1]
    records = []
    for number, line in enumerate(whole.decode(errors="replace").splitlines(), 1):
        try:
            records.append(json.loads(line))
        except (ValueError, RecursionError) as e:
            raise no_result(path, number) from e
    return records, len(blob) - len(whole)


def no_result(path: Path, number: int) -> UhrctError:
    """The error for a line that is no result."""
    return UhrctError(f"{path}: line {number} is no benchmark result; repair or move the file")


def append(file: BinaryIO, record: dict[str, Any]) -> None:
    """Write a whole line at once, so that an interruption cuts off the last line only."""
    file.write((json.dumps(record, separators=(",", ":")) + "\n").encode())
    file.flush()


def circumstances(device: torch.device) -> dict[str, Any]:
    """Time, commit, versions and device of a run."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    name = f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit.stdout.strip(),
        "uhrct": __version__,
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else name,
    }


def measured_before(results: Results, method: Method, protocol: str, cases: list[Any]) -> dict[str, Any] | None:
    """The last run's record of a method whose weights are missing now; None where its rows do not count.

    Rows count if settings and voxels are those of the measurement. They do not count if other weights are there: the
    method was changed, and old rows would hide that.

    Parameters
    ----------
    cases : as in the record of the run, with hashes of their voxels
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
    """Values of a metric over slices, NaN where undefined."""
    wanted = rows if slices is None else slices
    values = [rows[z]["values"].get(metric) if z in rows else None for z in wanted]
    return np.array([np.nan if v is None else v for v in values], float)
