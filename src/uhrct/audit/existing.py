"""Audit a result that exists: check that it belongs to the scan, and go through it slice by slice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from uhrct.audit.audit import DRAWS, Audit
from uhrct.core.errors import InputRefused
from uhrct.core.progress import Progress
from uhrct.core.volume import Grid, Volume
from uhrct.upscaling.plan import UpscaleSettings, make_plan

#: Corners of two grids that differ by less than this share of a voxel are the same.
TOLERANCE = 0.1


@dataclass(frozen=True)
class Audited:
    """A finished audit and its report."""

    audit: Audit
    report: dict[str, Any]


def audit_result(
    low: Volume,
    high: Volume,
    *,
    quiet: bool = True,
    draws: int = DRAWS,
    take_grades: Callable[[np.ndarray], None] = lambda _: None,
    **settings: Any,
) -> Audited:
    """Audit a super-resolved scan, made by this package or another program.

    Parameters
    ----------
    low : Volume
        The scan.
    high : Volume
        Its super-resolved version on a grid that divides each voxel of the scan into equal parts.
    draws : int
        Repeated results of each square with structures that the scan does not show. 0: none.
    take_grades : function, optional
        Gets the grades on the grid of `high`, as `Audit` says.
    **settings
        Fields of `uhrct.upscaling.plan.UpscaleSettings`: `weights`, `noise_hu`, `psf_fwhm_mm`, `device`, ...

    Raises
    ------
    InputRefused
        If the grids do not match, a volume is constant, or the result is that of another scan.

    Example
    -------
    ``report = audit_result(uhrct.read("scan.nii.gz"), uhrct.read("fine.nii.gz")).report``
    """
    scale = scale_between(low.grid, high.grid)
    for name, volume in (("LOW", low), ("HIGH", high)):
        if volume.hu.min() == volume.hu.max():
            raise InputRefused(f"all voxels of {name} are {volume.hu.flat[0]:g} HU; there is nothing to audit")
    plan = make_plan(low, UpscaleSettings(scale=scale, **settings))
    audit = Audit(low, plan, draws=draws, quiet=quiet, take_grades=take_grades)
    slices = range(0, high.shape[0], scale[0])
    with Progress("audit", low.shape[0], unit="slices", quiet=quiet) as progress:
        for first in slices:
            audit.feed(first, high.hu[first : first + scale[0]])
            progress.advance()
    audit.agreement.check()
    return Audited(audit, audit.report())


def scale_between(low: Grid, high: Grid) -> tuple[int, int, int]:
    """Fine voxels per voxel of the scan along (z, y, x).

    Raises
    ------
    InputRefused
        If the fine grid does not divide each voxel of the coarse grid into equal parts.

    Example
    -------
    >>> low = Grid((4, 10, 10), (2.0, 0.8, 0.8))
    >>> scale_between(low, low.refined((1, 2, 2)))
    (1, 2, 2)
    """
    scale = tuple(h // n if h % n == 0 else 0 for h, n in zip(high.shape, low.shape, strict=True))
    if 0 in scale:
        raise InputRefused(
            f"HIGH has {_text(high.shape)} voxels and LOW {_text(low.shape)}; each side of HIGH must be a multiple. "
            "Give a result without cropping, made with a scale"
        )
    if scale == (1, 1, 1):
        raise InputRefused("HIGH has the same number of voxels as LOW; give LOW and then its super-resolved version")
    expected = low.refined((scale[0], scale[1], scale[2]))
    apart = np.abs(np.subtract(high.corner_mm, expected.corner_mm)).max()
    turned = not np.allclose(high.direction, low.direction, atol=1e-2)
    if (
        turned
        or apart > TOLERANCE * min(expected.spacing_mm)
        or not np.allclose(high.spacing_mm, expected.spacing_mm, rtol=1e-2)
    ):
        raise InputRefused("HIGH and LOW do not cover the same place in the patient; give the result of this scan")
    return scale[0], scale[1], scale[2]


def _text(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
