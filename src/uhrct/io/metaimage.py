"""MetaImage (`.mha`, `.mhd`): a strict parser. Known keys only, and voxels in this file or beside it."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import BinaryIO

import numpy as np

from uhrct.core.errors import UhrctError
from uhrct.io.image_header import ImageHeader, Place, check_spacing, checked_shape, place_of, quoted

_USED = (
    *("ObjectType", "NDims", "DimSize", "ElementType", "ElementSpacing", "ElementSize", "ElementDataFile"),
    *("ElementNumberOfChannels", "ElementNBits", "ElementToIntensityFunctionSlope", "HeaderSize"),
    *("ElementToIntensityFunctionOffset", "ElementByteOrderMSB", "BinaryData", "CompressedData", "Modality"),
    *("CompressedDataSize", "TransformMatrix", "Offset", "CenterOfRotation", "DistanceUnits", "AnatomicalOrientation"),
)
#: Keys that describe the file or its display, and cannot change voxels or geometry.
_UNUSED: tuple[str, ...] = (
    "Comment",
    "ObjectSubType",
    "Name",
    "ID",
    "ParentID",
    "CompressionLevel",
    "Color",
    "AcquisitionDate",
)
_UNUSED += ("SequenceID", "ElementMin", "ElementMax")
#: Notes that ITK copies into the header from a file that it read before: its own, and DICOM elements by tag.
_NOTES = re.compile(r"ITK_\w+|[0-9a-fA-F]{4}\|[0-9a-fA-F]{4}", re.ASCII)
_SYNONYMS = {"Rotation": "TransformMatrix", "Orientation": "TransformMatrix", "Position": "Offset", "Origin": "Offset"}
_SYNONYMS |= {"BinaryDataByteOrderMSB": "ElementByteOrderMSB"}

#: MET_LONG has 4 bytes in MetaIO, on every machine.
_TYPES = {"CHAR": "i1", "UCHAR": "u1", "SHORT": "i2", "USHORT": "u2", "INT": "i4", "UINT": "u4", "LONG": "i4"}
_TYPES |= {"ULONG": "u4", "LONG_LONG": "i8", "ULONG_LONG": "u8", "FLOAT": "f4", "DOUBLE": "f8"}
_UNITS_MM = {"?": 1.0, "": 1.0, "mm": 1.0, "um": 1e-3, "cm": 10.0, "m": 1000.0}
_MODALITIES = ("MET_MOD_CT", "MET_MOD_OTHER", "MET_MOD_UNKNOWN", "?")
_MOST_HEADER, _MOST_LINE = 1 << 20, 1 << 16
_NUMBER = re.compile(r"[-+]?(\d{1,40}\.?\d{0,40}|\.\d{1,40})([eE][-+]?\d{1,4})?", re.ASCII)
_WHOLE = re.compile(r"[-+]?\d{1,15}", re.ASCII)
_NO_HEADER = "not a MetaImage file (no valid header); export it again"


def read_header(path: Path) -> ImageHeader:
    """The checked header of `path`.

    Raises
    ------
    UhrctError
        If it is no valid MetaImage header, if a key is unknown, repeated or contradicts another, or if the file is not
        one scalar volume with its voxels in it or in one file beside it.
    """
    with path.open("rb") as file:
        fields = _fields(file)
        start = file.tell()
    _check_meaning(fields)
    if fields["ElementDataFile"] not in ("LOCAL", "Local", "local"):
        path, start = _beside(path, fields["ElementDataFile"]), 0
    shape, dtype, place = _shape(fields), _dtype(fields), _place(fields)
    packing = "zlib" if _truth(fields, "CompressedData") else "raw"
    start = _start(fields, path, start, math.prod(shape) * dtype.itemsize)
    return ImageHeader(
        shape=shape,
        dtype=dtype,
        place=place,
        file=path,
        start=start,
        packing=packing,
        slope=_numbers(fields, "ElementToIntensityFunctionSlope", 1, "1")[0],
        intercept=_numbers(fields, "ElementToIntensityFunctionOffset", 1, "0")[0],
        slice_thickness_mm=_thickness_mm(fields),
    )


def _fields(file: BinaryIO) -> dict[str, str]:
    """Keys and values up to ElementDataFile. `file` then stands at the first byte after it."""
    found: dict[str, str] = {}
    while "ElementDataFile" not in found:
        raw = file.readline(_MOST_LINE)
        if not raw or file.tell() > _MOST_HEADER or (len(raw) == _MOST_LINE and not raw.endswith(b"\n")):
            raise UhrctError(_NO_HEADER)
        # names of files may have bytes that are not UTF-8
        line = raw.decode("utf-8", "surrogateescape").strip()
        if not line:
            continue
        key, equals, value = (part.strip() for part in line.partition("="))
        if not found and not (equals and key in (*_USED, *_UNUSED)):
            raise UhrctError(_NO_HEADER)
        if key in _UNUSED or _NOTES.fullmatch(key):
            continue
        key = _SYNONYMS.get(key, key)
        if not equals or key not in _USED:
            raise UhrctError(f"header key {quoted(key)!r} is unknown, it may change the image; remove it if not")
        if found.get(key, value) != value:
            raise UhrctError(f"header key {key!r} appears twice with different values; export it again")
        found[key] = value
    missing = [key for key in ("NDims", "DimSize", "ElementType", "ElementSpacing") if key not in found]
    if missing:
        raise UhrctError(f"header key {missing[0]!r} is missing; export it again")
    return found


def _check_meaning(fields: dict[str, str]) -> None:
    if fields.get("ObjectType", "Image") != "Image":
        raise UhrctError(f"holds an object of type {quoted(fields['ObjectType'])}, not an image; choose the image")
    if fields.get("ElementNumberOfChannels", "1") != "1":
        raise UhrctError("colour or vector voxels, not CT values in HU; convert it to one value per voxel")
    if not _truth(fields, "BinaryData", "True"):
        raise UhrctError("its voxels are stored as text; write it again in binary")
    if fields.get("Modality", "MET_MOD_CT") not in _MODALITIES:
        raise UhrctError(f"Modality is {quoted(fields['Modality'])}, not CT; uhrct works on CT in HU")
    if any(number != 0 for number in _numbers(fields, "CenterOfRotation", 3, "0 0 0")):
        raise UhrctError("CenterOfRotation is not 0, so programs place the image differently; resample it first")
    if "TransformMatrix" not in fields and fields.get("AnatomicalOrientation", "???") not in ("???", "RAI", "LPS"):
        raise UhrctError(
            f"AnatomicalOrientation {quoted(fields['AnatomicalOrientation'])} without TransformMatrix is ambiguous; "
            "add the matrix at the source"
        )


def _shape(fields: dict[str, str]) -> tuple[int, int, int]:
    sizes = _whole_numbers(fields, "DimSize")
    if _whole_numbers(fields, "NDims") != [len(sizes)]:
        raise UhrctError(f"NDims {quoted(fields['NDims'])} does not fit DimSize {quoted(fields['DimSize'])}")
    return checked_shape(sizes)


def _dtype(fields: dict[str, str]) -> np.dtype:
    code = _TYPES.get(fields["ElementType"].removeprefix("MET_"))
    if code is None or not fields["ElementType"].startswith("MET_"):
        raise UhrctError(f"ElementType {quoted(fields['ElementType'])} is not a number; convert it first")
    # without this key, MetaIO takes the byte order of the machine; that is little endian nearly everywhere
    dtype = np.dtype((">" if _truth(fields, "ElementByteOrderMSB") else "<") + code)
    if fields.get("ElementNBits", str(8 * dtype.itemsize)) != str(8 * dtype.itemsize):
        raise UhrctError(f"ElementNBits {quoted(fields['ElementNBits'])} does not fit its ElementType; export it again")
    return dtype


def _place(fields: dict[str, str]) -> Place:
    unit_mm = _unit_mm(fields)
    spacing = np.array(_numbers(fields, "ElementSpacing", 3))
    check_spacing((spacing * unit_mm).tolist())
    # each row of the file is the direction of one axis
    matrix = np.reshape(_numbers(fields, "TransformMatrix", 9, "1 0 0 0 1 0 0 0 1"), (3, 3))
    lengths = np.linalg.norm(matrix, axis=1)
    if not np.allclose(lengths, 1, atol=1e-3):
        raise UhrctError("the rows of TransformMatrix do not have length 1; resample it first")
    return place_of((matrix / lengths[:, None]).T * spacing * unit_mm, np.array(_origin(fields)) * unit_mm)


def _origin(fields: dict[str, str]) -> list[float]:
    return _numbers(fields, "Offset", 3, "0 0 0")


def _unit_mm(fields: dict[str, str]) -> float:
    unit = fields.get("DistanceUnits", "mm")
    if unit not in _UNITS_MM:
        raise UhrctError(f"DistanceUnits {quoted(unit)} is unknown; use mm at the source")
    return _UNITS_MM[unit]


def _thickness_mm(fields: dict[str, str]) -> float | None:
    """ElementSize is the size of a voxel, which may differ from the distance: along z, it is the slice thickness."""
    if "ElementSize" not in fields:
        return None
    size = _numbers(fields, "ElementSize", 3)
    if not all(0 < side * _unit_mm(fields) < 1e3 for side in size):
        raise UhrctError(f"ElementSize {quoted(fields['ElementSize'])} is not positive; correct it at the source")
    return size[2] * _unit_mm(fields)


def _beside(path: Path, name: str) -> Path:
    """The file with the voxels. Its name is taken literally, and leads into no other folder."""
    if name == "LIST" or name.startswith("LIST "):
        raise UhrctError(
            "its voxels are in several files (ElementDataFile = LIST); convert it to one file with SimpleITK"
        )
    file = path.parent / name
    if "/" in name or "\\" in name or name in ("", ".", "..") or Path(name).is_absolute():
        raise UhrctError(f"its voxel file {quoted(name)} is in another folder; put both into one and correct the name")
    if len(os.fsencode(name)) > 255 or not file.is_file():
        raise UhrctError(f"its voxel file {quoted(name)} is missing; put both files into one folder")
    if file.samefile(path):
        raise UhrctError("names itself as its voxel file; export it again")
    return file


def _start(fields: dict[str, str], file: Path, start: int, needed: int) -> int:
    """The first byte of the voxels: HeaderSize bytes are skipped; -1 means that voxels end the file."""
    [header_size] = _whole_numbers(fields, "HeaderSize", "0")
    packed, size = _truth(fields, "CompressedData"), file.stat().st_size
    if header_size < -1 or (header_size != 0 and packed) or (header_size > 0 and start > 0):
        raise UhrctError(f"HeaderSize {header_size} is not supported here; convert it first")
    [packed_size] = _whole_numbers(fields, "CompressedDataSize", "0")
    if packed and packed_size > size - start:
        raise UhrctError("file is truncated; copy or export it again")
    return max(start, size - needed) if header_size == -1 else start + header_size


def _truth(fields: dict[str, str], key: str, default: str = "False") -> bool:
    value = fields.get(key, default).lower()
    if value not in ("true", "false", "1", "0"):
        raise UhrctError(f"{key} {quoted(value)} is neither True nor False; export it again")
    return value in ("true", "1")


def _numbers(fields: dict[str, str], key: str, count: int, default: str = "") -> list[float]:
    texts = fields.get(key, default).split()
    # nan is a number here: the checks of geometry and intensities say what is wrong with it
    if len(texts) != count or not all(_NUMBER.fullmatch(text) or text.lower() == "nan" for text in texts):
        raise UhrctError(f"{key} holds no {count} number(s) ({quoted(fields.get(key, ''))}); export it again")
    return [float(text) for text in texts]


def _whole_numbers(fields: dict[str, str], key: str, default: str = "") -> list[int]:
    texts = fields.get(key, default).split()
    if not texts or len(texts) > 8 or not all(_WHOLE.fullmatch(text) for text in texts):
        raise UhrctError(f"{key} holds no whole numbers ({quoted(fields.get(key, ''))}); export it again")
    if key in ("HeaderSize", "CompressedDataSize", "NDims") and len(texts) != 1:
        raise UhrctError(f"{key} holds more than one number; export it again")
    return [int(text) for text in texts]
