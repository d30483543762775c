"""The result file of a benchmark of tasks: JSON lines, of which an interruption can cut off the last one only."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from uhrct.benchmark.results import no_result, read_lines
from uhrct.benchmark.tasks.config import TRUE_SCAN, TasksConfig
from uhrct.core.files import atomic

#: These identify a row. `protocol` and `identity` are "" for the true scan, which all protocols share.
KEY = ("task", "tool", "tool_sha256", "case", "protocol", "degradation", "method", "identity")
Row = dict[str, Any]


def key(row: Row) -> tuple[str, ...]:
    """What identifies a row."""
    return tuple(row[name] for name in KEY)


@dataclass
class TaskResults:
    """A result file. `runs` describe the measurements; a row holds one case by one method and one tool."""

    path: Path
    runs: list[dict[str, Any]] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    #: bytes of an incomplete line at the end of the file
    broken: int = 0

    def of(self, config: TasksConfig, task: str, tool: str, protocol: str) -> dict[str, dict[str, Row]]:
        """Method -> case -> row; the true scan first, then the methods in the order of the configuration.

        Of a method or tool that was measured with several weights or settings, those of the last row count.
        """
        mine = [r for r in self.rows if r["task"] == task and r["tool"] == tool]
        if not mine:
            return {}
        mine = [r for r in mine if r["tool_sha256"] == mine[-1]["tool_sha256"]]
        out = {}
        for method in (TRUE_SCAN, *(m.name for m in config.methods)):
            rows = [r for r in mine if r["method"] == method]
            if method != TRUE_SCAN:
                rows = [r for r in rows if (r["protocol"], r["degradation"]) == (protocol, config.file.degradation)]
            if rows:
                out[method] = {r["case"]: r for r in rows if r["identity"] == rows[-1]["identity"]}
        return out if len(out) > 1 else {}


def read_task_results(path: Path) -> TaskResults:
    """Read a result file. A missing file gives empty results.

    Raises
    ------
    UhrctError
        If a complete line is no result.
    """
    results = TaskResults(path)
    lines, results.broken = read_lines(path)
    for number, record in enumerate(lines, 1):
        try:
            if "run" in record:
                results.runs.append(record["run"])
            else:
                key(record)
                results.rows.append(record)
        except (KeyError, TypeError) as error:
            raise no_result(path, number) from error
    return results


def mask_file(out: Path, row: Row | None, task: str, case: str) -> Path:
    """File with the mask that a row found, in a folder beside the result file; `row` None: the true mask."""
    words = [task, case]
    if row is not None:
        words += [row["tool"], row["tool_sha256"], row["protocol"], row["degradation"], row["method"], row["identity"]]
    name = "-".join(w for w in words if w)
    return out.parent / f"{out.stem}-pictures" / f"{''.join(c if c.isalnum() or c in '-.' else '_' for c in name)}.npz"


def store_mask(mask: np.ndarray, spacing_mm: tuple[float, ...], file: Path) -> None:
    """Store a mask (z, y, x) for the pictures of the report."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic(file) as folder:
        np.savez_compressed(folder / file.name, bits=np.packbits(mask), shape=mask.shape, spacing_mm=spacing_mm)


def stored_mask(file: Path) -> tuple[np.ndarray, tuple[float, float, float]]:
    """(mask (z, y, x), spacing_mm) of `store_mask`."""
    with np.load(file) as stored:
        z, y, x = stored["shape"]
        bits = np.unpackbits(stored["bits"], count=int(z) * int(y) * int(x))
        spacing = stored["spacing_mm"]
        return bits.reshape(z, y, x).astype(bool), (float(spacing[0]), float(spacing[1]), float(spacing[2]))
