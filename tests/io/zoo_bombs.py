"""NIfTI, NRRD and MetaImage files that unpack to far more than their header states, or state more than they hold."""

from __future__ import annotations

import bz2
import gzip
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from image_files import HU, metaimage, nifti, nrrd, put
from zoo_images_refused import DAMAGED, add, write

ZEROS = 10 << 20


def _repeated(length: int) -> tuple[bytes, bytes, bytes]:
    """Start, middle and end of a zlib stream; the middle holds 10 MB of zeros and may be repeated."""
    packer = zlib.compressobj(9)
    start = packer.compress(b"") + packer.flush(zlib.Z_FULL_FLUSH)
    middle = packer.compress(bytes(length)) + packer.flush(zlib.Z_FULL_FLUSH)
    return start, middle, packer.flush()


def bomb(name: str, row: str, build: Callable[[Path], Path], *words: str) -> None:
    add(f"bomb: {name}", row, build, *(words or ("smaller than the file's voxels",)))


def _gzip_bomb(folder: Path) -> Path:
    return write(folder / "a.nii.gz", gzip.compress(nifti()), gzip.compress(bytes(ZEROS)) * 2000)


def _claims(folder: Path) -> Path:
    """18 MB of packed noise behind a header of 20 GB."""
    header = nifti(np.zeros((1, 1, 1), np.int16), dim=(3, 2200, 2200, 2066, 1, 1, 1, 1))[:352]
    noise = np.random.default_rng(0).bytes(18 << 20)
    return write(folder / "a.nii.gz", gzip.compress(header + noise, 1))


def _zlib_bomb(folder: Path) -> Path:
    start, middle, end = _repeated(ZEROS)
    header, _ = metaimage(packed=True, CompressedDataSize=None)
    return write(folder / "a.mha", header, start, middle * 2000, end)


def _sparse(folder: Path) -> Path:
    path = put(folder / "a.nii", nifti(dim=(3, 1024, 1024, 1024, 1, 1, 1, 1)))
    os.truncate(path, 352 + (2 << 30))
    return path


bomb("gzip of 20 GB in a NIfTI of 120 bytes", "(gzip)", _gzip_bomb)
bomb("NIfTI of 18 MB that states 20 GB", "(gzip)", _claims, "cannot hold a CT of this size")
bomb(
    "a million empty gzip members",
    "(gzip)",
    lambda f: write(f / "a.nii.gz", gzip.compress(b"") * 1_000_000),
    "empty parts",
)
bomb(
    "a gzip name of 18 MB",
    "(gzip)",
    lambda f: write(f / "a.nii.gz", b"\x1f\x8b\x08\x08" + b"\1" * (18 << 20)),
    *DAMAGED,
)
bomb("zlib of 20 GB in a MetaImage of 120 bytes", "CompressedData, CompressedDataSize", _zlib_bomb)
bomb(
    "gzip of 20 GB in an NRRD of 120 bytes",
    "encoding, endian",
    lambda folder: write(folder / "a.nrrd", nrrd(encoding="gzip"), gzip.compress(bytes(ZEROS)) * 2000),
)
bomb(
    "bzip2 of 100 MB in an NRRD of 120 bytes",
    "encoding, endian",
    lambda folder: write(
        folder / "a.nrrd", nrrd(encoding="bzip2", values=HU[:0], sizes="5 4 3")[:-14], bz2.compress(bytes(100 << 20))
    ),
)
bomb("NIfTI of 2 GB in a sparse file", "dim", _sparse, "not enough memory")
for encoding in ("gzip", "bzip2", "raw"):
    bomb(
        f"NRRD {encoding} that states 20 GB",
        "encoding, endian",
        lambda folder, encoding=encoding: put(folder / "a.nrrd", nrrd(encoding=encoding, sizes="2200 2200 2066")),
        *DAMAGED,
    )
    bomb(
        f"NRRD {encoding} that states 400 MB",
        "encoding, endian",
        lambda folder, encoding=encoding: put(folder / "a.nrrd", nrrd(encoding=encoding, sizes="1000 1000 200")),
        *DAMAGED,
    )
