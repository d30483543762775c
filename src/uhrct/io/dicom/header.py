"""Read one DICOM file into a pydicom dataset. A damaged file gives one line that states the problem."""

from __future__ import annotations

import contextlib
import io
import logging
import struct
import warnings
import zlib
from collections.abc import Iterator
from typing import BinaryIO, cast

from pydicom import Dataset, dcmread
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from uhrct.core.errors import UhrctError
from uhrct.io.dicom.files import FREE_BYTES, MOST_RATIO, Bounded, DicomFile
from uhrct.io.paths import shown

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
#: Enhanced CT and Legacy Converted Enhanced CT.
ENHANCED_CT = ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")
DICOMDIR = "1.2.840.10008.1.3.10"
#: Attributes that reading needs. If one cannot be parsed, the file is damaged.
USED = (
    *("SOPClassUID", "SOPInstanceUID", "Modality", "ImageType", "SeriesInstanceUID", "SeriesNumber"),
    *("SeriesDescription", "PhotometricInterpretation", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient", "SliceThickness", "SpacingBetweenSlices"),
    *("RescaleSlope", "RescaleIntercept", "RescaleType", "Manufacturer", "ManufacturerModelName", "ConvolutionKernel"),
    *("AcquisitionNumber", "AcquisitionTime", "AcquisitionDateTime", "TriggerTime", "TemporalPositionIdentifier"),
    *("TemporalPositionIndex", "NominalPercentageOfCardiacPhase", "StackID", "ContentTime"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "DirectoryRecordSequence"),
)
WHOLE = (
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
)


def read_header(file: DicomFile, alone: bool) -> tuple[Dataset, int | None] | None:
    """(header of a DICOM file without pixels, bytes that follow it); None for a file that is not DICOM.

    The bytes are None for a deflated file, where nobody knows before it is inflated.

    Parameters
    ----------
    file : DicomFile
        The file to read.
    alone : bool
        Whether the user named this file. Then it must be DICOM, like a file called `.dcm`.

    Raises
    ------
    UhrctError
        If the file is damaged, or is not DICOM although it should be.
    """
    try:
        header, rest = _load(file, pixels=False)
        check_used(header)
        for element in header.file_meta:
            str(element.value)
        for key in WHOLE:
            value = header.get(key)
            if not isinstance(value, int) and (value not in (None, "") or (key in header and key in WHOLE[:2])):
                raise ValueError(f"{key} is no number")
    except InvalidDicomError:
        if alone or file.name.lower().endswith(".dcm"):
            if file.size == 0:
                raise UhrctError(f"{file.name} is empty; export it again") from None
            raise UhrctError(f"{file.name} is not a DICOM file (no DICOM marker)") from None
        return None
    except UhrctError:
        raise
    except PermissionError as error:
        raise UhrctError(f"{file.name} cannot be read ({error.strerror}); check its permissions") from None
    except Exception as error:
        # pydicom raises struct, value, recursion and end-of-file errors; here all mean a damaged file
        raise UhrctError(f"{file.name} has a damaged DICOM header; export it again") from error
    stored_as = header.file_meta.get("MediaStorageSOPClassUID") or header.get("SOPClassUID")
    is_ct = stored_as == CT_IMAGE or stored_as in ENHANCED_CT
    if stored_as is None or (is_ct and "Rows" not in header):
        raise UhrctError(f"{file.name} is truncated or damaged (its header ends too early); export it again")
    return header, rest


def check_used(header: Dataset) -> None:
    """Raise what pydicom raises, or `ValueError`, if an attribute that reading needs cannot be parsed."""
    for key in USED:
        value = header.get(key)  # pydicom converts a value at its first use
        if value not in (None, "") and isinstance(value, Sequence | Dataset) != key.endswith("Sequence"):
            raise ValueError(f"{key} has a wrong value representation")


def load(file: DicomFile, *, pixels: bool) -> Dataset:
    """Parse `file`. Raises what pydicom raises, but reserves no more memory than the file fills.

    Deflated files are inflated here with a limit, because pydicom has none. Old files without preamble and file meta
    information are recognised by their first element.
    """
    return _load(file, pixels)[0]


def _load(file: DicomFile, pixels: bool) -> tuple[Dataset, int | None]:
    """(the parsed file, bytes after what was parsed)."""
    with file.open() as stream:
        start = stream.read(132)
        if start[128:] == b"DICM":
            end, syntax = _file_meta(stream)
            stream.seek(0)
            if syntax == DeflatedExplicitVRLittleEndian:
                return _load_deflated(file, stream, end, pixels), None
            header = dcmread(stream, stop_before_pixels=not pixels)
            if pixels and stream.short and not UID(syntax).is_encapsulated:
                # pydicom would accept a wrong length and take other bytes for pixels
                raise EOFError("the file ends within its pixels")
            return header, stream.size - stream.tell()
        if not _looks_like_a_data_set(start):
            raise InvalidDicomError
        stream.seek(0)
        header = dcmread(stream, stop_before_pixels=not pixels, force=True)
        if "SOPClassUID" not in header and "Rows" not in header:
            raise InvalidDicomError
        if "TransferSyntaxUID" not in header.file_meta:
            implicit = header.original_encoding[0]
            header.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        return header, stream.size - stream.tell()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence pydicom: its remarks show values, which may be patient data."""
    logger = logging.getLogger("pydicom")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def text(header: Dataset, key: str) -> str:
    """A value as one printable line, several values with a slash between, "" where there is none."""
    value = header.get(key)
    if value is None:
        return ""
    parts = [value] if isinstance(value, str) or not hasattr(value, "__iter__") else value
    return shown("/".join(str(part) for part in parts)).strip()


def _file_meta(stream: Bounded) -> tuple[int, str]:
    """Where the file meta information ends, and the transfer syntax that it names ("" if it names none).

    Group 2 is always explicit VR little endian: short enough to walk through it by hand.
    """
    syntax = ""
    while True:
        at = stream.tell()
        head = stream.read(8)
        if len(head) < 8 or head[:2] != b"\x02\x00":
            return at, syntax
        if head[4:6] in (b"OB", b"OW", b"UN", b"SQ", b"UT", b"UC", b"UR"):
            length = struct.unpack("<I", stream.read(4).ljust(4, b"\0"))[0]
        else:
            length = struct.unpack("<H", head[6:8])[0]
        value = stream.read(length)
        if head[:4] == b"\x02\x00\x10\x00":
            syntax = value.rstrip(b"\0 ").decode("ascii", "replace")


def _load_deflated(file: DicomFile, stream: Bounded, end: int, pixels: bool) -> FileDataset:
    start = stream.read(end)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    # a header needs only the first MB; real files do not inflate without bound
    most = FREE_BYTES + MOST_RATIO * file.size if pixels else 16 << 20
    inflated = inflater.decompress(stream.read(), most)
    if pixels and inflater.unconsumed_tail:
        raise UhrctError(f"{file.name} inflates to over {most >> 20} MB, more than CT can compress; export it again")
    meta = FileMetaDataset(read_dataset(io.BytesIO(start[132:]), is_implicit_VR=False, is_little_endian=True))
    stop = None if pixels else lambda tag, vr, length: tag >= 0x7FE00000
    content = Bounded(io.BytesIO(inflated))
    body = read_dataset(cast(BinaryIO, content), is_implicit_VR=False, is_little_endian=True, stop_when=stop)
    if pixels and content.short:
        raise EOFError("the file ends within its pixels")
    return FileDataset("", body, file_meta=meta, is_implicit_VR=False, is_little_endian=True)


def _looks_like_a_data_set(start: bytes) -> bool:
    """Whether bytes without the DICOM marker begin with a plausible element of group 2 or 8."""
    if len(start) < 12 or start[:2] not in (b"\x02\x00", b"\x08\x00"):
        return False
    if start[4:6].isalpha() and start[4:6].isupper():
        return True
    element, length = struct.unpack("<HI", start[2:8])
    return element <= 0x0100 and length <= 64
