"""NRRD in one file. pynrrd parses the values of fields that were checked here first."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from uhrct.core.errors import UhrctError
from uhrct.io.image_header import ImageHeader, Place, checked_shape, place_of, quoted

#: Fields that change voxels or geometry, and those that cannot. Other fields are refused.
_USED = (
    *("dimension", "type", "encoding", "endian", "sizes", "byte skip", "line skip", "space", "space directions"),
    *("space origin", "space units", "spacings", "thicknesses", "units", "axis mins", "axis maxs", "centerings"),
    *("kinds", "sample units", "old min", "old max", "data file", "space dimension", "block size"),
)
_UNUSED = ("content", "labels", "min", "max", "number", "measurement frame")
_SYNONYMS = {"centers": "centerings", "datafile": "data file", "blocksize": "block size", "byteskip": "byte skip"}
_SYNONYMS |= {"lineskip": "line skip", "oldmin": "old min", "oldmax": "old max", "axismins": "axis mins"}
_SYNONYMS |= {"axismaxs": "axis maxs", "sampleunits": "sample units"}

_TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
_DTYPES = {name: code for code, names in _TYPES.items() for name in names}
_PACKINGS = {"raw": "raw", "gzip": "gzip", "gz": "gzip", "bzip2": "bzip2", "bz2": "bzip2"}
_TEXT = ("ascii", "text", "txt", "hex")
#: Signs that turn the axes of a space into LPS.
_TO_LPS = {
    **dict.fromkeys(("left-posterior-superior", "lps"), (1, 1, 1)),
    **dict.fromkeys(("right-anterior-superior", "ras"), (-1, -1, 1)),
    **dict.fromkeys(("left-anterior-superior", "las"), (1, -1, 1)),
}
_UNITS_MM = {"": 1.0, "mm": 1.0, "millimeter": 1.0, "millimeters": 1.0, "um": 1e-3, "µm": 1e-3, "μm": 1e-3}
_UNITS_MM |= {"micron": 1e-3, "microns": 1e-3, "micrometer": 1e-3, "micrometers": 1e-3, "cm": 10.0, "m": 1000.0}
_SAMPLE_UNITS = ("", "hu", "hounsfield", "hounsfield unit", "hounsfield units")
_SCALAR_KINDS = ("domain", "space", "none", "???")
_NUMBERS = re.compile(r"(?:[-+0-9.eE(),\s]|nan|NaN|NAN|none)*", re.ASCII)
_NUMERIC: tuple[str, ...] = (
    "dimension",
    "sizes",
    "byte skip",
    "line skip",
    "space directions",
    "space origin",
    "spacings",
)
_NUMERIC += ("thicknesses", "axis mins", "axis maxs", "old min", "old max", "space dimension", "block size")
_MOST_HEADER, _MOST_LINE, _MOST_SKIP = 1 << 20, 1 << 16, 1 << 26
_NO_HEADER = "not an NRRD file (no valid header); export it again"


def read_header(path: Path) -> ImageHeader:
    """The checked header of `path`.

    Raises
    ------
    UhrctError
        If it is no valid NRRD header, if a field is unknown, repeated or contradicts another, or if the file is not
        one scalar volume in one file.
    """
    with path.open("rb") as file:
        lines = _lines(file)
        fields = _parsed(lines)
        _check_meaning(fields)
        shape = checked_shape([int(n) for n in fields["sizes"]])
        dtype = _dtype(fields)
        packing = _PACKINGS[_word(fields, "encoding")]
        for _ in range(_number(fields, "line skip", 0, _MOST_HEADER)):
            if not file.readline(_MOST_LINE).endswith(b"\n"):
                raise UhrctError("line skip leads behind the end of the file; export it again")
        start = file.tell()
    skip = _number(fields, "byte skip", -1 if packing == "raw" else 0, _MOST_SKIP)
    header = ImageHeader(
        shape, dtype, _place(fields), path, start, packing, max(skip, 0), slice_thickness_mm=_thickness_mm(fields)
    )
    if skip == -1:  # the voxels are the last bytes of the file
        header = replace(header, start=max(start, path.stat().st_size - header.voxel_bytes))
    return header


def _lines(file: BinaryIO) -> dict[str, str]:
    """Fields and their text, up to the blank line before the voxels. `file` then stands at the first byte after it."""
    magic = file.readline(16).rstrip(b"\r\n")
    if not re.fullmatch(rb"NRRD000[1-5]", magic):
        raise UhrctError(_NO_HEADER)
    found: dict[str, str] = {}
    while True:
        raw = file.readline(_MOST_LINE)
        if not raw.endswith(b"\n") or file.tell() > _MOST_HEADER:
            raise UhrctError(_NO_HEADER)
        line = raw.decode("utf-8", "replace").rstrip()
        if not line:
            return found
        # comments, and key:=value pairs that belong to the program that wrote them
        if line.startswith("#") or re.match(r"[^:]*:=", line):
            continue
        name, colon, value = line.partition(":")
        name = _SYNONYMS.get(name.strip().lower(), name.strip().lower())
        if not colon or name not in _USED + _UNUSED:
            raise UhrctError(f"header field {quoted(name)!r} is unknown, it may change the image; remove it if not")
        if name in found:
            raise UhrctError(f"header field {name!r} appears twice; export it again")
        found[name] = value.strip()


def _parsed(lines: dict[str, str]) -> dict[str, Any]:
    """Values of the fields that are used, as pynrrd parses them."""
    import nrrd

    missing = [name for name in ("dimension", "type", "encoding", "sizes") if name not in lines]
    if missing:
        raise UhrctError(f"header field {missing[0]!r} is missing; export it again")
    used = {name: value for name, value in lines.items() if name in _USED}
    for name in _NUMERIC:
        # Python's float() also takes 1_000 and digits of other scripts
        if not _NUMBERS.fullmatch(used.get(name, "")):
            raise UhrctError(f"header field {name!r} holds no numbers ({quoted(used[name])}); export it again")
    for name in ("dimension", "sizes", "byte skip", "line skip"):
        if not re.fullmatch(r"\s*([-+]?\d{1,15}(\s+|$))+", used.get(name, "0"), re.ASCII):
            raise UhrctError(f"header field {name!r} holds no whole numbers ({quoted(used[name])}); export it again")
    for name in ("space directions", "space origin"):  # pynrrd knows no spaces inside a vector
        if name in used:
            used[name] = re.sub(r"\s+(?=[,)])|(?<=[(,])\s+", "", used[name])
    texts = ["NRRD0005", *(f"{name}: {value}" for name, value in used.items())]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fields: dict[str, Any] = dict(nrrd.read_header(texts))
    except Exception as error:  # pynrrd raises its own, value and index errors
        raise UhrctError(f"damaged NRRD header ({quoted(error)}); export it again") from None
    if fields["dimension"] != len(fields["sizes"]):
        raise UhrctError(
            f"dimension {fields['dimension']} does not fit sizes {quoted(lines['sizes'])}; export it again"
        )
    return fields


def _check_meaning(fields: dict[str, Any]) -> None:
    kinds = [str(kind).lower() for kind in fields.get("kinds", [])]
    if any(kind not in _SCALAR_KINDS for kind in kinds):
        raise UhrctError("colour or vector voxels, not CT values in HU; convert it to one value per voxel")
    if "data file" in fields:
        raise UhrctError("its voxels are in another file; convert it to one file first")
    for name in ("old min", "old max"):
        if name in fields:
            raise UhrctError(f"{name!r} states that voxels are quantised values, not HU; undo this at the source")
    if _word(fields, "sample units").strip('"') not in _SAMPLE_UNITS:
        raise UhrctError(f"voxels in {quoted(fields['sample units'])} are not HU; convert them at the source")
    encoding = _word(fields, "encoding")
    if encoding in _TEXT:
        raise UhrctError(f"its voxels are stored as text (encoding {encoding}); write it again in binary")
    if encoding not in _PACKINGS:
        raise UhrctError(f"encoding {quoted(encoding)} is unknown; write it again as raw or gzip")
    for centering in fields.get("centerings", []):
        # `space origin` is the centre of the first voxel for all of them
        if centering.lower() not in ("cell", "node", "none", "???"):
            raise UhrctError(f"centering {quoted(centering)} is unknown; export it again")


def _dtype(fields: dict[str, Any]) -> np.dtype:
    code = _DTYPES.get(re.sub(r"\s+", " ", _word(fields, "type")))
    if code is None:
        raise UhrctError(f"voxel type {quoted(fields['type'])} is not a number; convert it first")
    order = _word(fields, "endian")
    if order not in ("little", "big") and (order or code[1] != "1"):
        raise UhrctError(f"byte order (endian) {quoted(order or 'missing')} is not little or big; export it again")
    return np.dtype((">" if order == "big" else "<") + code)


def _place(fields: dict[str, Any]) -> Place:
    space = _word(fields, "space")
    if "space directions" not in fields or not space:
        raise UhrctError(
            "states no orientation (space and space directions are missing), so left and right or spacing are "
            "unknown; export it with both"
        )
    if space not in _TO_LPS:
        raise UhrctError(f"space {quoted(space)} is not one of a patient (LPS, RAS, LAS); export it again")
    for name in ("space dimension", "axis mins", "axis maxs", "spacings"):
        # the standard forbids them beside `space` and `space directions`; NaN means that an axis has none
        if name in fields and not np.isnan(np.asarray(fields[name], float)).all():
            raise UhrctError(f"header field {name!r} contradicts space directions; remove it at the source")
    if any(unit.lower() not in ("", "mm", "none", "???") for unit in fields.get("units", [])):
        raise UhrctError("header field 'units' contradicts space directions; use space units at the source")
    directions, origin = np.array(fields["space directions"], float), fields.get("space origin", np.zeros(3))
    if directions.shape != (3, 3) or np.shape(origin) != (3,):
        raise UhrctError("space directions or space origin do not hold three numbers per axis; export it again")
    to_lps_mm = np.array(_TO_LPS[space]) * _units_mm(fields)
    return place_of(to_lps_mm[:, None] * directions.T, to_lps_mm * np.asarray(origin))


def _units_mm(fields: dict[str, Any]) -> np.ndarray:
    """Length of the unit of each axis of the space, in mm."""
    units = [str(unit).strip() for unit in fields.get("space units", ["mm"] * 3)]
    if len(units) != 3 or any(unit not in _UNITS_MM for unit in units):
        raise UhrctError(f"space units {quoted(' '.join(units))} are unknown; use mm at the source")
    return np.array([_UNITS_MM[unit] for unit in units])


def _thickness_mm(fields: dict[str, Any]) -> float | None:
    """Thickness of slices; None if not stated, which NRRD writes as NaN."""
    if "thicknesses" not in fields:
        return None
    thickness, units = fields["thicknesses"], _units_mm(fields)
    if len(thickness) != 3 or len(set(units)) > 1:
        raise UhrctError("thicknesses do not hold one number per axis in one unit; export it again")
    if np.isnan(thickness[2]):
        return None
    if not 0 < thickness[2] * units[2] < 1e3:
        raise UhrctError(f"slice thickness {thickness[2]:g} is not positive; correct it at the source")
    return float(thickness[2] * units[2])


def _word(fields: dict[str, Any], name: str) -> str:
    return str(fields.get(name, "")).strip().lower()


def _number(fields: dict[str, Any], name: str, least: int, most: int) -> int:
    number = int(fields.get(name, 0))
    if not least <= number <= most:
        raise UhrctError(f"{name} of {number} is not possible here; export it again")
    return number
