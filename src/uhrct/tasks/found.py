"""What a segmenter without training returns."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Found:
    """A mask (z, y, x), and how it was found."""

    mask: np.ndarray
    thresholds: dict[str, float]
    warnings: list[str] = field(default_factory=list)
