"""Write a volume as a derived CT series: new UIDs, geometry and HU of the volume, the rest from the source."""

from __future__ import annotations

import copy
import hashlib
import struct
import uuid
import warnings
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import DataElement, Dataset, Sequence
from pydicom.config import disable_value_validation
from pydicom.uid import UID, generate_uid
from pydicom.valuerep import format_number_as_ds

from uhrct.core.errors import UhrctError
from uhrct.core.hu import INT16
from uhrct.core.version import __version__
from uhrct.core.volume import Grid, Volume
from uhrct.io.derivation import Code, Derivation, DicomOptions
from uhrct.io.dicom.dates import creation_time, set_dates
from uhrct.io.dicom.encode import (
    ElementCache,
    Elements,
    check_encoder,
    element_bytes,
    encoded,
    pixel_element,
    preamble,
    sequence_element,
    short_element,
)
from uhrct.io.dicom.scan import CT_IMAGE
from uhrct.io.dicom.source import (
    Source,
    kept_tags,
    minimal_header,
    name_of,
    series_description,
    series_header,
    source_padding_hu,
)
from uhrct.io.pool import BoundedPool
from uhrct.io.writer import SlabWriter

NAME = "uhrct"
SOURCE_IMAGES, PADDING_VALUE = 0x00082112, 0x00280120
PURPOSE: Code = ("121322", "DCM", "Source image for image processing operation")


