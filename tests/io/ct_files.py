"""DICOM series and odd directions, made for tests; and what every refusal has in common."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from uhrct import io
from uhrct.core.errors import UhrctError

SHAPE = (5, 6, 7)
SPACING = (2.5, 0.8, 0.7)
PATIENT = "DOE^JANE"


def oblique(seed: int = 0) -> np.ndarray:
    """A right-handed direction matrix (columns normal, down, right) that agrees with no axis."""
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    x, y = q[:, 0], q[:, 1]
    return np.stack([np.cross(x, y), y, x], axis=1)


def make_series(
    folder: Path,
    *,
    shape: tuple[int, int, int] = SHAPE,
    name: str = "{:03d}.dcm",
    number: int = 3,
    direction: np.ndarray | None = None,
    seed: int = 0,
    study: str = "one",
    edit: Callable[[int, Dataset], object] = lambda k, ds: None,
) -> np.ndarray:
    """Write an axial CT series, file order against slice order; return its HU, shape (z, y, x).

    `edit(k, dataset)` may change the k-th slice; it drops the slice by returning False.
    """
    folder.mkdir(parents=True, exist_ok=True)
    hu = np.random.default_rng(seed).integers(-1024, 3000, shape).astype(np.int16)
    direction = np.eye(3)[::-1] if direction is None else direction
    series, frame = (generate_uid(entropy_srcs=[f"{seed} {what}"]) for what in ("series", "frame"))
    for k in range(shape[0]):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[f"{seed} image {k}"])
        ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        ds.SeriesInstanceUID, ds.StudyInstanceUID, ds.FrameOfReferenceUID = (
            series,
            generate_uid(entropy_srcs=[study]),
            frame,
        )
        ds.PatientName, ds.PatientID, ds.Modality = PATIENT, "PAT4711", "CT"
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.SeriesNumber, ds.SeriesDescription, ds.InstanceNumber = number, f"CHEST {number}", shape[0] - k
        ds.Manufacturer, ds.ManufacturerModelName, ds.ConvolutionKernel = "ACME", "Ring 1", "B30"
        ds.Rows, ds.Columns = shape[1:]
        ds.PixelSpacing = list(SPACING[1:])
        ds.SliceThickness = "3.0"
        ds.ImageOrientationPatient = [f"{v:.10f}" for v in (*direction[:, 2], *direction[:, 1])]
        place = np.array([-100.0, -50.0, 20.0]) + direction[:, 0] * k * SPACING[0]
        ds.ImagePositionPatient = [f"{v:.8f}" for v in place]
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
        ds.RescaleSlope, ds.RescaleIntercept = "1", "-1024"
        ds.PixelData = (hu[k].astype(np.int32) + 1024).astype("<i2").tobytes()
        if edit(k, ds) is not False:
            ds.save_as(folder / name.format(shape[0] - k), enforce_file_format=True)
    return hu


def refusal(path: Path, **options: object) -> str:
    """The message with which `read` refuses `path`: one line, beginning with it, without patient data."""
    with pytest.raises(UhrctError) as caught:
        io.read(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    assert PATIENT not in message
    assert "4711" not in message
    return message
