"""What a derived slice keeps from its source series, or what it has without a source."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from pydicom import Dataset
from pydicom.tag import BaseTag

from uhrct.core.volume import Grid, Volume
from uhrct.io.derivation import Derivation
from uhrct.io.dicom.header import CT_IMAGE

#: Lossy transfer syntaxes. A lossy source makes a lossy result, even if its header does not say so.
LOSSY = (
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.51",
    "1.2.840.10008.1.2.4.81",
    "1.2.840.10008.1.2.4.91",
    "1.2.840.10008.1.2.4.203",
)
#: Elements of group 0028 (pixels) to keep: windows, VOI and lossy compression.
KEEP_0028 = {0x1050, 0x1051, 0x1055, 0x1056, 0x0301, 0x0303, 0x2110, 0x2112, 0x2114, 0x3010}
#: Elements that describe only the pixels, file or signature of the source.
DROP = {
    0x00080012,  # InstanceCreationDate
    0x00080013,  # InstanceCreationTime
    0x00080014,  # InstanceCreatorUID
    0x00089124,  # DerivationImageSequence
    0x00089215,  # DerivationCodeSequence
    0x00082112,  # SourceImageSequence
    0x00880200,  # IconImageSequence
    0x04000500,  # EncryptedAttributesSequence
    0x04000561,  # OriginalAttributesSequence
    0x4FFE0001,  # MACParametersSequence
    0xFFFAFFFA,  # DigitalSignaturesSequence
    0xFFFCFFFC,  # DataSetTrailingPadding
}
#: A LO, such as SeriesDescription, holds so many characters.
LONGEST = 64
#: Slices whose thickness differs by less keep the description of their source first.
THICKNESS_SHARE = 0.01
#: Attributes that are required even if empty.
EMPTY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "PatientPosition", "Laterality"),
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
    *("ContentDate", "ContentTime", "Manufacturer", "PositionReferenceIndicator"),
)


class Source:
    """The slices of a DICOM source, and which of them contribute to an output slice."""

    def __init__(self, headers: list[Dataset], volume: Volume) -> None:
        self.headers = headers
        self.grid = volume.grid
        # places come from the headers: the volume may be a result already, with fewer slices than its source
        normal = volume.direction[:, 0]
        first, last = (np.array(headers[i].ImagePositionPatient, float) @ normal for i in (0, -1))
        self._along_mm = np.linspace(first, last, len(headers))
        self.increment_mm = abs(float(last - first)) / (len(headers) - 1) if len(headers) > 1 else volume.spacing_mm[0]
        rescale = {(float(h.RescaleSlope), float(h.RescaleIntercept)) for h in headers}
        _, intercept = next(iter(rescale))
        shared = len({intercept for _, intercept in rescale}) == 1
        self.intercept = int(intercept) if shared and intercept.is_integer() else 0

    def _depths(self, place: np.ndarray) -> np.ndarray:
        """Distance of all source slices from the plane through `place`, in mm along the source's normal."""
        return np.abs(self._along_mm - place @ self.grid.direction[:, 0])

    @property
    def thickness_mm(self) -> float:
        """Thickness that the source states for its slices, else their distance."""
        try:
            stated = float(self.headers[0].get("SliceThickness") or 0)
        except (TypeError, ValueError):
            stated = 0.0
        return stated if 0 < stated < float("inf") else self.increment_mm

    @property
    def was_tilted(self) -> bool:
        """Whether the scan was resampled onto an upright grid when it was read (`untilt`)."""
        first, last = (np.array(self.headers[i].ImagePositionPatient, float) for i in (0, -1))
        normal = self.grid.direction[:, 0]
        sideways = last - first - normal * ((last - first) @ normal)
        return bool(np.linalg.norm(sideways) > 0.25 * min(self.grid.spacing_mm[1:]))

    def nearest(self, place: np.ndarray) -> int:
        """Index of the source slice nearest to the plane through `place`."""
        return int(self._depths(place).argmin())

    def contributing(self, place: np.ndarray, grid: Grid, reach_mm: float = 0.0) -> list[int]:
        """Indices of source slices that a slice of `grid` at `place` was made from; at least the nearest one.

        These are the source slices that it covers, or that lie up to `reach_mm` beyond its faces. A slice fills the
        distance to the next one.
        """
        depths = self._depths(place)
        reach_mm += (grid.spacing_mm[0] + self.increment_mm) / 2
        touching_mm = 1e-3 * self.increment_mm  # slices that only touch share nothing
        return [int(i) for i in np.flatnonzero(depths <= max(reach_mm - touching_mm, depths.min()))]


