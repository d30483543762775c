"""NIfTI, NRRD and MetaImage by SimpleITK. Only here and in DICOM are axes (x, y, z)."""

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
from uhrct.core.volume import Grid, Vector, Volume
from uhrct.io.headers import check_header
from uhrct.io.hu import as_hu
from uhrct.io.info import SeriesInfo, orientation_of
from uhrct.io.paths import FORMATS, known_suffix, shown
from uhrct.io.writer import SlabWriter

IMAGE_IO = {
    ".nii": "NiftiImageIO",
    ".nii.gz": "NiftiImageIO",
    ".nrrd": "NrrdImageIO",
    ".mha": "MetaImageIO",
    ".mhd": "MetaImageIO",
}
Geometry = tuple[tuple[int, int, int], Vector, Vector, np.ndarray]


def read_itk(path: Path) -> Volume:
    """Read one file. Errors do not name the file; the caller adds the name."""
    import SimpleITK as sitk

    check_header(path, known_suffix(path), voxels=True)
    with readable_errors():
        reader = _open(path)
        image = reader.Execute()
        shape, spacing, origin, direction = _geometry(reader)
        voxels = sitk.GetArrayFromImage(image).reshape(shape)
    del image
    return Volume(as_hu(voxels), spacing, origin, direction)


def inspect_itk(path: Path) -> SeriesInfo:
    """Shape, spacing and orientation from the header alone."""
    kind = FORMATS[known_suffix(path)]
    try:
        check_header(path, known_suffix(path), voxels=False)
        with readable_errors():
            shape, spacing, _, direction = _geometry(_open(path))
    except UhrctError as error:
        return SeriesInfo(kind=kind, problem=shown(str(error)))
    return SeriesInfo(kind=kind, shape=shape, spacing_mm=spacing, orientation=orientation_of(direction))


def _open(path: Path) -> Any:
    """A reader that has read the header and checked that it describes scalar voxels in 2D or 3D."""
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    # without this, ITK tries all of its readers and accepts a PNG that is called .nii
    reader.SetImageIO(IMAGE_IO[known_suffix(path)])
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    if reader.GetDimension() > 3:
        size = " x ".join(str(n) for n in reader.GetSize())
        raise UhrctError(f"{reader.GetDimension()} dimensions ({size}), need 3; split it into one volume per file")
    if reader.GetNumberOfComponents() != 1 or "complex" in sitk.GetPixelIDValueAsString(reader.GetPixelID()):
        raise UhrctError("colour or vector voxels, not CT values in HU; convert it to one value per voxel")
    return reader


def _geometry(reader: Any) -> Geometry:
    """(z, y, x) shape and spacing, origin and direction; a 2D image becomes one axial slice of 1 mm."""
    n = reader.GetDimension()
    size, spacing, origin = (list(v) for v in (reader.GetSize(), reader.GetSpacing(), reader.GetOrigin()))
    direction = np.eye(3)
    direction[:n, :n] = np.reshape(reader.GetDirection(), (n, n))
    size, spacing, origin = size + [1] * (3 - n), spacing + [1.0] * (3 - n), origin + [0.0] * (3 - n)
    return (
        (size[2], size[1], size[0]),
        (spacing[2], spacing[1], spacing[0]),
        (origin[0], origin[1], origin[2]),
        direction[:, ::-1].copy(),
    )


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
