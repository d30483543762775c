"""A DICOM CT series (folder, tree or single file) into a `Volume`."""

from __future__ import annotations

import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydicom.pixels import get_decoder, pixel_array
from pydicom.uid import UID

from uhrct.errors import UhrctError
from uhrct.formats.dicom_geometry import arrange
from uhrct.formats.dicom_scan import Series, Slice, choose, scan
from uhrct.formats.hu import as_hu
from uhrct.formats.info import SeriesInfo, orientation_of
from uhrct.volume import Volume

#: JPEG Lossless: no permissively licensed pydicom plugin exists, ITK's GDCM decodes them.
BY_ITK = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")


def read_dicom(path: Path, wanted: str | None) -> Volume:
    """Read the series `wanted` (UID or number in the listing), or the only CT; errors do not name `path`."""
    series = choose(scan(path), wanted)
    if series.localizers:
        warnings.warn(f"ignored {series.localizers} localizer image(s) in the series", UserWarning, stacklevel=3)
    stack = arrange(series)
    _check_decodable(series)
    hu = np.empty(stack.grid.shape, np.int16)
    pool = ThreadPoolExecutor(min(4, os.cpu_count() or 1))
    try:
        for index, plane in enumerate(pool.map(_decode, stack.slices)):
            if plane.dtype == np.float32 and hu.dtype == np.int16:
                hu = hu.astype(np.float32)
            hu[index] = plane
    finally:
        pool.shutdown(cancel_futures=True)  # one damaged slice: do not decode the rest before saying so
    return Volume(
        hu,
        stack.grid.spacing_mm,
        stack.grid.origin_mm,
        stack.grid.direction,
        stack.grid.slice_thickness_mm,
        meta={"dicom": [one.header for one in stack.slices]},
    )


def inspect_dicom(path: Path) -> list[SeriesInfo]:
    """One entry a series, in the order in which `read` numbers them."""
    return [_info(series) for series in scan(path)]


def _info(series: Series) -> SeriesInfo:
    header = series.slices[0].header
    described = [header.get(key) for key in ("Manufacturer", "ManufacturerModelName", "ConvolutionKernel")]
    info = SeriesInfo(
        kind="DICOM",
        number=series.number,
        uid=series.uid,
        description=series.description,
        modality=series.modality,
        shape=(len(series.slices), int(header.Rows), int(header.Columns)),
        scanner=" ".join(text if isinstance(text, str) else "/".join(text) for text in described if text),
        transfer_syntax=UID(header.file_meta.get("TransferSyntaxUID", "")).name,
    )
    try:
        grid = arrange(series).grid
        _check_decodable(series)
    except UhrctError as error:
        return replace(info, problem=str(error))
    return replace(info, spacing_mm=grid.spacing_mm, orientation=orientation_of(grid.direction))


def _check_decodable(series: Series) -> None:
    for one in series.slices:
        syntax = UID(one.header.file_meta.get("TransferSyntaxUID", ""))
        if syntax in BY_ITK:
            continue
        try:
            available = get_decoder(syntax).is_available
        except NotImplementedError:
            available = False
        if not available:
            name = f"{syntax.name} ({syntax})" if syntax else "missing"
            raise UhrctError(f"{one.file.name}: transfer syntax {name} cannot be decoded; export uncompressed files")


def _decode(one: Slice) -> np.ndarray:
    """HU of one slice, shape (y, x), int16 or float32."""
    header = one.header
    try:
        if header.file_meta.TransferSyntaxUID in BY_ITK:
            hu = _decode_by_itk(one.file)
        else:
            slope, intercept = float(header.RescaleSlope), float(header.RescaleIntercept)
            whole = slope.is_integer() and intercept.is_integer()
            # Whole numbers stay whole numbers: no rounding to argue about.
            stored = pixel_array(one.file).astype(np.int64 if whole else np.float64)
            hu = stored * (int(slope) if whole else slope) + (int(intercept) if whole else intercept)
    except Exception as error:
        # Decoders raise whatever they like on a damaged stream; to the user all of it is one thing.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
        raise UhrctError(
            f"{one.file.name}: pixels missing, truncated or damaged ({reason}); export it again"
        ) from error
    if hu.shape != (header.Rows, header.Columns):
        raise UhrctError(f"{one.file.name}: pixels of shape {hu.shape} do not fit its header; export it again")
    return as_hu(hu[None])[0]


def _decode_by_itk(file: Path) -> np.ndarray:
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(file))
    return sitk.GetArrayFromImage(reader.Execute())[0]
