"""Real scans have no truth: an upscaled slice is measured beside the bicubic interpolation of the same slice.

Noise in even tissue, sharpness of the steepest edges, overshoot beside them, and, where one scan was reconstructed
twice, agreement of the upscaled soft reconstruction with the sharp one.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor

from uhrct.core.errors import UhrctError
from uhrct.core.hu import FLOOR_HU, PADDING_HU
from uhrct.core.undefined import Undefined
from uhrct.evaluation.structure_error import SMSE_OPERATORS

# All constants are fixed for good: they are part of the definitions.
#: Even tissue: patches of 14 x 14 input pixels, half a patch apart, whose values all lie in this range on the bicubic.
PATCH_PX, TISSUE_HU = 14, (-150.0, 300.0)
#: Of them the quietest tenth on the bicubic counts.
QUIETEST = 0.1
#: Edges: the pixels where bicubic's gradient is steepest, values clipped.
STEEPEST, EDGE_HU = 0.005, (-1000.0, 600.0)
#: Overshoot: within 3 mm of the steepest edges, dense bone and metal among them; mean of the largest 0.1 %.
OVERSHOOT_MM, OVERSHOOT_HU, LARGEST = 3.0, (FLOOR_HU, 3071.0), 0.001
#: Only where the mean over this square is above this: thin lines in air (the table) are restored higher than any pixel
#: of the input, which is no overshoot.
BODY_MM, BODY_HU = 15.0, -600.0
#: Below this the bicubic's overshoot is rounding.
SMALLEST_OVERSHOOT_HU = 1.0


def noise_hu(test: np.ndarray, bicubic: np.ndarray, scale: int) -> tuple[float, float]:
    """Standard deviation in even soft tissue (test, bicubic), HU; their ratio is the noise ratio.

    Parameters
    ----------
    test, bicubic : (y, x), HU, of one slice on the same fine grid
    scale : fine pixels per input pixel, the same along both axes

    Raises
    ------
    Undefined
        If no patch lies in soft tissue alone.

    Example
    -------
    >>> noise = np.random.default_rng(0).normal(40, 10, (128, 128))
    >>> ours, theirs = noise_hu(40 + 0.5 * (noise - 40), noise, 2)
    >>> bool(abs(ours / theirs - 0.5) < 1e-6)
    True
    """
    _same_grid(test, bicubic)
    side, step = PATCH_PX * scale, PATCH_PX * scale // 2
    if min(test.shape) < side:
        raise Undefined(f"the slice is smaller than a patch of {side} x {side} pixels")
    tissue = (bicubic >= TISSUE_HU[0]) & (bicubic <= TISSUE_HU[1])
    inside = sliding_window_view(tissue, (side, side))[::step, ::step].all((-2, -1))
    if not inside.any():
        raise Undefined("no patch of soft tissue alone")
    deviations = [_deviation(sliding_window_view(i, (side, side))[::step, ::step][inside]) for i in (test, bicubic)]
    quiet = np.argsort(deviations[1])[: max(1, round(QUIETEST * len(deviations[1])))]
    return float(np.median(deviations[0][quiet])), float(np.median(deviations[1][quiet]))


def _deviation(patches: np.ndarray) -> np.ndarray:
    """Standard deviation of each patch (m, n, n) after a quadratic surface is taken off."""
    n = patches.shape[-1]
    y, x = np.mgrid[-1 : 1 : n * 1j, -1 : 1 : n * 1j]
    trend = np.linalg.qr(np.stack([np.ones_like(x), x, y, x * y, x * x, y * y], -1).reshape(-1, 6))[0]
    flat = patches.reshape(-1, n * n).astype(np.float64)
    return (flat - (flat @ trend) @ trend.T).std(1)


def edge_gradient(test: np.ndarray, bicubic: np.ndarray) -> tuple[float, float]:
    """Mean gradient (test, bicubic), HU per pixel, at the steepest 0.5 % of the bicubic; their ratio is the edge ratio.

    Each is the maximum over 3 x 3 pixels: a sharper edge may lie a pixel aside.

    Example
    -------
    >>> ramp = lambda width: np.tile(500 * np.clip((np.arange(40) - 19.5) / width + 0.5, 0, 1), (40, 1))
    >>> edge, blurred = ramp(1), ramp(4)
    >>> sharp, soft = edge_gradient(edge, blurred)
    >>> bool(sharp > 1.3 * soft)
    True
    """
    _same_grid(test, bicubic)
    ours, theirs = (_gradient(i, EDGE_HU) for i in (test, bicubic))
    steepest = theirs >= np.quantile(theirs, 1 - STEEPEST)
    return float(_largest_near(ours, 1)[steepest].mean()), float(_largest_near(theirs, 1)[steepest].mean())


def overshoot_hu(
    test: np.ndarray, bicubic: np.ndarray, measured: np.ndarray, spacing_mm: tuple[float, float]
) -> tuple[float, float]:
    """Overshoot beside ribs, skin and metal (test, bicubic), HU: how far values leave the local range of the input.

    The local range is the smallest to the largest input value within 3 mm. The excursions beyond it, within 3 mm of
    the steepest 0.5 % of the bicubic's edges, are sorted; the mean of the largest tenth of a per cent of those pixels
    counts. Values below -1024 and above 3071 HU, the table, and the surroundings of padding do not count.

    Parameters
    ----------
    measured : (y', x'), HU, the input slice;  spacing_mm : (y, x) of the *fine* grid

    Raises
    ------
    Undefined
        If no edge of the body is left.
    """
    _same_grid(test, bicubic)
    scale = tuple(a // b for a, b in zip(test.shape, measured.shape, strict=True))
    if any(a != b * s for a, b, s in zip(test.shape, measured.shape, scale, strict=True)):
        raise UhrctError(f"measured {measured.shape} does not divide test {test.shape}")
    radius = max(1, round(OVERSHOOT_MM / float(np.mean(spacing_mm))))
    coarse = max(1, round(radius / max(scale)))
    held = measured.clip(*OVERSHOOT_HU)
    high, low = (np.kron(i, np.ones(scale)) for i in (_largest_near(held, coarse), -_largest_near(-held, coarse)))
    padded = np.kron(_largest_near((measured <= PADDING_HU).astype(float), 2 * coarse), np.ones(scale)) > 0
    width = 2 * round(BODY_MM / (2 * float(np.mean(spacing_mm)) * max(scale))) + 1
    mean = F.avg_pool2d(torch.from_numpy(held)[None, None].double(), width, 1, width // 2, count_include_pad=False)
    outside = padded | (np.kron(mean[0, 0].numpy(), np.ones(scale)) < BODY_HU)
    gradient = np.where(outside, 0, _gradient(bicubic, OVERSHOOT_HU))
    steepest = (gradient >= np.quantile(gradient, 1 - STEEPEST)) & (gradient > 0)
    near = (_largest_near(steepest.astype(float), radius) > 0) & ~outside
    if not near.any():
        raise Undefined("no edge of the body away from padding")
    out = []
    for image in (test, bicubic):
        value = image.clip(*OVERSHOOT_HU)[near]
        beyond = np.maximum(np.maximum(value - high[near], low[near] - value), 0)
        count = max(1, round(LARGEST * len(beyond)))
        out.append(float(np.sort(beyond)[-count:].mean()))
    return out[0], out[1]


def overshoot_ratio(test_hu: float, bicubic_hu: float) -> float:
    """Overshoot over bicubic's, which counts as at least 1 HU."""
    return max(test_hu, SMALLEST_OVERSHOOT_HU) / max(bicubic_hu, SMALLEST_OVERSHOOT_HU)


