"""Where samples begin: noise and a random residual with the power spectrum and the local size of real ones.

A sampler that begins with pure noise spends its first step on nothing: there the denoiser can only predict zero. After
it, low frequencies are too weak, because real residuals are many times stronger there than noise. Later steps do not
make up for that, so samples of few steps lie too near to the mean. With a Gaussian residual of the right spectrum the
first step can be left out.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field, model_validator
from torch import Tensor

from uhrct.models.settings import Settings

#: in-plane frequencies at which the spectrum is known, in parts of the Nyquist frequency of the fine pixels
FREQUENCIES = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 3 / 8, 1 / 2, 5 / 8, 3 / 4, 1.0)
#: share of the sampling that is left out; chosen by the spread of samples on validation (docs/experiments.md)
LEFT_OUT = 0.3
#: the residual of even tissue is drawn well from pure noise, and more would flicker from slice to slice: local standard
#: deviations far below this add little
EVEN_HU = 20.0
#: normalised residuals beyond count as that many, or the edge of one bone would make the spectrum
OUTLIER = 8.0


class SampleStart(Settings):
    """The start of sampling, and the statistics of the residual for it."""

    #: share of the sampling, in time, that is left out
    left_out: Annotated[float, Field(gt=0, lt=1)] = LEFT_OUT
    #: coefficients of the local standard deviation (`uhrct.models.spread.local_sd_hu`)
    spread: tuple[float, float, float, float]
    #: for each cosine mode along the fine slices of a thick one: amplitude at `FREQUENCIES`
    amplitudes: tuple[tuple[float, ...], ...]

    @model_validator(mode="after")
    def _complete(self) -> SampleStart:
        if any(len(row) != len(FREQUENCIES) or min(row) < 0 for row in self.amplitudes):
            raise ValueError(f"sample_start.amplitudes: give {len(FREQUENCIES)} numbers from 0 in each row")
        return self

    def residual(self, noise: Tensor, sd_hu: Tensor) -> Tensor:
        """A random residual in HU with the spectrum of real ones: (B, sz, y', x').

        Each mode of the noise is divided by its own standard deviation first, since neighbouring slices are correlated.

        Parameters
        ----------
        noise : (B, sz, y', x'), white in plane
        sd_hu : (B, sz, y', x'), `uhrct.models.spread.local_sd_hu`. Where it is small, less is taken
        """
        modes = torch.einsum("mz,bzyx->bmyx", cosines(noise.shape[1]).to(noise), noise)
        modes = modes / modes.std((-2, -1), keepdim=True).clamp(min=1e-6)
        gain = _at(torch.tensor(self.amplitudes), _frequency(*noise.shape[-2:])).to(noise)
        # item by item: the last digit of a batched transform may depend on the rest of the batch
        shaped = [torch.fft.irfft2(torch.fft.rfft2(item) * gain, s=item.shape[-2:]) for item in modes]
        normal = torch.einsum("mz,bmyx->bzyx", cosines(noise.shape[1]).to(noise), torch.stack(shaped))
        return normal * sd_hu.square() / (sd_hu + EVEN_HU)


def amplitudes(residual: Tensor, inside: Tensor) -> tuple[tuple[float, ...], ...]:
    """Amplitudes for `SampleStart` from normalised residuals.

    Parameters
    ----------
    residual : (B, sz, y', x'), divided by its local standard deviation
    inside : (B, sz, y', x'), bool; the rest counts as unknown

    Example
    -------
    >>> white = torch.randn(8, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    >>> [round(a) for a in amplitudes(white, torch.ones_like(white).bool())[0]]
    [1, 1, 1, 1, 1, 1, 1, 1, 1]
    """
    rows, columns = residual.shape[-2:]
    window = torch.outer(*(torch.hann_window(n + 2)[1:-1] for n in (rows, columns))).to(residual)
    seen = window * inside
    weight = seen.square().mean((1, 2, 3))
    kept = weight > 0.25 * window.square().mean()  # an item that is mostly air has no spectrum
    if not kept.any():
        return tuple((1.0,) * len(FREQUENCIES) for _ in range(residual.shape[1]))
    item = (seen * residual.clamp(-OUTLIER, OUTLIER))[kept]
    modes = torch.einsum("mz,bzyx->bmyx", cosines(residual.shape[1]).to(residual), item)
    power = torch.fft.rfft2(modes, norm="ortho").abs().square() / weight[kept, None, None, None]
    power = power.mean(0)
    near = _frequency(rows, columns).log2()[None] - torch.tensor(FREQUENCIES).log2()[:, None, None]
    near = near.abs().argmin(0).to(power.device)  # of the known frequencies, the nearest one
    found = [[power[m, near == k] for k in range(len(FREQUENCIES))] for m in range(len(power))]
    return tuple(tuple(round(math.sqrt(float(p.mean())) if len(p) else 0.0, 4) for p in row) for row in found)


def cosines(n: int) -> Tensor:
    """The orthonormal cosine transform (DCT-II) of n values, (n, n)."""
    k, j = torch.arange(n)[:, None], torch.arange(n)[None]
    matrix = torch.cos(torch.pi * (j + 0.5) * k / n) * math.sqrt(2 / n)
    matrix[0] /= math.sqrt(2)
    return matrix


def _frequency(rows: int, columns: int) -> Tensor:
    """In-plane frequency of each coefficient of `rfft2`, in parts of Nyquist; that of the mean is the lowest known."""
    y, x = torch.fft.fftfreq(rows)[:, None], torch.fft.rfftfreq(columns)[None]
    return (2 * torch.hypot(y, x)).clamp(min=FREQUENCIES[0])


def _at(values: Tensor, frequency: Tensor) -> Tensor:
    """Values (m, k) at `FREQUENCIES` for each frequency (y, x): (m, y, x); linear in the logarithm of the frequency."""
    known, wanted = torch.tensor(FREQUENCIES).log2(), frequency.clamp(max=FREQUENCIES[-1]).log2()
    above = torch.searchsorted(known, wanted.contiguous()).clamp(1, len(FREQUENCIES) - 1)
    part = (wanted - known[above - 1]) / (known[above] - known[above - 1])
    return torch.lerp(values[:, above - 1], values[:, above], part)
