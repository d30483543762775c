"""`.npz`: HU under the key `arr_0`, shape (z, y, x) or (y, x); geometry stored in the file or given by the caller."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from uhrct.core.errors import UhrctError
from uhrct.core.hu import as_hu
from uhrct.core.volume import Vector, Volume
from uhrct.io.info import SeriesInfo, orientation_of
from uhrct.io.paths import shown
from uhrct.io.writer import SlabWriter

KEY = "arr_0"


def read_npz(path: Path, spacing_mm: Vector | None) -> Volume:
    """Read `arr_0`; `spacing_mm` (z, y, x) takes precedence over a stored spacing."""
    stored = _load(path, voxels=True)
    voxels = stored[KEY]
    if voxels.ndim == 2:
        voxels = voxels[None]
    if voxels.ndim != 3:
        raise UhrctError(f"{KEY} has {voxels.ndim} dimensions, need (z, y, x) or (y, x)")
    if spacing_mm is None:
        if "spacing_mm" not in stored:
            raise UhrctError("no voxel spacing in the file; give `spacing_mm=Z,Y,X` in mm (or store spacing_mm in it)")
        spacing_mm = _vector(stored, "spacing_mm")
    thickness = stored.get("slice_thickness_mm")
    geometry: dict[str, Any] = {}
    if "direction" in stored:
        geometry["direction"] = np.asarray(stored["direction"], dtype=np.float64)
    if "origin_mm" in stored:
        geometry["origin_mm"] = _vector(stored, "origin_mm")
    return Volume(
        as_hu(voxels),
        spacing_mm,
        slice_thickness_mm=None if thickness is None else float(thickness),
        meta={"format": "NPZ"},
        **geometry,
    )


def inspect_npz(path: Path) -> SeriesInfo:
    """Shape and spacing, without decompressing the voxels."""
    try:
        stored = _load(path, voxels=False)
        shape = _shape(path)
        if len(shape) not in (2, 3):
            raise UhrctError(f"{KEY} has {len(shape)} dimensions, need (z, y, x) or (y, x)")
        shape = (1,) * (3 - len(shape)) + shape
        spacing = _vector(stored, "spacing_mm") if "spacing_mm" in stored else None
    except UhrctError as error:
        return SeriesInfo(kind="NPZ", problem=shown(str(error)))
    return SeriesInfo(
        kind="NPZ",
        shape=(shape[0], shape[1], shape[2]),
        spacing_mm=spacing,
        orientation=orientation_of(np.asarray(stored["direction"])) if "direction" in stored else "",
        problem="" if spacing else "no voxel spacing in the file; give `spacing_mm=Z,Y,X` in mm",
    )


def _load(path: Path, voxels: bool) -> dict[str, np.ndarray]:
    # a damaged archive may raise any exception, in the zip directory or in the header of an array
    try:
        with np.load(path, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise UhrctError("not an npz archive; save it with np.savez")
            if KEY not in file.files:
                keys = ", ".join(file.files) or "none"
                raise UhrctError(f"no array under the key {KEY} (keys here: {keys}); save HU with np.savez(path, hu)")
            wanted = (KEY, "spacing_mm", "origin_mm", "direction", "slice_thickness_mm")
            return {key: file[key] for key in wanted if key in file.files and (voxels or key != KEY)}
    except UhrctError:
        raise
    except Exception as error:
        raise UhrctError(f"damaged npz archive ({_first_line(error)}); write it again") from None


def _shape(path: Path) -> tuple[int, ...]:
    try:
        with zipfile.ZipFile(path) as archive, archive.open(KEY + ".npy") as member:
            version = np.lib.format.read_magic(member)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            return read(member)[0]
    except Exception as error:
        raise UhrctError(f"damaged npz archive ({_first_line(error)}); write it again") from None


def _vector(stored: dict[str, np.ndarray], key: str) -> Vector:
    value = np.asarray(stored[key])
    if value.shape != (3,) or value.dtype.kind not in "iuf":
        raise UhrctError(f"{key} must be three numbers in mm, not an array of shape {value.shape}")
    return float(value[0]), float(value[1]), float(value[2])


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


class NpzWriter(SlabWriter):
    """Streams `arr_0` into a zip member, without holding the whole volume."""

    def _start(self) -> None:
        archive = zipfile.ZipFile(self.tmp / self.path.name, "w", zipfile.ZIP_DEFLATED, compresslevel=1)
        self._stack.enter_context(archive)
        geometry = {
            "spacing_mm": np.asarray(self.grid.spacing_mm, np.float64),
            "origin_mm": np.asarray(self.grid.origin_mm, np.float64),
            "direction": np.asarray(self.grid.direction, np.float64),
        }
        if self.grid.slice_thickness_mm is not None:
            geometry["slice_thickness_mm"] = np.asarray(self.grid.slice_thickness_mm, np.float64)
        for key, value in geometry.items():
            with archive.open(key + ".npy", "w") as stream:
                np.lib.format.write_array(stream, value, allow_pickle=False)
        # the size is not known yet; without zip64 the stream would fail at 2 GiB
        self._stream = self._stack.enter_context(archive.open(KEY + ".npy", "w", force_zip64=True))
        header = {
            "descr": np.lib.format.dtype_to_descr(self.stored_dtype),
            "fortran_order": False,
            "shape": self.grid.shape,
        }
        np.lib.format.write_array_header_1_0(self._stream, header)

    def _append(self, slab: np.ndarray) -> None:
        self._stream.write(slab.view(np.uint8).data)
