"""Packs data sets into a store: reads each series once, checks it, and writes it as training needs it."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from uhrct.core.errors import UhrctError
from uhrct.core.progress import track
from uhrct.core.volume import Vector, Volume
from uhrct.training.data.datasets import SPLITS, Scan, group_of, list_scans, person_of, read_scan, series_of
from uhrct.training.data.luna16 import Row, findings_of, read_luna16_annotations
from uhrct.training.data.pairs import Pair
from uhrct.training.data.phantoms import truth_map
from uhrct.training.data.store import INDEX, Entry, Store, read_split
from uhrct.training.data.voxels import body_box, clipped_hu, clipping_note, is_mask

#: of ten persons, by the hash of their name, one goes to test and one to validation
TENTHS = {0: "test", 1: "validation"}


@dataclass
class Report:
    """What `pack` did: names packed now, names packed before, and one line for all that was left out or unreadable."""

    packed: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def pack(
    sources: list[str | Path],
    out: str | Path,
    *,
    layout: str = "auto",
    spacing_mm: Vector | None = None,
    unit_hu: tuple[float, float] | None = None,
    split: str | Path | None = None,
    verify: bool = False,
    quiet: bool = False,
) -> Report:
    """Pack all series below `sources` into the store `out`. Series that are packed already are skipped.

    Parameters
    ----------
    sources : list of paths
        Data set folders or files.
    out : path
        Store folder: new, or an existing store.
    layout : str
        "auto" or one of `uhrct.training.data.datasets.LAYOUTS`.
    spacing_mm : (z, y, x), optional
        For `.npz` files that store none.
    unit_hu : (HU of 0, HU of 1), optional
        For files whose voxels were mapped to [0, 1].
    split : path, optional
        Split file to use instead of the split of the data set, or of that by hash.
    verify : bool
        Check the sha256 of series that are packed already, not only the size of their files.

    Returns
    -------
    Report
        A scan that cannot be read is a line in `problems`; the rest is packed.

    Raises
    ------
    UhrctError
        If a source, the split file or the store cannot be used.

    Example
    -------
    >>> import tempfile
    >>> import numpy as np
    >>> from uhrct import io
    >>> hu = np.zeros((2, 4, 5), np.int16) - 1000
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     io.write(Volume(hu, (1.0, 0.5, 0.5)), f"{folder}/scan.npz")
    ...     report = pack([f"{folder}/scan.npz"], f"{folder}/store", quiet=True)
    ...     [patient] = Store(f"{folder}/store").patients()
    >>> report.packed, patient.hr.file, patient.hr.shape
    (['scan'], 'scan.raw', (2, 4, 5))
    """
    given = None if split is None else read_split(Path(split))
    listings = [list_scans(source, layout) for source in sources]
    folder = Path(out)
    if folder.exists() and not (folder / INDEX).exists() and any(not p.name.startswith(".") for p in folder.iterdir()):
        raise UhrctError(f"{folder}: exists and is not a store; choose a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    store, report = Store(folder), Report()
    if given is not None:
        store.split = given
    store.save()
    packer = _Packer(store, report, spacing_mm, unit_hu, verify, by_file=given is not None)
    scans = [(scan, Path(source)) for source, listing in zip(sources, listings, strict=True) for scan in listing.scans]
    for scan, root in track(scans, "packing", quiet=quiet):
        packer.take(scan, root)
    report.left_out += [line for listing in listings for line in listing.left_out]
    return report


def summary(report: Report, out: str | Path) -> list[str]:
    """Lines for the user: sizes, the split, and every note with the names of its series."""
    store = Store(out)
    entries = store.patients()
    size = sum(2 * p.shape[0] * p.shape[1] * p.shape[2] for e in entries for p in e.parts) / 1e9
    split = ", ".join(f"{len(store.patients(part))} {part}" for part in SPLITS)
    lines = [
        f"{out}: {len(entries)} series ({split}), {sum(e.hr.shape[0] for e in entries)} slices, {size:.2f} GB; "
        f"{len(report.packed)} packed now, {len(report.kept)} before"
    ]
    if entries and not store.patients("validation"):
        lines.append(
            "note: no series is in the validation part; move some names in split.json, or name other scans with "
            "data.validation"
        )
    by_note: dict[str, list[str]] = {}
    for e in entries:
        for note in e.notes:
            by_note.setdefault(note, []).append(e.name)
    lines += [f"note: {note}: {', '.join(names)}" for note, names in by_note.items()]
    return lines + [f"left out: {line}" for line in report.left_out]


def split_by_hash(name: str) -> str:
    """The default part of the split: eight of ten to train, by sha256, so the same on every machine.

    Example
    -------
    >>> split_by_hash("CT00000000"), split_by_hash("CT00000003")
    ('train', 'train')
    """
    return TENTHS.get(int(hashlib.sha256(name.encode()).hexdigest(), 16) % 10, "train")


class _Packer:
    """Takes scans one by one into a store. A problem with one of them becomes a line of the report."""

    def __init__(
        self,
        store: Store,
        report: Report,
        spacing_mm: Vector | None,
        unit_hu: tuple[float, float] | None,
        verify: bool,
        by_file: bool,
    ) -> None:
        self.store, self.report, self.by_file, self.verify = store, report, by_file, verify
        self.options: dict[str, Any] = {"spacing_mm": spacing_mm, "unit_hu": unit_hu}
        self.names: set[str] = set()
        self.tokens: dict[str, str] = {}
        self.tables: dict[Path, dict[str, list[Row]]] = {}

    def take(self, scan: Scan, root: Path) -> None:
        series, left_out, problems = series_of(scan)
        self.report.left_out += left_out
        self.report.problems += problems
        for one in series:
            name = self._name(one, [s.uid for s in series].count(one.uid))
            if name is None:
                continue
            fingerprint = self._fingerprint(one)
            if self._is_there(name, fingerprint):
                self.report.kept.append(name)
                continue
            try:
                self._pack(one, root, name, fingerprint)
            except UhrctError as error:
                self.report.problems.append(str(error))

    def _name(self, scan: Scan, phases: int) -> str | None:
        """A unique name: that of `load_patients`, but for DICOM without the name of a person."""
        if scan.dicom:
            own = scan.uid + (f" {scan.series}" if phases > 1 else "")
            name = hashlib.sha256(own.encode()).hexdigest()[:12]
            if name in self.names:
                self.report.problems.append(f"{scan.paths[0]}: the same series as in another folder; it is packed once")
                return None
        else:
            name = scan.name
            if name in self.names:
                name = f"{scan.paths[0].parent.name}/{name}"
            if name in self.names:
                self.report.problems.append(f"{scan.paths[0]}: a third series called {scan.name}; rename the file")
                return None
        self.names.add(name)
        return name

    def _fingerprint(self, scan: Scan) -> str:
        # by name and size, not by path: a data set may be packed in parts
        files = [*scan.paths, *([scan.lr] if scan.lr else [])]
        files += [raw for f in files if f.suffix.lower() == ".mhd" and (raw := f.with_suffix(".raw")).is_file()]
        what = [scan.uid, str(scan.shape)] if scan.dicom else [f"{f.name} {f.stat().st_size}" for f in files]
        return hashlib.sha256(json.dumps([what, self.options]).encode()).hexdigest()[:16]

    def _is_there(self, name: str, fingerprint: str) -> bool:
        entry = self.store.entries.get(name)
        if entry is None or entry.fingerprint != fingerprint:
            return False
        return all(self.store.check(p) if self.verify else self.store.whole(p) for p in entry.parts)

    def _pack(self, scan: Scan, root: Path, name: str, fingerprint: str) -> None:
        read = read_scan(scan, **self.options)
        pair = read if isinstance(read, Pair) else None
        volume = read.hr if isinstance(read, Pair) else read
        if scan.lr is None and not scan.dicom and is_mask(volume.hu):
            self.report.left_out.append(f"{scan.paths[0]}: few whole numbers from 0 on; a mask, not CT")
            return
        self.store.drop(name)
        file = _file_name(name)
        hr, hu = self.store.write(f"{file}.raw", volume)
        lr = None if pair is None else self.store.write(f"{file}.lr.raw", pair.lr)[0]
        structure = None
        if scan.layout == "phantom":
            exact = replace(volume, hu=truth_map(scan.paths[0].parent).numpy())
            structure = self.store.write(f"{file}.structure.raw", exact)[0]
        notes = [clipping_note(clipped_hu(hu.numpy())), *(pair.notes if pair is not None else ())]
        if len(scan.paths) > 1:
            notes.append(f"{len(scan.paths)} files of one slice each")
        entry = Entry(
            name=name,
            hr=hr,
            body=body_box(hu),
            layout=scan.layout,
            source="" if scan.dicom else _below(scan.paths[0], root),
            fingerprint=fingerprint,
            lr=lr,
            notes=tuple(n for n in notes if n),
            findings=self._findings(scan, volume, root),
            structure=structure,
            group=self._token(group_of(volume)),
        )
        self.store.add(entry, self._split(scan, volume, name))
        self.report.packed.append(name)

    def _token(self, group: str) -> str:
        """A random number for a group. A hash of it would betray the PatientID to someone who tries all of them."""
        return group and self.tokens.setdefault(group, secrets.token_hex(6))

    def _split(self, scan: Scan, volume: Volume, name: str) -> str | None:
        if self.by_file:
            if not self.store.has_part(name):
                self.report.left_out.append(f"{name}: packed, but in no part of the split file")
            return None
        # all series of a person go to the same part, by a hash of the PatientID, which is not stored
        return scan.split or split_by_hash(person_of(volume) or name)

    def _findings(self, scan: Scan, volume: Volume, root: Path) -> list[dict[str, Any]]:
        if scan.layout != "luna16":
            return []
        near = [p for p in scan.paths[0].parents if p in (root, root.parent) or root in p.parents]
        folder = next((p for p in near if (p / "annotations.csv").is_file()), None)
        if folder is None:
            return []
        if folder not in self.tables:
            self.tables[folder] = read_luna16_annotations(folder / "annotations.csv")
        rows = self.tables[folder].get(scan.name, [])
        return [{"voxel": list(f.voxel), "diameter_mm": f.diameter_mm} for f in findings_of(rows, volume)]


def _file_name(name: str) -> str:
    """A file name for a series: its own name if possible, else with a hash that keeps it unique."""
    plain = re.sub(r"[^\w.-]", "_", name)
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _below(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path != root else path.name
