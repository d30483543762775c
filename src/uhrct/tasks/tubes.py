"""The structure operator on a whole volume: in slabs with overlap, in 3D or slice by slice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from uhrct.core.progress import Progress
from uhrct.structure.eigenvalues import eigenvalues_2x2, eigenvalues_3x3
from uhrct.structure.gaussian import hessian_2d, hessian_3d, kernel_radius
from uhrct.structure.operator import StructureOperator
from uhrct.structure.vesselness import v_c

#: Slices farther apart than this show too little of a vessel between them: the operator works in each slice.
THICK_MM = 3.0
#: Slices per slab, without overlap.
SLAB = 24
#: Values of the map are stored as whole numbers up to this one, for 1.0.
FULL = 255


def dimensions(shape: tuple[int, ...], spacing_mm: tuple[float, ...]) -> int:
    """2 for few or thick slices, else 3.

    Example
    -------
    >>> dimensions((300, 512, 512), (1.0, 0.7, 0.7)), dimensions((40, 512, 512), (5.0, 0.7, 0.7))
    (3, 2)
    """
    return 2 if shape[0] < 5 or spacing_mm[0] > THICK_MM else 3


def tube_map(
    hu: np.ndarray,
    spacing_mm: tuple[float, float, float],
    operator: StructureOperator,
    *,
    slab: int = SLAB,
    what: str = "structure",
    quiet: bool = True,
) -> np.ndarray:
    """V_C map of a volume as uint8: 255 is 1.0.

    Parameters
    ----------
    hu : array (z, y, x), HU
    spacing_mm : (z, y, x)
    operator : StructureOperator
        Scales, contrast and polarity. Its `ndim` is replaced by `dimensions`.
    slab : int
        Slices that are computed together. The result does not depend on it, up to rounding.
    what, quiet : of the progress bar

    Example
    -------
    >>> hu = np.full((12, 16, 16), -850, np.int16); hu[:, 7:9, 7:9] = 0
    >>> found = tube_map(hu, (1.0, 1.0, 1.0), StructureOperator(sigma_mm=(1.2,)))
    >>> bool(found[6, 7, 7] > 100), bool(found[6, 2, 2] < 20)
    (True, True)
    """
    operator = replace(operator, ndim=dimensions(hu.shape, spacing_mm))
    overlap = kernel_radius(max(operator.sigma_mm) / spacing_mm[0]) if operator.ndim == 3 else 0
    result = np.zeros(hu.shape, np.uint8)
    with torch.inference_mode(), Progress(what, hu.shape[0], unit="slices", quiet=quiet) as progress:
        for first in range(0, hu.shape[0], slab):
            last = min(first + slab, hu.shape[0])
            low, high = max(first - overlap, 0), min(last + overlap, hu.shape[0])
            part = _map(torch.from_numpy(hu[low:high].astype(np.float32)), spacing_mm, operator)
            result[first:last] = part[first - low : last - low].mul_(FULL).round_().to(torch.uint8).numpy()
            progress.advance(last - first)
    return result


def _map(hu: torch.Tensor, spacing_mm: tuple[float, float, float], operator: StructureOperator) -> torch.Tensor:
    """As the operator, without its offset by the mean, which would depend on the slab."""
    image = -hu if operator.polarity == "bright" else hu
    strongest = torch.zeros_like(image)
    for sigma_mm in operator.sigma_mm:
        z, y, x = (sigma_mm / s for s in spacing_mm)
        lambdas = (
            eigenvalues_2x2(*hessian_2d(image, [y], [x]))
            if operator.ndim == 2
            else eigenvalues_3x3(*hessian_3d(image, z, y, x))
        )
        found = v_c(lambdas, c=operator.contrast_hu, k1=operator.k1, k2=operator.k2)
        strongest = torch.maximum(strongest, found)
    return strongest
