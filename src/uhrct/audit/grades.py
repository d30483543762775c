"""Grade each structure by its evidence: supported, sharpened, inferred or doubtful."""

from __future__ import annotations

import numpy as np

from uhrct.audit.evidence import VISIBLE_FROM, Evidence

#: from the best to the worst; a grade is stored as its place in this list
GRADES = ("supported", "sharpened", "inferred", "doubtful")
SUPPORTED, SHARPENED, INFERRED, DOUBTFUL = range(4)
#: what each grade means, for reports
MEANINGS = {
    "supported": "visible in the scan",
    "sharpened": "too fine to be seen in the interpolated scan, but its trace in the scan is above the noise",
    "inferred": "the scan cannot show it, but most repeated results with other noise hold it",
    "doubtful": "the scan does not show it, and repeated results do not confirm it",
}
#: A structure is in the scan if it fits with at least this share of its amplitude and this signal-to-noise ratio, and
#: leaves a ridge of this many standard deviations. docs/faithfulness.md says how they were chosen and checked.
LEAST_SHARE, LEAST_STRENGTH, LEAST_RIDGE = 0.5, 4.0, 4.0


def grade(evidence: Evidence, present: np.ndarray | None = None) -> np.ndarray:
    """The grade of each segment, (n,) of int8, as places in `GRADES`.

    Parameters
    ----------
    evidence : Evidence
    present : array (n,), optional
        Share of the repeated results that hold the segment; NaN where it was not examined, which counts as doubtful.
    """
    agrees = evidence.share >= LEAST_SHARE
    ridge = agrees & (evidence.ridge >= LEAST_RIDGE)
    grades = np.full(evidence.segments.count, DOUBTFUL, np.int8)
    if present is not None:
        # a structure that contradicts the scan stays doubtful, however often the networks repeat it
        grades[(present > 0.5) & agrees] = INFERRED
    grades[ridge & (evidence.strength >= LEAST_STRENGTH)] = SHARPENED
    # where one sees the structure, its fit may be weak for another reason: at the pleura it hardly stands out
    grades[ridge & (evidence.visible >= VISIBLE_FROM)] = SUPPORTED
    return grades
