"""Cubic interpolation of the low-resolution scan: what a viewer shows without super-resolution."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from uhrct.core.errors import UhrctError
from uhrct.core.volume import Grid, Volume
from uhrct.evaluation.compare import Comparison, compare
from uhrct.physics.regrid import Regrid

METHOD = "cubic interpolation of the low-resolution scan, in plane and along z"


@dataclass(frozen=True)
class Baseline:
    """The low-resolution scan, its interpolation on the grid of the reference, and the metrics of that."""

    lr: Volume
    volume: Volume
    result: Comparison

    def as_dict(self) -> dict[str, Any]:
        """For JSON: as `Comparison.as_dict`, without what the comparison of the test holds too."""
        result = self.result.as_dict()
        return {"method": METHOD} | {name: result[name] for name in ("means", "volume", "slices")}


def interpolation(reference: Volume, lr: Volume, result: Comparison, *, quiet: bool = True) -> Baseline:
    """Interpolate `lr` and compare it with the reference, as the test was compared.

    Parameters
    ----------
    reference : Volume
    lr : Volume
        The scan that the test was made from.
    result : Comparison
        That of the test, with `lr`.
    quiet : bool
        False shows progress.

    Raises
    ------
    UhrctError
        If `result` was made without a low-resolution scan.
    """
    if result.acquisition is None:
        raise UhrctError("the comparison has no low-resolution scan; give `lr` to `compare`")
    volume = interpolated(lr, reference.grid, result.acquisition.scale)
    own = compare(
        reference,
        volume,
        lr=lr,
        acquisition=result.acquisition,
        count_padding=result.count_padding,
        lungs=result.lungs,
        label="interpolation",
        quiet=quiet,
    )
    return Baseline(lr, volume, own)


def interpolated(lr: Volume, grid: Grid, scale: tuple[int, int, int]) -> Volume:
    """Cubic interpolation of `lr` on `grid`, which lies as `uhrct.evaluation.compare.acquisition_between` demands.

    Padding keeps its value and does not mix with its neighbours. Beyond the last voxels of `lr` their value is
    repeated.

    Example
    -------
    >>> lr = Volume(np.full((2, 4, 4), 40, np.int16), (5.0, 1.0, 1.0))
    >>> interpolated(lr, lr.refined_grid((5, 2, 2)), (5, 2, 2)).hu.shape
    (10, 8, 8)
    """
    # exactly a fraction of the LR's spacing: files round the spacing of the reference
    fine = replace(lr.grid.refined(scale), shape=grid.shape)
    regrid = Regrid(lr.grid, fine)
    return lr.on_grid(grid, np.concatenate([regrid.feed(lr.hu[k : k + 1]) for k in range(lr.shape[0])]))
