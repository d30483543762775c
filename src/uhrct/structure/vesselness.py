"""From eigenvalues to a structure map: V_C, Frangi and Jerman. All are smooth and finite everywhere.

All take the eigenvalues of sH in ascending order, with s = -1 for bright structures and +1 for dark ones. So a
structure has *large positive* eigenvalues in both polarities. All units are HU.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

DELTA_HU = 1.0  # avoids divisions by 0; CT numbers are rounded to 1 HU


def gate(squared_energy: Tensor, c: float) -> Tensor:
    """1 - exp(-S² / 2c²): 0 for noise, 1 for structures well above c HU."""
    return -torch.expm1(squared_energy * (-0.5 / c**2))


def v_c_ungated(l1: Tensor, l2: Tensor, *, k1: float, k2: float) -> Tensor:
    """V_C of two rectified eigenvalues, 0 <= l1 <= l2 (Chu et al., doi 10.1007/978-3-031-43999-5_25).

        V_C = l2 (k1 l1 + lt)(k2 l2 + lt) / (l1 + l2 + lt)³,   lt = (l2 - l1) tanh(g) + l1,   g = l2/l1 - 1

    A line (l1 = 0) gives (k2 + 1)/8 and a blob (l1 = l2) gives (k1 + 1)(k2 + 1)/27, at any contrast.

    Example
    -------
    >>> l = torch.tensor(300.0)
    >>> [round(v_c_ungated(a, l, k1=1.0, k2=3.0).item(), 3) for a in (0 * l, l)]  # 4/8, 8/27
    [0.5, 0.296]
    """
    g = (l2 - l1) / (l1 + DELTA_HU)
    lt = (l2 - l1) * torch.tanh(g) + l1
    return l2 * (k1 * l1 + lt) * (k2 * l2 + lt) / ((l1 + l2 + lt) ** 3 + DELTA_HU**3)


def v_c(lambdas: Sequence[Tensor], *, c: float, k1: float, k2: float) -> Tensor:
    """V_C of rectified eigenvalues, multiplied by a gate of their energy; in [0, 1].

    Rectification turns saddles into lines and keeps the denominator above 0. V_C is cut at 1 *before* the gate, so that
    contrast keeps its gradient. At the default k1 and k2, lines and blobs have the same weight, and V_C lies between 1
    and 1.23 for all shapes between them. The map is then the gate itself and does not depend on shape. With other
    constants it does: k1 below 19/8 favours lines, k2 below 7 lowers everything.

    In 3D the function uses the *two smaller* eigenvalues: a plate (0, 0, l), a tube (0, l, l) and a ball (l, l, l)
    become nothing, a line and a disc. The largest one is as large at the pleura as on a vessel.
    """
    l1, l2 = (torch.relu(l) for l in lambdas[:2])
    strength = gate(l1 * l1 + l2 * l2, c)
    if is_blind_to_shape(k1, k2):
        return strength
    return v_c_ungated(l1, l2, k1=k1, k2=k2).clamp(max=1.0) * strength


@lru_cache
def is_blind_to_shape(k1: float, k2: float) -> bool:
    """Whether V_C is at least 1 for all shapes, so that the cut makes it 1 and it need not be computed.

    Example
    -------
    >>> is_blind_to_shape(19 / 8, 7.0), is_blind_to_shape(1.0, 7.0)
    (True, False)
    """
    l2 = torch.full((501,), 1e6, dtype=torch.float64)  # far above the regularisation terms
    return bool(v_c_ungated(torch.linspace(0, 1, 501).double() * l2, l2, k1=k1, k2=k2).min() > 1 - 1e-5)


def frangi(lambdas: Sequence[Tensor], *, c: float, alpha: float, beta: float) -> Tensor:
    """Frangi's vesselness (doi 10.1007/BFb0056195, eqs. 13 and 15) with a fixed c in HU.

        2D: exp(-R_B²/2 beta²)(1 - exp(-S²/2c²)),       R_B = |l1| / l2
        3D: the same times (1 - exp(-R_A²/2 alpha²)),   R_B = |l1| / sqrt(l2 l3), R_A = l2 / l3

    The paper sets it to 0 where the largest eigenvalues have the wrong sign. This function does the same without a
    jump: on saddles it falls with R_B (from 0.135 in 2D, 0.155 in 3D). Elsewhere both are equal.
    """
    l1 = lambdas[0]
    cross = [torch.relu(l) for l in lambdas[1:]]  # across the vessel: (l2,) or (l2, l3)
    energy = l1 * l1
    for l in cross:
        energy = energy + l * l
    # l2² in 2D, l2 l3 in 3D. The added term avoids a division by 0; the wrong sign gives less than 1e-5.
    area = cross[0] * cross[-1] + DELTA_HU**2
    r_b_squared = l1 * l1 / area
    v = torch.exp(r_b_squared * (-0.5 / beta**2)) * gate(energy, c)
    if len(cross) == 2:
        r_a_squared = cross[0] * cross[0] / (cross[1] * cross[1] + DELTA_HU**2)
        v = v * -torch.expm1(r_a_squared * (-0.5 / alpha**2))
    return v


def jerman(lambdas: Sequence[Tensor], *, floor: float) -> Tensor:
    """Jerman's vesselness (doi 10.1109/TMI.2016.2550102, eqs. 8-9) with a fixed floor in HU.

        V = l2² (lr - l2)(3 / (l2 + lr))³,  1 where l2 >= lr/2,  0 where l2 <= 0;   lr = max(l3, floor)

    In the paper the floor is tau times the largest l3 of the image. Here it is a constant, so that a map does not
    depend on the rest of the image. In 2D, l2 = l3 is the larger eigenvalue, as in the authors' published code.
    """
    l2, l3 = lambdas[1], lambdas[-1]
    lr = l3.clamp(min=floor)
    u = (torch.relu(l2) / lr).clamp(max=0.5)  # the formula has its maximum at u = 1/2, so this cut is smooth
    return u * u * (1 - u) * (3 / (1 + u)) ** 3
