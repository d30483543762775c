"""Meaning of the labels of a mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from uhrct.core.errors import UhrctError
from uhrct.core.volume import Grid
from uhrct.io.derivation import Code


@dataclass(frozen=True)
class Segment:
    """One label of a mask.

    Parameters
    ----------
    label : str
        Text for people.
    category, kind : (value, scheme, meaning)
        SNOMED codes of its meaning (DICOM CID 7150 and 7151).
    algorithm : str
        Name of the algorithm; "" if a person drew it.

    Example
    -------
    >>> Segment("vessels", kind=("59820001", "SCT", "Blood vessel")).category[2]
    'Anatomical Structure'
    """

    label: str
    category: Code = ("123037004", "SCT", "Anatomical Structure")
    kind: Code = ("85756007", "SCT", "Tissue")
    algorithm: str = "uhrct"


def checked_mask(mask: np.ndarray, grid: Grid, segments: Sequence[Segment]) -> np.ndarray:
    """`mask` as uint16 labels.

    Raises
    ------
    UhrctError
        If it does not fit the grid, or a label has no segment.
    """
    if mask.shape != grid.shape:
        raise UhrctError(f"mask of shape {mask.shape} does not fit a grid of shape {grid.shape}")
    if mask.dtype.kind not in "biu":
        raise UhrctError(f"a mask holds whole numbers, not {mask.dtype}")
    low, high = int(mask.min()), int(mask.max())
    if low < 0 or high > len(segments) or not segments:
        raise UhrctError(f"labels {low} to {high} do not fit {len(segments)} segment(s); 0 is background")
    return mask.astype(np.uint16)