def name_of(header: Dataset) -> tuple[str, str] | None:
    """(class UID, instance UID) of a source image; None if it has no instance UID."""
    instance = str(header.get("SOPInstanceUID") or "")
    return (str(header.get("SOPClassUID") or CT_IMAGE), instance) if instance else None


def kept_tags(source: Dataset, keep_private: bool = False) -> list[BaseTag]:
    """Elements that a derived slice keeps: all except pixels, their description and signatures."""
    tags = source.keys()
    return [tag for tag in tags if _is_kept(int(tag), keep_private)]


@cache
def _is_kept(tag: int, keep_private: bool) -> bool:
    group, element = tag >> 16, tag & 0xFFFF
    if group in (0x0002, 0x7FE0) or element == 0 or tag in DROP:
        return False
    if group % 2 == 1:
        return keep_private and group > 0x0008
    if 0x5000 <= group <= 0x501E or 0x6000 <= group <= 0x601E:  # curves, overlays
        return False
    return group != 0x0028 or element in KEEP_0028


def series_description(source: Source | None, derivation: Derivation, grid: Grid, what: str = "") -> str:
    """SeriesDescription of a result: that of the source, RESEARCH, and what the result is. At most 64 characters.

    Where the slices got another thickness, the new one comes first, because the text of the source often states the
    old one: "RESEARCH degraded 5x1x1, 5 mm slices, from: CHEST 1MM".

    Parameters
    ----------
    what : str
        Kind of a map or mask.
    """
    label = " ".join(part for part in ("RESEARCH", derivation.suffix, what) if part)
    described = "" if source is None else str(source.headers[0].get("SeriesDescription") or "").strip()
    if source is not None:
        thickness_mm = grid.slice_thickness_mm or grid.spacing_mm[0]
        if abs(thickness_mm / source.thickness_mm - 1) > THICKNESS_SHARE:
            label = f"{label}, {thickness_mm:.3g} mm slices"
            rest = _cut(described, LONGEST - len(label) - len(", from: "))
            return (f"{label}, from: {rest}" if rest else label)[:LONGEST]
    return f"{_cut(described, LONGEST - len(label) - 1)} {label}".strip()[:LONGEST]


def _cut(text: str, length: int) -> str:
    """The beginning of a text, in whole words where it has more than one: half a number would mislead."""
    if len(text) <= length:
        return text
    start = text[: max(0, length)]
    return (start.rpartition(" ")[0] or start).rstrip(" ,:;")


def series_header(source: Dataset, derivation: Derivation) -> Dataset:
    """New values of a derived series: number, and whether the source was lossy."""
    out = Dataset()
    if source.get("SpecificCharacterSet"):
        out.SpecificCharacterSet = source.SpecificCharacterSet
    out.SeriesNumber = _whole(source.get("SeriesNumber")) + derivation.series_number_offset
    if str(getattr(source, "file_meta", Dataset()).get("TransferSyntaxUID", "")) in LOSSY:
        out.LossyImageCompression = "01"
    return out


def _whole(value: object) -> int:
    try:
        return int(str(value))
    except ValueError:
        return 0


def minimal_header(uid: Callable[..., str]) -> Dataset:
    """A valid CT header without patient, study and scanner."""
    out = Dataset()
    for empty in EMPTY:
        setattr(out, empty, "")
    out.KVP = out.AcquisitionNumber = None
    out.Modality = "CT"
    out.SeriesNumber = 1
    out.SpecificCharacterSet = "ISO_IR 192"
    out.StudyInstanceUID = uid("study")
    out.FrameOfReferenceUID = uid("frame of reference")
    return out


def source_padding_hu(header: Dataset) -> int | None:
    """HU of padding voxels in the source; None if there are none or the value is not whole.

    Signed padding is often stored as unsigned (63536 for -2000).
    """
    value = header.get("PixelPaddingValue")
    if not isinstance(value, int):
        return None
    if header.PixelRepresentation == 1 and value >= 1 << (header.BitsAllocated - 1):
        value -= 1 << header.BitsAllocated
    hu = value * float(header.RescaleSlope) + float(header.RescaleIntercept)
    return int(hu) if hu.is_integer() else None
