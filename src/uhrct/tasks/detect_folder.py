"""Detection in a folder of scans whose nodules are known, as in LUNA16: findings of each scan and the FROC curve."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uhrct.core.errors import InputRefused, UhrctError
from uhrct.core.progress import track
from uhrct.core.volume import Volume
from uhrct.evaluation.froc import Froc, Place, froc
from uhrct.tasks.detect import Nodule, detect
from uhrct.training.data.datasets import list_scans, read_scan, series_of
from uhrct.training.data.luna16 import Row, read_luna16_annotations

if TYPE_CHECKING:
    from rich.table import Table

#: LUNA16: diameter of a finding whose table has none, or a negative one
UNKNOWN_MM = 10.0


@dataclass(frozen=True)
class FolderFindings:
    """Findings and nodules of the scans of a folder.

    Parameters
    ----------
    found : scan -> findings, the most likely first
    nodules : number of nodules in these scans
    froc : Froc
    notes : lines about scans that were left out or in which nothing was looked for
    """

    found: dict[str, list[Nodule]]
    nodules: int
    froc: Froc
    notes: list[str]


def detect_folder(
    folder: str | Path,
    annotations: str | Path,
    *,
    excluded: str | Path | None = None,
    find: Callable[[Volume], list[Nodule]] = detect,
    quiet: bool = True,
) -> FolderFindings:
    """Look for nodules in all scans of a folder, and compare with a table of annotations.

    Parameters
    ----------
    folder : scans in the layout of LUNA16 (`subset0/UID.mhd`), or any other folder of scans
    annotations : `annotations.csv` of LUNA16. Its `seriesuid` is the SeriesInstanceUID or the name of the file without
        suffix. A scan that is not in it has no nodules.
    excluded : `annotations_excluded.csv`, whose findings are neither right nor wrong
    find : detector
    quiet : bool
        False shows progress.

    Raises
    ------
    UhrctError
        If the folder or a table cannot be read, two scans have the same name, or no scan of the folder has a nodule in
        the table.
    """
    known = read_luna16_annotations(annotations)
    ignored = {} if excluded is None else read_luna16_annotations(excluded)
    parts = [series_of(scan) for scan in list_scans(folder).scans]
    scans = [series for usable, _, _ in parts for series in usable]
    names = [scan.uid or scan.name for scan in scans]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UhrctError(f"{folder}: two scans are called {twice!r}; rename one, since the table knows them by name")
    if not any(name in known for name in names):
        raise UhrctError(f"{annotations}: none of its scans is in {folder}; `seriesuid` must be the name of a scan")
    notes = [line for _, left_out, problems in parts for line in (*left_out, *problems)]
    if absent := [name for name in known if name not in names]:
        notes.append(f"{len(absent)} scans of {annotations} are not in {folder}; they are left out")
    found: dict[str, list[Nodule]] = {}
    for name, scan in track(list(zip(names, scans, strict=True)), "scans", quiet=quiet):
        try:
            volume = read_scan(scan)
            if not isinstance(volume, Volume):
                raise InputRefused("holds a pair of scans")
            found[name] = find(volume)
        except InputRefused as reason:
            found[name] = []
            notes.append(f"{name}: {reason}; it counts as a scan without findings")
    nodules = {name: places(known.get(name, ())) for name in names}
    findings = {name: [Place(n.centre_mm, n.diameter_mm, n.score) for n in own] for name, own in found.items()}
    curve = froc(nodules, findings, {name: places(ignored.get(name, ())) for name in names})
    return FolderFindings(found, sum(len(n) for n in nodules.values()), curve, notes)


def places(rows: list[Row] | tuple[()]) -> list[Place]:
    """Nodules or findings of a table."""
    out = []
    for row in rows:
        known = row.diameter_mm is not None and row.diameter_mm > 0
        out.append(Place(row.centre_mm, row.diameter_mm if known and row.diameter_mm else UNKNOWN_MM))
    return out


def froc_table(found: FolderFindings) -> Table:
    """The sensitivities of LUNA16 for people."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("false positives per scan")
    table.add_column("sensitivity %", justify="right")
    for point, sensitivity in found.froc.at.items():
        table.add_row(f"{point:g}", f"{100 * sensitivity:.1f}")
    table.add_row("mean", f"{100 * found.froc.score:.1f}")
    return table


def froc_report(found: FolderFindings) -> dict[str, Any]:
    """The curve as plain values for JSON (docs/report.md)."""
    return {
        "scans": len(found.found),
        "known_nodules": found.nodules,
        "score": round(found.froc.score, 4),
        "sensitivity": {f"{point:g}": round(value, 4) for point, value in found.froc.at.items()},
    }
