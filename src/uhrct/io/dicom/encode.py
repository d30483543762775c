"""DICOM elements and pixels as bytes: explicit VR little endian, and nothing encoded twice.

pydicom needs some 5 ms to write the header of one slice, which for a series of hundreds is more than its voxels
need. But nearly all elements are the same from slice to slice: those are encoded once and joined as bytes.
"""

from __future__ import annotations

import copy
import struct
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
from pydicom import DataElement, Dataset
from pydicom.charset import convert_encodings
from pydicom.dataelem import RawDataElement, convert_raw_data_element
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import correct_ambiguous_vr, write_data_element
from pydicom.tag import BaseTag
from pydicom.uid import PYDICOM_IMPLEMENTATION_UID

from uhrct.core.errors import UhrctError
from uhrct.io.derivation import TRANSFER_SYNTAXES

Elements = dict[int, bytes]
"""Encoded elements by tag."""

#: VRs whose raw bytes can't be taken over as they are: unknown, or with other elements inside.
_PARSED = (None, "SQ", "UN")


class ElementCache:
    """Encodes the elements of one header after the other, and remembers the last value of every tag.

    Threads may share it: an entry is replaced as a whole.
    """

    def __init__(self) -> None:
        self._last: dict[int, tuple[object, bytes]] = {}

    def encode(self, header: Dataset, tags: Iterable[BaseTag], keep_private: bool = False) -> Elements:
        """The elements `tags` of `header` as bytes; those that are unreadable are left out, with a warning.

        Text keeps its bytes, so its character set must be carried over too.
        """
        out: Elements = {}
        lost = 0
        encodings = convert_encodings(header.get("SpecificCharacterSet") or "ISO_IR 6")
        inside = (tuple(encodings), header.get("PixelRepresentation"), keep_private)  # what decides besides the value
        elements = dict(header.items())  # as they were read; `header[tag]` would parse them
        for tag in tags:
            number = int(tag)  # pydicom's tags compare themselves in Python, and slowly
            key = _key(elements[tag], inside)
            last = self._last.get(number)
            if key is not None and last is not None and last[0] == key:
                out[number] = last[1]
                continue
            try:
                out[number] = _encode_one(header, tag, encodings, keep_private)
            except Exception:  # whatever pydicom raises on bytes that fit no value; counted and reported below
                lost += 1
                continue
            if key is not None:
                self._last[number] = (key, out[number])
        if lost:
            warnings.warn(f"{lost} unreadable header elements of the source are left out", UserWarning, stacklevel=2)
        return out


def _key(element: DataElement | RawDataElement, inside: object) -> object:
    """What two elements of the same tag have in common if they are encoded to the same bytes; None if unknown."""
    if isinstance(element, RawDataElement):
        return element.VR, element.value, element.is_implicit_VR, element.is_little_endian
    if element.value is None:
        return None
    # Sequences are compared item by item, which takes a tenth of encoding them again.
    return element.VR, type(element.value), inside, element.value


def _encode_one(header: Dataset, tag: BaseTag, encodings: list[str], keep_private: bool) -> bytes:
    raw = header.get_item(tag)
    if isinstance(raw, RawDataElement) and raw.VR not in _PARSED and raw.is_little_endian:
        value = convert_raw_data_element(raw, encoding=encodings, ds=header)  # raises if it holds none
        if len(raw.value or b"") % 2 == 0 and " " not in value.VR:
            return element_bytes(raw)
    element = header[tag]
    if element.VR == "SQ" or " " in element.VR:
        element = _cleaned(element, header, keep_private)
    return element_bytes(element, encodings)


def _cleaned(element: DataElement, header: Dataset, keep_private: bool) -> DataElement:
    """A copy without private elements inside, and with VRs that depend on the pixels' settled."""
    lone = Dataset()
    lone.PixelRepresentation = header.get("PixelRepresentation", 0)
    lone.add(copy.deepcopy(element))
    if not keep_private:
        lone.remove_private_tags()
    return correct_ambiguous_vr(lone, True)[element.tag] if element.tag in lone else element


def element_bytes(element: DataElement | RawDataElement, encodings: list[str] | None = None) -> bytes:
    """One element in explicit VR little endian."""
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_data_element(buffer, element, encodings)
    return buffer.getvalue()


def encoded(dataset: Dataset) -> Elements:
    """All elements of `dataset`, in its character set; VRs that depend on others are settled first."""
    correct_ambiguous_vr(dataset, True)
    encodings = convert_encodings(dataset.get("SpecificCharacterSet") or "ISO_IR 6")
    return {int(element.tag): element_bytes(element, encodings) for element in dataset}


