"""Score files of `benchmarks/`: how the scores were measured, then the rows of `score_slices`, stored by column."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from uhrct.core.errors import UhrctError
from uhrct.core.files import write_atomic

Row = dict[str, Any]


def write_scores(path: str | Path, meta: dict[str, Any], rows: Iterable[Row]) -> None:
    """Write a score file. Rows that agree in everything but slice and measured values share one line.

    Values are stored with seven significant digits, which is more than float32 images support.

    Parameters
    ----------
    path : JSON lines
    meta : how the scores were measured: weights, commit, number of slices
    rows : of `uhrct.evaluation.protocol.score_slices`, with more keys such as "case" where needed

    Example
    -------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "scores.jsonl"
    >>> rows = [{"method": "bicubic", "slice": z, "psnr_wide": 30.0 + z} for z in (0, 9)]
    >>> write_scores(file, {"slices": 2}, rows)
    >>> print(file.read_text().splitlines()[1])
    {"method":"bicubic","slice":[0,9],"psnr_wide":[30.0,39.0]}
    >>> read_scores(file) == ({"slices": 2}, rows)
    True
    """
    lines: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        keys = list(row)
        first = keys.index("slice")
        shared = {k: row[k] for k in keys[:first]}
        columns = keys[first:]
        line = lines.setdefault((*shared.items(), *columns), {**shared, **{k: [] for k in columns}})
        for k in columns:
            line[k].append(row[k] if k == "slice" else float(f"{row[k]:.7g}"))
    records = [{"meta": meta}, *lines.values()]
    write_atomic(path, "".join(json.dumps(r, separators=(",", ":")) + "\n" for r in records))


def read_scores(path: str | Path) -> tuple[dict[str, Any], list[Row]]:
    """(meta, rows) of a score file.

    Raises
    ------
    UhrctError
        If the file cannot be read or is no score file.
    """
    try:
        meta, *lines = (json.loads(line) for line in Path(path).read_text().splitlines())
        rows = []
        for line in lines:
            columns = {k: v for k, v in line.items() if isinstance(v, list)}
            shared = {k: v for k, v in line.items() if k not in columns}
            by_row = zip(*columns.values(), strict=True)
            rows += [shared | dict(zip(columns, values, strict=True)) for values in by_row]
        return meta["meta"], rows
    except OSError as error:
        raise UhrctError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UhrctError(f"{path}: is not a score file; make it with benchmarks/fidelity.py") from error