def agreement(test: np.ndarray, sharp: np.ndarray, spacing_mm: tuple[float, float]) -> dict[str, float]:
    """How well an upscaled soft reconstruction agrees with the sharp reconstruction of the same scan.

    Parameters
    ----------
    test : (y, x), HU, upscaled;  sharp : (y, x), HU, the sharp reconstruction interpolated to the same grid
    spacing_mm : (y, x) of that grid

    Returns
    -------
    dict
        ``structure`` and ``edges``: correlation coefficients of the structure maps (V_C) and of the gradients, inside
        the body (above -950 HU on a blurred sharp slice). 1 is perfect.
    """
    _same_grid(test, sharp)
    blurred = F.avg_pool2d(torch.from_numpy(sharp.astype(np.float32))[None, None], 9, 1, 4)[0, 0].numpy()
    body = blurred > -950
    if not body.any():
        raise Undefined("no body in the slice")
    operator = SMSE_OPERATORS["vc"]
    held = [torch.from_numpy(i.clip(*EDGE_HU).astype(np.float32)) for i in (test, sharp)]
    maps = [operator(i, spacing_mm).numpy()[body] for i in held]
    gradients = [_gradient(i, EDGE_HU)[body] for i in (test, sharp)]
    return {"structure": _correlation(*maps), "edges": _correlation(*gradients)}


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    if a.std() == 0 or b.std() == 0:
        raise Undefined("one of the maps is constant")
    return float(np.corrcoef(a, b)[0, 1])


def _gradient(image: np.ndarray, window_hu: tuple[float, float]) -> np.ndarray:
    """Gradient magnitude, HU per pixel, of clipped values."""
    return np.hypot(*np.gradient(image.astype(np.float64).clip(*window_hu)))


def _largest_near(image: np.ndarray, radius: int) -> np.ndarray:
    """Maximum over a square of 2 radius + 1 pixels."""
    tensor: Tensor = torch.from_numpy(np.ascontiguousarray(image, np.float64))[None, None]
    for kernel, padding in (((2 * radius + 1, 1), (radius, 0)), ((1, 2 * radius + 1), (0, radius))):
        tensor = F.max_pool2d(tensor, kernel, 1, padding)
    return tensor[0, 0].numpy()


def _same_grid(a: np.ndarray, b: np.ndarray) -> None:
    if a.shape != b.shape or a.ndim != 2:
        raise UhrctError(f"slices of shape {a.shape} and {b.shape}: need two of the same (y, x)")
