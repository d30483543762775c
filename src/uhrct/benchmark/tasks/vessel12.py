"""VESSEL12: chest scans in which readers marked single voxels as vessel or not."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from uhrct.core.errors import UhrctError

#: end of the name of a table; before it stands the name of the scan
ENDING = "_annotations.csv"
#: a folder whose name begins so holds lung masks, which have the names of the scans
LUNG_MASKS = "lung"


@dataclass(frozen=True)
class Marks:
    """Voxels that readers marked.

    Parameters
    ----------
    voxel : int (n, 3), in the order z, y, x
    vessel : bool (n,)
    """

    voxel: np.ndarray
    vessel: np.ndarray

    def inside(self, shape: tuple[int, ...]) -> Marks:
        """The marks inside an array of that shape."""
        there = (self.voxel < np.array(shape)).all(1)
        return Marks(self.voxel[there], self.vessel[there])


def vessel12_scans(root: Path) -> list[tuple[Path, Path]]:
    """(scan, table of marks) of a folder: `VESSEL12_21.mhd` and `VESSEL12_21_Annotations.csv`, in any subfolders.

    Raises
    ------
    UhrctError
        If there is no such folder or no table in it, or the scan of a table is missing.
    """
    if not root.is_dir():
        raise UhrctError(f"{root}: no such folder")
    tables = sorted(p for p in root.rglob("*.csv") if p.name.lower().endswith(ENDING))
    if not tables:
        raise UhrctError(f"{root}: holds no table such as VESSEL12_21_Annotations.csv")
    scans = {p.stem: p for p in sorted(root.rglob("*.mhd")) if not p.parent.name.lower().startswith(LUNG_MASKS)}
    out = []
    for table in tables:
        name = table.name[: -len(ENDING)]
        if name not in scans:
            raise UhrctError(f"{table}: its scan {name}.mhd is not in {root}")
        out.append((scans[name], table))
    return out


def read_marks(table: Path) -> Marks:
    """The marks of a table with the columns x, y, z (voxels from 0) and label (1 in vessels, 0 elsewhere).

    Raises
    ------
    UhrctError
        If the table cannot be read, a line is no mark, or one of the two kinds is missing.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(_rows(table, csv.reader(stream)))
    except (OSError, UnicodeDecodeError) as error:
        raise UhrctError(f"{table}: cannot be read ({getattr(error, 'strerror', error)})") from None
    found = np.array(rows, int).reshape(-1, 4)
    marks = Marks(found[:, 2::-1], found[:, 3] == 1)
    if marks.vessel.all() or not marks.vessel.any():
        raise UhrctError(f"{table}: needs voxels with label 1 (vessel) and with label 0 (none)")
    return marks


def _rows(table: Path, lines: Iterator[list[str]]) -> Iterator[list[int]]:
    for number, line in enumerate(lines, 1):
        if not "".join(line).strip() or (number == 1 and not line[0].strip().lstrip("-").isdigit()):
            continue  # an empty line, or the names of the columns
        try:
            x, y, z, label = (int(float(word)) for word in line)
        except ValueError:
            raise UhrctError(f"{table}: line {number} is not x,y,z,label") from None
        if min(x, y, z) < 0 or label not in (0, 1):
            raise UhrctError(f"{table}: line {number}: voxels are counted from 0, and the label is 0 or 1")
        yield [x, y, z, label]


def score_marks(mask: np.ndarray, marks: Marks) -> dict[str, float | None]:
    """Sensitivity, specificity and their mean at the marked voxels. None: there is no mark of that kind.

    Example
    -------
    >>> marks = Marks(np.array([[0, 0, 0], [0, 0, 1], [0, 0, 2]]), np.array([True, True, False]))
    >>> score_marks(np.array([[[True, False, False]]]), marks)
    {'sensitivity': 0.5, 'specificity': 1.0, 'balanced': 0.75}
    """
    found = mask[tuple(marks.voxel.T)]
    sensitivity = round(float(found[marks.vessel].mean()), 4) if marks.vessel.any() else None
    specificity = round(float(1 - found[~marks.vessel].mean()), 4) if not marks.vessel.all() else None
    both = None if sensitivity is None or specificity is None else round((sensitivity + specificity) / 2, 4)
    return {"sensitivity": sensitivity, "specificity": specificity, "balanced": both}
