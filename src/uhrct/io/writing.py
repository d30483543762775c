"""Write volumes, maps, masks and findings in any format, and check their places before."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike

from uhrct.core import arguments
from uhrct.core.errors import UhrctError
from uhrct.core.files import STDOUT
from uhrct.core.volume import Grid, Volume
from uhrct.io import outputs as output_checks
from uhrct.io import paths
from uhrct.io.derivation import Derivation, DicomOptions
from uhrct.io.findings import RoundFinding
from uhrct.io.paths import AnyPath, is_dicom
from uhrct.io.segments import Segment, checked_mask
from uhrct.io.writer import SlabWriter


def open_writer(
    path: AnyPath,
    grid: Grid,
    *,
    dtype: DTypeLike,
    source: Volume | None = None,
    derivation: Derivation | None = None,
    dicom: DicomOptions | None = None,
    overwrite: bool = False,
) -> SlabWriter:
    """A context manager that takes a volume slab by slab. The file appears at `path` when it is complete.

    Parameters
    ----------
    path : str or path
        The suffix selects the format. A name without suffix is a DICOM folder; `.dcm` is one slice.
    grid : Grid
        Grid of the whole output. The caller must write `grid.shape[0]` slices, in ascending z.
    dtype : int16 or float32
        Type of the slabs. DICOM rounds float32 to whole HU.
    source : Volume, optional
        What the output was made from. DICOM headers come from its nearest slices.
    derivation : Derivation, optional
        What was done, for DICOM.
    dicom : DicomOptions, optional
        Transfer syntax, private elements and anonymity of a DICOM output. Other formats ignore it.
    overwrite : bool
        Replace an output that exists. A DICOM folder is replaced only if uhrct wrote everything in it.

    Raises
    ------
    UhrctError
        If the output cannot be written, or exists. After an exception or a kill there is no file under the final name.

    Example
    -------
    >>> import tempfile
    >>> from uhrct.io import read
    >>> grid = Grid((4, 2, 3), spacing_mm=(1.0, 0.5, 0.5))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with open_writer(f"{folder}/out.nii.gz", grid, dtype=np.int16) as writer:
    ...         for _ in range(2):
    ...             writer.write(np.full((2, 2, 3), -1000, np.int16))
    ...     read(f"{folder}/out.nii.gz").hu.shape
    (4, 2, 3)
    """
    path = arguments.path("path", path)
    check_outputs(None, [path], overwrite=overwrite)
    suffix = paths.output_suffix(path)
    if suffix == ".npz":
        from uhrct.io.npz import NpzWriter

        return NpzWriter(path, grid, np.dtype(dtype), overwrite)
    if suffix == paths.ZARR:
        from uhrct.io.ome_zarr import ZarrWriter

        return ZarrWriter(path, grid, np.dtype(dtype), overwrite)
    if not is_dicom(suffix):
        from uhrct.io.image_writer import ImageWriter

        return ImageWriter(path, grid, np.dtype(dtype), overwrite)
    if source is not None and source.meta.get("dicom_frames"):
        from uhrct.io.dicom.enhanced import EnhancedWriter

        return EnhancedWriter(path, grid, np.dtype(dtype), source, derivation, dicom or DicomOptions(), overwrite)
    from uhrct.io.dicom.write import DicomWriter

    return DicomWriter(path, grid, np.dtype(dtype), source, derivation, dicom or DicomOptions(), overwrite)


def open_map_writer(
    path: AnyPath,
    grid: Grid,
    quantity: str,
    *,
    source: Volume | None = None,
    derivation: Derivation | None = None,
    dicom: DicomOptions | None = None,
    overwrite: bool = False,
) -> SlabWriter:
    """As `open_writer`, for a map of float32 values. A DICOM output is a Parametric Map.

    Parameters
    ----------
    path : str or path
        As for `open_writer`. A DICOM folder or `.dcm` file gets one multi-frame object.
    grid : Grid
        Grid of the whole map.
    quantity : str
        ``structure`` (0 to 1), ``lower`` or ``upper`` (bounds in HU), or ``spread`` (standard deviation in HU).
    source, derivation, dicom, overwrite : optional
        As for `open_writer`. Maps are always stored uncompressed.

    Raises
    ------
    UhrctError
        If the output cannot be written, or a DICOM output is asked for without highdicom.

    Example
    -------
    >>> import tempfile
    >>> from uhrct.io import read
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with open_map_writer(f"{folder}/sd.npz", Grid((1, 2, 3), (1.0, 0.5, 0.5)), "spread") as writer:
    ...         writer.write(np.full((1, 2, 3), 12.5, np.float32))
    ...     read(f"{folder}/sd.npz").hu.max()
    np.float32(12.5)
    """
    path = arguments.path("path", path)
    check_outputs(None, [path], overwrite=overwrite)
    if not is_dicom(paths.output_suffix(path)):
        return open_writer(path, grid, dtype=np.float32, overwrite=overwrite)
    from uhrct.io.dicom.maps import DicomMapWriter

    return DicomMapWriter(path, grid, quantity, source, derivation, dicom or DicomOptions(), overwrite)


def write(
    volume: Volume,
    path: AnyPath,
    derivation: Derivation | None = None,
    dicom: DicomOptions | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Write a whole volume. Formats, arguments and errors are those of `open_writer`.

    Example
    -------
    >>> import tempfile
    >>> from uhrct.io import read
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(Volume(np.zeros((1, 2, 3), np.int16), (1.0, 0.5, 0.5)), f"{folder}/out.npz")
    ...     read(f"{folder}/out.npz").spacing_mm
    (1.0, 0.5, 0.5)
    """
    if not isinstance(volume, Volume):
        raise UhrctError(f"`volume` is a {type(volume).__name__}; give a Volume")
    with open_writer(
        path,
        volume.grid,
        dtype=volume.hu.dtype,
        source=volume,
        derivation=derivation,
        dicom=dicom,
        overwrite=overwrite,
    ) as writer:
        for z in range(volume.shape[0]):
            writer.write(volume.hu[z : z + 1])


