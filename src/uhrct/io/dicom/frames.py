"""Split multi-frame CT into slices with classic headers."""

from __future__ import annotations

from dataclasses import dataclass

from pydicom import Dataset

from uhrct.core.errors import UhrctError
from uhrct.io.dicom.files import DicomFile
from uhrct.io.dicom.header import ENHANCED_CT, check_used

#: Functional groups whose attributes describe the frame itself (PS3.3 C.7.6.16.2 and C.8.15.3).
GROUPS = (
    *("PixelMeasuresSequence", "PlanePositionSequence", "PlaneOrientationSequence", "FrameContentSequence"),
    *("PixelValueTransformationSequence", "CTImageFrameTypeSequence", "FrameVOILUTSequence"),
    *("TemporalPositionSequence", "CardiacSynchronizationSequence", "CTReconstructionSequence"),
    *("CTPixelValueTransformationSequence", "UnassignedSharedConvertedAttributesSequence"),
    "UnassignedPerFrameConvertedAttributesSequence",
)
#: Attributes with another name in a classic header: functional group -> classic.
CLASSIC = {
    "FrameType": "ImageType",
    "FrameAcquisitionNumber": "AcquisitionNumber",
    "FrameAcquisitionDateTime": "AcquisitionDateTime",
    "NominalCardiacTriggerDelayTime": "TriggerTime",
}
SHARED, PER_FRAME = 0x52009229, 0x52009230


@dataclass(frozen=True, eq=False)
class Slice:
    """One image: its file, its header without pixels, and its number in a multi-frame file.

    For a frame of a multi-frame file, `header` is flat: the values of the functional groups are at the top level under
    their classic names. `whole` is the original header of the file.
    """

    file: DicomFile
    header: Dataset
    frame: int | None = None
    """0-based; None if the file is a single image."""
    whole: Dataset | None = None
    pixel_bytes: int | None = None
    """Bytes of the file after its header; None if unknown."""

    @property
    def name(self) -> str:
        """For messages: the file, and the 1-based frame."""
        return self.file.name if self.frame is None else f"{self.file.name} frame {self.frame + 1}"


def split(file: DicomFile, header: Dataset, pixel_bytes: int | None) -> list[Slice]:
    """The slices of one file with `pixel_bytes` after its header: one, or one per frame of an Enhanced CT.

    Raises
    ------
    UhrctError
        If functional groups and number of frames contradict each other.
    """
    count = int(header.get("NumberOfFrames") or 1)
    if header.get("SOPClassUID") not in ENHANCED_CT:
        return [Slice(file, header, pixel_bytes=pixel_bytes)]
    frames = header.get("PerFrameFunctionalGroupsSequence") or []
    shared = header.get("SharedFunctionalGroupsSequence") or []
    if len(frames) != count or len(shared) > 1:
        raise UhrctError(
            f"{file.name} is damaged: it states {count} frames but describes {len(frames)}; export it again"
        )
    base = _top(header)
    try:
        if shared:
            _merge(base, shared[0])
        slices = [
            Slice(file, _merge(_copy(base), group), index, header, pixel_bytes) for index, group in enumerate(frames)
        ]
        for one in slices:
            check_used(one.header)
        return slices
    except UhrctError:
        raise
    except Exception as error:
        raise UhrctError(f"{file.name} has damaged functional groups; export it again") from error


def _top(header: Dataset) -> Dataset:
    flat = _copy(header)
    for tag in (SHARED, PER_FRAME):
        if tag in flat:
            del flat[tag]
    return flat


def _copy(header: Dataset) -> Dataset:
    """A new dataset with the same elements. Nobody changes the elements."""
    flat = Dataset()
    flat.update(header)
    implicit, little_endian = header.original_encoding
    flat.set_original_encoding(implicit, little_endian, header.original_character_set)
    flat.file_meta = header.file_meta
    return flat


def _merge(flat: Dataset, group: Dataset) -> Dataset:
    for name in GROUPS:
        items = group.get(name) or []
        if len(items) > 1:
            continue  # several alternatives, such as windows, do not describe the frame itself
        for element in items[0] if items else ():
            classic = CLASSIC.get(element.keyword)
            if classic:
                setattr(flat, classic, element.value)
            else:
                flat[element.tag] = element
    return flat
