"""Muon: momentum that is made orthogonal before each step, so that every direction of a layer moves equally.

This is our own code because `torch.optim.Muon` accepts only 2-D parameters, and ours are convolutions.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

#: rounds of the iteration, and its polynomial. Singular values end within about 0.3 of 1, which is near enough.
ROUNDS, POLYNOMIAL = 5, (3.4445, -4.7750, 2.0315)
#: root mean square of an update in learning rates. AdamW's are about 0.2; this value was best in short trainings.
RMS = 0.6
#: a layer with fewer features on either side is left to AdamW
NARROWEST = 16
#: names of the first and the last layers, which are left to AdamW
ENDS = {"head", "to_image", "to_structure"}


def orthogonal(matrix: Tensor) -> Tensor:
    """The nearest matrix (n, m) whose singular values are all about 1, by Newton-Schulz iteration in float32.

    References
    ----------
    Jordan et al., Muon, 2024; Bernstein & Newhouse, doi 10.48550/arXiv.2409.20325.

    Example
    -------
    >>> values = torch.linalg.svdvals(orthogonal(torch.diag(torch.tensor([1.0, 3.0, 10.0]))))
    >>> bool((values > 0.6).all() and (values < 1.3).all())
    True
    """
    a, b, c = POLYNOMIAL
    x = matrix.float()
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(ROUNDS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if tall else x


def hidden(named: Iterable[tuple[str, nn.Parameter]]) -> list[nn.Parameter]:
    """The weights of convolutions between features. First and last layers, biases and vectors are left to AdamW.

    Example
    -------
    >>> layers = {"head": nn.Conv2d(1, 32, 3), "middle": nn.Conv2d(32, 32, 3), "to_image": nn.Conv2d(32, 16, 3)}
    >>> net = nn.ModuleDict(layers)
    >>> [tuple(p.shape) for p in hidden(net.named_parameters())]
    [(32, 32, 3, 3)]
    """
    inner = [p for name, p in named if not ENDS & {*name.split(".")}]
    return [p for p in inner if p.ndim == 4 and min(p.shape[:2]) >= NARROWEST]


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, made orthogonal as a matrix (out, in y x), with steps of RMS 0.6 learning rates.

    Parameters
    ----------
    params : weights of convolutions, (out, in, y, x)
    lr, weight_decay : as for AdamW, so that one schedule serves both
    momentum : share of the average gradient that stays

    Example
    -------
    >>> p = nn.Parameter(torch.zeros(16, 16, 3, 3))
    >>> p.grad = torch.randn(16, 16, 3, 3)
    >>> Muon([p], lr=1e-3).step()
    >>> bool(0.8 < p.square().mean().sqrt() / 6e-4 < 1.2)
    True
    """

    def __init__(self, params: Any, lr: float, weight_decay: float = 0.0, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient. `closure` is not called."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                average = state["momentum"].lerp_(p.grad, 1 - group["momentum"])
                ahead = p.grad.lerp(average, group["momentum"]).flatten(1)
                # an orthogonal (n, m) matrix has the root mean square 1 / sqrt(max(n, m))
                strength = RMS * max(ahead.shape) ** 0.5
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(orthogonal(ahead).reshape(p.shape), alpha=-group["lr"] * strength)
