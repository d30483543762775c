"""Read a DICOM CT series (folder, tree, zip, DICOMDIR or single file) into a `Volume`."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path, PurePath

import numpy as np

from uhrct.core.errors import UhrctError
from uhrct.core.volume import Volume
from uhrct.io.dicom.frames import Slice
from uhrct.io.dicom.geometry import Stack, arrange
from uhrct.io.dicom.header import quiet, text
from uhrct.io.dicom.pixels import check_decodable, decode, syntax_of
from uhrct.io.dicom.scan import Found, Series, choose, scan
from uhrct.io.dicom.tilt import upright, upright_grid
from uhrct.io.info import SeriesInfo, orientation_of
from uhrct.io.paths import shown


def read_dicom(path: Path, wanted: str | None, untilt: bool = False) -> Volume:
    """Read the series `wanted` (UID or number in the listing), or the only CT. Errors do not name `path`.

    `meta["dicom"]` holds a header without pixels for each slice, with classic names even if the source is multi-frame.
    In that case `meta["dicom_frames"]` holds, for each slice, the header of the file and the 1-based frame number.
    """
    series = choose(scan(path), wanted)
    for note in series.notes:
        warnings.warn(note, UserWarning, stacklevel=3)
    stack = arrange(series)
    if stack.tilt_degrees and not untilt:
        raise UhrctError(f"{_tilt(stack)}; `untilt=True` resamples it onto an upright grid")
    for one in series.slices:
        check_decodable(one)
    hu, grid = _voxels(stack), stack.grid
    if stack.tilt_degrees:
        warnings.warn(f"{_tilt(stack)}: slices were shifted onto an upright grid", UserWarning, stacklevel=3)
        hu, grid = upright(hu, stack), upright_grid(stack)
    meta: dict[str, object] = {"format": "DICOM", "dicom": [one.header for one in stack.slices]}
    if stack.slices[0].whole is not None:
        meta["dicom_frames"] = [(one.whole, (one.frame or 0) + 1) for one in stack.slices]
    return Volume(hu, grid.spacing_mm, grid.origin_mm, grid.direction, grid.slice_thickness_mm, meta)


def inspect_dicom(path: Path) -> list[SeriesInfo]:
    """One entry per series, numbered as in `read`; damaged files last."""
    found = scan(path)
    top = path if path.is_dir() else path.parent
    damaged = [
        SeriesInfo(kind="DICOM", number=0, problem=shown(problem), path=str(file.place(top)))
        for file, problem in found.damaged
    ]
    return [
        _info(series, place) for series, place in zip(found.series, _places(found, path, top), strict=True)
    ] + damaged


def _places(found: Found, path: Path, top: Path) -> list[str]:
    """The folder of each series, or its first file if another series lies in that folder too."""
    files = [sorted({one.file.place(top) for one in series.slices}) for series in found.series]
    places = []
    for k, own in enumerate(files):
        folder = PurePath(os.path.commonpath([file.parent for file in own]))
        others = (file for other in files[:k] + files[k + 1 :] for file in other)
        alone = top / own[0] == path  # a single file was given
        shared = any(file.is_relative_to(folder) for file in others)
        places.append(str(own[0] if alone or shared else folder))
    return places


def _info(series: Series, place: str) -> SeriesInfo:
    header = series.slices[0].header
    described = [text(header, key) for key in ("Manufacturer", "ManufacturerModelName", "ConvolutionKernel")]
    info = SeriesInfo(
        kind="DICOM",
        number=series.number,
        uid=series.uid,
        description=series.description,
        modality=series.modality,
        shape=(len(series.slices), int(header.Rows), int(header.Columns)),
        scanner=" ".join(said for said in described if said),
        transfer_syntax=syntax_of(header).name,
        notes=series.notes,
        path=place,
    )
    try:
        stack = arrange(series)
        for one in series.slices:
            check_decodable(one)
    except UhrctError as error:
        return replace(info, problem=shown(str(error)))
    return replace(
        info,
        spacing_mm=stack.grid.spacing_mm,
        orientation=orientation_of(stack.grid.direction),
        needs=f"`untilt=True` ({_tilt(stack)})" if stack.tilt_degrees else "",
    )


def _tilt(stack: Stack) -> str:
    return f"gantry tilt of {stack.tilt_degrees:.1f} degrees"


def _voxels(stack: Stack) -> np.ndarray:
    """HU of all slices, shape (z, y, x): int16 if that is exact for all of them, else float32."""
    hu = np.empty(stack.grid.shape, np.int16)
    place = {one: index for index, one in enumerate(stack.slices)}
    with quiet():
        for one, plane in _decoded(stack):
            if plane.dtype == np.float32 and hu.dtype == np.int16:
                hu = hu.astype(np.float32)
            hu[place[one]] = plane
    return hu


def _decoded(stack: Stack) -> Iterator[tuple[Slice, np.ndarray]]:
    if any(one.frame is not None for one in stack.slices):
        files: dict[Path | str, list[Slice]] = {}
        for one in stack.slices:
            files.setdefault(one.file.member.filename if one.file.member else one.file.path, []).append(one)
        for frames in files.values():  # frame by frame, because one file may hold a whole study
            yield from decode(frames)
        return
    pool = ThreadPoolExecutor(min(4, os.cpu_count() or 1))
    try:
        for decoded in pool.map(lambda one: list(decode([one])), stack.slices):
            yield from decoded
    finally:
        pool.shutdown(cancel_futures=True)  # report a damaged slice without decoding the rest