def short_element(tag: int, vr: str, value: bytes) -> bytes:
    """An element of UIDs, ASCII text or whole numbers, for what is new in every slice: pydicom takes far longer."""
    value += (b"\0" if vr == "UI" else b" ") * (len(value) % 2)
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr.encode(), len(value)) + value


def sequence_element(tag: int, items: Iterable[bytes]) -> bytes:
    """A sequence of items that are encoded already."""
    value = b"".join(b"\xfe\xff\x00\xe0" + len(item).to_bytes(4, "little") + item for item in items)
    return struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, b"SQ", 0, len(value)) + value


def preamble(sop_class: str, sop_instance: str, transfer_syntax: str) -> bytes:
    """What stands in a file before the dataset: the marker, and file meta information (PS3.10 7.1)."""
    version = b"\x02\x00\x01\x00OB\0\0\x02\0\0\0\0\x01"
    uids = ((0x02, sop_class), (0x03, sop_instance), (0x10, transfer_syntax), (0x12, PYDICOM_IMPLEMENTATION_UID))
    group = version + b"".join(short_element(0x00020000 + element, "UI", uid.encode()) for element, uid in uids)
    return b"\0" * 128 + b"DICM" + struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(group)) + group


def pixel_element(stored: np.ndarray, transfer_syntax: str) -> list[Any]:
    """PixelData of int16 values, shape (y, x) or (frame, y, x), as pieces (bytes or the like).

    Raises
    ------
    UhrctError
        If 32 bits cannot hold the length of uncompressed pixels.
    """
    if transfer_syntax == TRANSFER_SYNTAXES["explicit"]:
        if stored.nbytes > 0xFFFFFFFE:
            raise UhrctError("more than 4 GiB in one DICOM file; choose a compressed `transfer_syntax` or .nii.gz")
        values = np.ascontiguousarray(stored, "<i2")
        head = b"\xe0\x7f\x10\x00OW\0\0" + values.nbytes.to_bytes(4, "little")
        return [head, values.data.cast("B")]
    frames = stored if stored.ndim == 3 else stored[None]
    streams = [compressed(frame, transfer_syntax) for frame in frames]
    return [b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff", encapsulate(streams), b"\xfe\xff\xdd\xe0\0\0\0\0"]


def compressed(frame: np.ndarray, transfer_syntax: str) -> bytes:
    """One int16 frame, shape (y, x), without loss as JPEG-LS or HTJ2K.

    Raises
    ------
    UhrctError
        If the encoder has no room for voxels that grow when they are compressed (tiny frames, pure noise).
    """
    values = np.ascontiguousarray(frame, "<i2")
    if transfer_syntax == TRANSFER_SYNTAXES["jpegls"]:
        return _jpegls(values)
    import imagecodecs

    return bytes(imagecodecs.htj2k_encode(values, reversible=True))


def _jpegls(values: np.ndarray) -> bytes:
    """Both encoders are CharLS and give the same bytes; but imagecodecs, where it is installed, lets threads run."""
    try:
        import imagecodecs

        # The standard's limit is 64 bits a voxel, and memory that is not touched costs nothing.
        stream = bytes(imagecodecs.jpegls_encode(values.view(np.uint16), out=4 * values.nbytes + 1024))
        while stream[2:4] == b"\xff\xe8":  # SPIFF headers, which no DICOM stream has
            stream = stream[:2] + stream[4 + int.from_bytes(stream[4:6], "big") :]
        return stream
    except (ImportError, AttributeError):  # not installed, or built without CharLS
        pass
    import jpeg_ls

    try:
        return bytes(jpeg_ls.encode_buffer(values.tobytes(), *values.shape, 1, 16))
    except RuntimeError:
        raise UhrctError(
            "voxels grow under JPEG-LS, and the encoder has no room: pip install 'uhrct[dicom]', "
            "or choose `transfer_syntax=explicit`"
        ) from None


def check_encoder(transfer_syntax: str) -> None:
    """Raise `UhrctError` if the encoder is an extra that is not installed."""
    if transfer_syntax == TRANSFER_SYNTAXES["htj2k"]:
        try:
            import imagecodecs

            available = bool(imagecodecs.HTJ2K.available)
        except (ImportError, AttributeError):  # older versions know no HTJ2K
            available = False
        if not available:
            raise UhrctError(
                "HTJ2K needs an encoder that is not installed: pip install 'uhrct[dicom]', or choose jpegls"
            )
