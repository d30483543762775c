"""Size of a mask: volume, length of centre line, number of branches."""

from __future__ import annotations

import numpy as np
from scipy import ndimage  # evaluation extra

from uhrct.evaluation.trees import SHORTEST_BRANCH_MM
from uhrct.structure.lengths import branch_labels, line_lengths
from uhrct.structure.vessels import skeleton
from uhrct.tasks.boxes import box_of


def volume_ml(mask: np.ndarray, spacing_mm: tuple[float, ...]) -> float:
    """Volume of a mask in ml.

    Example
    -------
    >>> volume_ml(np.ones((10, 10, 10), bool), (1.0, 1.0, 1.0))
    1.0
    """
    return float(np.count_nonzero(mask) * np.prod(spacing_mm) / 1000)


def tree_size(mask: np.ndarray, spacing_mm: tuple[float, ...]) -> tuple[float, int]:
    """(length of the centre line in mm, number of branches).

    A branch is a piece of centre line between branch points or ends, of at least 3 mm.

    Example
    -------
    >>> mask = np.zeros((9, 40, 40), bool)
    >>> mask[3:6, 5:35, 19:22] = True
    >>> length_mm, branches = tree_size(mask, (1.0, 1.0, 1.0))
    >>> 25 < length_mm < 31, branches
    (True, 1)
    """
    if not mask.any():
        return 0.0, 0
    # with a margin: thinning treats the border of the array as background
    lines = skeleton(np.pad(mask[box_of(mask)], 1))
    along_mm = line_lengths(lines, spacing_mm)
    pieces = branch_labels(lines)
    n = int(pieces.max())
    lengths = ndimage.sum_labels(along_mm, pieces, np.arange(1, n + 1)) if n else np.zeros(0)
    return float(along_mm.sum()), int(np.count_nonzero(np.asarray(lengths) >= SHORTEST_BRANCH_MM))
