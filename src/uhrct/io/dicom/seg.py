"""Write masks as DICOM SEG: one binary multi-frame object, without the empty frames."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.config import disable_value_validation

from uhrct.core.errors import UhrctError
from uhrct.core.files import atomic
from uhrct.core.version import __version__
from uhrct.core.volume import Grid, Volume
from uhrct.io.derivation import Derivation, DicomOptions
from uhrct.io.dicom.encode import encoded, preamble
from uhrct.io.dicom.objects import dress, highdicom, identity, nameless_sources, planes
from uhrct.io.dicom.write import describe, dicom_source, uid_maker
from uhrct.io.segments import Segment

SERIES = 3
"""Added to the SeriesNumber, so that outputs of one run have different numbers."""


def write_seg(
    labels: np.ndarray,
    grid: Grid,
    path: Path,
    segments: Sequence[Segment],
    source: Volume | None,
    derivation: Derivation | None,
    options: DicomOptions,
    overwrite: bool,
) -> None:
    """See `uhrct.io.write_segmentation`; `labels` are uint16 of shape (z, y, x)."""
    if not labels.any():
        raise UhrctError(f"{path}: the mask is empty, and a DICOM segmentation needs at least one frame")
    derivation = derivation or Derivation("Made by uhrct", uuid.uuid4().hex, codes=())
    headers = dicom_source(source, options)
    uid = uid_maker(headers, source, derivation)
    with disable_value_validation(), atomic(path, overwrite=overwrite) as tmp:
        file = tmp / path.name
        if path.suffix.lower() != ".dcm":
            file.mkdir()
            file = file / "00001.dcm"
        hd = highdicom()
        out: Any = hd.seg.Segmentation(
            source_images=nameless_sources(headers, grid, uid),
            pixel_array=labels,
            segmentation_type="BINARY",
            segment_descriptions=[_description(hd, k, segment) for k, segment in enumerate(segments, 1)],
            content_label="SEGMENTATION",
            **identity(derivation, headers, uid, "segmentation", SERIES),
            **planes(grid),
        )
        dress(out, derivation, headers, uid, "segmentation", grid, options)
        if not out.get("Laterality"):
            out.pop("Laterality", None)  # unlike in CT, an empty value is not allowed here
        words = Dataset()
        describe(words, derivation, False, [])
        out.ContributingEquipmentSequence = words.ContributingEquipmentSequence
        elements = encoded(out)
        with file.open("wb") as stream:
            stream.write(preamble(out.SOPClassUID, out.SOPInstanceUID, out.file_meta.TransferSyntaxUID))
            stream.write(b"".join(elements[tag] for tag in sorted(elements)))


def _description(hd: Any, number: int, segment: Segment) -> Any:
    algorithm = None
    if segment.algorithm:
        family = hd.sr.CodedConcept("123109", "DCM", "Artificial Intelligence")
        algorithm = hd.AlgorithmIdentificationSequence(segment.algorithm, family, __version__)
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=segment.label[:64],
        segmented_property_category=hd.sr.CodedConcept(*segment.category),
        segmented_property_type=hd.sr.CodedConcept(*segment.kind),
        algorithm_type="AUTOMATIC" if segment.algorithm else "MANUAL",
        algorithm_identification=algorithm,
    )
