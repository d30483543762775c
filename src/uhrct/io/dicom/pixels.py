"""Decode pixels of DICOM images into HU, for every transfer syntax with a decoder."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import get_decoder
from pydicom.uid import UID, ImplicitVRLittleEndian, RLELossless

from uhrct.core.errors import UhrctError
from uhrct.core.hu import as_hu
from uhrct.io.dicom.frames import Slice
from uhrct.io.dicom.header import CT_IMAGE, load
from uhrct.io.itk import readable_errors
from uhrct.io.paths import shown

#: JPEG (lossless, and 8 or 12 bits lossy): ITK's GDCM decodes them, because pydicom has no plugin with a free licence.
BY_ITK = tuple(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70))
JPEG_2000 = tuple(f"1.2.840.10008.1.2.4.{n}" for n in (90, 91, 201, 202, 203))
JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
#: Larger compressed images need at least one byte per `PIXELS_PER_BYTE` pixels. Otherwise a short stream that claims
#: 65535 x 65535 pixels would make the decoder reserve memory for all of them.
LARGE_PIXELS, PIXELS_PER_BYTE = 1 << 24, 1000

NO_PIXELS = "holds no pixel data: the file is cut off, damaged or no image; copy or export it again"


def syntax_of(header: Dataset) -> UID:
    """The transfer syntax; an empty UID if the file names none."""
    return UID(shown(str(header.file_meta.get("TransferSyntaxUID", ""))))


def check_decodable(one: Slice) -> None:
    """Raise `UhrctError` if the header alone shows that pixels cannot be decoded: no decoder, impossible sizes."""
    header, syntax = one.header, syntax_of(one.header)
    try:
        available = syntax in BY_ITK or get_decoder(syntax).is_available
    except NotImplementedError:
        available = False
    if not available:
        name = f"{syntax.name} ({syntax})" if syntax else "missing"
        raise UhrctError(f"{one.name}: transfer syntax {name} cannot be decoded; export uncompressed files")
    rows, columns, allocated, stored = (
        int(header.get(key) or 0) for key in ("Rows", "Columns", "BitsAllocated", "BitsStored")
    )
    if rows < 1 or columns < 1:
        raise UhrctError(f"{one.name} has no pixels ({rows} rows, {columns} columns); export it again")
    if allocated not in (8, 16, 32) or not 1 <= stored <= allocated:
        raise UhrctError(f"{one.name} is damaged: {stored} of {allocated} bits stored; export it again")
    if header.get("HighBit") not in (None, "", stored - 1):
        raise UhrctError(f"{one.name}: HighBit {header.HighBit} does not fit {stored} bits stored; export it again")
    if header.get("PixelRepresentation") not in (0, 1):
        raise UhrctError(f"{one.name} does not say whether its pixels are signed; export it again")
    frames = 1 if one.whole is None else int(one.whole.NumberOfFrames)
    size = one.file.size
    needed = rows * columns * (allocated // 8) * frames
    if one.pixel_bytes == 0:
        raise UhrctError(f"{one.name} {NO_PIXELS}")
    if not syntax.is_compressed and one.pixel_bytes is not None:
        held = max(0, one.pixel_bytes - (8 if syntax == ImplicitVRLittleEndian else 12))  # after tag, VR and length
        if needed > held:
            raise UhrctError(f"{one.name} is truncated or damaged: {needed} bytes of pixels in {held}; export it again")
    if (syntax == RLELossless and needed > 64 * size) or rows * columns > max(LARGE_PIXELS, PIXELS_PER_BYTE * size):
        raise UhrctError(
            f"{one.name} is truncated or damaged: {rows} x {columns} pixels in {size} bytes; export it again"
        )


def decode(images: list[Slice]) -> Iterator[tuple[Slice, np.ndarray]]:
    """HU of the images of one file, shape (y, x), int16 or float32, in the order of frames.

    Raises
    ------
    UhrctError
        If pixels are missing, truncated, damaged or do not fit their header.
    """
    wanted = {one.frame or 0: one for one in images}
    one = images[0]
    try:
        dataset = load(one.file, pixels=True)
        if "PixelData" not in dataset:
            raise UhrctError(f"{one.name} {NO_PIXELS}")
        for index, stored in enumerate(_frames(dataset, max(wanted) + 1)):
            if index in wanted:
                one = wanted.pop(index)
                yield one, _hu(stored, one)
        if wanted:
            one = next(iter(wanted.values()))
            raise EOFError("the stream ends before this frame")
    except UhrctError as error:
        # messages of this module need the name of the slice
        text = str(error)
        raise UhrctError(text if one.file.name in text else f"{one.name}: {text}") from error
    except Exception as error:
        # decoders raise many types on a damaged stream; for the user all mean the same
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
        raise UhrctError(f"{one.name}: pixels missing, truncated or damaged ({reason}); export it again") from error


def _frames(dataset: Dataset, count: int) -> Iterator[np.ndarray]:
    """Stored values of the first `count` frames, each of shape (y, x)."""
    syntax = syntax_of(dataset)
    total = int(dataset.get("NumberOfFrames") or 1)
    if not syntax.is_encapsulated:
        decoder = get_decoder(syntax)
        if total == 1:
            yield decoder.as_array(dataset)[0]
        else:
            for plane, _ in decoder.iter_array(dataset, indices=range(count)):
                yield plane
        return
    for frame in generate_frames(dataset.PixelData, number_of_frames=total):
        _check_stream(frame, syntax, dataset)
        if syntax in BY_ITK:
            yield _by_itk(frame, dataset)
        else:
            yield get_decoder(syntax).as_array(_alone(frame, dataset))[0]


def _alone(frame: bytes, dataset: Dataset) -> FileDataset:
    """A single-frame file in memory with one compressed frame and the attributes of its pixels."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
    meta.MediaStorageSOPClassUID = UID(CT_IMAGE)
    meta.MediaStorageSOPInstanceUID = UID("2.25.1")
    single = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128, is_implicit_VR=False, is_little_endian=True)
    single.SOPClassUID, single.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    for key in ("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation"):
        setattr(single, key, dataset.get(key))
    single.HighBit = single.BitsStored - 1
    single.SamplesPerPixel, single.PhotometricInterpretation, single.Modality = 1, "MONOCHROME2", "CT"
    single.PixelData = encapsulate([frame])
    single["PixelData"].is_undefined_length = True
    single["PixelData"].VR = "OB"
    return single