def write_segmentation(
    mask: np.ndarray,
    grid: Grid,
    path: AnyPath,
    segments: Sequence[Segment],
    *,
    source: Volume | None = None,
    derivation: Derivation | None = None,
    dicom: DicomOptions | None = None,
    overwrite: bool = False,
) -> None:
    """Write a label mask: DICOM SEG into a folder or `.dcm` file, a plain label image into other formats.

    Parameters
    ----------
    mask : array of whole numbers, shape (z, y, x)
        0 is background, k is ``segments[k - 1]``.
    grid : Grid
        Grid of the mask: that of the source or of the upscaled volume.
    path : str or path
        As for `open_writer`.
    segments : sequence of Segment
        What the labels mean.
    source, derivation, dicom, overwrite : optional
        As for `open_writer`.

    Raises
    ------
    UhrctError
        If the mask does not fit the grid or the segments, or a DICOM output is asked for without highdicom.

    Example
    -------
    >>> import tempfile
    >>> from uhrct.io import read
    >>> mask = np.array([[[0, 1, 2]]])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_segmentation(
    ...         mask, Grid((1, 1, 3), (1.0, 1.0, 1.0)), f"{folder}/a.nrrd", [Segment("vessel"), Segment("airway")]
    ...     )
    ...     read(f"{folder}/a.nrrd").hu.tolist()
    [[[0, 1, 2]]]
    """
    path = arguments.path("path", path)
    check_outputs(None, [path], overwrite=overwrite)
    labels = checked_mask(mask, grid, segments)
    if not is_dicom(paths.output_suffix(path)):
        with open_writer(path, grid, dtype=np.int16, overwrite=overwrite) as writer:
            writer.write(labels.astype(np.int16))
        return
    from uhrct.io.dicom.seg import write_seg

    write_seg(labels, grid, path, segments, source, derivation, dicom or DicomOptions(), overwrite)


def write_findings(
    findings: Sequence[RoundFinding],
    path: AnyPath,
    source: Volume,
    derivation: Derivation,
    *,
    dicom: DicomOptions | None = None,
    overwrite: bool = False,
) -> None:
    """Write findings as a DICOM measurement report; see `uhrct.io.dicom.sr.write_findings`."""
    from uhrct.io.dicom.sr import write_findings as write_report

    check_outputs(None, [], files=[path], overwrite=overwrite)
    write_report(findings, arguments.path("path", path), source, derivation, dicom, overwrite)


def check_outputs(
    input_path: AnyPath | None,
    outputs: Sequence[AnyPath],
    *,
    files: Sequence[AnyPath | None] = (),
    overwrite: bool = False,
) -> None:
    """Raise before hours of work what the writers would raise at their end.

    All files of an output count: the data file of `.mhd`, and the files of a DICOM folder.

    Parameters
    ----------
    input_path : path or None
        What is read.
    outputs : paths
        All volumes that will be written. Their suffixes select formats.
    files : paths
        Other files that will be written, such as a report. None, and `uhrct.core.files.STDOUT`, count for nothing.
    overwrite : bool
        Whether an output may replace a file that exists, or a DICOM folder in which uhrct wrote everything.

    Raises
    ------
    UhrctError
        If an output equals, contains or lies inside the input or another output, also by a link; if it exists and may
        not be replaced; if it is a symbolic link; if its suffix is unknown; or if its parent is missing, cannot be
        written to or cannot hold the name.

    Example
    -------
    >>> check_outputs("scan.nii.gz", ["scan.nii.gz"])
    Traceback (most recent call last):
    ...
    uhrct.core.errors.UhrctError: scan.nii.gz: output equals input; choose another output
    """
    inputs = [] if input_path is None else [arguments.path("input_path", input_path)]
    volumes = [arguments.path("outputs", p) for p in outputs]
    others = [p for p in (arguments.path("files", f) for f in files if f is not None) if p != STDOUT]
    output_checks.check_volumes(inputs, volumes, others, overwrite)
