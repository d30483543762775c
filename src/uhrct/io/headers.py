"""Checks that ITK does not do: spacing, length and NaN in NIfTI; spacing and length in MetaImage; size in NRRD.

ITK reads a truncated NIfTI file without an error; the missing voxels then hold what was in memory. It turns NaN in
NIfTI into 0 HU, a zero spacing into 1 mm and a negative spacing into a mirrored axis. It also reads a compressed
MetaImage that is too short. Each of these is a wrong scan that looks right. For NRRD, ITK reserves the size that the
header claims before it looks at the file.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from uhrct.core.errors import UhrctError
from uhrct.io.hu import check_finite

_META_BYTES = {"CHAR": 1, "UCHAR": 1, "SHORT": 2, "USHORT": 2, "INT": 4, "UINT": 4, "FLOAT": 4, "DOUBLE": 8}
_META_BYTES |= {"LONG": 4, "ULONG": 4, "LONG_LONG": 8, "ULONG_LONG": 8}
#: The smallest element of an NRRD type, by the first letters of its name.
_NRRD_BYTES = {"int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "int32": 4, "uint32": 4, "int64": 8, "uint64": 8}
_NRRD_BYTES |= {"signed char": 1, "uchar": 1, "unsigned char": 1, "short": 2, "ushort": 2, "unsigned short": 2}
_NRRD_BYTES |= {"int": 4, "uint": 4, "unsigned int": 4, "float": 4, "double": 8, "longlong": 8, "long long": 8}
#: Bits of a voxel by the type number of NIfTI (nifti1.h). ITK uses the type alone.
_NIFTI_BITS = {2: 8, 4: 16, 8: 32, 16: 32, 32: 64, 64: 64, 128: 24, 256: 8, 512: 16, 768: 32, 1024: 64, 1280: 64}
_NIFTI_BITS |= {1536: 128, 1792: 128, 2048: 256, 2304: 32}
_PIECE = 1 << 22
#: Deflate packs at most about a thousand bytes into one; bzip2 more, of zeros only.
_MOST_PACKED = 1100


def check_header(path: Path, suffix: str, voxels: bool) -> None:
    """Raise `UhrctError` for a spacing that is not positive and, with `voxels`, for missing data."""
    if suffix in (".nii", ".nii.gz"):
        _check_nifti(path, suffix, voxels)
    elif suffix in (".mha", ".mhd"):
        _check_meta(path, voxels)
    elif suffix == ".nrrd":
        _check_nrrd(path)


@dataclass(frozen=True)
class _Nifti:
    order: str
    shape: tuple[int, ...]
    bits: int
    is_float: bool
    offset: int


def _check_nifti(path: Path, suffix: str, voxels: bool) -> None:
    try:
        with gzip.open(path) if suffix == ".nii.gz" else path.open("rb") as stream:
            raw = stream.read(544)
            header = _nifti_header(raw)
            if voxels:
                stream.seek(header.offset)
                _check_nifti_voxels(stream, header)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UhrctError(f"damaged or truncated gzip stream ({error}); copy or export it again") from None


def _nifti_header(raw: bytes) -> _Nifti:
    for order in "<>":
        size = struct.unpack_from(order + "i", raw)[0] if len(raw) >= 348 else 0
        if size == 348:
            dim: Sequence[int] = struct.unpack_from(order + "8h", raw, 40)
            kind, bits = struct.unpack_from(order + "2h", raw, 70)
            spacing = struct.unpack_from(order + "8f", raw, 76)
            offset = struct.unpack_from(order + "f", raw, 108)[0]
        elif size == 540 and len(raw) >= 540:
            dim = struct.unpack_from(order + "8q", raw, 16)
            kind, bits = struct.unpack_from(order + "2h", raw, 12)
            spacing = struct.unpack_from(order + "8d", raw, 104)
            offset = struct.unpack_from(order + "q", raw, 168)[0]
        else:
            continue
        # the comparison also catches NaN; voxels start directly after the header and its extensions
        if not 1 <= dim[0] <= 7 or min(dim[1 : 1 + dim[0]]) < 1 or bits < 1 or not 0 <= offset < 1 << 40:
            break
        if _NIFTI_BITS.get(kind) != bits:
            raise UhrctError(f"voxel type {kind} of {bits} bits is unknown or damaged; export it again")
        _check_spacing(spacing[1 : 1 + min(dim[0], 3)])
        return _Nifti(order, tuple(dim[1 : 1 + dim[0]]), bits, kind in (16, 64), int(offset))
    raise UhrctError("not a NIfTI file (no valid header); export it again")


def _check_nifti_voxels(stream: BinaryIO | gzip.GzipFile, header: _Nifti) -> None:
    """Read slice by slice to the end, so that gzip verifies its checksum too."""
    plane = math.prod(header.shape[:2]) * header.bits // 8
    for index in range(math.prod(header.shape[2:])):
        left = plane
        while left:  # in pieces: a wrong header must not make Python reserve a huge plane
            data = stream.read(min(left, _PIECE))
            if len(data) < min(left, _PIECE):
                raise UhrctError("file is truncated; copy or export it again")
            if header.is_float:
                check_finite(np.frombuffer(data, f"{header.order}f{header.bits // 8}"), index)
            left -= len(data)
    while stream.read(1 << 20):
        pass


def _check_meta(path: Path, voxels: bool) -> None:
    fields: dict[str, str] = {}
    with path.open("rb") as stream:
        for line in stream:
            key, _, value = line.decode("latin-1").partition("=")
            fields[key.strip()] = value.strip()
            if key.strip() == "ElementDataFile" or stream.tell() > 1 << 16:
                break
        start = stream.tell()
    if "DimSize" not in fields or "ElementDataFile" not in fields:
        raise UhrctError("not a MetaImage file (no valid header); export it again")
    try:
        _check_spacing([float(s) for s in fields.get("ElementSpacing", "1").split()])
        dim = [int(n) for n in fields["DimSize"].split()]
    except ValueError:
        raise UhrctError("ElementSpacing or DimSize in the header are not numbers; export it again") from None
    size = _META_BYTES.get(fields.get("ElementType", "").removeprefix("MET_"))
    compressed = fields.get("CompressedData", "False").lower() == "true"
    if "HeaderSize" in fields and compressed:
        raise UhrctError("HeaderSize with compressed voxels is not supported; convert it first")
    if size is None or "HeaderSize" in fields:
        return  # ITK detects these errors itself
    if fields.get("BinaryData", "True").lower() != "true":
        raise UhrctError("its voxels are stored as text; write it again in binary")
    data = fields["ElementDataFile"]
    file, offset = (path, start) if data == "LOCAL" else (path.parent / data, 0)
    if data != "LOCAL" and not file.is_file():
        raise UhrctError(f"its voxel file {data} is missing; put both files into one folder")
    needed = math.prod(dim) * size
    if not compressed:
        if file.stat().st_size - offset < needed:
            raise UhrctError("file is truncated; copy or export it again")
    elif voxels:
        _check_zlib(file, offset, needed)


def _check_zlib(file: Path, offset: int, needed: int) -> None:
    """Inflate to the end, piece by piece, and compare the length and the stream's own checksum."""
    inflater, found = zlib.decompressobj(), 0
    try:
        with file.open("rb") as stream:
            stream.seek(offset)
            while not inflater.eof and found <= needed and (piece := inflater.unconsumed_tail or stream.read(1 << 16)):
                found += len(inflater.decompress(piece, 1 << 22))
    except zlib.error as error:
        raise UhrctError(f"damaged or truncated zlib stream ({error}); copy or export it again") from None
    if found != needed or not inflater.eof:
        raise UhrctError("file is truncated or damaged, its voxels do not fill its size; copy or export it again")


