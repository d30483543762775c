"""A volume into a basic derived CT series: new UIDs, true geometry and HU, the rest as in the source."""

from __future__ import annotations

import hashlib
import uuid
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
from pydicom import Dataset, Sequence
from pydicom.config import disable_value_validation
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid
from pydicom.valuerep import format_number_as_ds

from uhrct.errors import UhrctError
from uhrct.formats.derivation import Code, Derivation
from uhrct.formats.dicom_scan import CT_IMAGE
from uhrct.formats.dicom_source import Source, copied_header, minimal_header, source_padding_hu
from uhrct.formats.hu import INT16
from uhrct.formats.writer import SlabWriter
from uhrct.volume import Grid, Volume


class DicomWriter(SlabWriter):
    """One file a slice, `00001.dcm` and on, in a folder; or a single `.dcm` file for a single slice."""

    def __init__(
        self, path: Path, grid: Grid, dtype: np.dtype, source: Volume | None, derivation: Derivation | None
    ) -> None:
        super().__init__(path, grid, dtype)
        if max(grid.shape[1:]) > 65535:
            raise UhrctError(f"{path}: DICOM holds at most 65535 rows and columns, not {grid.shape[1:]}; use .nrrd")
        self._one_file = path.suffix.lower() == ".dcm"
        if self._one_file and grid.shape[0] != 1:
            raise UhrctError(f"{path}: one .dcm file holds one slice, not {grid.shape[0]}; name a folder")
        headers = source.meta.get("dicom") if source is not None else None
        self._source = Source(headers, source) if headers and source is not None else None
        # Without a derivation nobody vouches that equal source means equal voxels: take fresh UIDs.
        self._derivation = derivation or Derivation("Converted by uhrct", uuid.uuid4().hex, "copy", codes=())
        self._origin_of_uids = _identity(self._source, source)
        self._clipped = 0

    def _start(self) -> None:
        self._folder = self.tmp / self.path.name
        if self._one_file:
            self._folder = self.tmp
        else:
            self._folder.mkdir()

    def _append(self, slab: np.ndarray) -> None:
        with disable_value_validation():  # a source's own irregular values are passed on, not complained about
            for k, hu in enumerate(slab, self.written):
                name = self.path.name if self._one_file else f"{k + 1:05d}.dcm"
                self._instance(k, hu).save_as(self._folder / name, enforce_file_format=True)

    def _publish(self) -> None:
        if self._clipped:
            text = f"{self.path}: {self._clipped} voxels beyond 16 bits were clipped; .nii.gz keeps them"
            warnings.warn(text, UserWarning, stacklevel=4)
        super()._publish()

    def _instance(self, k: int, hu: np.ndarray) -> FileDataset:
        grid, derivation = self.grid, self._derivation
        place = np.asarray(grid.origin_mm) + grid.direction[:, 0] * grid.spacing_mm[0] * k
        if self._source is None:
            out = minimal_header(self._uid)
            out.SeriesDescription = derivation.suffix
        else:
            out = copied_header(self._source.nearest(place), derivation)
            sources = self._source.contributing(place, grid)
            out.SourceImageSequence = Sequence([_reference(header) for header in sources])
        out.SOPClassUID = CT_IMAGE
        out.SOPInstanceUID = self._uid("instance", str(k))
        out.SeriesInstanceUID = self._uid("series")
        out.InstanceNumber = k + 1
        out.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
        out.ContentQualification = "RESEARCH"
        out.DerivationDescription = derivation.description[:1024]
        if derivation.codes:
            out.DerivationCodeSequence = Sequence([_code(code) for code in derivation.codes])
        equipment = Sequence(out.get("ContributingEquipmentSequence") or [])
        out.ContributingEquipmentSequence = Sequence([*equipment, _equipment(derivation)])
        _set_geometry(out, grid, place)
        self._set_pixels(out, hu)
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = UID(CT_IMAGE)
        meta.MediaStorageSOPInstanceUID = out.SOPInstanceUID
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        return FileDataset("", out, file_meta=meta, preamble=b"\0" * 128)

    def _set_pixels(self, out: Dataset, hu: np.ndarray) -> None:
        whole = np.rint(hu) if hu.dtype.kind == "f" else hu
        wide = whole.astype(np.int64)
        intercept = 0 if self._source is None else self._source.intercept
        if wide.min() - intercept < INT16.min or wide.max() - intercept > INT16.max:
            intercept = 0  # HU itself is int16 wherever it came from int16; the intercept is each slice's own
        stored = wide - intercept
        kept = np.clip(stored, INT16.min, INT16.max)
        self._clipped += int((kept != stored).sum())
        out.SamplesPerPixel = 1
        out.PhotometricInterpretation = "MONOCHROME2"
        out.Rows, out.Columns = hu.shape
        out.BitsAllocated, out.BitsStored, out.HighBit, out.PixelRepresentation = 16, 16, 15, 1
        out.RescaleSlope, out.RescaleIntercept, out.RescaleType = "1", str(intercept), "HU"
        padding = None if self._source is None else source_padding_hu(self._source.headers[0])
        if padding is not None and INT16.min <= padding - intercept <= INT16.max:
            out.add_new("PixelPaddingValue", "SS", padding - intercept)
        out.add_new("PixelData", "OW", kept.astype("<i2").tobytes())

    def _uid(self, *parts: str) -> UID:
        return generate_uid(entropy_srcs=["\n".join((self._origin_of_uids, self._derivation.key, *parts))])


def _identity(source: Source | None, volume: Volume | None) -> str:
    """What stands for the source in new UIDs: its own UIDs, or else its voxels, or else chance."""
    if source is not None:
        return "\n".join(str(header.get("SOPInstanceUID", "")) for header in source.headers)
    if volume is None:
        return uuid.uuid4().hex
    digest = hashlib.sha256(repr((volume.shape, volume.spacing_mm, volume.origin_mm)).encode())
    for plane in volume.hu:
        digest.update(np.ascontiguousarray(plane).view(np.uint8).data)
    return digest.hexdigest()


def _set_geometry(out: Dataset, grid: Grid, place: np.ndarray) -> None:
    normal, down, right = grid.direction.T
    out.PixelSpacing = [_ds(grid.spacing_mm[1]), _ds(grid.spacing_mm[2])]
    out.ImageOrientationPatient = [_ds(v) for v in (*right, *down)]
    out.ImagePositionPatient = [_ds(v) for v in place]
    out.SliceLocation = _ds(float(place @ normal))
    out.SliceThickness = _ds(grid.slice_thickness_mm or grid.spacing_mm[0])
    out.SpacingBetweenSlices = _ds(grid.spacing_mm[0])


def _ds(value: float) -> str:
    """A decimal string of at most 16 characters, as exact as these allow."""
    return format_number_as_ds(0.0 if abs(value) < 1e-12 else float(value))


def _code(code: Code) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code
    return item


def _reference(header: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = header.SOPClassUID
    item.ReferencedSOPInstanceUID = header.SOPInstanceUID
    purpose = ("121322", "DCM", "Source image for image processing operation")
    item.PurposeOfReferenceCodeSequence = Sequence([_code(purpose)])
    return item


def _equipment(derivation: Derivation) -> Dataset:
    item = Dataset()
    item.Manufacturer = item.ManufacturerModelName = "uhrct"
    item.SoftwareVersions = version("uhrct")
    item.ContributionDescription = derivation.description[:1024]
    item.PurposeOfReferenceCodeSequence = Sequence([_code(("109102", "DCM", "Processing Equipment"))])
    return item
