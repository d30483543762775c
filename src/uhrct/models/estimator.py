"""A small network that estimates the PSF, kernel and noise of a scan from its voxels."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from uhrct.core.hu import FLOOR_HU
from uhrct.physics.scan_properties import ScanProperties

#: distances in pixels over which voxels are compared. Noise and blur differ in how differences grow with distance.
LAGS = (1, 2, 3)
#: quantiles of the absolute differences: the low ones show noise, the high ones edges
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.97, 0.995)
#: side in pixels of the pieces of a slice that are measured one by one
PIECE = 96
#: largest mean distance of a piece from the training scans, in standard deviations of the statistics (0.8 is usual)
FAMILIAR = 1.6
#: pieces that `ScanEstimator.read` looks at, spread over the slices
MOST_PIECES = 64
#: limits of the logarithm of an estimated error, in the units of `targets`
LOG_ERROR = (-4.0, 2.0)
#: voxels below this are air outside the body. They are left out, because reconstructions clip them.
INSIDE_HU = -970.0


@dataclass(frozen=True)
class Reading:
    """What the voxels of a scan tell about it. Errors are those that the estimator expects of itself.

    Attributes
    ----------
    psf_fwhm, psf_error : pixels
    sharpening : as in `ScanProperties`
    noise_hu : standard deviation in HU
    noise_error : relative
    noise_correlation : at one pixel
    """

    psf_fwhm: float
    psf_error: float
    sharpening: float
    noise_hu: float
    noise_error: float
    noise_correlation: float


def targets(scan: ScanProperties) -> list[float]:
    """What the estimator learns of a scan, in units in which errors are of like size."""
    c = replace(scan, psf_known=True, noise_known=True).conditions()
    return [c[0], c[1], c[3], c[4]]


class ScanEstimator(nn.Module):
    """Pieces of LR slices in HU -> numbers about the scan, one row per piece.

    The statistics are logarithms of quantiles of absolute differences, of first and second order, over several
    distances. A perceptron maps them to the numbers. This is cheap, and does not depend on where things lie.

    Parameters
    ----------
    width : features of the perceptron

    Example
    -------
    >>> ScanEstimator(width=8)(torch.zeros(2, 40, 50)).shape
    torch.Size([2, 8])
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        seen = 3 * len(LAGS) * len(QUANTILES)
        outputs = 2 * len(targets(ScanProperties()))  # each number comes with its error
        self.layers = nn.Sequential(
            nn.Linear(seen, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, outputs)
        )
        # mean and standard deviation of the statistics over the training scans
        self.register_buffer("centre", torch.zeros(seen))
        self.register_buffer("spread", torch.ones(seen))
        self.centre: Tensor
        self.spread: Tensor

    def forward(self, hu: Tensor) -> Tensor:
        """(B, y, x) in HU -> (B, 8): the numbers of `targets`, then the logarithms of their errors."""
        with torch.autocast(hu.device.type, enabled=False):
            return self.layers(self.standard(self.statistics(hu)))

    def read(self, hu: Tensor) -> Reading | None:
        """The properties of a scan from some of its slices (B, y, x) in HU; None if it is unlike the training scans.

        Pieces that show more count more: each is weighted by the inverse square of the error expected of it.
        """
        cut = pieces(hu.float().clamp(min=FLOOR_HU))
        cut = cut[torch.linspace(0, len(cut) - 1, min(len(cut), MOST_PIECES)).round().long()]
        # piece by piece: the digits must not depend on the rest of the batch
        seen = [self.standard(self.statistics(piece[None])) for piece in cut]
        known = [s for s in seen if familiar(s)]
        if 2 * len(known) < len(seen):
            return None
        value, log_error = torch.cat([self.layers(s) for s in known]).chunk(2, 1)
        error = log_error.clamp(*LOG_ERROR).exp()
        weight = error**-2 / (error**-2).sum(0)
        psf, sharpening, noise, correlation = (weight * value).sum(0).tolist()
        psf_error, _, noise_error, _ = (weight * error).sum(0).tolist()
        noise_hu = 10 * math.expm1(min(max(noise, 0.0), 3.0))
        return Reading(
            psf_fwhm=0.6 + 0.4 * psf,
            psf_error=0.4 * psf_error,
            sharpening=max(0.5 * sharpening, 0.0),
            noise_hu=noise_hu,
            noise_error=noise_error * (1 + 10 / max(noise_hu, 1.0)),
            noise_correlation=min(max(correlation, -0.5), 0.95),
        )

    def standard(self, statistics: Tensor) -> Tensor:
        """Statistics in standard deviations from their mean over the training scans."""
        return (statistics - self.centre) / self.spread

    @staticmethod
    def statistics(hu: Tensor) -> Tensor:
        """The statistics of pieces (B, y, x) in HU, (B, numbers)."""
        return torch.stack([_statistics(piece.float()) for piece in hu])


def familiar(standard: Tensor) -> bool:
    """Whether standardised statistics are like those of the training scans."""
    return bool(standard.abs().mean() < FAMILIAR)


def _statistics(hu: Tensor) -> Tensor:
    """Logarithms of quantiles of first, second and cross differences of one piece (y, x)."""
    q = torch.tensor(QUANTILES, device=hu.device)
    inside = hu > INSIDE_HU
    out = []
    for lag in LAGS:
        for kind in range(3):
            difference, valid = _difference(hu, inside, lag, kind)
            values = difference[valid].abs()
            if not len(values):
                values = hu.new_zeros(1)
            out.append((_quantiles(values, q) + 1).log() / 3)
    return torch.cat(out)


def _quantiles(values: Tensor, q: Tensor) -> Tensor:
    """As `torch.quantile`. On a CPU NumPy sorts, several times faster."""
    ordered = torch.from_numpy(np.sort(values.numpy())) if values.device.type == "cpu" else values.sort().values
    place = q * (len(values) - 1)
    below = place.floor().long()
    return torch.lerp(ordered[below], ordered[(below + 1).clamp(max=len(values) - 1)], place - below)


def _difference(hu: Tensor, inside: Tensor, lag: int, kind: int) -> tuple[Tensor, Tensor]:
    """(differences, mask of those inside the body). Kind 0: along x; 1: second order along x; 2: along both axes."""
    if kind == 0 or min(hu.shape) <= 2 * lag:
        return hu[:, lag:] - hu[:, :-lag], inside[:, lag:] & inside[:, :-lag]
    first = hu[:, 2 * lag :] - 2 * hu[:, lag:-lag] + hu[:, : -2 * lag]
    valid = inside[:, 2 * lag :] & inside[:, lag:-lag] & inside[:, : -2 * lag]
    if kind == 1:
        return first, valid
    cross = first[2 * lag :] - 2 * first[lag:-lag] + first[: -2 * lag]
    return cross, valid[2 * lag :] & valid[lag:-lag] & valid[: -2 * lag]


def pieces(hu: Tensor) -> Tensor:
    """Slices (B, y, x) in HU cut into squares of at most `PIECE` pixels, (n, y', x'); mostly empty ones are left out.

    Example
    -------
    >>> pieces(torch.zeros(1, 200, 100)).shape
    torch.Size([2, 96, 96])
    """
    y, x = (min(PIECE, n) for n in hu.shape[1:])
    cut = hu.unfold(1, y, y).unfold(2, x, x).flatten(0, 2)
    share = (cut > INSIDE_HU).flatten(1).float().mean(1)
    enough = share >= min(0.5, float(share.max()))
    return cut[enough]