def _by_itk(frame: bytes, dataset: Dataset) -> np.ndarray:
    import SimpleITK as sitk

    with tempfile.TemporaryDirectory(prefix="uhrct-") as folder, readable_errors():
        file = Path(folder) / "frame.dcm"
        _alone(frame, dataset).save_as(file, enforce_file_format=True)
        reader = sitk.ImageFileReader()
        reader.SetImageIO("GDCMImageIO")
        reader.SetFileName(str(file))
        return sitk.GetArrayFromImage(reader.Execute()).reshape(dataset.Rows, dataset.Columns)


def _check_stream(frame: bytes, syntax: str, dataset: Dataset) -> None:
    """Compare the size in a compressed stream with the header, before a decoder reserves memory."""
    if syntax in JPEG_2000:
        size = _size_in_jpeg_2000(frame)
    elif syntax in BY_ITK or syntax in JPEG_LS:
        size = _size_in_jpeg(frame)
    else:
        return
    expected = (dataset.Rows, dataset.Columns, 1)
    if size != expected:
        said = "no size" if size is None else f"{size[0]} x {size[1]} pixels of {size[2]} values"
        raise UhrctError(f"damaged: the compressed image holds {said}, its header says {expected[0]} x {expected[1]}")


def _size_in_jpeg_2000(frame: bytes) -> tuple[int, int, int] | None:
    at = frame[:4096].find(b"\xff\x4f\xff\x51")  # after boxes, if somebody stored a whole .jp2
    if at < 0 or len(frame) < at + 42:
        return None
    x, y, x0, y0 = struct.unpack_from(">4I", frame, at + 8)
    return y - y0, x - x0, struct.unpack_from(">H", frame, at + 40)[0]


def _size_in_jpeg(frame: bytes) -> tuple[int, int, int] | None:
    at = 2
    while at + 10 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            rows, columns, values = struct.unpack_from(">HHB", frame, at + 5)
            return rows, columns, values
        at += 1 if marker == 0xFF else 2 + struct.unpack_from(">H", frame, at + 2)[0]
    return None


def _hu(stored: np.ndarray, one: Slice) -> np.ndarray:
    header = one.header
    if stored.shape != (header.Rows, header.Columns):
        raise UhrctError(f"pixels of shape {stored.shape} do not fit its header; export it again")
    slope, intercept = float(header.RescaleSlope), float(header.RescaleIntercept)
    whole = slope.is_integer() and intercept.is_integer()
    # whole numbers stay exact
    values = _signed_padding(stored.astype(np.int64), header)
    hu = values * int(slope) + int(intercept) if whole else values * slope + intercept
    return as_hu(hu[None])[0]


def _signed_padding(stored: np.ndarray, header: Dataset) -> np.ndarray:
    """Turn padding of -2000 that was stored in unsigned pixels as 63536 back into -2000.

    Other values stay as stored. Later code recognises padding by its HU.
    """
    padding = header.get("PixelPaddingValue")
    bits = int(header.BitsAllocated)
    if header.PixelRepresentation == 0 and isinstance(padding, int) and 1 << (bits - 1) <= padding < 1 << bits:
        limit = header.get("PixelPaddingRangeLimit")
        low, high = sorted((padding, limit if isinstance(limit, int) and limit >= 1 << (bits - 1) else padding))
        stored[(stored >= low) & (stored <= high)] -= 1 << bits
    return stored
