"""Noise for samplers. It depends on seed, voxel and step only, not on batch, tile or part of the volume."""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor

#: correlation length of the noise along z (standard deviation of its Gaussian weights). It is about the thickness of a
#: clinical slice, so that a sampled volume does not flicker from slice to slice.
CORRELATION_MM = 1.75
#: Share of the variance that is independent in each fine slice of a thick one. Without it the noise has no power at the
#: high frequencies along z. The denoiser could then read these frequencies of the truth through the noise in training,
#: and would amplify what it finds there when it draws a sample.
INDEPENDENT = 0.5


class SliceNoise:
    """N(0, 1) noise for slices of one volume, correlated along z and white within a slice.

    Parameters
    ----------
    seed, sample : int
        Equal numbers give equal noise on every machine.
    shape : (channels, y, x)
    spacing_z_mm : float
    thick : bool
        Whether the slices are parts of thick ones, so that `INDEPENDENT` applies.

    Example
    -------
    >>> a, b = (SliceNoise(0, 0, (1, 64, 64), spacing_z_mm=0.8) for _ in range(2))
    >>> bool((a(7, step=1) == b(7, step=1)).all())
    True
    """

    def __init__(
        self, seed: int, sample: int, shape: tuple[int, int, int], spacing_z_mm: float, thick: bool = False
    ) -> None:
        self.independent = INDEPENDENT if thick else 0.0
        self.seed, self.sample, self.shape = seed, sample, shape
        weight = _weights(spacing_z_mm)
        self.weight = {j - len(weight) // 2: w for j, w in enumerate(weight)}
        self._white: dict[tuple[int, int], Tensor] = {}

    def __call__(self, z: int, step: int) -> Tensor:
        """Noise of slice `z` at the sampler's `step`, float32 on the CPU."""
        # Only the start (-1 and 0) is kept for neighbouring slices. A hundred steps of each would take gigabytes.
        self._white = {k: v for k, v in self._white.items() if k[0] >= z + min(self.weight) and k[1] in (-1, 0, step)}
        out = torch.zeros(self.shape)
        for j, w in self.weight.items():
            key = (z + j, step)
            if key not in self._white:
                self._white[key] = self._draw(*key)
            out += w * self._white[key]
        if self.independent:
            own = self._draw(z, step, "own ")
            out = (1 - self.independent) ** 0.5 * out + self.independent**0.5 * own
        return out

    def _draw(self, z: int, step: int, stream: str = "") -> Tensor:
        digest = hashlib.sha256(f"{stream}{self.seed} {self.sample} {z} {step}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        return torch.randn(self.shape, generator=generator)


def fine_slices_noise(shape: tuple[int, ...], spacing_z_mm: list[float], generator: torch.Generator) -> Tensor:
    """N(0, 1) noise (B, sz, ...) for training, correlated along the second axis.

    It has the statistics of `SliceNoise` for thick slices.

    Parameters
    ----------
    spacing_z_mm : distance between the fine slices, one number per item

    Example
    -------
    >>> fine_slices_noise((2, 5, 8, 8), [1.0, 0.4], torch.Generator().manual_seed(0)).shape
    torch.Size([2, 5, 8, 8])
    """
    sz, rest = shape[1], shape[2:]
    if sz == 1:
        return torch.randn(shape, generator=generator)
    rows = []
    for spacing in spacing_z_mm:
        weight = torch.tensor(_weights(spacing))
        around = len(weight) - 1
        white = torch.randn(sz + around, math.prod(rest), generator=generator)
        band = torch.stack([torch.nn.functional.pad(weight, (k, sz - 1 - k)) for k in range(sz)])
        own = torch.randn(sz, math.prod(rest), generator=generator)
        mixed = (1 - INDEPENDENT) ** 0.5 * (band @ white) + INDEPENDENT**0.5 * own
        rows.append(mixed.reshape(sz, *rest))
    return torch.stack(rows)


def _weights(spacing_z_mm: float) -> list[float]:
    """Gaussian weights of the neighbouring slices; their squares sum to 1."""
    sigma = CORRELATION_MM / spacing_z_mm
    reach = min(math.ceil(3 * sigma), 12) if sigma > 0.2 else 0
    weight = [math.exp(-0.5 * (j / sigma) ** 2) for j in range(-reach, reach + 1)]
    norm = math.sqrt(sum(w * w for w in weight))
    return [w / norm for w in weight]
