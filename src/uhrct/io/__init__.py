"""Files <-> `Volume`: DICOM series, NIfTI, NRRD, MetaImage and npz. Axis order (x, y, z) exists only in here.

    volume = read("ct/")                               # folder, file, any known suffix
    write(volume, "out.nii.gz")                        # the suffix selects the format; no suffix: a DICOM folder
    with open_writer("out/", grid, dtype=np.int16, source=volume) as writer:
        writer.write(slab)                             # (k, y, x), ascending z, slab after slab

nibabel, pynrrd, SimpleITK and pydicom are imported only where they are used.
"""

from __future__ import annotations

from uhrct.io import paths as paths
from uhrct.io.derivation import Derivation, DicomOptions
from uhrct.io.findings import RoundFinding
from uhrct.io.info import SeriesInfo
from uhrct.io.reading import inspect, read
from uhrct.io.segments import Segment
from uhrct.io.writer import SlabWriter
from uhrct.io.writing import (
    check_outputs,
    open_map_writer,
    open_writer,
    write,
    write_findings,
    write_segmentation,
)

__all__ = [
    "Derivation",
    "DicomOptions",
    "RoundFinding",
    "Segment",
    "SeriesInfo",
    "SlabWriter",
    "check_outputs",
    "inspect",
    "open_map_writer",
    "open_writer",
    "read",
    "write",
    "write_findings",
    "write_segmentation",
]
