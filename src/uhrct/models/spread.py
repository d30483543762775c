"""How far the truth may lie from the mean, pixel by pixel: what the residual that is diffused is divided by.

At an edge the residual is two to three times its typical size, in even tissue a tenth. If it is divided by one number,
the last of a few sampling steps still has more noise than even tissue has residual. So the samples do not vary there.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

#: of `fitted`
RIDGE, ROUNDS, OUTLIER = 1e-6, 40, 5.0
#: bounds in HU
LEAST_HU, MOST_HU = 1.0, 1000.0


def local_sd_hu(mean_hu: Tensor, up_hu: Tensor, kept_hu: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    """Standard deviation of truth minus mean, from a fit of its logarithm.

    Parameters
    ----------
    mean_hu, up_hu : (B, sz, y', x'), the mean and the interpolated scan
    kept_hu : (B, 1, 1, 1), noise of the scan that is kept
    coefficients : of `fitted`

    Returns
    -------
    (B, sz, y', x'), HU

    Example
    -------
    >>> flat = torch.zeros(1, 1, 8, 8)
    >>> local_sd_hu(flat, flat, torch.zeros(1, 1, 1, 1), (0.0, 0.0, 0.0, 2.0)).unique()
    tensor([7.3891])
    """
    return sd_of(signs(mean_hu, up_hu, kept_hu), coefficients)


def sd_of(look: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    """The same from `signs` (..., 4)."""
    # no matrix product: its last digit depends on the rest of the batch
    log = sum(c * s for c, s in zip(coefficients, look.unbind(-1), strict=True))
    return torch.as_tensor(log).exp().clamp(LEAST_HU, MOST_HU)


def signs(mean_hu: Tensor, up_hu: Tensor, kept_hu: Tensor) -> Tensor:
    """What goes with a large residual, as logarithms: (B, sz, y', x', 4)."""
    mean_hu, up_hu = mean_hu.float(), up_hu.float()
    along_y = F.pad(mean_hu[..., 1:, :] - mean_hu[..., :-1, :], (0, 0, 0, 1))
    along_x = F.pad(mean_hu[..., :, 1:] - mean_hu[..., :, :-1], (0, 1))
    correction = _around((mean_hu - up_hu).square())
    gradient = _around(along_y.square() + along_x.square())
    kept = kept_hu.float().expand_as(mean_hu)
    logs = [(v + 1).log() for v in (correction.sqrt(), gradient.sqrt(), kept)]
    return torch.stack([*logs, torch.ones_like(mean_hu)], -1)


def fitted(seen: Tensor, error_hu: Tensor) -> list[float]:
    """Coefficients for `signs` (n, 4) and errors (n,) in HU, so that errors divided by the result have variance one.

    The likelihood of a normal distribution is maximised by Fisher scoring; errors of more than `OUTLIER` standard
    deviations count as that many.
    """
    seen, error_hu = seen.double(), error_hu.double()
    # a sign that never changes, such as noise that is never kept, gets no weight
    information = seen.T @ seen + RIDGE * len(seen) * torch.eye(seen.shape[1]).to(seen)
    c = torch.zeros(seen.shape[1]).to(seen)
    c[-1] = max(float(error_hu.square().mean().sqrt()), LEAST_HU)
    c[-1] = c[-1].log()
    for _ in range(ROUNDS):
        normal = (error_hu / (seen @ c).exp()).square().clamp(max=OUTLIER**2)
        c = c + torch.linalg.solve(information, seen.T @ (normal - 1)) / 2
    return [round(v, 4) for v in c.tolist()]


def _around(image: Tensor) -> Tensor:
    """Mean over 9 x 9 fine pixels."""
    return F.avg_pool2d(image, 9, stride=1, padding=4, count_include_pad=False)
