"""Write a volume from an Enhanced (multi-frame) CT as a derived Enhanced CT: one file with all frames."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import DataElement, Dataset, Sequence
from pydicom.config import disable_value_validation
from pydicom.uid import UID

from uhrct.core.errors import UhrctError
from uhrct.core.hu import INT16
from uhrct.core.volume import Grid, Volume
from uhrct.io.derivation import SPATIAL_RESAMPLING, Derivation, DicomOptions
from uhrct.io.dicom.dates import set_dates
from uhrct.io.dicom.encode import compressed, encoded, preamble
from uhrct.io.dicom.objects import NO_DATE, NO_TIME
from uhrct.io.dicom.source import kept_tags, name_of, series_description, series_header, source_padding_hu
from uhrct.io.dicom.write import DicomWriter, coded, describe, ds, ds_mm, reference, stored_values
from uhrct.io.pool import BoundedPool

#: Functional groups of the source that do not apply to derived frames. New ones replace them.
RENEWED = (
    *("PixelMeasuresSequence", "PlaneOrientationSequence", "PlanePositionSequence", "DerivationImageSequence"),
    *("PixelValueTransformationSequence", "FrameContentSequence", "CTImageFrameTypeSequence"),
)
#: Values for derived voxels where the source states none.
PIXELS = {
    "PixelPresentation": "MONOCHROME",
    "VolumetricProperties": "VOLUME",
    "VolumeBasedCalculationTechnique": "NONE",
}
ITEM, DELIMITER = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0\0\0\0\0"


class EnhancedWriter(DicomWriter):
    """A multi-frame file: `00001.dcm` in a folder, or a `.dcm` file.

    Frames go to a temporary file first, because the header needs the intercept of every frame.
    """

    def __init__(
        self,
        path: Path,
        grid: Grid,
        dtype: np.dtype,
        source: Volume,
        derivation: Derivation | None,
        options: DicomOptions,
        overwrite: bool,
    ) -> None:
        super().__init__(path, grid, dtype, source, derivation, options, overwrite)
        if options.transfer_syntax == "explicit" and 2 * np.prod(grid.shape, dtype=np.int64) > 0xFFFFFFFE:
            raise UhrctError(f"{path}: more than 4 GiB in one DICOM file; choose `transfer_syntax=jpegls` or .nii.gz")
        wholes = {id(whole): whole for whole, _ in source.meta["dicom_frames"]}
        if options.anonymize:
            from uhrct.io.dicom.anonymize import anonymized

            wholes = dict(zip(wholes, anonymized(list(wholes.values()), options.secret), strict=True))
        self._frames = [(wholes[id(whole)], number) for whole, number in source.meta["dicom_frames"]]
        self._intercepts: list[int] = []

    def _check_slices(self) -> None:
        """One file holds all slices."""

    @property
    def instance_uids(self) -> tuple[str, ...]:
        return (self._uid("instance"),)

    def _start(self) -> None:
        self._stack.enter_context(disable_value_validation())
        self._pixels = self._stack.enter_context((self.tmp / "frames").open("w+b"))
        if self._options.transfer_syntax != "explicit":
            self._pixels.write(ITEM + bytes(4))  # an empty offset table
        self._pool = self._stack.enter_context(BoundedPool(deliver=self._pixels.write))

    def _append(self, slab: np.ndarray) -> None:
        assert self._source is not None
        for hu in slab:
            stored, intercept, clipped = stored_values(hu, self._source.intercept)
            self._clipped += clipped
            self._intercepts.append(intercept)
            self._pool.submit(self._stream, stored)

    def _stream(self, stored: np.ndarray) -> Any:
        """The bytes of one frame in the file."""
        if self._options.transfer_syntax == "explicit":
            return stored.data
        stream = compressed(stored, self._options.uid)
        stream += b"\0" * (len(stream) % 2)
        return ITEM + len(stream).to_bytes(4, "little") + stream

    def _publish(self) -> None:
        file = self.tmp / self.path.name
        if not self._one_file:
            file.mkdir()
            file = file / "00001.dcm"
        with disable_value_validation():
            header = self._whole()
            elements = encoded(header)
        with file.open("wb") as out, (self.tmp / "frames").open("rb") as pixels:
            out.write(preamble(header.SOPClassUID, header.SOPInstanceUID, self._options.uid))
            out.write(b"".join(elements[tag] for tag in sorted(elements)))
            native = self._options.transfer_syntax == "explicit"
            size = (self.tmp / "frames").stat().st_size
            out.write(b"\xe0\x7f\x10\x00" + (b"OW" if native else b"OB") + b"\0\0")
            out.write(size.to_bytes(4, "little") if native else b"\xff\xff\xff\xff")
            shutil.copyfileobj(pixels, out, 1 << 20)
            out.write(b"" if native else DELIMITER)
        super()._publish()

    def _whole(self) -> Dataset:
        """The header of the file: top level from the source, new functional groups for every frame."""
        assert self._source is not None
        first, _ = self._frames[0]
        grid, out = self.grid, Dataset()
        for tag in kept_tags(first, self._options.keep_private):
            out[tag] = copy.deepcopy(first[tag])
        if not self._options.keep_private:
            out.remove_private_tags()
        out.update(series_header(first, self._derivation))
        out.SOPClassUID = first.SOPClassUID
        out.SOPInstanceUID, out.SeriesInstanceUID = self._uid("instance"), self._uid("series")
        out.InstanceNumber = 1
        out.SeriesDescription = series_description(self._source, self._derivation, grid)
        set_dates(out, self._made)
        _fill(out, ContentDate=NO_DATE, ContentTime=NO_TIME)
        out.ImageType = _image_type(first)
        words = Dataset()
        describe(words, self._derivation, self._synthetic(), list(first.get("ContributingEquipmentSequence") or []))
        out.ContentQualification = words.ContentQualification
        out.ContributingEquipmentSequence = words.ContributingEquipmentSequence
        out.ImageComments = words.DerivationDescription
        if all(name_of(whole) for whole, _ in self._frames):
            out.SourceImageEvidenceSequence = Sequence([self._evidence()])
        out.NumberOfFrames, (out.Rows, out.Columns) = grid.shape[0], grid.shape[1:]
        out.SamplesPerPixel, out.PhotometricInterpretation = 1, "MONOCHROME2"
        out.BitsAllocated, out.BitsStored, out.HighBit, out.PixelRepresentation = 16, 16, 15, 1
        _fill(out, **PIXELS, PresentationLUTShape="IDENTITY", LossyImageCompression="00")
        padding = source_padding_hu(self._source.headers[0])
        if padding is not None and len(set(self._intercepts)) == 1:
            stored = padding - self._intercepts[0]
            if INT16.min <= stored <= INT16.max:
                out.add_new("PixelPaddingValue", "SS", stored)
        organization = self._uid("dimensions")
        out.DimensionOrganizationSequence = Sequence([_item(DimensionOrganizationUID=organization)])
        out.DimensionIndexSequence = Sequence(
            [
                _item(
                    DimensionOrganizationUID=organization,
                    DimensionIndexPointer=pointer,
                    FunctionalGroupPointer=0x00209111,
                )
                for pointer in (0x00209056, 0x00209057)  # StackID, InStackPositionNumber
            ]
        )
        out.SharedFunctionalGroupsSequence = Sequence([self._shared(first)])
        out.PerFrameFunctionalGroupsSequence = Sequence([self._frame(k, words) for k in range(grid.shape[0])])
        return out

    def _shared(self, first: Dataset) -> Dataset:
        out = self._carried((first.get("SharedFunctionalGroupsSequence") or [Dataset()])[0])
        grid = self.grid
        _, down, right = grid.direction.T
        out.PixelMeasuresSequence = Sequence(
            [
                _item(
                    PixelSpacing=[ds(grid.spacing_mm[1]), ds(grid.spacing_mm[2])],
                    SliceThickness=ds_mm(grid.slice_thickness_mm or grid.spacing_mm[0]),
                    SpacingBetweenSlices=ds_mm(grid.spacing_mm[0]),
                )
            ]
        )
        out.PlaneOrientationSequence = Sequence([_item(ImageOrientationPatient=[ds(v) for v in (*right, *down)])])
        return out

    def _frame(self, k: int, words: Dataset) -> Dataset:
        assert self._source is not None
        grid = self.grid
        place = np.asarray(grid.origin_mm) + grid.direction[:, 0] * grid.spacing_mm[0] * k
        whole, number = self._frames[self._source.nearest(place)]
        group = whole.PerFrameFunctionalGroupsSequence[number - 1]
        out = self._carried(group)
        content = Dataset()
        for element in (group.get("FrameContentSequence") or [Dataset()])[0]:
            content.add(copy.deepcopy(element))
        content.StackID, content.InStackPositionNumber, content.DimensionIndexValues = "1", k + 1, [1, k + 1]
        out.FrameContentSequence = Sequence([content])
        out.PlanePositionSequence = Sequence([_item(ImagePositionPatient=[ds(v) for v in place])])
        out.PixelValueTransformationSequence = Sequence(
            [_item(RescaleIntercept=str(self._intercepts[k]), RescaleSlope="1", RescaleType="HU")]
        )
        shared = (whole.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
        old_type = group.get("CTImageFrameTypeSequence") or shared.get("CTImageFrameTypeSequence") or [Dataset()]
        frame_type = copy.deepcopy(old_type[0])
        frame_type.FrameType = _image_type(whole)
        _fill(frame_type, **PIXELS)
        out.CTImageFrameTypeSequence = Sequence([frame_type])
        derivation = _item(DerivationDescription=words.DerivationDescription)
        codes = self._derivation.codes or (SPATIAL_RESAMPLING,)  # at least one is required
        derivation.DerivationCodeSequence = Sequence([coded(code) for code in codes])
        sources = self._source.contributing(place, grid, self._derivation.reach_mm)
        derivation.SourceImageSequence = Sequence(self._references(sources))
        out.DerivationImageSequence = Sequence([derivation])
        return out

    def _references(self, sources: list[int]) -> list[Dataset]:
        out = []
        for whole, number in (self._frames[i] for i in sources):
            if name := name_of(whole):
                out.append(reference(name))
                out[-1].ReferencedFrameNumber = number
        return out

    def _evidence(self) -> Dataset:
        first, _ = self._frames[0]
        names = dict.fromkeys(name for whole, _ in self._frames if (name := name_of(whole)))
        items = [_item(ReferencedSOPClassUID=UID(c), ReferencedSOPInstanceUID=UID(u)) for c, u in names]
        series = _item(SeriesInstanceUID=first.get("SeriesInstanceUID", ""), ReferencedSOPSequence=Sequence(items))
        study = first.get("StudyInstanceUID", "")
        return _item(StudyInstanceUID=study, ReferencedSeriesSequence=Sequence([series]))

    def _carried(self, group: Dataset) -> Dataset:
        """Functional groups that still apply: acquisition, exposure, reconstruction, window."""
        out = Dataset()
        for element in group:
            if element.keyword not in RENEWED and (self._options.keep_private or not element.tag.is_private):
                out.add(DataElement(element.tag, element.VR, copy.deepcopy(element.value)))
        if not self._options.keep_private:
            out.remove_private_tags()
        return out


def _image_type(whole: Dataset) -> list[str]:
    """Derived, with the flavour of the source. Enhanced objects have no SECONDARY (PS3.3 C.8.16.1.2)."""
    old = [str(part) for part in (whole.get("ImageType") or [])]
    return ["DERIVED", "PRIMARY", old[2] if len(old) > 2 else "VOLUME", "RESAMPLED"]


def _fill(dataset: Dataset, **attributes: str) -> None:
    for name, value in attributes.items():
        if name not in dataset:
            setattr(dataset, name, value)


def _item(**attributes: object) -> Dataset:
    out = Dataset()
    for name, value in attributes.items():
        setattr(out, name, value)
    return out
