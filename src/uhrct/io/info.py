"""What a file or folder holds, without its voxels and without patient data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from uhrct.core.volume import Vector


@dataclass(frozen=True)
class SeriesInfo:
    """One series (or one file of another format).

    Parameters
    ----------
    kind : str
        "DICOM", "NIfTI", "NRRD", "MetaImage" or "NPZ".
    number : int
        1-based place in the listing of a folder; `read(path, series=str(number))` takes it. 0 for a damaged
        file, of which no one can tell to which series it belongs.
    uid : str
        SeriesInstanceUID, "" outside DICOM.
    description, modality : str
        SeriesDescription and Modality, "" where unknown.
    shape : (z, y, x) or None
        None where the headers are too damaged to tell.
    spacing_mm : (z, y, x) or None
        Voxel spacing in mm, None where unknown.
    orientation : str
        "axial", "coronal", "sagittal", "oblique", or "" where unknown.
    scanner : str
        Manufacturer, model and kernel.
    transfer_syntax : str
        Name of the DICOM transfer syntax.
    problem : str
        Why `read` would refuse it, "" if nothing in the headers speaks against it.
    needs : str
        The option without which `read` refuses it, and why; "" where it needs none.
    path : str
        Where it lies, relative to the listed folder, or in the listed zip: its folder, or its first file if another
        series lies in that folder too. For a single file, its name.
    notes : tuple of str
        What `read` leaves out: localizers among the slices, identical copies.
    """

    kind: str
    number: int = 1
    uid: str = ""
    description: str = ""
    modality: str = ""
    shape: tuple[int, int, int] | None = None
    spacing_mm: Vector | None = None
    orientation: str = ""
    scanner: str = ""
    transfer_syntax: str = ""
    problem: str = ""
    needs: str = ""
    path: str = ""
    notes: tuple[str, ...] = ()

    @property
    def processable(self) -> str:
        """Whether and how it can be processed, for a table: "yes", "with ...", or "no: ..."."""
        if self.problem:
            return f"no: {self.problem}"
        answer = f"with {self.needs}" if self.needs else "yes"
        return f"{answer} ({'; '.join(self.notes)})" if self.notes else answer


def orientation_of(direction: np.ndarray) -> str:
    """The plane of slices, from the direction matrix of a volume (column 0 is the slice normal).

    Up to 25 degrees (gantry-aligned heads) a stack still counts as axial, as a reader would call it.

    >>> orientation_of(np.eye(3)[::-1])
    'axial'
    """
    normal = np.abs(direction[:, 0])
    largest = int(normal.argmax())
    return ("sagittal", "coronal", "axial")[largest] if normal[largest] > 0.9 else "oblique"
