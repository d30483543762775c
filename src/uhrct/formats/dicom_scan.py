"""Finding DICOM series in a folder: headers only, no pixels."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from uhrct.errors import UhrctError

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT = ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")
#: What reading stands on; a value here that cannot be parsed is a damaged file.
USED = (
    *("SOPClassUID", "Modality", "ImageType", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription"),
    "PhotometricInterpretation",
    *("PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient", "SliceThickness", "SpacingBetweenSlices"),
    *("RescaleSlope", "RescaleIntercept", "Manufacturer", "ManufacturerModelName", "ConvolutionKernel"),
)
WHOLE = ("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel")


@dataclass(frozen=True, eq=False)
class Slice:
    """One image file and its header without pixels."""

    file: Path
    header: Dataset


@dataclass(frozen=True, eq=False)
class Series:
    """The images that share one SeriesInstanceUID; `number` is their 1-based place in the listing."""

    number: int
    uid: str
    slices: list[Slice]
    localizers: int = 0
    """Localizers that carried this series' UID and were left out."""

    @property
    def modality(self) -> str:
        return str(self.slices[0].header.get("Modality", ""))

    @property
    def description(self) -> str:
        return str(self.slices[0].header.get("SeriesDescription", ""))

    @property
    def is_localizer(self) -> bool:
        return is_localizer(self.slices[0].header)

    def __str__(self) -> str:
        kind = "localizer" if self.is_localizer else self.modality
        return f"{self.number}: {self.description or 'no description'} ({kind}, {len(self.slices)} slices)"


def is_localizer(header: Dataset) -> bool:
    return "LOCALIZER" in (header.get("ImageType") or [])


def scan(path: Path) -> list[Series]:
    """All image series in a file or in a folder tree, by SeriesNumber, then UID.

    Files that are not DICOM are ignored unless they are called `.dcm`: those are slices that got lost.

    Raises
    ------
    UhrctError
        If nothing is there, nothing is DICOM, or a DICOM file is damaged. Messages do not name `path`.
    """
    files = [path] if path.is_file() else _files(path)
    if not files:
        raise UhrctError("folder is empty; name a folder with DICOM files")
    groups: dict[str, list[Slice]] = {}
    others: set[str] = set()
    for file in files:
        header = _header(file, alone=path.is_file())
        if header is None:
            continue
        if "Rows" not in header or "Columns" not in header:
            others.add(str(header.get("Modality", "no modality")))
            continue
        groups.setdefault(str(header.get("SeriesInstanceUID", "")), []).append(Slice(file, header))
    if not groups:
        held = f"DICOM but no images ({', '.join(sorted(others))})" if others else f"no DICOM among {len(files)} files"
        raise UhrctError(f"holds {held}; name a folder with a CT series")
    in_order = sorted(groups.items(), key=lambda item: (_series_number(item[1][0].header), item[0]))
    return [_series(number, uid, slices) for number, (uid, slices) in enumerate(in_order, 1)]


def choose(series: list[Series], wanted: str | None) -> Series:
    """The series to read: the one asked for, or the only CT that is no localizer.

    Raises
    ------
    UhrctError
        If the choice is not clear; the message lists what is there and how to choose.
    """
    listing = "; ".join(str(s) for s in series)
    if wanted is not None:
        for candidate in series:
            if wanted == candidate.uid or wanted == str(candidate.number):
                return candidate
        raise UhrctError(f"no series {wanted} here; choose one of {listing}")
    if len(series) == 1:
        return series[0]
    real = [s for s in series if s.modality == "CT" and not s.is_localizer]
    if len(real) != 1:
        count = f"{len(real)} CT series" if real else "several series, none of them a CT scan"
        raise UhrctError(f"holds {count}; choose with --series NUMBER-or-UID: {listing}")
    for other in series:
        if other is not real[0]:
            warnings.warn(f"ignored series {other}", UserWarning, stacklevel=4)
    return real[0]


def _files(folder: Path) -> list[Path]:
    found = []
    for parent, folders, names in os.walk(folder):
        folders.sort()
        # Hidden files are file managers' own (._0001.dcm on a Mac's stick is no image).
        found += [Path(parent) / name for name in sorted(names) if not name.startswith(".")]
    return found


def _header(file: Path, alone: bool) -> Dataset | None:
    """The header of a DICOM file; None for other files that just happen to lie in the folder."""
    try:
        header = dcmread(file, stop_before_pixels=True)
        for key in USED:
            header.get(key)  # pydicom converts, and complains, on first use only
        for key in WHOLE:
            int(header.get(key) or 0)
    except InvalidDicomError:
        if alone or file.suffix.lower() == ".dcm":
            what = "is empty" if file.stat().st_size == 0 else "is not a DICOM file (no DICM marker)"
            raise UhrctError(f"{file.name} {what}; remove it or export it again") from None
        return None
    except PermissionError as error:
        raise UhrctError(f"{file.name} cannot be read ({error.strerror}); check its permissions") from None
    except Exception as error:
        # pydicom lets any struct, value or end-of-file error through: all mean the same here.
        raise UhrctError(f"{file.name} has a damaged DICOM header; export it again") from error
    stored_as = header.file_meta.get("MediaStorageSOPClassUID") or header.get("SOPClassUID")
    is_ct = stored_as == CT_IMAGE or stored_as in ENHANCED_CT
    if stored_as is None or (is_ct and "Rows" not in header):
        raise UhrctError(f"{file.name} is truncated or damaged (its header ends too early); export it again")
    return header


def _series(number: int, uid: str, slices: list[Slice]) -> Series:
    # Some scanners file the scout under the scan's own series.
    real = [s for s in slices if not is_localizer(s.header)]
    if real and len(real) < len(slices):
        return Series(number, uid, real, localizers=len(slices) - len(real))
    return Series(number, uid, slices)


def _series_number(header: Dataset) -> int:
    try:
        return int(header.get("SeriesNumber") or 0)
    except (TypeError, ValueError):
        return 0
