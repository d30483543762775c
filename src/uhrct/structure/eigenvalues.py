"""Eigenvalues of symmetric 2x2 and 3x3 matrices in closed form, with finite gradients everywhere.

Eigenvalues are not differentiable where two of them are equal, and the plain formulas divide zero by zero there. This
module replaces the square root of s² by sqrt(s² + e²) - e. That is 0 with gradient 0 at s = 0, and wrong by less than e
elsewhere.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

EPSILON = 2.0**-10  # in HU: a thousandth of the resolution of CT; the square of a power of 2 is exact


def _soft_root(squared: Tensor) -> Tensor:
    """sqrt(squared) with a finite gradient at 0."""
    return torch.sqrt(squared + EPSILON**2) - EPSILON


def eigenvalues_2x2(h_yy: Tensor, h_xy: Tensor, h_xx: Tensor) -> tuple[Tensor, Tensor]:
    """Both eigenvalues of a symmetric 2x2 matrix, the smaller (algebraically) first.

    Example
    -------
    >>> a, b = eigenvalues_2x2(torch.tensor(0.0), torch.tensor(200.0), torch.tensor(0.0))
    >>> round(a.item()), round(b.item())
    (-200, 200)
    """
    mean = 0.5 * (h_yy + h_xx)
    half = 0.5 * (h_yy - h_xx)
    root = _soft_root(half * half + h_xy * h_xy)
    return mean - root, mean + root


def eigenvalues_3x3(
    h_zz: Tensor, h_yy: Tensor, h_xx: Tensor, h_zy: Tensor, h_zx: Tensor, h_yx: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The three eigenvalues of a symmetric 3x3 matrix, ascending, by the trigonometric formula.

    With q = tr H / 3, B = H - q I, p² = tr(B²) / 6 and r = det(B) / 2p³ they are
    q + 2p cos(phi + 2 pi k / 3), phi = acos(r) / 3 (O. K. Smith, 1961, doi 10.1145/355578.366316).
    The slope of acos is infinite where two eigenvalues are equal, as on the axis of every round vessel. So atan2 gives
    the angle here, from a sine that is never 0.

    Example
    -------
    >>> H = [torch.tensor(v) for v in (1.0, 2.0, 3.0, 0.0, 0.0, 0.0)]
    >>> [round(v.item(), 2) for v in eigenvalues_3x3(*H)]
    [1.0, 2.0, 3.0]
    """
    q = (h_zz + h_yy + h_xx) / 3
    a, b, c = h_zz - q, h_yy - q, h_xx - q
    off = h_zy * h_zy + h_zx * h_zx + h_yx * h_yx
    p_squared = (a * a + b * b + c * c + 2 * off) / 6
    p = torch.sqrt(p_squared + EPSILON**2)
    det = a * b * c + 2 * h_zy * h_zx * h_yx - a * h_yx * h_yx - b * h_zx * h_zx - c * h_zy * h_zy
    r = det / (2 * p * p * p)
    rounding = 8 * torch.finfo(r.dtype).eps  # rounding error of 1 - r²; keeps the slope of sqrt finite
    sine = torch.sqrt(torch.relu(1 - r * r) + rounding)
    phi = torch.atan2(sine, r) / 3
    radius = 2 * (p - EPSILON)
    high = q + radius * torch.cos(phi)
    low = q + radius * torch.cos(phi + 2 * math.pi / 3)
    return low, 3 * q - high - low, high