def _check_nrrd(path: Path) -> None:
    fields: dict[str, str] = {}
    with path.open("rb") as stream:
        for line in iter(lambda: stream.readline(1 << 16), b""):
            if not line.strip():
                break
            key, _, value = line.decode("latin-1").partition(":")
            fields[key.strip().lower()] = value.strip()
            if stream.tell() > 1 << 20:
                raise UhrctError("not an NRRD file (no valid header); export it again")
    if "data file" in fields or "datafile" in fields:
        raise UhrctError("its voxels are in another file; convert it to one file first")
    try:
        count = math.prod(int(n) for n in fields["sizes"].split())
    except (KeyError, ValueError):
        raise UhrctError("not an NRRD file (no valid header); export it again") from None
    name = fields.get("type", "").removesuffix("_t").removeprefix("signed ") or "?"
    needed = count * _NRRD_BYTES.get(name, 1)
    encoding = fields.get("encoding", "").lower()
    if encoding in ("gzip", "gz", "bzip2", "bz2"):
        needed //= _MOST_PACKED
    elif encoding in ("hex", "ascii", "text", "txt"):
        needed = count
    if needed > path.stat().st_size:
        raise UhrctError("file is truncated or damaged, it is too small for its sizes; copy or export it again")


def _check_spacing(spacing: Sequence[float]) -> None:
    if not all(math.isfinite(s) and s > 0 for s in spacing):
        shown = ", ".join(f"{s:g}" for s in spacing)
        raise UhrctError(f"voxel spacing {shown} mm (x, y, z) is not positive; correct it at the source")
