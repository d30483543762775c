"""Common parts of parametric maps and segmentations. highdicom builds the object; patient and study are added here.

highdicom refuses irregular source images and prints names that it finds odd. So it gets images without a person. The
attributes to keep are copied afterwards, exactly as they were.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pydicom import DataElement, Dataset
from pydicom.tag import Tag
from pydicom.uid import UID

from uhrct.core.errors import UhrctError
from uhrct.core.version import __version__
from uhrct.core.volume import Grid
from uhrct.io.derivation import Derivation, DicomOptions
from uhrct.io.dicom.dates import set_dates
from uhrct.io.dicom.scan import CT_IMAGE
from uhrct.io.dicom.source import EMPTY, Source, minimal_header, name_of, series_description, series_header
from uhrct.io.dicom.write import NAME, ds, ds_mm, made, short_text

#: Patient, clinical trial, study and frame of reference: groups, and single elements of other groups.
PERSON_GROUPS = (0x0010, 0x0012)
STUDY = (
    *("SpecificCharacterSet", "TimezoneOffsetFromUTC", "StudyDate", "StudyTime", "AccessionNumber", "StudyDescription"),
    *("ReferringPhysicianName", "PhysiciansOfRecord", "ReferencedStudySequence", "ProcedureCodeSequence"),
    *("StudyInstanceUID", "StudyID", "FrameOfReferenceUID", "PositionReferenceIndicator"),
    *("BodyPartExamined", "PatientPosition", "Laterality", "LongitudinalTemporalInformationModified"),
)
#: Content date and time of multi-frame objects are required, also in anonymous files.
NO_DATE, NO_TIME = "19000101", "000000"


def highdicom() -> Any:
    """The library, or an error that says how to install it."""
    try:
        import highdicom
        import highdicom.pm
        import highdicom.seg
    except ImportError:
        raise UhrctError(
            "DICOM maps and segmentations need highdicom: pip install 'uhrct[dicom]', or choose .nii.gz"
        ) from None
    return highdicom


def nameless_sources(source: Source | None, grid: Grid, uid: Any) -> list[Dataset]:
    """Source images for highdicom, without a person; one artificial image if there is no source."""
    if source is None:
        return [_nameless(minimal_header(uid), grid, UID(uid("no source")), UID(uid("no source series")))]
    # some archives give each slice its own frame of reference; one object has one, that of the first slice
    frame = source.headers[0].get("FrameOfReferenceUID", "")
    series = source.headers[0].get("SeriesInstanceUID", "")
    names = [str(header.get("SOPInstanceUID") or uid("nameless", str(k))) for k, header in enumerate(source.headers)]
    first = {name: k for k, name in reversed(list(enumerate(names)))}  # once per file
    return [_nameless(source.headers[k], source.grid, uid, series, k, frame) for uid, k in first.items()]


def _nameless(header: Dataset, grid: Grid, instance: str, series: str, k: int = 0, frame: str | None = None) -> Dataset:
    out = Dataset()
    for empty in EMPTY:
        setattr(out, empty, "")
    # also for Enhanced sources: highdicom would need their functional groups; `dress` corrects the class
    out.SOPClassUID, out.SOPInstanceUID, out.SeriesInstanceUID = CT_IMAGE, instance, series
    out.StudyInstanceUID = header.get("StudyInstanceUID", "")
    out.FrameOfReferenceUID = header.get("FrameOfReferenceUID", "") if frame is None else frame
    out.Modality = "CT"
    out.Rows, out.Columns = grid.shape[1:]
    _, down, right = grid.direction.T
    place = np.asarray(grid.origin_mm) + grid.direction[:, 0] * grid.spacing_mm[0] * k
    out.ImageOrientationPatient = [ds(v) for v in (*right, *down)]
    out.ImagePositionPatient = [ds(v) for v in place]
    out.PixelSpacing = [ds(v) for v in grid.spacing_mm[1:]]
    out.SliceThickness = ds_mm(grid.slice_thickness_mm or grid.spacing_mm[0])
    return out


def identity(derivation: Derivation, source: Source | None, uid: Any, name: str, offset: int) -> dict[str, Any]:
    """Arguments for highdicom: who made the object, and its name."""
    number = 1 if source is None else int(series_header(source.headers[0], derivation).SeriesNumber)
    return {
        "series_instance_uid": uid(name, "series"),
        "series_number": max(number, 1) + offset,
        "sop_instance_uid": uid(name, "instance"),
        "instance_number": 1,
        "manufacturer": NAME,
        "manufacturer_model_name": NAME,
        "software_versions": __version__,
        "device_serial_number": "0",
    }


def planes(grid: Grid) -> dict[str, Any]:
    """Arguments for highdicom: positions of the frames of `grid`."""
    hd = highdicom()
    normal, down, right = grid.direction.T
    z, y, x = grid.spacing_mm
    places = [np.asarray(grid.origin_mm) + normal * z * k for k in range(grid.shape[0])]
    return {
        "pixel_measures": hd.PixelMeasuresSequence([ds(y), ds(x)], ds_mm(grid.slice_thickness_mm or z), ds_mm(z)),
        "plane_orientation": hd.PlaneOrientationSequence("PATIENT", [float(ds(v)) for v in (*right, *down)]),
        "plane_positions": [hd.PlanePositionSequence("PATIENT", [float(ds(v)) for v in p]) for p in places],
    }


def dress(
    out: Dataset, derivation: Derivation, source: Source | None, uid: Any, what: str, grid: Grid, options: DicomOptions
) -> None:
    """Add patient, study, descriptions and dates to a new object; replace UIDs that differ from run to run."""
    names = adopt(out, source, uid)
    if source is None or None in names:  # remove references to artificial images
        for name in ("ReferencedSeriesSequence", "SourceImageSequence"):
            if name in out:
                del out[name]
        for frame in out.PerFrameFunctionalGroupsSequence:
            if "DerivationImageSequence" in frame:
                del frame.DerivationImageSequence
    for frame in out.PerFrameFunctionalGroupsSequence:
        for item in frame.get("DerivationImageSequence", []):
            item.DerivationDescription = short_text(derivation.description)
    out.SeriesDescription = series_description(source, derivation, grid, what)
    moment = made(source, options)
    set_dates(out, moment)
    if moment is None:
        out.ContentDate, out.ContentTime = NO_DATE, NO_TIME
    dimensions = uid(what, "dimensions")
    for item in (*out.DimensionOrganizationSequence, *out.DimensionIndexSequence):
        item.DimensionOrganizationUID = dimensions
    out.ContentDescription = f"{what} by {NAME}"[:64]


def adopt(out: Dataset, source: Source | None, uid: Any) -> list[tuple[str, str] | None]:
    """Give a new object the patient and study of its source, and the true classes of the images that it refers to.

    Returns
    -------
    (class UID, instance UID) of each source image; None for an image without a UID.
    """
    header = minimal_header(uid) if source is None else source.headers[0]
    for tag in [*header.keys()]:
        if tag.group in PERSON_GROUPS or tag in _STUDY_TAGS:
            out[tag] = header[tag]
    names = [] if source is None else [name_of(header) for header in source.headers]
    classes = {name[1]: UID(name[0]) for name in names if name}

    def true_class(item: Dataset, element: DataElement) -> None:
        uid = str(item.get("ReferencedSOPInstanceUID", ""))
        if element.keyword == "ReferencedSOPClassUID" and uid in classes:
            element.value = classes[uid]

    out.walk(true_class)
    return names


_STUDY_TAGS = {Tag(name) for name in STUDY}