class DicomWriter(SlabWriter):
    """One file per slice in a folder (`00001.dcm`, ...), or one `.dcm` file for a single slice.

    A few threads encode and write slices; `write` waits if they fall behind.
    """

    def __init__(
        self,
        path: Path,
        grid: Grid,
        dtype: np.dtype,
        source: Volume | None,
        derivation: Derivation | None,
        options: DicomOptions,
        overwrite: bool,
    ) -> None:
        super().__init__(path, grid, dtype, overwrite)
        if max(grid.shape[1:]) > 65535:
            raise UhrctError(f"{path}: DICOM holds at most 65535 rows and columns, not {grid.shape[1:]}; use .nrrd")
        self._one_file = path.suffix.lower() == ".dcm"
        self._check_slices()
        check_encoder(options.uid)
        self._options = options
        self._source = dicom_source(source, options)
        # without a derivation, equal sources need not mean equal voxels: use fresh UIDs
        self._derivation = derivation or Derivation("Converted by uhrct", uuid.uuid4().hex, "copy", codes=())
        self._uid = uid_maker(self._source, source, self._derivation)
        self._made = made(self._source, options)
        self._clipped = 0

    def _check_slices(self) -> None:
        if self._one_file and self.grid.shape[0] != 1:
            raise UhrctError(f"{self.path}: one .dcm file holds one slice, not {self.grid.shape[0]}; give a folder")

    @property
    def series_uid(self) -> str:
        return self._uid("series")

    @property
    def instance_uids(self) -> tuple[str, ...]:
        return tuple(self._uid("instance", str(k)) for k in range(self.grid.shape[0]))

    def _start(self) -> None:
        self._folder = self.tmp / self.path.name
        if self._one_file:
            self._folder = self.tmp
        else:
            self._folder.mkdir()
        # irregular values of the source are kept without complaint
        self._stack.enter_context(disable_value_validation())
        self._cache = ElementCache()
        self._series_header = self._series()
        self._commons: dict[str, Elements] = {}
        self._padding = None if self._source is None else source_padding_hu(self._source.headers[0])
        self._purpose = element_bytes(DataElement(0x0040A170, "SQ", Sequence([coded(PURPOSE)])))
        # arrays to use again: new memory costs more than a copy
        self._spare: list[np.ndarray] = []
        self._pool = self._stack.enter_context(BoundedPool())

    def _append(self, slab: np.ndarray) -> None:
        intercept = 0 if self._source is None else self._source.intercept
        for k, hu in enumerate(slab, self.written):
            # not on a thread: the caller may fill its slab again after this copy
            stored, used, clipped = stored_values(hu, intercept, self._spare.pop() if self._spare else None)
            self._clipped += clipped
            self._pool.submit(self._store, k, stored, used)

    def _publish(self) -> None:
        if self._clipped:
            text = f"{self.path}: {self._clipped} voxels beyond 16 bits were clipped; .nii.gz keeps them"
            warnings.warn(text, UserWarning, stacklevel=4)
        super()._publish()

    def _store(self, k: int, stored: np.ndarray, intercept: int) -> None:
        """Write slice `k`, stored values of shape (y, x), to its file."""
        name = self.path.name if self._one_file else f"{k + 1:05d}.dcm"
        header, uid = self._header(k, intercept)
        with (self._folder / name).open("wb") as file:
            file.write(preamble(CT_IMAGE, uid, self._options.uid) + header)
            for piece in pixel_element(stored, self._options.uid):
                file.write(piece)
        self._spare.append(stored)

    def _header(self, k: int, intercept: int) -> tuple[bytes, str]:
        """The encoded header of slice `k`, and its SOPInstanceUID."""
        grid = self.grid
        place = np.asarray(grid.origin_mm) + grid.direction[:, 0] * grid.spacing_mm[0] * k
        uid = self._uid("instance", str(k))
        texts = (
            (0x00080018, "UI", uid),  # SOPInstanceUID
            (0x00200013, "IS", str(k + 1)),  # InstanceNumber
            (0x00200032, "DS", "\\".join(ds(v) for v in place)),  # ImagePositionPatient
            (0x00201041, "DS", ds(float(place @ grid.direction[:, 0]))),  # SliceLocation
            (0x00281052, "DS", str(intercept)),  # RescaleIntercept
        )
        own = {tag: short_element(tag, vr, text.encode()) for tag, vr, text in texts}
        elements: Elements = {}
        nearest = None
        if self._source is not None:
            nearest = self._source.headers[self._source.nearest(place)]
            elements |= self._cache.encode(
                nearest, kept_tags(nearest, self._options.keep_private), self._options.keep_private
            )
            sources = self._source.contributing(place, grid, self._derivation.reach_mm)
            names = [name for i in sources if (name := name_of(self._source.headers[i]))]
            if names:
                own[SOURCE_IMAGES] = sequence_element(SOURCE_IMAGES, map(self._encoded_reference, names))
            padding = self._padding
            if padding is not None and INT16.min <= padding - intercept <= INT16.max:
                own[PADDING_VALUE] = short_element(PADDING_VALUE, "SS", struct.pack("<h", padding - intercept))
        elements |= self._common(None if nearest is None else nearest.get("SpecificCharacterSet")) | own
        return b"".join(elements[tag] for tag in sorted(elements)), uid

    def _common(self, charset: Any) -> Elements:
        """Elements common to all slices, in the character set of a source slice (some series mix them)."""
        if str(charset) not in self._commons:
            header = copy.copy(self._series_header)
            if charset and self._source is not None:
                header.SpecificCharacterSet = charset
            self._commons[str(charset)] = encoded(header)
        return self._commons[str(charset)]

    def _encoded_reference(self, name: tuple[str, str]) -> bytes:
        """`reference` to a source slice, encoded."""
        uids = zip((0x00081150, 0x00081155), name, strict=True)
        return b"".join(short_element(tag, "UI", uid.encode("latin-1")) for tag, uid in uids) + self._purpose

    def _series(self) -> Dataset:
        """Elements that are new and equal in all slices."""
        grid = self.grid
        if self._source is None:
            out = minimal_header(self._uid)
            earlier: list[Dataset] = []
        else:
            first = self._source.headers[0]
            out = series_header(first, self._derivation)
            earlier = list(first.get("ContributingEquipmentSequence") or [])
            if self._source.was_tilted:
                out.GantryDetectorTilt = "0"  # no longer true, and readers would correct for it
        out.SOPClassUID = CT_IMAGE
        out.SeriesInstanceUID = self.series_uid
        out.SeriesDescription = series_description(self._source, self._derivation, grid)
        if self._made is not None:
            set_dates(out, self._made)
        out.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
        describe(out, self._derivation, self._synthetic(), earlier)
        _, down, right = grid.direction.T
        out.PixelSpacing = [ds(grid.spacing_mm[1]), ds(grid.spacing_mm[2])]
        out.ImageOrientationPatient = [ds(v) for v in (*right, *down)]
        out.SliceThickness = ds_mm(grid.slice_thickness_mm or grid.spacing_mm[0])
        out.SpacingBetweenSlices = ds_mm(grid.spacing_mm[0])
        out.SamplesPerPixel = 1
        out.PhotometricInterpretation = "MONOCHROME2"
        out.Rows, out.Columns = grid.shape[1:]
        out.BitsAllocated, out.BitsStored, out.HighBit, out.PixelRepresentation = 16, 16, 15, 1
        out.RescaleSlope, out.RescaleType = "1", "HU"
        return out

    def _synthetic(self) -> bool:
        """Whether there are slices between the acquired ones."""
        return self._source is not None and self.grid.spacing_mm[0] < 0.999 * self._source.increment_mm


def dicom_source(volume: Volume | None, options: DicomOptions) -> Source | None:
    """The DICOM headers of a volume, anonymous if the options say so; None if it has none."""
    headers = None if volume is None else volume.meta.get("dicom")
    if volume is None or not headers:
        return None
    if options.anonymize:
        from uhrct.io.dicom.anonymize import anonymized

        headers = anonymized(headers, options.secret)
    return Source(headers, volume)


