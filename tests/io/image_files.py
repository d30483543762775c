"""NIfTI, NRRD and MetaImage files written byte by byte from the format descriptions, without any reader's library."""

from __future__ import annotations

import bz2
import gzip
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

SHAPE = (3, 4, 5)
#: Exact in float32, so that NIfTI-1 keeps them. Order (x, y, z).
SPACING, ORIGIN = (0.5, 0.75, 2.0), (-10.5, 20.25, 30.0)
HU = np.random.default_rng(7).integers(-1024, 3000, SHAPE).astype(np.int16)
#: Columns are the directions (LPS) of the file axes x, y, z.
AXIAL = np.eye(3)
CORONAL = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
#: A rotation with exact decimals, and its mirror image.
OBLIQUE = np.array([[0.5392, 0.3456, 0.768], [0.3456, 0.7408, -0.576], [-0.768, 0.576, 0.28]])
MIRRORED = OBLIQUE @ np.diag([1, 1, -1])
DIRECTIONS = {"axial": AXIAL, "coronal": CORONAL, "oblique": OBLIQUE, "left-handed": MIRRORED}


@dataclass
class Right:
    """What `read` must return for `path`. Vectors in the order (x, y, z) of the file."""

    path: Path
    hu: np.ndarray = field(default_factory=HU.copy)
    spacing_mm: tuple[float, ...] = SPACING
    origin_mm: tuple[float, ...] = ORIGIN
    direction: np.ndarray = field(default_factory=AXIAL.copy)
    slice_thickness_mm: float | None = None


@dataclass
class Refused:
    """What the one line about `path` must say: one of `words`."""

    path: Path
    words: tuple[str, ...]


@dataclass
class Case:
    """One file of the zoo: the row of docs/formats.md that it tests, how to make it, and who can judge it."""

    row: str
    build: Callable[[Path], Any]
    judges: tuple[str, ...] = ()


# --- NIfTI

NIFTI_1 = {"dim": (40, "8h"), "intent_code": (68, "h"), "datatype": (70, "h"), "bitpix": (72, "h")}
NIFTI_1 |= {"pixdim": (76, "8f"), "vox_offset": (108, "f"), "scl_slope": (112, "f"), "scl_inter": (116, "f")}
NIFTI_1 |= {"xyzt_units": (123, "B"), "qform_code": (252, "h"), "sform_code": (254, "h"), "quatern": (256, "3f")}
NIFTI_1 |= {"qoffset": (268, "3f"), "srow": (280, "12f"), "magic": (344, "4s"), "sizeof_hdr": (0, "i")}
NIFTI_1 |= {"cal_max": (124, "2f"), "descrip": (148, "80s"), "toffset": (136, "f")}
NIFTI_2 = {"sizeof_hdr": (0, "i"), "magic": (4, "8s"), "datatype": (12, "h"), "bitpix": (14, "h"), "dim": (16, "8q")}
NIFTI_2 |= {"pixdim": (104, "8d"), "vox_offset": (168, "q"), "scl_slope": (176, "d"), "scl_inter": (184, "d")}
NIFTI_2 |= {"qform_code": (344, "i"), "sform_code": (348, "i"), "quatern": (352, "3d"), "qoffset": (376, "3d")}
NIFTI_2 |= {"srow": (400, "12d"), "xyzt_units": (500, "i"), "intent_code": (504, "i")}
NIFTI_2 |= {"cal_max": (192, "2d"), "descrip": (240, "80s"), "toffset": (216, "d")}
NIFTI_TYPES = {"u1": 2, "i2": 4, "i4": 8, "f4": 16, "f8": 64, "i1": 256, "u2": 512, "u4": 768, "i8": 1024, "u8": 1280}
RAS = np.diag([-1.0, -1.0, 1.0])


def quaternion(rotation: np.ndarray) -> np.ndarray:
    """(b, c, d) of a rotation matrix, with a >= 0."""
    return Rotation.from_matrix(rotation).as_quat(canonical=True)[:3]


def nifti(
    values: np.ndarray = HU,
    *,
    version: int = 1,
    order: str = "<",
    form: str = "both",
    direction: np.ndarray = AXIAL,
    unit_mm: float = 1.0,
    **fields: Any,
) -> bytes:
    """A NIfTI file; `form` is "sform", "qform" or "both". `fields` replace values of the header."""
    places, size = (NIFTI_1, 348) if version == 1 else (NIFTI_2, 540)
    ras = RAS @ direction
    qfac = 1.0 if np.linalg.det(ras) > 0 else -1.0
    spacing, origin = np.array(SPACING) / unit_mm, RAS @ ORIGIN / unit_mm
    header: dict[str, Any] = {
        "sizeof_hdr": size,
        "magic": b"n+1" if version == 1 else b"n+2\0\r\n\x1a\n",
        "dim": (3, *values.shape[::-1], 1, 1, 1, 1),
        "datatype": NIFTI_TYPES[values.dtype.str[1:]],
        "bitpix": 8 * values.dtype.itemsize,
        "pixdim": (qfac, *spacing, 0, 0, 0, 0),
        "vox_offset": size + 4,
        "xyzt_units": 2,
        "scl_slope": 1,
        "qform_code": form != "sform",
        "sform_code": form != "qform",
        "quatern": quaternion(ras @ np.diag([1, 1, qfac])) if form != "sform" else (0, 0, 0),
        "qoffset": origin if form != "sform" else (0, 0, 0),
        "srow": np.c_[ras * spacing, origin].ravel() if form != "qform" else [0] * 12,
    } | fields
    raw = bytearray(int(header["vox_offset"]) if 0 <= header["vox_offset"] < 1e6 else size + 4)
    raw.extend(bytes(max(0, size + 4 - len(raw))))
    for name, value in header.items():
        offset, kind = places[name]
        parts = value if isinstance(value, tuple | list | np.ndarray) else (value,)
        struct.pack_into(order + kind, raw, offset, *parts)
    return bytes(raw) + values.astype(values.dtype.newbyteorder(order)).tobytes()


