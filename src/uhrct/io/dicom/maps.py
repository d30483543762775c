"""Structure map, bounds and spread as DICOM Parametric Maps: one multi-frame file of float32, streamed."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset, Sequence
from pydicom.config import disable_value_validation
from pydicom.uid import ExplicitVRLittleEndian

from uhrct.core.errors import UhrctError
from uhrct.core.volume import Grid, Volume
from uhrct.io.derivation import Derivation, DicomOptions
from uhrct.io.dicom.anatomy import frame_anatomy
from uhrct.io.dicom.encode import encoded, preamble
from uhrct.io.dicom.objects import dress, highdicom, identity, nameless_sources, planes
from uhrct.io.dicom.write import describe, dicom_source, uid_maker
from uhrct.io.writer import SlabWriter

PARAMETRIC_MAP = "1.2.840.10008.5.1.4.1.1.30"


@dataclass(frozen=True)
class Quantity:
    """Meaning of the values of a map."""

    name: str
    label: str
    unit: tuple[str, str, str]
    definition: tuple[str, str, str]
    range: tuple[float, float]
    window: tuple[float, float]
    """Centre and width for display."""
    contrast: str
    series: int
    """Added to the SeriesNumber, so that outputs of one run have different numbers."""


QUANTITIES = {
    "structure": Quantity(
        name="structure map",
        label="STRUCTURE",
        unit=("1", "UCUM", "no units"),
        definition=("STRUCTURE", "99UHRCT", "Structure enhancement"),
        range=(0.0, 1.0),
        window=(0.5, 1.0),
        contrast="QUANTITY",
        series=1,
    ),
    "spread": Quantity(
        name="spread of samples",
        label="SD",
        unit=("[hnsf'U]", "UCUM", "Hounsfield unit"),
        definition=("386136009", "SCT", "Standard deviation"),
        range=(0.0, 65535.0),
        window=(50.0, 100.0),
        contrast="STD_DEVIATION",
        series=2,
    ),
    "lower": Quantity(
        name="lower bound 90 %",
        label="LOWER",
        unit=("[hnsf'U]", "UCUM", "Hounsfield unit"),
        definition=("LOWER", "99UHRCT", "Lower bound of an interval"),
        range=(-32768.0, 65535.0),
        window=(-100.0, 1400.0),
        contrast="QUANTITY",
        series=3,
    ),
    "upper": Quantity(
        name="upper bound 90 %",
        label="UPPER",
        unit=("[hnsf'U]", "UCUM", "Hounsfield unit"),
        definition=("UPPER", "99UHRCT", "Upper bound of an interval"),
        range=(-32768.0, 65535.0),
        window=(-100.0, 1400.0),
        contrast="QUANTITY",
        series=4,
    ),
}


class DicomMapWriter(SlabWriter):
    """A Parametric Map in a `.dcm` file, or as the only file of a folder. Values are stored exactly as float32.

    The header does not depend on voxels. It is written first, and the slabs follow.
    """

    def __init__(
        self,
        path: Path,
        grid: Grid,
        quantity: str,
        source: Volume | None,
        derivation: Derivation | None,
        options: DicomOptions,
        overwrite: bool,
    ) -> None:
        super().__init__(path, grid, np.dtype(np.float32), overwrite)
        if 4 * np.prod(grid.shape, dtype=np.int64) > 0xFFFFFFFE:
            raise UhrctError(f"{path}: a DICOM map holds at most 4 GiB; choose .nii.gz or .nrrd")
        highdicom()
        self._quantity = QUANTITIES[quantity]
        self._options = options
        self._derivation = derivation or Derivation("Made by uhrct", uuid.uuid4().hex, codes=())
        self._source = dicom_source(source, options)
        self._uid = uid_maker(self._source, source, self._derivation)

    @property
    def series_uid(self) -> str:
        return self._uid(self._quantity.name, "series")

    @property
    def instance_uids(self) -> tuple[str, ...]:
        return (self._uid(self._quantity.name, "instance"),)

    def _start(self) -> None:
        file = self.tmp / self.path.name
        if self.path.suffix.lower() != ".dcm":
            file.mkdir()
            file = file / "00001.dcm"
        with disable_value_validation():
            header = self._header()
            elements = encoded(header)
        bits = 4 * int(np.prod(self.grid.shape))
        self._stream = self._stack.enter_context(file.open("wb"))
        self._stream.write(preamble(PARAMETRIC_MAP, header.SOPInstanceUID, ExplicitVRLittleEndian))
        self._stream.write(b"".join(elements[tag] for tag in sorted(elements)))
        self._stream.write(b"\xe0\x7f\x08\x00OF\0\0" + bits.to_bytes(4, "little"))

    def _append(self, slab: np.ndarray) -> None:
        self._stream.write(slab.data)

    def _header(self) -> Dataset:
        """The object without its pixels. highdicom builds it from frames of 1 x 1 voxel."""
        hd, quantity = highdicom(), self._quantity
        mapping = hd.pm.RealWorldValueMapping(
            lut_label=quantity.label,
            lut_explanation=quantity.name,
            unit=_concept(hd, quantity.unit),
            value_range=quantity.range,
            slope=1.0,
            intercept=0.0,
            quantity_definition=_concept(hd, quantity.definition),
        )
        nz, ny, nx = self.grid.shape
        out: Any = hd.pm.ParametricMap(
            source_images=nameless_sources(self._source, self.grid, self._uid),
            pixel_array=np.zeros((nz, 1, 1), np.float32),
            contains_recognizable_visual_features=False,
            real_world_value_mappings=[mapping],
            voi_lut_transformations=[
                hd.VOILUTTransformation(window_center=quantity.window[0], window_width=quantity.window[1])
            ],
            content_label=quantity.label,
            derived_pixel_contrast=quantity.contrast,
            **identity(self._derivation, self._source, self._uid, quantity.name, quantity.series),
            **planes(self.grid),
        )
        del out.FloatPixelData
        if nz > 1:  # highdicom orders the frames differently; voxels follow the grid
            frames = sorted(out.PerFrameFunctionalGroupsSequence, key=self._depth)
            out.PerFrameFunctionalGroupsSequence = Sequence(frames)
        out.Rows, out.Columns = ny, nx
        [shared] = out.SharedFunctionalGroupsSequence
        shared.FrameAnatomySequence = frame_anatomy(None if self._source is None else self._source.headers[0])
        [identical] = shared.PixelValueTransformationSequence
        identical.RescaleIntercept, identical.RescaleSlope = "0", "1"  # "0.0" of highdicom is not an allowed value
        dress(out, self._derivation, self._source, self._uid, quantity.name, self.grid, self._options)
        out.pop("Laterality", None)  # the frames state it, and both together are not allowed
        words = Dataset()
        describe(words, self._derivation, False, [])
        out.ContributingEquipmentSequence = words.ContributingEquipmentSequence
        return out

    def _depth(self, frame: Dataset) -> float:
        place = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
        return float(place @ self.grid.direction[:, 0])


def _concept(hd: Any, code: tuple[str, str, str]) -> Any:
    return hd.sr.CodedConcept(*code)
