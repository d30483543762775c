"""ResShift: diffusion that shifts the residual between interpolation and truth, in few steps.

Yue, Wang, Loy, "ResShift: efficient diffusion model for image super-resolution by residual shifting", NeurIPS 2023,
arXiv 2307.12348. Here in image space, without its autoencoder.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from uhrct.benchmark.peers.peer import Noise, Peer, normal
from uhrct.benchmark.peers.unet import UNet
from uhrct.core.errors import UhrctError


@dataclass(frozen=True)
class Shift:
    """The chain from truth x_0 (t = 0) to interpolation y_0 (t = T), with e_0 = y_0 - x_0; symbols of the paper.

    q(x_t | x_0, y_0) = N(x_0 + eta_t e_0, kappa^2 eta_t I)                                     (eq. 2)
    q(x_{t-1} | x_t, x_0, y_0) = N(eta_{t-1}/eta_t x_t + alpha_t/eta_t x_0,
                                   kappa^2 eta_{t-1}/eta_t alpha_t I),  alpha_t = eta_t - eta_{t-1}      (eq. 6)

    Parameters
    ----------
    steps : T
    kappa : strength of the noise
    p : how the growth of eta is spread over the steps; below 1 most of it comes late

    Example
    -------
    >>> eta = Shift(15).eta()
    >>> len(eta), eta[0], round(eta[1], 4), round(eta[-1], 3)
    (16, 0.0, 0.0004, 0.999)
    """

    steps: int = 15
    kappa: float = 2.0
    p: float = 0.3

    def eta(self) -> list[float]:
        """eta_0 = 0, eta_1, ..., eta_T (eqs. 10, 11): a geometric series in sqrt(eta), warped by p."""
        first = min(0.04 / self.kappa, math.sqrt(0.001))
        last = math.sqrt(0.999)
        n = self.steps - 1
        b0 = math.exp(math.log(last / first) / n) if n else 1.0
        beta = [(k / n) ** self.p * n if n else 0.0 for k in range(self.steps)]
        return [0.0] + [float((first * b0**b) ** 2) for b in beta]

    def marginal(self, x0: Tensor, y0: Tensor, n: Tensor, eta: Tensor) -> Tensor:
        """x_t (eq. 2) with noise n."""
        return x0 + eta * (y0 - x0) + self.kappa * eta.sqrt() * n

    def posterior(self, t: int, xt: Tensor, x0: Tensor) -> tuple[Tensor, float]:
        """Mean and standard deviation of x_{t-1}."""
        eta = self.eta()
        alpha = eta[t] - eta[t - 1]
        mean = eta[t - 1] / eta[t] * xt + alpha / eta[t] * x0
        return mean, self.kappa * math.sqrt(eta[t - 1] / eta[t] * alpha)


class ResShift(Peer):
    """Predicts x_0 from x_t, t and the interpolation; mean squared error (eq. 8 without weights, as published).

    The network is a U-Net with Swin blocks in place of attention. It is trained for one number of steps: 15, or 4 in
    the fast variant. The default has a tenth of the published width, so that a CPU can train it in minutes. Published:
    width=160, multipliers=[1, 2, 2, 4], blocks=2, attend_from=0 (in a latent space of 64 x 64).
    """

    power = 2

    def __init__(
        self,
        scale: int,
        steps: int = 15,
        kappa: float = 2.0,
        width: int = 16,
        multipliers: Sequence[int] = (1, 2, 4, 4),
        blocks: int = 1,
        attend_from: int = 2,
        window: int = 8,
    ) -> None:
        super().__init__()
        self.shift = Shift(steps, kappa)
        self.sampling_steps = steps
        self.unet = UNet(
            inputs=2, width=width, multipliers=multipliers, blocks=blocks, attend_from=attend_from, window=window
        )

    def forward(self, up: Tensor, xt: Tensor, t: Tensor) -> Tensor:
        """The estimate of x_0; `t` holds whole numbers from 1 to T, (B,) or (1,)."""
        eta = self._eta(t)
        # the variance of x_t grows with t; scaled, it is about the same at every level
        scaled = xt / (1 + self.shift.kappa**2 * eta).sqrt()
        return self.unet(torch.cat([up, scaled], 1), t / self.shift.steps)

    def task(self, x: Tensor, up: Tensor, y: Tensor, generator: torch.Generator) -> tuple[tuple[Tensor, ...], Tensor]:
        t = torch.randint(1, self.shift.steps + 1, (len(y),), generator=generator).to(y.device)
        return (up, self.shift.marginal(y, up, normal(y, generator), self._eta(t)), t), y

    def restore(self, x: Tensor, up: Tensor, noise: Noise | None = None, steps: int | None = None) -> Tensor:
        assert noise is not None, "ResShift draws samples and needs noise"
        T = self.shift.steps
        if steps not in (None, T):
            raise UhrctError(f"steps={steps}: these ResShift weights were trained for {T} steps")
        x0 = up
        xt = up + self.shift.kappa * self.shift.eta()[-1] ** 0.5 * noise(0)
        for t in range(T, 0, -1):
            x0 = self(up, xt, torch.tensor([t], device=up.device))
            mean, sd = self.shift.posterior(t, xt, x0)
            xt = mean + sd * noise(T - t + 1) if t > 1 else mean
        return xt

    def _eta(self, t: Tensor) -> Tensor:
        return torch.as_tensor(np.array(self.shift.eta()), dtype=torch.float32, device=t.device)[t][:, None, None, None]
