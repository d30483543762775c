"""CT series in every transfer syntax, classic and Enhanced, made for tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
from ct_files import make_series
from pydicom import Dataset
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, EnhancedCTImageStorage, generate_uid

SYNTAXES = {
    "implicit": "1.2.840.10008.1.2",
    "explicit": "1.2.840.10008.1.2.1",
    "big-endian": "1.2.840.10008.1.2.2",
    "deflated": "1.2.840.10008.1.2.1.99",
    "rle": "1.2.840.10008.1.2.5",
    "jpeg-lossless": "1.2.840.10008.1.2.4.57",
    "jpeg-lossless-sv1": "1.2.840.10008.1.2.4.70",
    "jpeg-ls": "1.2.840.10008.1.2.4.80",
    "jpeg-2000": "1.2.840.10008.1.2.4.90",
    "htj2k": "1.2.840.10008.1.2.4.201",
    "htj2k-rpcl": "1.2.840.10008.1.2.4.202",
}
Edit = Callable[[int, Dataset], object]


def encode(ds: Dataset, syntax: str, stored: np.ndarray | None = None) -> None:
    """Put the pixels of `ds`, or `stored` of shape (frames, y, x), into another transfer syntax, in place.

    imagecodecs encodes what pydicom decodes by other libraries: openjpeg, CharLS and GDCM read what
    OpenJPH, CharLS and liblj92 wrote.
    """
    uid = UID(SYNTAXES[syntax])
    if stored is None:
        kind = ("u" if ds.PixelRepresentation == 0 else "i") + str(ds.BitsAllocated // 8)
        stored = np.frombuffer(ds.PixelData, "<" + kind).reshape(-1, ds.Rows, ds.Columns)
    ds.file_meta.TransferSyntaxUID = uid
    ds.set_original_encoding(uid.is_implicit_VR, uid.is_little_endian)
    if not uid.is_encapsulated:
        order = "<" if uid.is_little_endian else ">"
        ds.PixelData = stored.astype(stored.dtype.newbyteorder(order)).tobytes()
        ds["PixelData"].VR = "OW"
        ds["PixelData"].is_undefined_length = False
        return
    ds.PixelData = encapsulate([_frame(plane, syntax, ds) for plane in stored])
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True


def _frame(plane: np.ndarray, syntax: str, ds: Dataset) -> bytes:
    unsigned = plane.view(f"u{plane.itemsize}")
    if syntax == "rle":
        segments = []
        for byte in reversed(range(plane.itemsize)):  # the most significant bytes come first
            part = unsigned.astype(f"<u{plane.itemsize}").view("u1").reshape(*plane.shape, plane.itemsize)[..., byte]
            rows = b"".join(imagecodecs.packbits_encode(row.tobytes()) for row in part)
            segments.append(rows + b"\0" * (len(rows) % 2))
        offsets = 64 + np.cumsum([0, *(len(s) for s in segments[:-1])])
        header = np.zeros(16, "<u4")
        header[0], header[1 : 1 + len(segments)] = len(segments), offsets
        return header.tobytes() + b"".join(segments)
    if syntax.startswith("jpeg-lossless"):
        return imagecodecs.ljpeg_encode(unsigned)
    if syntax == "jpeg-ls":
        return imagecodecs.jpegls_encode(unsigned)
    if syntax == "jpeg-2000":
        return imagecodecs.jpeg2k_encode(plane, codecformat="j2k", reversible=True, level=0)
    return imagecodecs.htj2k_encode(plane, reversible=True)


def in_syntax(syntax: str, edit: Edit = lambda k, ds: None) -> Edit:
    """An `edit` for `make_series` that encodes each slice, after `edit`."""

    def both(k: int, ds: Dataset) -> object:
        if edit(k, ds) is False:
            return False
        return encode(ds, syntax)

    return both


def make_enhanced(
    file: Path,
    *,
    shape: tuple[int, int, int] = (4, 6, 7),
    syntax: str = "explicit",
    direction: np.ndarray | None = None,
    order: list[int] | None = None,
    seed: int = 0,
    edit: Edit = lambda k, ds: None,
    whole: Callable[[Dataset], object] = lambda ds: None,
) -> np.ndarray:
    """One Enhanced CT file, frames from last to first (or in `order`); returns HU, shape (z, y, x).

    `edit(k, ds)` may change what will be the classic header of slice k before it becomes a functional group;
    `whole(ds)` changes the file in the end.
    """
    slices: dict[int, Dataset] = {}

    def keep(k: int, ds: Dataset) -> bool:
        edit(k, ds)
        slices[k] = ds
        return False

    hu = make_series(file.parent, shape=shape, direction=direction, seed=seed, edit=keep)
    order = list(reversed(range(shape[0]))) if order is None else order
    first = slices[0]
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[f"enhanced {seed} {file.name}"])
    out = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    for key in ("SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID", "PatientName", "PatientID"):
        setattr(out, key, first.get(key))
    for key in ("Modality", "SeriesNumber", "SeriesDescription", "Manufacturer", "ImageType", "Rows", "Columns"):
        setattr(out, key, first.get(key))
    for key in ("SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit"):
        setattr(out, key, first.get(key))
    out.PixelRepresentation = first.PixelRepresentation
    out.SOPClassUID, out.SOPInstanceUID = EnhancedCTImageStorage, meta.MediaStorageSOPInstanceUID
    out.NumberOfFrames = len(order)
    out.SharedFunctionalGroupsSequence = [
        _group(first, PixelMeasuresSequence=("PixelSpacing", "SliceThickness"))
        | _group(first, PlaneOrientationSequence=("ImageOrientationPatient",))
    ]
    out.PerFrameFunctionalGroupsSequence = [_per_frame(slices[k], number) for number, k in enumerate(order, 1)]
    kind = ("u" if first.PixelRepresentation == 0 else "i") + str(first.BitsAllocated // 8)
    stored = np.stack([np.frombuffer(slices[k].PixelData, "<" + kind).reshape(shape[1:]) for k in order])
    encode(out, syntax, stored)
    whole(out)
    out.save_as(file, enforce_file_format=True)
    return hu


class _Group(Dataset):
    def __or__(self, other: Dataset) -> _Group:  # type: ignore[override]
        self.update(other)
        return self


def _group(source: Dataset, **macros: tuple[str, ...]) -> _Group:
    group = _Group()
    for macro, keys in macros.items():
        item = Dataset()
        for key in keys:
            if key in source:
                setattr(item, key, source.get(key))
        setattr(group, macro, [item])
    return group


def _per_frame(source: Dataset, number: int) -> Dataset:
    content = Dataset()
    content.FrameAcquisitionNumber = source.get("AcquisitionNumber", 1)
    content.DimensionIndexValues = [1, number]
    if "TemporalPositionIdentifier" in source:
        content.TemporalPositionIndex = int(source.TemporalPositionIdentifier)
    frame_type = Dataset()
    frame_type.FrameType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    group = _group(source, PlanePositionSequence=("ImagePositionPatient",))
    group |= _group(source, PixelValueTransformationSequence=("RescaleSlope", "RescaleIntercept"))
    group.FrameContentSequence, group.CTImageFrameTypeSequence = [content], [frame_type]
    return group
