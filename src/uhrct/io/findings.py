"""Round findings in a scan, such as nodules."""

from __future__ import annotations

from dataclasses import dataclass

from uhrct.core.volume import Vector
from uhrct.io.derivation import Code

NODULE: Code = ("27925004", "SCT", "Nodule")
LUNG: Code = ("39607008", "SCT", "Lung structure")


@dataclass(frozen=True)
class RoundFinding:
    """Something round in a scan.

    Parameters
    ----------
    centre_mm : (x, y, z) in LPS, as DICOM and `Volume.origin_mm` have it
    diameter_mm : float
    score : how certain it is, in [0, 1]; None: not known
    kind, site : (value, scheme, meaning)
        SNOMED codes of what it is, and where.
    """

    centre_mm: Vector
    diameter_mm: float
    score: float | None = None
    kind: Code = NODULE
    site: Code = LUNG