def made(source: Source | None, options: DicomOptions) -> datetime | None:
    """When the output is made. None for an anonymous one: often the patient was scanned on the same day."""
    return None if options.anonymize else creation_time(None if source is None else source.headers[0])


def stored_values(hu: np.ndarray, intercept: int, out: np.ndarray | None = None) -> tuple[np.ndarray, int, int]:
    """Stored values (int16), the intercept that gives HU back, and the number of clipped voxels.

    `hu` is int16 or float32. Stored values go into `out`, if given.
    """
    if hu.dtype.kind == "i" and INT16.min <= intercept <= INT16.max:
        stored = np.subtract(hu, np.int16(intercept), out=out, dtype="<i2")
        # Subtract first and check for wrap-around afterwards: one pass over the voxels is faster than two. A value
        # that left 16 bits appears at the other end, where no valid value can be.
        wrapped = stored.min() < INT16.min - intercept if intercept < 0 else stored.max() > INT16.max - intercept
        if not wrapped:
            return stored, intercept, 0
    whole = np.rint(hu) if hu.dtype.kind == "f" else hu
    low, high = int(whole.min()), int(whole.max())
    if not INT16.min <= intercept <= INT16.max or low - intercept < INT16.min or high - intercept > INT16.max:
        intercept = 0  # HU fit into int16; each slice has its own intercept
    clipped = 0
    if low - intercept < INT16.min or high - intercept > INT16.max:
        clipped = int(((whole < INT16.min) | (whole > INT16.max)).sum())
        whole = np.clip(whole, INT16.min, INT16.max)
    # checked above: the difference fits into 16 bits
    stored = np.subtract(whole.astype("<i2", copy=False), np.int16(intercept), out=out, dtype="<i2")
    return stored, intercept, clipped


def uid_maker(source: Source | None, volume: Volume | None, derivation: Derivation) -> Callable[..., UID]:
    """A function from names to UIDs. The same source and derivation give the same UIDs."""
    identity = hashlib.sha256(_identity(source, volume).encode()).hexdigest()

    def uid(*parts: str) -> UID:
        return generate_uid(entropy_srcs=["\n".join((identity, derivation.key, *parts))])

    return uid


def _identity(source: Source | None, volume: Volume | None) -> str:
    """What identifies the source in new UIDs: its UIDs, else its voxels, else a random number."""
    if source is not None and all(map(name_of, source.headers)):
        return "\n".join(str(header.SOPInstanceUID) for header in source.headers)
    if volume is None:
        return uuid.uuid4().hex
    digest = hashlib.sha256(repr((volume.shape, volume.spacing_mm, volume.origin_mm)).encode())
    for plane in volume.hu:
        digest.update(np.ascontiguousarray(plane).view(np.uint8).data)
    return digest.hexdigest()


def describe(out: Dataset, derivation: Derivation, synthetic: bool, earlier: list[Dataset]) -> None:
    """State in `out` what was done and by whom, after the equipment of `earlier` steps."""
    text = derivation.description
    if synthetic:
        text = f"{text[:900]} Slices between the acquired ones are synthetic."
    out.ContentQualification = "RESEARCH"
    out.DerivationDescription = short_text(text)
    if derivation.codes:
        out.DerivationCodeSequence = Sequence([coded(code) for code in derivation.codes])
    item = Dataset()
    item.Manufacturer = item.ManufacturerModelName = NAME
    item.SoftwareVersions = __version__
    item.ContributionDescription = short_text(text)
    item.PurposeOfReferenceCodeSequence = Sequence([coded(("109102", "DCM", "Processing Equipment"))])
    out.ContributingEquipmentSequence = Sequence([*earlier, item])


def short_text(text: str) -> str:
    """A description that fits every character set and the 1024 characters of value representation ST."""
    return text.encode("ascii", "replace").decode()[:1024]


def ds(value: float) -> str:
    """The most exact decimal string of at most 16 characters."""
    return format_number_as_ds(0.0 if abs(value) < 1e-12 else float(value))


def ds_mm(value_mm: float) -> str:
    """A distance between slices or a thickness, within 1e-6 mm.

    A distance is a difference of positions, so it has their rounding errors. What lies that near to whole micrometres
    means whole micrometres.

    >>> ds_mm(5 * 0.799999842), ds_mm(5 / 6)
    ('4.0', '0.83333333333333')
    """
    nearest = round(value_mm, 3)
    return ds(nearest if abs(nearest - value_mm) < 1e-6 else value_mm)


def coded(code: Code) -> Dataset:
    """An item of a code sequence."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code
    return item


def reference(name: tuple[str, str]) -> Dataset:
    """An item of SourceImageSequence, for the (class, instance) of `name_of`."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = map(UID, name)
    item.PurposeOfReferenceCodeSequence = Sequence([coded(PURPOSE)])
    return item
