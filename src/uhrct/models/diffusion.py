"""Diffusion of a normalised residual e: noise levels, the target of the network, and samplers.

The paper's symbols (eq. 1): z = sqrt(g) e + sqrt(1 - g) n with n ~ N(0, I); g = 1 is clean, g = 0 pure noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from uhrct.core.arguments import choice, number, whole

#: denoise(z, sqrt_g) -> prediction, in the diffusion's own parameterisation
Denoise = Callable[[Tensor, Tensor], Tensor]
#: noise(step) -> N(0, 1) of z's shape; step 0 is the start
Noise = Callable[[int], Tensor]


@dataclass(frozen=True)
class Diffusion:
    """What the denoiser predicts, and the noise levels of training and sampling.

    Parameters
    ----------
    prediction : "v", "epsilon" or "x0"
        v = sqrt(g) n - sqrt(1 - g) e (doi 10.48550/arXiv.2202.00512); epsilon = n (the paper, following SR3).
    levels : "cosine" or "linear"
        "cosine": sqrt(g) = cos(pi t / 2) with t uniform. "linear", as in the paper: g is the product of 1 - beta, and
        beta is linear over `train_steps` from beta_train[0] to beta_train[1]. In training g is drawn uniformly
        between two neighbouring levels.
    sampler : "multistep", "ddim" or "ancestral"
        "ddim": deterministic after the first noise. In few steps its samples vary too little, because it takes e at
        the beginning of a step for e in all of it. "multistep": the same with e in the middle of the step, from the
        last two predictions; of second order, as DPM-Solver++(2M) (doi 10.48550/arXiv.2211.01095).
        "ancestral", as in SR3: new noise at each step.
    sampling_steps : int
        Default number of steps of a sample.
    beta_sample : (float, float)
        Ends of the linear schedule for sampling.

    Example
    -------
    >>> paper = Diffusion("epsilon", "linear", "ancestral", sampling_steps=100)
    >>> g = paper.sampling_levels(100)
    >>> len(g), bool(g[0] < 0.01), bool(g[-1] > 0.99)
    (100, True, True)
    """

    prediction: str = "v"
    levels: str = "cosine"
    sampler: str = "multistep"
    sampling_steps: int = 4
    train_steps: int = 2000
    beta_train: tuple[float, float] = (1e-4, 5e-3)
    beta_sample: tuple[float, float] = (1e-4, 0.1)

    def __post_init__(self) -> None:
        choice("prediction", self.prediction, ("v", "epsilon", "x0"))
        choice("levels", self.levels, ("cosine", "linear"))
        choice("sampler", self.sampler, ("multistep", "ddim", "ancestral"))
        whole("sampling_steps", self.sampling_steps, 1, 10_000)
        whole("train_steps", self.train_steps, 1, 1_000_000)
        for name, betas in (("beta_train", self.beta_train), ("beta_sample", self.beta_sample)):
            for beta in betas:
                number(name, beta, 0, 1)

    def draw_levels(self, n: int, generator: torch.Generator, device: torch.device | str = "cpu") -> Tensor:
        """g for `n` training items, shape (n,). The draws depend on the generator only, not on the device."""
        u = torch.rand(n, generator=generator)
        if self.levels == "cosine":
            return (torch.cos(u * torch.pi / 2) ** 2).to(device)
        g = torch.as_tensor(_products(*self.beta_train, self.train_steps), dtype=torch.float32)
        g = torch.cat([torch.ones(1), g])
        t = torch.randint(self.train_steps, (n,), generator=generator)
        return torch.lerp(g[t], g[t + 1], u).to(device)

    def sampling_levels(self, steps: int, left_out: float = 0.0) -> Tensor:
        """g at each of the `steps` steps of a sampler, float64, shape (steps,).

        It rises from nearly pure noise, or with `left_out`, for cosine levels, from where this share of the time is
        over.
        """
        if self.levels == "linear":
            return torch.as_tensor(_products(*self.beta_sample, steps)[::-1].copy())
        t = torch.linspace(1 - left_out, 0, steps + 1, dtype=torch.float64)[:-1]
        return torch.cos(t * torch.pi / 2) ** 2

    def target(self, e: Tensor, n: Tensor, g: Tensor) -> Tensor:
        """The target of the network at z = sqrt(g) e + sqrt(1 - g) n."""
        if self.prediction == "epsilon":
            return n
        return e if self.prediction == "x0" else g.sqrt() * n - (1 - g).sqrt() * e

    def split(self, prediction: Tensor, z: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        """(e, n) that belong to a prediction at z; the inverse of `target`."""
        a, b = g.sqrt(), (1 - g).sqrt()
        if self.prediction == "v":
            return a * z - b * prediction, b * z + a * prediction
        if self.prediction == "x0":
            return prediction, (z - a * prediction) / b.clamp(min=1e-6)
        return (z - b * prediction) / a.clamp(min=1e-6), prediction

    @torch.no_grad()
    def sample(
        self,
        denoise: Denoise,
        noise: Noise,
        steps: int | None = None,
        *,
        begin: Tensor | None = None,
        left_out: float = 0.0,
    ) -> Tensor:
        """Draw one e: start from noise(0) and take `steps` steps.

        Parameters
        ----------
        denoise : (z, sqrt_g) -> prediction, z of any shape, sqrt_g a tensor of shape (1,)
        noise : step -> N(0, 1) tensor of z's shape
        begin, left_out : a random e, and the share of the time after which sampling begins, with noise around it
        """
        g = self.sampling_levels(steps or self.sampling_steps, left_out)
        levels = g.tolist() + [1.0]
        z = noise(0)
        if begin is not None:
            z = levels[0] ** 0.5 * begin + (1 - levels[0]) ** 0.5 * z
        before: Tensor | None = None
        for k, (g_now, g_next) in enumerate(zip(levels[:-1], levels[1:], strict=True)):
            now = torch.tensor([g_now], dtype=z.dtype, device=z.device)
            e, n = self.split(denoise(z, now.sqrt()), z, now)
            if self.sampler == "multistep":
                ahead = e if before is None else e + (e - before) / 2
                before = e
                e, n = ahead, (z - g_now**0.5 * ahead) / (1 - g_now) ** 0.5
            if self.sampler != "ancestral":
                z = g_next**0.5 * e + (1 - g_next) ** 0.5 * n
            else:
                # SR3, algorithm 2: alpha is the step from g_next to g_now, its noise is sqrt(1 - alpha)
                alpha = g_now / g_next
                z = (z - (1 - alpha) / (1 - g_now) ** 0.5 * n) / alpha**0.5
                if g_next < 1:
                    z = z + (1 - alpha) ** 0.5 * noise(k + 1)
        return z


def _products(first: float, last: float, steps: int) -> np.ndarray:
    return np.cumprod(1 - np.linspace(first, last, steps))
