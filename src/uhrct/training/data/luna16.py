"""Annotation tables of LUNA16: nodules and candidates, from world millimetres to places in an array."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from uhrct.core.errors import UhrctError
from uhrct.core.volume import Grid, Vector, Volume


@dataclass(frozen=True)
class Row:
    """A row of a table. The centre is in LPS millimetres; `diameter_mm` is None for candidates."""

    centre_mm: Vector
    diameter_mm: float | None
    is_nodule: bool


@dataclass(frozen=True)
class Finding:
    """A nodule or candidate. Its centre is in array coordinates, which are whole numbers at voxel centres."""

    voxel: tuple[float, float, float]
    diameter_mm: float | None
    is_nodule: bool


def read_luna16_annotations(table: str | Path) -> dict[str, list[Row]]:
    """Rows of `annotations.csv`, `candidates.csv` or `candidates_V2.csv` by seriesuid; see `findings_of`.

    Raises
    ------
    UhrctError
        If the file is missing or lacks a column, or a row is not numeric.
    """
    rows: dict[str, list[Row]] = {}
    try:
        with Path(table).open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            missing = {"seriesuid", "coordX", "coordY", "coordZ"} - set(reader.fieldnames or ())
            if missing:
                raise UhrctError(f"{table}: no column {sorted(missing)[0]}; this is no table of LUNA16")
            for row in reader:
                place = (float(row["coordX"]), float(row["coordY"]), float(row["coordZ"]))
                diameter = float(row["diameter_mm"]) if row.get("diameter_mm") else None
                # annotations.csv has nodules only; in candidates.csv the column class says which are nodules
                rows.setdefault(row["seriesuid"], []).append(Row(place, diameter, row.get("class") in (None, "1")))
    except (OSError, UnicodeDecodeError) as error:
        raise UhrctError(f"{table}: cannot be read ({getattr(error, 'strerror', error)})") from None
    except (ValueError, TypeError) as error:
        raise UhrctError(f"{table}: line {reader.line_num} is not a row of LUNA16 ({error})") from None
    return rows


def findings_of(rows: list[Row], grid: Grid | Volume) -> list[Finding]:
    """Findings of a scan in its array coordinates (z, y, x).

    Example
    -------
    >>> grid = Grid((10, 20, 20), (2.0, 0.5, 0.5), origin_mm=(-5.0, -5.0, 100.0))
    >>> findings_of([Row((-4.0, -3.0, 106.0), 6.5, True)], grid)[0].voxel
    (3.0, 4.0, 2.0)
    """
    out = []
    for row in rows:
        offset_mm = np.asarray(grid.direction).T @ (np.asarray(row.centre_mm) - np.asarray(grid.origin_mm))
        z, y, x = (offset_mm / np.asarray(grid.spacing_mm)).tolist()
        out.append(Finding((z, y, x), row.diameter_mm, row.is_nodule))
    return out