# --- NRRD

NRRD_TYPES = {"i1": "int8", "u1": "uchar", "i2": "short", "u2": "unsigned short", "i4": "int", "u4": "uint32_t"}
NRRD_TYPES |= {"i8": "long long", "u8": "uint64", "f4": "float", "f8": "double"}
NRRD_PACK: dict[str, Callable[[bytes], bytes]] = {
    **{"raw": bytes, "gzip": lambda raw: gzip.compress(raw, mtime=0), "gz": lambda raw: gzip.compress(raw, mtime=0)},
    **{"bzip2": bz2.compress, "bz2": bz2.compress},
}


def vectors(rows: np.ndarray) -> str:
    return " ".join("(" + ",".join(repr(float(v)) for v in row) + ")" for row in rows)


def nrrd(
    values: np.ndarray = HU,
    *,
    encoding: str = "raw",
    order: str = "<",
    direction: np.ndarray = AXIAL,
    signs: tuple[int, ...] = (1, 1, 1),
    unit_mm: float = 1.0,
    before: bytes = b"",
    inside: bytes = b"",
    lines: tuple[str, ...] = (),
    **fields: str | None,
) -> bytes:
    """An NRRD file. `signs` turn LPS into its space; `before` and `inside` are bytes before the (packed) voxels."""
    steps = (direction * SPACING).T * signs / unit_mm
    header: dict[str, str | None] = {
        "type": NRRD_TYPES[values.dtype.str[1:]],
        "dimension": "3",
        "space": "left-posterior-superior",
        "sizes": " ".join(str(n) for n in values.shape[::-1]),
        "space directions": vectors(steps),
        "kinds": "domain domain domain",
        "endian": "big" if order == ">" else "little",
        "encoding": encoding,
        "space origin": vectors([np.array(ORIGIN) * signs / unit_mm]),
    } | {name.replace("_", " "): value for name, value in fields.items()}
    texts = ["NRRD0005", *(f"{name}: {value}" for name, value in header.items() if value is not None), *lines]
    raw = inside + values.astype(values.dtype.newbyteorder(order)).tobytes()
    return "\n".join(texts).encode() + b"\n\n" + before + NRRD_PACK.get(encoding, bytes)(raw)


# --- MetaImage

META_TYPES = {"i1": "CHAR", "u1": "UCHAR", "i2": "SHORT", "u2": "USHORT", "i4": "INT", "u4": "UINT"}
META_TYPES |= {"i8": "LONG_LONG", "u8": "ULONG_LONG", "f4": "FLOAT", "f8": "DOUBLE"}


def numbers(values: Any) -> str:
    return " ".join(repr(float(v)) for v in np.ravel(values))


def metaimage(
    values: np.ndarray = HU,
    *,
    order: str = "<",
    packed: bool = False,
    direction: np.ndarray = AXIAL,
    unit_mm: float = 1.0,
    data: str = "LOCAL",
    lines: tuple[str, ...] = (),
    **fields: str | None,
) -> tuple[bytes, bytes]:
    """The header and the voxels of a MetaImage."""
    header: dict[str, str | None] = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": str(order == ">"),
        "CompressedData": str(packed),
        "TransformMatrix": numbers(direction.T),
        "Offset": numbers(np.array(ORIGIN) / unit_mm),
        "CenterOfRotation": "0 0 0",
        "ElementSpacing": numbers(np.array(SPACING) / unit_mm),
        "DimSize": " ".join(str(n) for n in values.shape[::-1]),
        "ElementType": "MET_" + META_TYPES[values.dtype.str[1:]],
    }
    raw = values.astype(values.dtype.newbyteorder(order)).tobytes()
    if packed:
        raw = zlib.compress(raw)
        header["CompressedDataSize"] = str(len(raw))
    texts = [f"{key} = {value}" for key, value in (header | fields).items() if value is not None]
    text = "\n".join([*texts, *lines, f"ElementDataFile = {data}"]) + "\n"
    return text.encode("utf-8", "surrogateescape"), raw


def put(path: Path, content: bytes | tuple[bytes, bytes]) -> Path:
    """Write `content`; pack `.nii.gz`; put the voxels of a MetaImage into the file itself."""
    content = content if isinstance(content, bytes) else b"".join(content)
    path.write_bytes(gzip.compress(content, mtime=0) if path.name.endswith(".gz") else content)
    return path
