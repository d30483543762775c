"""Encode DICOM elements and pixels as explicit VR little endian.

pydicom needs about 5 ms to write the header of one slice. For a series of hundreds this is more time than the voxels
need. Nearly all elements are equal in all slices. They are encoded once, and their bytes are joined.
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

from uhrct.core.errors import UhrctError
from uhrct.core.version import __version__
from uhrct.io.derivation import TRANSFER_SYNTAXES
from uhrct.io.ownership import IMPLEMENTATION_UID

Elements = dict[int, bytes]
"""Encoded elements by tag."""

#: VRs whose raw bytes cannot be copied: unknown ones, and those that contain other elements.
_PARSED = (None, "SQ", "UN")


IMPLEMENTATION_NAME = f"UHRCT_{__version__}"[:16]


class ElementCache:
    """Encodes the elements of headers, and remembers the last value of every tag.

    Threads may share it, because an entry is replaced as a whole.
    """

    def __init__(self) -> None:
        self._last: dict[int, tuple[object, bytes]] = {}

    def encode(self, header: Dataset, tags: Iterable[BaseTag], keep_private: bool = False) -> Elements:
        """The elements `tags` of `header` as bytes. Unreadable elements are left out, with a warning.

        Text keeps its bytes, so the character set must be kept too.
        """
        out: Elements = {}
        lost = 0
        encodings = convert_encodings(header.get("SpecificCharacterSet") or "ISO_IR 6")
        inside = (tuple(encodings), header.get("PixelRepresentation"), keep_private)  # also determines the bytes
        elements = dict(header.items())  # as read; `header[tag]` would parse them
        for tag in tags:
            number = int(tag)  # comparing pydicom's tags is slow
            key = _key(elements[tag], inside)
            last = self._last.get(number)
            if key is not None and last is not None and last[0] == key:
                out[number] = last[1]
                continue
            try:
                out[number] = _encode_one(header, tag, encodings, keep_private)
            except Exception:  # pydicom raises many types on damaged bytes; they are counted and reported below
                lost += 1
                continue
            if key is not None:
                self._last[number] = (key, out[number])
        if lost:
            warnings.warn(f"{lost} unreadable header elements of the source are left out", UserWarning, stacklevel=2)
        return out


def _key(element: DataElement | RawDataElement, inside: object) -> object:
    """A key that is equal for elements with the same encoding; None if unknown."""
    if isinstance(element, RawDataElement):
        return element.VR, element.value, element.is_implicit_VR, element.is_little_endian
    if element.value is None:
        return None
    # comparing a sequence item by item takes a tenth of the time of encoding it
    return element.VR, type(element.value), inside, element.value


def _encode_one(header: Dataset, tag: BaseTag, encodings: list[str], keep_private: bool) -> bytes:
    raw = header.get_item(tag)
    if isinstance(raw, RawDataElement) and raw.VR not in _PARSED and raw.is_little_endian:
        value = convert_raw_data_element(raw, encoding=encodings, ds=header)  # raises if there is no valid value
        if len(raw.value or b"") % 2 == 0 and " " not in value.VR:
            return element_bytes(raw)
    element = header[tag]
    if element.VR == "SQ" or " " in element.VR:
        element = _cleaned(element, header, keep_private)
    return element_bytes(element, encodings)


def _cleaned(element: DataElement, header: Dataset, keep_private: bool) -> DataElement:
    """A copy without private elements, with definite VRs where these depend on the pixels."""
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
    """All elements of `dataset`, in its character set; VRs that depend on other elements are determined first."""
    correct_ambiguous_vr(dataset, True)
    encodings = convert_encodings(dataset.get("SpecificCharacterSet") or "ISO_IR 6")
    return {int(element.tag): element_bytes(element, encodings) for element in dataset}


def short_element(tag: int, vr: str, value: bytes) -> bytes:
    """An element of UIDs, ASCII text or whole numbers that changes with every slice; faster than pydicom."""
    value += (b"\0" if vr == "UI" else b" ") * (len(value) % 2)
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr.encode(), len(value)) + value


def sequence_element(tag: int, items: Iterable[bytes]) -> bytes:
    """A sequence of encoded items."""
    value = b"".join(b"\xfe\xff\x00\xe0" + len(item).to_bytes(4, "little") + item for item in items)
    return struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, b"SQ", 0, len(value)) + value


def preamble(sop_class: str, sop_instance: str, transfer_syntax: str) -> bytes:
    """The part of a file before the dataset: marker and file meta information (PS3.10 7.1)."""
    version = b"\x02\x00\x01\x00OB\0\0\x02\0\0\0\0\x01"
    uids = ((0x02, sop_class), (0x03, sop_instance), (0x10, transfer_syntax), (0x12, IMPLEMENTATION_UID))
    group = version + b"".join(short_element(0x00020000 + element, "UI", uid.encode()) for element, uid in uids)
    group += short_element(0x00020013, "SH", IMPLEMENTATION_NAME.encode())
    return b"\0" * 128 + b"DICM" + struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(group)) + group


def pixel_element(stored: np.ndarray, transfer_syntax: str) -> list[Any]:
    """PixelData of int16 values, shape (y, x) or (frame, y, x), in pieces.

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
    """One int16 frame, shape (y, x), compressed without loss as JPEG-LS or HTJ2K.

    Raises
    ------
    UhrctError
        If the compressed frame is larger than the buffer of the encoder (tiny frames, pure noise).
    """
    values = np.ascontiguousarray(frame, "<i2")
    if transfer_syntax == TRANSFER_SYNTAXES["jpegls"]:
        return _jpegls(values)
    import imagecodecs

    return bytes(imagecodecs.htj2k_encode(values, reversible=True))


def _jpegls(values: np.ndarray) -> bytes:
    """Both encoders use CharLS and give the same bytes. imagecodecs is preferred, because it allows threads."""
    try:
        import imagecodecs

        # the standard allows up to 64 bits per voxel; unused memory costs nothing
        stream = bytes(imagecodecs.jpegls_encode(values.view(np.uint16), out=4 * values.nbytes + 1024))
        while stream[2:4] == b"\xff\xe8":  # SPIFF headers do not belong into a DICOM stream
            stream = stream[:2] + stream[4 + int.from_bytes(stream[4:6], "big") :]
        return stream
    except (ImportError, AttributeError):  # not installed, or built without CharLS
        pass
    import jpeg_ls

    try:
        return bytes(jpeg_ls.encode_buffer(values.tobytes(), *values.shape, 1, 16))
    except RuntimeError:
        raise UhrctError(
            "JPEG-LS makes these voxels larger than the encoder allows: pip install 'uhrct[dicom]', "
            "or choose `transfer_syntax=explicit`"
        ) from None


def check_encoder(transfer_syntax: str) -> None:
    """Raise `UhrctError` if the encoder is an extra that is not installed."""
    if transfer_syntax == TRANSFER_SYNTAXES["htj2k"]:
        try:
            import imagecodecs

            available = bool(imagecodecs.HTJ2K.available)
        except (ImportError, AttributeError):  # older versions have no HTJ2K
            available = False
        if not available:
            raise UhrctError(
                "HTJ2K needs an encoder that is not installed: pip install 'uhrct[dicom]', or choose jpegls"
            )
