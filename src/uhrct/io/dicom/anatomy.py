"""The functional group that states which region of the body the frames of a Parametric Map show."""

from __future__ import annotations

import copy
from typing import Any

from pydicom import Dataset, Sequence

from uhrct.io.dicom.regions import ANYWHERE, REGIONS
from uhrct.io.dicom.write import coded


def frame_anatomy(source: Dataset | None) -> Any:
    """FrameAnatomySequence for frames made from `source`: its own if it is Enhanced, else from its body part."""
    header = Dataset() if source is None else source
    for group in header.get("SharedFunctionalGroupsSequence") or []:
        if group.get("FrameAnatomySequence"):
            return copy.deepcopy(group.FrameAnatomySequence)
    out = Dataset()
    side = str(header.get("Laterality") or "U")
    out.FrameLaterality = side if side in ("L", "R") else "U"
    region = header.get("AnatomicRegionSequence")
    part = str(header.get("BodyPartExamined") or "").strip().upper()
    out.AnatomicRegionSequence = copy.deepcopy(region) if region else Sequence([coded(REGIONS.get(part, ANYWHERE))])
    return Sequence([out])
