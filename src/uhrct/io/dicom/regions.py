"""Codes of the regions of the body that uhrct writes."""

from __future__ import annotations

from uhrct.io.derivation import Code

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
