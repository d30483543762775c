"""The lungs of a scan on cubes."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from uhrct.core.volume import Volume
from uhrct.evaluation.fast_lungs import fast_lung_mask
from uhrct.tasks.even_grid import EvenGrid

#: millimetres around the lungs that stay
MARGIN_MM = 15.0


def lung_cubes(volume: Volume, *, quiet: bool = True) -> tuple[EvenGrid, np.ndarray] | None:
    """(the box around the lungs on cubes, mask of the lungs there); None without lungs."""
    lungs = fast_lung_mask(volume.hu, volume.spacing_mm, quiet=quiet)
    if not lungs.any():
        return None
    box = ndimage.find_objects(lungs.astype(np.int8))[0]
    part = tuple(
        slice(max(0, s.start - round(MARGIN_MM / mm)), min(n, s.stop + round(MARGIN_MM / mm)))
        for s, n, mm in zip(box, volume.shape, volume.spacing_mm, strict=True)
    )
    grid = EvenGrid.of(volume.hu, volume.spacing_mm, part)
    return grid, grid.mask(lungs, part)
