"""The functional group that states which region of the body the frames of a Parametric Map show."""

from __future__ import annotations

import copy
from typing import Any

from pydicom import Dataset, Sequence

from uhrct.io.derivation import Code
from uhrct.io.dicom.write import coded

#: BodyPartExamined of unpaired regions, as PS3.16 annex L codes them.
REGIONS: dict[str, Code] = {
    "ABDOMEN": ("818981001", "SCT", "Abdomen"),
    "ABDOMENPELVIS": ("818982008", "SCT", "Abdomen and Pelvis"),
    "BRAIN": ("12738006", "SCT", "Brain"),
    "CHEST": ("816094009", "SCT", "Chest"),
    "CHESTABDOMEN": ("416550000", "SCT", "Chest and Abdomen"),
    "CHESTABDPELVIS": ("416775004", "SCT", "Chest, Abdomen and Pelvis"),
    "CSPINE": ("122494005", "SCT", "Cervical spine"),
    "HEAD": ("69536005", "SCT", "Head"),
    "HEADNECK": ("774007", "SCT", "Head and Neck"),
    "HEART": ("80891009", "SCT", "Heart"),
    "LIVER": ("10200004", "SCT", "Liver"),
    "LSPINE": ("122496007", "SCT", "Lumbar spine"),
    "NECK": ("45048000", "SCT", "Neck"),
    "PELVIS": ("816092008", "SCT", "Pelvis"),
    "SPINE": ("421060004", "SCT", "Spine"),
    "THORAX": ("816094009", "SCT", "Chest"),
    "TSPINE": ("122495006", "SCT", "Thoracic spine"),
}
#: Used where the source does not state a region, or states one of a pair of organs.
ANYWHERE: Code = ("38266002", "SCT", "Entire body")


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
