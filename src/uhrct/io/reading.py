"""Read a scan of any format, or list what a file or folder holds."""

from __future__ import annotations

from dataclasses import replace

from uhrct.core import arguments
from uhrct.core.errors import InputRefused, NothingToDo, UhrctError, WrongArgument
from uhrct.core.volume import Vector, Volume
from uhrct.io import paths
from uhrct.io.info import SeriesInfo
from uhrct.io.paths import AnyPath, is_dicom


def read(
    path: AnyPath,
    *,
    series: str | int | None = None,
    spacing_mm: Vector | None = None,
    untilt: bool = False,
    on_disk: bool = False,
) -> Volume:
    """Read a CT volume.

    Parameters
    ----------
    path : str or path
        DICOM folder (flat or tree), `.zip` of one, `DICOMDIR` or file, `.nii`, `.nii.gz`, `.nrrd`, `.mha`,
        `.mhd`, `.zarr` (OME-Zarr), or `.npz` with HU under the key `arr_0`.
    series : str or int, optional
        SeriesInstanceUID, or 1-based number in the listing of `inspect`. Needed if a folder holds several series.
    spacing_mm : (z, y, x), optional
        Voxel spacing in mm of an `.npz` file that stores none.
    untilt : bool
        Resample a scan with gantry tilt onto an upright grid (cubic interpolation within the slices). Without this
        option such a scan is refused. Other scans do not change.
    on_disk : bool
        Leave the voxels of an OME-Zarr image on disk (`uhrct.core.slices`). Other formats are read as always.

    Returns
    -------
    Volume
        HU exactly as stored, without clipping: int16 if all are whole numbers that fit, else float32.
        `meta["format"]` names the format. `meta["dicom"]` holds the DICOM headers without pixels, in slice order. For
        multi-frame files, `meta["dicom_frames"]` also holds (header of the file, 1-based frame) of each slice.

    Raises
    ------
    UhrctError
        If the input is not one regular CT volume (`InputRefused`), a folder or zip holds no image (`NothingToDo`), or
        an argument does not fit the input. The message names the file, the problem and what to do.

    Example
    -------
    >>> from pydicom.data import get_testdata_file
    >>> scan = read(get_testdata_file("CT_small.dcm"))
    >>> scan.shape, scan.spacing_mm, int(scan.hu.min())
    ((1, 128, 128), (5.0, 0.661468, 0.661468), -896)
    """
    path, suffix = paths.readable(path)
    if spacing_mm is not None and suffix != ".npz":
        raise UhrctError(f"{path}: carries its own voxel spacing; `spacing_mm` is for .npz only")
    if series is not None:
        series = series if isinstance(series, str) else str(arguments.whole("series", series, 1))
    if series is not None and not is_dicom(suffix):
        raise UhrctError(f"{path}: holds one volume; `series` is for DICOM folders only")
    try:
        if suffix == ".npz":
            from uhrct.io.npz import read_npz

            return read_npz(path, spacing_mm)
        if suffix == paths.ZARR:
            from uhrct.io.ome_zarr import read_zarr

            return read_zarr(path, on_disk=on_disk)
        if not is_dicom(suffix):
            from uhrct.io.image import read_image

            return read_image(path)
        from uhrct.io.dicom.read import read_dicom

        return read_dicom(path, series, untilt)
    except UhrctError as error:
        raise paths.located(path, suffix, error, (WrongArgument, NothingToDo)) from error
    except OSError as error:
        raise InputRefused(f"{paths.shown(path)}: cannot be read ({error.strerror or error})") from error


def inspect(path: AnyPath) -> list[SeriesInfo]:
    """List the series in a file or folder, from headers alone and without patient data.

    Raises
    ------
    UhrctError
        If a folder or zip holds no image (`NothingToDo`), or the input cannot be read (`InputRefused`). Series that
        `read` would refuse are listed with their `problem`.

    Example
    -------
    >>> from pydicom.data import get_testdata_file
    >>> [info] = inspect(get_testdata_file("CT_small.dcm"))
    >>> info.modality, info.orientation, info.transfer_syntax, info.problem
    ('CT', 'axial', 'Explicit VR Little Endian', '')
    """
    path, suffix = paths.readable(path)
    try:
        if suffix == ".npz":
            from uhrct.io.npz import inspect_npz

            return [replace(inspect_npz(path), path=path.name)]
        if suffix == paths.ZARR:
            from uhrct.io.ome_zarr import inspect_zarr

            return [replace(inspect_zarr(path), path=path.name)]
        if not is_dicom(suffix):
            from uhrct.io.image import inspect_image

            return [replace(inspect_image(path), path=path.name)]
        from uhrct.io.dicom.read import inspect_dicom

        return inspect_dicom(path)
    except UhrctError as error:
        raise paths.located(path, suffix, error, (NothingToDo,)) from error
    except OSError as error:
        raise InputRefused(f"{paths.shown(path)}: cannot be read ({error.strerror or error})") from error
