"""Find DICOM series in a folder, zip or DICOMDIR, from headers without pixels."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from pydicom import Dataset

from uhrct.core.errors import NothingToDo, UhrctError, WrongArgument
from uhrct.io.dicom.files import DicomFile, find_files, find_referenced
from uhrct.io.dicom.frames import Slice, split
from uhrct.io.dicom.header import CT_IMAGE, DICOMDIR, ENHANCED_CT, load, quiet, read_header, text
from uhrct.io.dicom.phases import phases

__all__ = ["CT_IMAGE", "ENHANCED_CT", "Found", "Series", "choose", "is_localizer", "scan"]

#: ImageType values of screen captures and dose pages that scanners store as CT.
NO_SCAN = {"SCREEN SAVE", "DOSE", "DOSE_INFO", "DOSE REPORT", "CT_SOM5 PROT", "CSA REPORT", "REPORT"}

#: series that a message lists
MOST_LISTED = 10


@dataclass(frozen=True, eq=False)
class Series:
    """The images of one volume; `number` is its 1-based place in the listing.

    Images that share a SeriesInstanceUID are one series, or one for each of their temporal phases.
    """

    number: int
    uid: str
    slices: list[Slice]
    phase: str = ""
    """What distinguishes it from other phases with the same SeriesInstanceUID."""
    notes: tuple[str, ...] = ()
    """What was left out: localizers, identical copies."""
    problem: str = ""
    """Why it cannot be read, if this is known before the geometry."""

    @property
    def modality(self) -> str:
        return text(self.slices[0].header, "Modality")

    @property
    def description(self) -> str:
        said = text(self.slices[0].header, "SeriesDescription")
        return ", ".join(part for part in (said, self.phase) if part)

    @property
    def kind(self) -> str:
        """The kind of series in a word: "CT" for a scan."""
        header = self.slices[0].header
        if is_localizer(header):
            return "localizer"
        if self.modality != "CT":
            return self.modality or "no modality"
        if NO_SCAN & {str(v).upper() for v in _values(header, "ImageType")}:
            return "report page"
        return "CT" if any("ImagePositionPatient" in one.header for one in self.slices) else "captured screen"

    def __str__(self) -> str:
        return f"{self.number}: {self.description or 'no description'} ({self.kind}, {len(self.slices)} slices)"


@dataclass(frozen=True)
class Found:
    """All series; all damaged DICOM files, each with one line about its damage."""

    series: list[Series]
    damaged: list[tuple[DicomFile, str]] = field(default_factory=list)


def is_localizer(header: Dataset) -> bool:
    return "LOCALIZER" in _values(header, "ImageType")


def scan(path: Path) -> Found:
    """All image series in a file, a folder tree, a zip or a DICOMDIR: studies as their first files are found, in them
    by SeriesNumber, UID and phase.

    Files that are not DICOM are ignored, unless they are called `.dcm`: those may be lost slices.

    Raises
    ------
    UhrctError
        If there is no file, or none is DICOM. Messages do not name `path`.
    """
    files = find_files(path)
    with quiet():
        if len(files) == 1 and path.is_file():
            files = _listed(files[0], path) or files
        return _scan(files, alone=path.is_file() and path.suffix.lower() != ".zip")


def _scan(files: list[DicomFile], alone: bool) -> Found:
    groups: dict[str, list[Slice]] = {}
    studies: dict[str, int] = {}  # in the order of the files, which is that of their paths
    others: set[str] = set()
    damaged: list[tuple[DicomFile, str]] = []
    for file in files:
        try:
            parsed = read_header(file, alone)
            if parsed is None:
                continue
            header, pixel_bytes = parsed
            if "Rows" not in header or "Columns" not in header:
                others.add(text(header, "Modality") or ("DICOMDIR" if _is_dicomdir(header) else "no modality"))
                continue
            slices = split(file, header, pixel_bytes)
            studies.setdefault(text(header, "StudyInstanceUID"), len(studies))
            groups.setdefault(text(header, "SeriesInstanceUID"), []).extend(slices)
        except UhrctError as error:
            damaged.append((file, str(error)))
    if damaged and not groups:
        raise UhrctError(damaged[0][1])
    if not groups:
        held = f"DICOM but no images ({', '.join(sorted(others))})" if others else f"no DICOM among {len(files)} files"
        kind = UhrctError if alone else NothingToDo
        raise kind(f"holds {held}; give a folder with a CT series")
    series: list[Series] = []

    def order(item: tuple[str, list[Slice]]) -> tuple[int, int, str]:
        header = item[1][0].header
        study = text(header, "StudyInstanceUID")
        return studies[study] if study else len(studies), _series_number(header), item[0]

    for uid, slices in sorted(groups.items(), key=order):
        real, notes = _without_localizers(slices)
        real, copies, problem = _without_copies(real)
        notes += copies
        for phase, part in phases(real):
            series.append(Series(len(series) + 1, uid, part, phase, tuple(notes), problem))
    return Found(series, damaged)


def choose(found: Found, wanted: str | None) -> Series:
    """The series to read: the one asked for, or the only CT scan.

    Raises
    ------
    UhrctError
        If a file is damaged (it may be a slice of the scan), or if the choice is not clear. Then the message lists the
        series and how to choose.
    """
    if found.damaged:
        raise UhrctError(found.damaged[0][1])
    series = found.series
    listing = "; ".join(str(s) for s in series[:MOST_LISTED])
    if len(series) > MOST_LISTED:
        listing += f"; ... and {len(series) - MOST_LISTED} more; uhrct info lists them"
    if wanted is not None:
        fitting = [s for s in series if wanted == s.uid] or [s for s in series if wanted == str(s.number)]
        if len(fitting) > 1:
            raise WrongArgument(f"series {wanted} has {len(fitting)} phases; choose one by `series=NUMBER`: {listing}")
        if not fitting:
            raise WrongArgument(f"no series {wanted} here; choose one of {listing}")
        return fitting[0]
    if len(series) == 1:
        return series[0]
    real = [s for s in series if s.kind == "CT"]
    if len(real) != 1:
        count = f"{len(real)} CT series" if real else "several series, none of them a CT scan"
        raise UhrctError(f"holds {count}; choose one by `series=NUMBER-or-UID`: {listing}")
    for other in series:
        if other is not real[0]:
            warnings.warn(f"ignored series {other}", UserWarning, stacklevel=4)
    return real[0]


def _listed(file: DicomFile, path: Path) -> list[DicomFile]:
    """The files that `file` lists if it is a DICOMDIR, else none."""
    try:
        header = load(file, pixels=False)
        if not _is_dicomdir(header):
            return []
        images = [
            record
            for record in header.get("DirectoryRecordSequence") or []
            if text(record, "DirectoryRecordType") == "IMAGE"
        ]
        references = [tuple(str(part) for part in _values(r, "ReferencedFileID")) for r in images]
    except Exception:
        return []  # the reading that follows reports the problem
    nameless = sum(not any(parts) for parts in references)
    if nameless:
        raise UhrctError(f"lists {nameless} images without the name of a file; give the folder with the DICOM files")
    return find_referenced(path.parent, references)


def _is_dicomdir(header: Dataset) -> bool:
    return header.file_meta.get("MediaStorageSOPClassUID") == DICOMDIR


def _without_localizers(slices: list[Slice]) -> tuple[list[Slice], list[str]]:
    # some scanners store the scout in the series of the scan
    real = [one for one in slices if not is_localizer(one.header)]
    if real and len(real) < len(slices):
        return real, [f"ignored {len(slices) - len(real)} localizer image(s) in the series"]
    return slices, []


def _without_copies(slices: list[Slice]) -> tuple[list[Slice], list[str], str]:
    """(one image per SOPInstanceUID and frame, notes on what was left out, problem)."""
    first: dict[tuple[str, int | None], Slice] = {}
    kept: list[Slice] = []
    copies = 0
    for one in slices:
        uid = text(one.header, "SOPInstanceUID")
        other = first.setdefault((uid, one.frame), one) if uid else one
        if other is one:
            kept.append(one)
        elif _content(one) == _content(other):
            copies += 1
        else:
            problem = f"{other.name} and {one.name} carry the same SOPInstanceUID but differ; remove the wrong one"
            return slices, [], f"duplicate slices: {problem}"
    return kept, [f"ignored {copies} identical copies of images"] if copies else [], ""


def _content(one: Slice) -> bytes:
    """A hash that is equal for equal images: stored pixels, rescaling and geometry."""
    try:
        dataset = load(one.file, pixels=True)
        digest = hashlib.sha256(bytes(dataset.get("PixelData") or b""))
    except Exception:
        return one.name.encode()  # unreadable: different from all others
    for key in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns", "NumberOfFrames"):
        digest.update(f"{key} {one.header.get(key)}".encode())
    for key in ("RescaleSlope", "RescaleIntercept", "PixelRepresentation", "BitsStored"):
        digest.update(f"{key} {one.header.get(key)}".encode())
    return digest.digest()


def _values(header: Dataset, key: str) -> list[object]:
    value = header.get(key)
    if value is None:
        return []
    return [value] if isinstance(value, str) or not hasattr(value, "__iter__") else list(value)


def _series_number(header: Dataset) -> int:
    try:
        return int(header.get("SeriesNumber") or 0)
    except (TypeError, ValueError):
        return 0
