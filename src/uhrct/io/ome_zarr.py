"""OME-Zarr (NGFF 0.4 and 0.5): volumes larger than memory, in chunks. Needs ``pip install 'uhrct[zarr]'``.

NGFF has no direction of axes. Ours stands in the attribute "uhrct"; without it z runs to the head, y to the back and x
to the left.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from uhrct.core.errors import InputRefused, UhrctError
from uhrct.core.hu import as_hu
from uhrct.core.slices import Slices
from uhrct.core.volume import Grid, Volume
from uhrct.io.info import SeriesInfo, orientation_of
from uhrct.io.writer import SlabWriter

#: voxels of a chunk
CHUNK = (4, 512, 512)
MM = {"millimeter": 1.0, "micrometer": 1e-3, "nanometer": 1e-6, "centimeter": 10.0, "meter": 1e3}
#: our attribute of a group
OWN = "uhrct"


class ZarrSlices(Slices):
    """The finest level of an image."""

    def __init__(self, array: Any, place: tuple[int, ...]) -> None:
        self._array, self._place = array, place  # the index along time and channel, which have one entry
        self.shape = array.shape[len(place) :]
        self.dtype = np.dtype(np.int16 if array.dtype in (np.int16, np.int8, np.uint8) else np.float32)

    def __getitem__(self, slices: slice | np.ndarray) -> np.ndarray:
        if isinstance(slices, slice):
            return np.asarray(self._array[*self._place, slices], dtype=self.dtype)
        first, last = int(np.min(slices)), int(np.max(slices))
        if last - first < 2 * len(slices):  # neighbours
            return self[first : last + 1][slices - first]
        return np.concatenate([self[int(k) : int(k) + 1] for k in slices])


def read_zarr(path: Path, *, on_disk: bool = False) -> Volume:
    """Read the finest level.

    Parameters
    ----------
    on_disk : leave the voxels in the file; see `uhrct.core.slices`

    Raises
    ------
    UhrctError
        If zarr is not installed, or this is no OME-Zarr image with one volume in mm.
    """
    array, place, grid = _opened(path)
    hu: Any = ZarrSlices(array, place)
    if not on_disk:
        hu = as_hu(np.asarray(array[place] if place else array[:]))
    about = (grid.spacing_mm, grid.origin_mm, grid.direction, grid.slice_thickness_mm)
    return Volume(hu, *about, meta={"format": "OME-Zarr"})


def inspect_zarr(path: Path) -> SeriesInfo:
    """Shape and spacing, without voxels."""
    try:
        grid = _opened(path)[2]
    except InputRefused as error:
        return SeriesInfo(kind="OME-Zarr", problem=str(error))
    orientation = orientation_of(np.asarray(grid.direction))
    return SeriesInfo(kind="OME-Zarr", shape=grid.shape, spacing_mm=grid.spacing_mm, orientation=orientation)


class ZarrWriter(SlabWriter):
    """Writes a group with one level, chunk by chunk."""

    def _start(self) -> None:
        group = _zarr().open_group(str(self.tmp / self.path.name), mode="w-", zarr_format=3)
        grid = self.grid
        axes = [{"name": name, "type": "space", "unit": "millimeter"} for name in "zyx"]
        place = [
            {"type": "scale", "scale": list(grid.spacing_mm)},
            {"type": "translation", "translation": list(grid.origin_mm[::-1])},
        ]
        level = {"path": "0", "coordinateTransformations": place}
        scales = [{"name": "HU", "axes": axes, "datasets": [level]}]
        own = {
            "direction": np.asarray(grid.direction, float).tolist(),
            "origin_mm": list(grid.origin_mm),
            "slice_thickness_mm": grid.slice_thickness_mm,
        }
        group.attrs.update({"ome": {"version": "0.5", "multiscales": scales}, OWN: own})
        chunk = tuple(min(c, n) for c, n in zip(CHUNK, grid.shape, strict=True))
        self._array = group.create_array(
            "0", shape=grid.shape, chunks=chunk, dtype=self.stored_dtype, dimension_names=list("zyx")
        )
        self._waiting: list[np.ndarray] = []

    def _append(self, slab: np.ndarray) -> None:
        # a chunk is compressed once, when all of its slices are there
        self._waiting += [slab[k] for k in range(len(slab))]
        end = self.written + len(slab)
        whole = end if end == self.grid.shape[0] else end // CHUNK[0] * CHUNK[0]
        first = end - len(self._waiting)
        if whole > first:
            ready, self._waiting = self._waiting[: whole - first], self._waiting[whole - first :]
            self._array[first:whole] = np.stack(ready)


def _opened(path: Path) -> tuple[Any, tuple[int, ...], Grid]:
    """(array of the finest level, index along axes of length 1, grid)."""
    zarr = _zarr()
    try:
        group = zarr.open_group(str(path), mode="r")
        facts = dict(group.attrs)
        [image, *_] = facts.get("ome", facts)["multiscales"]
        level = image["datasets"][0]
        array = group[level["path"]]
        axes = [a if isinstance(a, dict) else {"name": a} for a in image["axes"]]
        names = [a["name"] for a in axes]
        units = [a.get("unit") for a in axes if a["name"] in "zyx"]
        steps = {t["type"]: t.get(t["type"]) for t in level["coordinateTransformations"]}
        scale = [float(v) for v in steps["scale"]]
        shift = [float(v) for v in steps.get("translation") or [0.0] * len(scale)]
    except InputRefused:
        raise
    except Exception as error:  # zarr raises errors of many kinds
        what = " ".join(f"{type(error).__name__}: {error}".split())[:120]
        raise InputRefused(f"not an OME-Zarr image ({what})") from None
    extra = array.ndim - 3
    if "".join(names[-3:]) != "zyx" or extra < 0 or any(n != 1 for n in array.shape[:extra]):
        raise InputRefused(
            f"axes {', '.join(names)} of shape {array.shape}: one volume with the axes z, y, x is needed"
        )
    if array.dtype.kind not in "iuf":
        raise InputRefused(f"voxels of type {array.dtype}: HU are numbers")
    if any(unit not in MM for unit in units):
        raise InputRefused("the axes z, y, x have no unit of length; set it to millimeter in the metadata")
    spacing = [s * MM[str(u)] for s, u in zip(scale[-3:], units, strict=True)]
    origin = [s * MM[str(u)] for s, u in zip(shift[-3:], units, strict=True)][::-1]
    own = facts.get(OWN, {})
    shape = array.shape[extra:]
    grid = Grid(
        (shape[0], shape[1], shape[2]),
        (spacing[0], spacing[1], spacing[2]),
        tuple(own.get("origin_mm", origin)),
        np.asarray(own.get("direction", np.eye(3)[::-1])),
        own.get("slice_thickness_mm"),
    )
    return array, (0,) * extra, grid


def _zarr() -> Any:
    try:
        import zarr
    except ImportError:
        raise UhrctError("OME-Zarr needs zarr: pip install 'uhrct[zarr]'") from None
    return zarr
