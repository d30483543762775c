"""Write findings as a DICOM structured report: measurement report, template TID 1500."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.config import disable_value_validation

from uhrct.core.errors import InputRefused, UhrctError
from uhrct.core.files import atomic
from uhrct.core.version import __version__
from uhrct.core.volume import Grid, Volume
from uhrct.io.derivation import Code, Derivation, DicomOptions
from uhrct.io.dicom.dates import set_dates
from uhrct.io.dicom.encode import encoded, preamble
from uhrct.io.dicom.objects import NO_DATE, NO_TIME, adopt, highdicom, identity, nameless_sources
from uhrct.io.dicom.source import Source, series_description
from uhrct.io.dicom.write import NAME, describe, dicom_source, made, uid_maker
from uhrct.io.findings import RoundFinding

SERIES = 4
"""Added to the SeriesNumber, so that outputs of one run have different numbers."""
COMPUTED_TOMOGRAPHY: Code = ("77477000", "SCT", "Computed tomography")
DIAMETER: Code = ("81827009", "SCT", "Diameter")
CERTAINTY: Code = ("111012", "DCM", "Certainty of Finding")
MM: Code = ("mm", "UCUM", "millimeter")
PERCENT: Code = ("%", "UCUM", "percent")


def write_findings(
    findings: Sequence[RoundFinding],
    path: Path,
    source: Volume,
    derivation: Derivation,
    options: DicomOptions | None = None,
    overwrite: bool = False,
) -> None:
    """Write a measurement report with one circle, diameter and certainty for each finding.

    Parameters
    ----------
    findings : at least one
    path : a `.dcm` file
    source : the scan, read from DICOM

    Raises
    ------
    InputRefused
        If the scan has no DICOM headers with UIDs: a report refers to images.
    UhrctError
        Without findings (a report has at least one measurement), or without highdicom.
    """
    if not findings:
        raise UhrctError(f"{path}: there are no findings, and a DICOM report needs at least one")
    options = options or DicomOptions()
    headers = dicom_source(source, options)
    if headers is None or not all(h.get("SOPInstanceUID") for h in headers.headers):
        raise InputRefused(f"{path}: a DICOM report refers to the images of a DICOM scan; read the scan from DICOM")
    uid = uid_maker(headers, source, derivation)
    hd = highdicom()

    images = nameless_sources(headers, source.grid, uid)
    shown = {str(image.SOPInstanceUID): image for image in images}
    groups, used = [], {}
    for number, finding in enumerate(findings, 1):
        group, image = _group(hd, number, finding, source, headers, shown, uid)
        groups.append(group)
        used[str(image.SOPInstanceUID)] = image
    observer = hd.sr.ObserverContext(
        observer_type=_code(hd, ("121007", "DCM", "Device")),
        observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
            uid=uid("device"), name=NAME, manufacturer_name=NAME, model_name=NAME, serial_number="0"
        ),
    )
    report = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=observer),
        procedure_reported=_code(hd, COMPUTED_TOMOGRAPHY),
        imaging_measurements=groups,
    )
    who = identity(derivation, headers, uid, "report", SERIES)
    names = ("series_instance_uid", "series_number", "sop_instance_uid", "instance_number", "manufacturer")
    out: Any = hd.sr.ComprehensiveSR(
        evidence=list(used.values()),
        content=report[0],
        is_complete=True,
        **{name: who[name] for name in names},
    )
    _finish(out, headers, uid, derivation, source.grid, options)
    with disable_value_validation(), atomic(path, overwrite=overwrite) as tmp, (tmp / path.name).open("wb") as stream:
        elements = encoded(out)
        stream.write(preamble(out.SOPClassUID, out.SOPInstanceUID, out.file_meta.TransferSyntaxUID))
        stream.write(b"".join(elements[tag] for tag in sorted(elements)))


def _finish(out: Dataset, headers: Source, uid: Any, derivation: Derivation, grid: Grid, options: DicomOptions) -> None:
    """Patient, study, description, dates and equipment."""
    adopt(out, headers, uid)
    out.pop("FrameOfReferenceUID", None)  # reports have no such attribute
    out.pop("PositionReferenceIndicator", None)
    out.pop("PatientPosition", None)
    out.SeriesDescription = series_description(headers, derivation, grid, "findings")
    moment = made(headers, options)
    set_dates(out, moment)
    if moment is None:
        out.ContentDate, out.ContentTime = NO_DATE, NO_TIME
    words = Dataset()
    describe(words, derivation, False, [])
    out.ContributingEquipmentSequence = words.ContributingEquipmentSequence


def _group(
    hd: Any,
    number: int,
    finding: RoundFinding,
    scan: Volume,
    headers: Source,
    shown: dict[str, Dataset],
    uid: Any,
) -> tuple[Any, Dataset]:
    """(one finding, the image that it lies in)."""
    grid, frames = scan.grid, scan.meta.get("dicom_frames")  # frames of a multi-frame file count from 1
    offset_mm = np.asarray(grid.direction).T @ (np.asarray(finding.centre_mm) - np.asarray(grid.origin_mm))
    _, y, x = (offset_mm / np.asarray(grid.spacing_mm)).tolist()
    slice_number = headers.nearest(np.asarray(finding.centre_mm, float))
    header = headers.headers[slice_number]
    image = shown[str(header.SOPInstanceUID)]
    middle = [x + 0.5, y + 0.5]  # of the picture, whose corner is (0, 0)
    rim = [middle[0] + finding.diameter_mm / 2 / grid.spacing_mm[2], middle[1]]
    region = hd.sr.ImageRegion(
        graphic_type=hd.sr.GraphicTypeValues.CIRCLE,
        graphic_data=np.array([middle, rim]),
        source_image=hd.sr.SourceImageForRegion(
            referenced_sop_class_uid=image.SOPClassUID,
            referenced_sop_instance_uid=image.SOPInstanceUID,
            referenced_frame_numbers=None if frames is None else [frames[slice_number][1]],
        ),
    )
    algorithm = hd.sr.AlgorithmIdentification(name=f"{NAME} detect", version=__version__)
    measurements = [hd.sr.Measurement(_code(hd, DIAMETER), round(finding.diameter_mm, 2), _code(hd, MM))]
    if finding.score is not None:
        percent = round(100 * finding.score, 1)
        measurements.append(hd.sr.Measurement(_code(hd, CERTAINTY), percent, _code(hd, PERCENT)))
    group = hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid("finding", str(number)), f"finding {number}"),
        referenced_region=region,
        finding_type=_code(hd, finding.kind),
        finding_sites=[hd.sr.FindingSite(_code(hd, finding.site))],
        algorithm_id=algorithm,
        measurements=measurements,
    )
    return group, image


def _code(hd: Any, code: Code) -> Any:
    value, scheme, meaning = code
    return hd.sr.CodedConcept(value=value, scheme_designator=scheme, meaning=meaning)
