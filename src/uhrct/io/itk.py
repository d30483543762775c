"""Write NIfTI, NRRD and MetaImage; errors of SimpleITK in one line."""

from __future__ import annotations

import contextlib
import gzip
import re
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from uhrct.core.errors import UhrctError
from uhrct.core.volume import Grid
from uhrct.io.paths import known_suffix
from uhrct.io.writer import SlabWriter


@contextlib.contextmanager
def readable_errors() -> Iterator[None]:
    """Turn the long messages of ITK into one line, and hide its warnings."""
    import SimpleITK as sitk

    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if "orthonormal" in text:
            reason = "axis directions are not orthonormal (sheared affine); resample it first"
        elif "Zero-valued spacing" in text:
            reason = "voxel spacing is zero; correct it at the source"
        else:
            reason = f"cannot be read, damaged or truncated? ({text.strip().splitlines()[-1].strip()})"
        raise UhrctError(reason) from error
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)


class ItkWriter(SlabWriter):
    """Streams slabs behind a header that SimpleITK itself wrote for one slice.

    SimpleITK writes only whole images. So it writes one slice with the right type and geometry; then the number of
    slices in this header is replaced, and voxels are appended.
    """

    def _entries(self) -> list[Path]:
        # the header comes last: it must not refer to voxels that are not there yet
        return [self._data, self.path] if self._data != self.path else [self.path]

    def _start(self) -> None:
        suffix = known_suffix(self.path)
        if suffix in (".nii", ".nii.gz") and max(self.grid.shape) > 32767:
            raise UhrctError(f"{self.path}: NIfTI holds at most 32767 voxels a side, not {self.grid.shape}; use .nrrd")
        self._data = self.path
        header = _with_depth(suffix, _one_slice_header(suffix, self.grid, self.dtype), self.grid.shape[0])
        if suffix == ".mhd":
            self._data = self.path.with_suffix(".raw")
            fields, _, _ = header.partition(b"ElementDataFile")
            (self.tmp / self.path.name).write_bytes(fields + f"ElementDataFile = {self._data.name}\n".encode())
            header = b""
        raw = self._stack.enter_context((self.tmp / self._data.name).open("wb"))
        self._stream: Any = self._stack.enter_context(_gzip(raw)) if suffix == ".nii.gz" else raw
        self._stream.write(header)

    def _append(self, slab: np.ndarray) -> None:
        self._stream.write(slab.view(np.uint8).data)


def _gzip(raw: IO[bytes]) -> Any:
    """A stream that compresses into `raw`: with ISA-L if it is installed (the `dicom` extra), else with zlib.

    The gzip header has no name and no time, so two runs give the same bytes.
    """
    try:
        from isal import igzip
    except ImportError:
        return gzip.GzipFile("", "wb", compresslevel=1, fileobj=raw, mtime=0)
    return igzip.IGzipFile("", "wb", compresslevel=3, fileobj=raw, mtime=0)


def _one_slice_header(suffix: str, grid: Grid, dtype: np.dtype) -> bytes:
    """The bytes before the voxels of a one-slice image on `grid`, or the whole .mhd file."""
    import SimpleITK as sitk

    _, ny, nx = grid.shape
    image = sitk.GetImageFromArray(np.zeros((1, ny, nx), dtype))
    image.SetSpacing(grid.spacing_mm[::-1])
    image.SetOrigin(grid.origin_mm)
    image.SetDirection(np.asarray(grid.direction)[:, ::-1].ravel().tolist())
    with tempfile.TemporaryDirectory() as folder, readable_errors():
        file = Path(folder) / ("header" + suffix.removesuffix(".gz"))
        sitk.WriteImage(image, str(file), False)
        content = file.read_bytes()
    return content if suffix == ".mhd" else content[: len(content) - ny * nx * dtype.itemsize]


def _with_depth(suffix: str, header: bytes, depth: int) -> bytes:
    if suffix in (".nii", ".nii.gz"):
        return header[:46] + struct.pack("<h", depth) + header[48:]
    line = rb"(?m)^(sizes: \d+ \d+) 1$" if suffix == ".nrrd" else rb"(?m)^(DimSize = \d+ \d+) 1$"
    patched, count = re.subn(line, rb"\1 %d" % depth, header)
    if count != 1:
        raise UhrctError(f"this version of SimpleITK writes a {suffix} header that uhrct does not know; use .nii.gz")
    return patched
