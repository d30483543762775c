"""What ITK does not check: spacing, length and NaN in NIfTI, spacing and length in MetaImage.

ITK reads a truncated NIfTI file without a word and leaves what was in memory in the missing voxels; it turns
NaN in NIfTI into 0 HU, a zero spacing into 1 mm and a negative one into a mirrored axis. All four are a wrong
scan that looks right.
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

from uhrct.errors import UhrctError
from uhrct.formats.hu import check_finite

_META_BYTES = {"CHAR": 1, "UCHAR": 1, "SHORT": 2, "USHORT": 2, "INT": 4, "UINT": 4, "FLOAT": 4, "DOUBLE": 8}
_META_BYTES |= {"LONG": 8, "ULONG": 8, "LONG_LONG": 8, "ULONG_LONG": 8}


def check_header(path: Path, suffix: str, voxels: bool) -> None:
    """Raise `UhrctError` for a spacing that is not positive and, with `voxels`, for missing data."""
    if suffix in (".nii", ".nii.gz"):
        _check_nifti(path, suffix, voxels)
    elif suffix in (".mha", ".mhd"):
        _check_meta(path)


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
        # The comparison also catches NaN; voxels start right behind the header and its extensions.
        if not 1 <= dim[0] <= 7 or min(dim[1 : 1 + dim[0]]) < 1 or bits < 1 or not 0 <= offset < 1 << 40:
            break
        _check_spacing(spacing[1 : 1 + min(dim[0], 3)])
        return _Nifti(order, tuple(dim[1 : 1 + dim[0]]), bits, kind in (16, 64), int(offset))
    raise UhrctError("not a NIfTI file (no valid header); export it again")


def _check_nifti_voxels(stream: BinaryIO | gzip.GzipFile, header: _Nifti) -> None:
    """Read slice by slice to the end, which also makes gzip check its own checksum."""
    plane = math.prod(header.shape[:2]) * header.bits // 8
    for index in range(math.prod(header.shape[2:])):
        data = stream.read(plane)
        if len(data) < plane:
            raise UhrctError("file is truncated; copy or export it again")
        if header.is_float:
            check_finite(np.frombuffer(data, f"{header.order}f{header.bits // 8}"), index)
    while stream.read(1 << 20):
        pass


def _check_meta(path: Path) -> None:
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
    if size is None or fields.get("CompressedData", "False").lower() == "true" or "HeaderSize" in fields:
        return  # ITK finds these out by itself
    data = fields["ElementDataFile"]
    file, offset = (path, start) if data == "LOCAL" else (path.parent / data, 0)
    if data != "LOCAL" and not file.is_file():
        raise UhrctError(f"its voxel file {data} is missing; keep both files together")
    if file.stat().st_size - offset < math.prod(dim) * size:
        raise UhrctError("file is truncated; copy or export it again")


def _check_spacing(spacing: Sequence[float]) -> None:
    if not all(math.isfinite(s) and s > 0 for s in spacing):
        shown = ", ".join(f"{s:g}" for s in spacing)
        raise UhrctError(f"voxel spacing {shown} mm (x, y, z) is not positive; correct it at the source")
