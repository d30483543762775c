"""Write NIfTI, NRRD and MetaImage: a header, then voxels slab by slab. Axis order (x, y, z) in the headers."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from typing import IO, Any

import numpy as np

from uhrct.core.errors import UhrctError
from uhrct.core.volume import Grid
from uhrct.io.ownership import COMMENT, data_file_names, own_data_file
from uhrct.io.paths import known_suffix
from uhrct.io.writer import SlabWriter

NIFTI_MOST_VOXELS = 32767


class ImageWriter(SlabWriter):
    """One file, or for `.mhd` a header and a data file."""

    def _start(self) -> None:
        suffix = known_suffix(self.path)
        if suffix in (".nii", ".nii.gz") and max(self.grid.shape) > NIFTI_MOST_VOXELS:
            raise UhrctError(
                f"{self.path}: NIfTI holds at most {NIFTI_MOST_VOXELS} voxels a side, not {self.grid.shape}; use .nrrd"
            )
        self._detached = suffix == ".mhd"
        made = self.tmp / ("voxels" if self._detached else self.path.name)
        raw = self._stack.enter_context(made.open("wb"))
        self._stream: Any = self._stack.enter_context(_gzip(raw)) if suffix == ".nii.gz" else raw
        if not self._detached:
            self._stream.write(_HEADERS[suffix](self.grid, self.dtype))

    def _append(self, slab: np.ndarray) -> None:
        self._stream.write(slab.view(np.uint8).data)

    def _publish(self) -> None:
        if self._detached:
            self._place_data()
        super()._publish()

    def _place_data(self) -> None:
        """The data file gets a name that no other file has. So no header that exists refers to the new voxels."""
        earlier = own_data_file(self.path)
        made, names = self.tmp / "voxels", data_file_names(self.path)
        while True:
            name = next(names)
            (self.tmp / self.path.name).write_bytes(_metaimage(self.grid, self.dtype, name))
            made = made.rename(self.tmp / name)
            try:
                self._work.place_part(made)
                break
            except FileExistsError:
                continue
        if earlier is not None:
            self._work.remove_after_publishing(earlier)


def _gzip(raw: IO[bytes]) -> Any:
    """A stream that compresses into `raw`: with ISA-L if it is installed (the `dicom` extra), else with zlib.

    The gzip header has no name and no time, so two runs give the same bytes.
    """
    try:
        from isal import igzip
    except ImportError:
        return gzip.GzipFile("", "wb", compresslevel=1, fileobj=raw, mtime=0)
    return igzip.IGzipFile("", "wb", compresslevel=3, fileobj=raw, mtime=0)


def _nifti(grid: Grid, dtype: np.dtype) -> bytes:
    import nibabel

    # NIfTI has axes (R, A, S), the opposite of (L, P) in two of them
    turned = np.diag([-1.0, -1.0, 1.0])
    affine = np.eye(4)
    affine[:3, :3] = turned @ np.asarray(grid.direction)[:, ::-1] * grid.spacing_mm[::-1]
    affine[:3, 3] = turned @ grid.origin_mm
    header = nibabel.Nifti1Header(endianness="<")
    header.set_data_dtype(dtype)
    header.set_data_shape(grid.shape[::-1])
    header.set_zooms(grid.spacing_mm[::-1])
    header.set_xyzt_units("mm")
    header.set_qform(affine, code="scanner")
    header.set_sform(affine, code="scanner")
    header.set_slope_inter(1, 0)
    header.set_data_offset(352)
    return header.binaryblock + bytes(4)


def _nrrd(grid: Grid, dtype: np.dtype) -> bytes:
    axes = (np.asarray(grid.direction) * grid.spacing_mm)[:, ::-1].T
    lines = (
        "NRRD0004",
        f"type: {'short' if dtype == np.int16 else 'float'}",
        "dimension: 3",
        "space: left-posterior-superior",
        f"sizes: {_whole(grid.shape[::-1])}",
        "space directions: " + " ".join(f"({_numbers(axis, ',')})" for axis in axes),
        "kinds: domain domain domain",
        "endian: little",
        "encoding: raw",
        f"space origin: ({_numbers(grid.origin_mm, ',')})",
    )
    return ("\n".join(lines) + "\n\n").encode()


def _metaimage(grid: Grid, dtype: np.dtype, data_file: str = "LOCAL") -> bytes:
    lines = (
        "ObjectType = Image",
        f"Comment = {COMMENT}",
        "NDims = 3",
        "BinaryData = True",
        "BinaryDataByteOrderMSB = False",
        "CompressedData = False",
        f"TransformMatrix = {_numbers(np.asarray(grid.direction)[:, ::-1].T.ravel())}",
        f"Offset = {_numbers(grid.origin_mm)}",
        "CenterOfRotation = 0 0 0",
        f"ElementSpacing = {_numbers(grid.spacing_mm[::-1])}",
        f"DimSize = {_whole(grid.shape[::-1])}",
        f"ElementType = {'MET_SHORT' if dtype == np.int16 else 'MET_FLOAT'}",
        f"ElementDataFile = {data_file}",
    )
    return ("\n".join(lines) + "\n").encode()


def _numbers(values: Iterable[Any], separator: str = " ") -> str:
    """The shortest texts that give the same numbers again."""
    return separator.join(repr(float(v)) for v in values)


def _whole(values: Iterable[int]) -> str:
    return " ".join(str(int(v)) for v in values)


_HEADERS = {".nii": _nifti, ".nii.gz": _nifti, ".nrrd": _nrrd, ".mha": _metaimage}
