"""The lungs of a scan on cubes."""

from __future__ import annotations

import numpy as np

from uhrct.core.volume import Volume
from uhrct.evaluation.fast_lungs import lungs_of
from uhrct.tasks.boxes import box_of
from uhrct.tasks.even_grid import EvenGrid

#: millimetres around the lungs that stay
MARGIN_MM = 15.0


def lung_cubes(volume: Volume, *, quiet: bool = True) -> tuple[EvenGrid, np.ndarray] | None:
    """(the box around the lungs on cubes, mask of the lungs there); None without lungs."""
    lungs = lungs_of(volume.hu, volume.spacing_mm, volume.direction, quiet=quiet)
    if not lungs.any():
        return None
    part = box_of(lungs, tuple(round(MARGIN_MM / mm) for mm in volume.spacing_mm))
    grid = EvenGrid.of(volume.hu, volume.spacing_mm, part)
    return grid, grid.mask(lungs, part)
