"""Separate several volumes with one SeriesInstanceUID: temporal phases, or two reconstructions of one scan."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

import numpy as np

from uhrct.io.dicom.frames import Slice
from uhrct.io.dicom.header import text

#: Attributes that distinguish phases or reconstructions, the most reliable first, and their names in a listing.
KEYS = {
    "TemporalPositionIndex": "temporal position",
    "TemporalPositionIdentifier": "temporal position",
    "NominalPercentageOfCardiacPhase": "cardiac phase %",
    "TriggerTime": "trigger time",
    "StackID": "stack",
    "AcquisitionNumber": "acquisition",
    "AcquisitionDateTime": "acquired at",
    "AcquisitionTime": "acquired at",
    "ConvolutionKernel": "kernel",
    "ImageType": "image type",
}
#: Attributes that order the images at one position in time, if no value is common to all images of a phase.
TIMES = ("AcquisitionDateTime", "AcquisitionTime", "TriggerTime", "ContentTime")
Phases = list[tuple[str, list[Slice]]]


def phases(slices: list[Slice]) -> Phases:
    """(label, slices) of each volume; a single volume with an empty label if there is only one.

    Slices are separated only if they do not form one regular stack and each part does. So no value of an attribute can
    remove a part of a scan.
    """
    along = _along(slices)
    if along is None or _regular(along):
        return [("", slices)]
    crowd = max(Counter(along).values())
    for key, name in KEYS.items():
        parts: dict[str, list[int]] = defaultdict(list)
        for index, one in enumerate(slices):
            parts[text(one.header, key)].append(index)
        # as many parts as there are images at one position; otherwise parts that are apart or interleaved
        fits = len(parts) == crowd if crowd > 1 else 1 < len(parts) <= len(slices) // 2
        if fits and all(_regular([along[i] for i in part]) for part in parts.values()):
            return [
                (f"{name} {value or 'unknown'}", [slices[i] for i in part])
                for value, part in sorted(parts.items(), key=lambda item: _in_order(item[0]))
            ]
    if crowd > 1 and len(slices) == crowd * len(set(along)):
        return list(_by_time(slices, along, crowd)) or [("", slices)]
    return [("", slices)]


def _by_time(slices: list[Slice], along: list[float], crowd: int) -> Iterator[tuple[str, list[Slice]]]:
    """The first image at every position, then the second, and so on: for scans that repeat all positions."""
    places: dict[float, list[Slice]] = defaultdict(list)
    for one, place in zip(slices, along, strict=True):
        places[place].append(one)
    for key in TIMES:
        times = {place: [text(one.header, key) for one in here] for place, here in places.items()}
        if all(len(set(here)) == crowd and "" not in here for here in times.values()):
            for here in places.values():
                here.sort(key=lambda one: _in_order(text(one.header, key)))
            for phase in range(crowd):
                yield f"phase {phase + 1} of {crowd} by time", [here[phase] for here in places.values()]
            return


def _along(slices: list[Slice]) -> list[float] | None:
    """Positions along the normal of the first slice, to 0.01 mm; None if the slices are not parallel."""
    try:
        cosines = np.array([[float(v) for v in one.header["ImageOrientationPatient"].value] for one in slices])
        places = np.array([[float(v) for v in one.header["ImagePositionPatient"].value] for one in slices])
        if cosines.shape[1] != 6 or places.shape[1] != 3 or not np.isfinite([*cosines.flat, *places.flat]).all():
            return None
    except (KeyError, TypeError, ValueError):
        return None
    if np.abs(cosines - cosines[0]).max() > 1e-2:
        return None
    along = places @ np.cross(cosines[0, :3], cosines[0, 3:])
    return [float(v) for v in np.round(along - along.min(), 2)]


def _regular(along: list[float]) -> bool:
    """Whether positions are distinct and evenly spaced."""
    if len(along) < 2:
        return True
    place = np.sort(along)
    step = (place[-1] - place[0]) / (len(place) - 1)
    even = place[0] + step * np.arange(len(place))
    return bool(step > 0.011 and np.abs(place - even).max() <= max(0.1 * step, 0.011))


def _in_order(value: str) -> tuple[float, str]:
    try:
        return float(value), value
    except ValueError:
        return float("inf"), value
