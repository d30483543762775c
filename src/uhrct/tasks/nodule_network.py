"""The network that tells nodules from other bright balls, such as vessels at a bend. Its layers are MONAI's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from uhrct.core.hu import FLOOR_HU
from uhrct.models.settings import Settings
from uhrct.tasks.even_grid import EvenGrid
from uhrct.tasks.network import TaskNetwork, as_seen, monai
from uhrct.tasks.nodule_candidates import WINDOW_HU, Candidate, dots

#: sides of the cube that the network sees, in cubes of the even grid: 26 mm
SIDE = 32
#: the dot filter works on the middle of the cube, of this side, and its answer is looked for in the middle of that
FILTER_SIDE, MIDDLE = 24, 8
#: an answer of the filter, in HU, above which its logarithm counts
FILTER_HU = 20.0


class NoduleNetworkConfig(Settings):
    """The settings of a nodule network, as its `config.json` stores them."""

    #: features of the first layer: 8 for the small network, 16 for the large one
    width: Annotated[int, Field(ge=1, le=64)] = 8


class NoduleNetwork(TaskNetwork):
    """Gives the probability that a candidate is a nodule.

    Example
    -------
    >>> NoduleNetwork(NoduleNetworkConfig(width=2))(torch.zeros(3, 1, SIDE, SIDE, SIDE)).shape
    torch.Size([3])
    """

    kind, settings_class, trained_on = "nodule_network", NoduleNetworkConfig, "nodules"

    def __init__(self, config: NoduleNetworkConfig) -> None:
        super().__init__(config)
        monai()
        from monai.networks.nets.classifier import Classifier

        self.network = Classifier(
            in_shape=(1, SIDE, SIDE, SIDE),
            classes=1,
            channels=[config.width * 2**k for k in range(4)],
            strides=(1, 2, 2, 2),
            num_res_units=1,
            norm="batch",
        )
        # on a CPU a step then takes about half the time
        self.network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        # the network corrects the dot filter, so that a short training does not rank worse than the filter alone
        self.filter_share = nn.Parameter(torch.ones(()))

    def forward(self, hu: Tensor) -> Tensor:
        """Logits (B,) of cubes (B, 1, `SIDE`, `SIDE`, `SIDE`) in HU."""
        return self.network(as_seen(hu))[:, 0] + self.filter_share * (ball_response(hu[:, 0]) / FILTER_HU).log1p()

    @torch.inference_mode()
    def probabilities(self, grid: EvenGrid, candidates: Sequence[Candidate], *, batch: int = 32) -> np.ndarray:
        """Probabilities in [0, 1] of candidates, one for each."""
        device = next(self.parameters()).device
        out = [np.zeros(0, np.float32)]
        for k in range(0, len(candidates), batch):
            cubes = [cube(grid.hu, grid.from_scan(np.array(c.voxel))) for c in candidates[k : k + batch]]
            out.append(self(torch.stack(cubes)[:, None].to(device)).sigmoid().cpu().numpy())
        return np.concatenate(out)


@torch.no_grad()
def ball_response(hu: Tensor) -> Tensor:
    """The largest answer (B,) of the dot filter near the middle of cubes (B, `SIDE`, `SIDE`, `SIDE`), HU.

    Example
    -------
    >>> z, y, x = np.mgrid[-16:16, -16:16, -16:16] * 0.8
    >>> ball, tube = np.sqrt(z**2 + y**2 + x**2) < 3, np.hypot(y, x) < 3
    >>> hu = torch.from_numpy(np.where(np.stack([ball, tube]), 0.0, -850.0)).float()
    >>> a, b = ball_response(hu).tolist()
    >>> a > 3 * b
    True
    """
    near = _middle(hu, FILTER_SIDE).clamp(*WINDOW_HU)
    return _middle(torch.from_numpy(dots(near)[0]), MIDDLE).amax((-3, -2, -1)).to(hu.device)


def _middle(hu: Tensor, side: int) -> Tensor:
    low = (hu.shape[-1] - side) // 2
    part = slice(low, low + side)
    return hu[..., part, part, part]


def cube(hu: Tensor, centre: np.ndarray, side: int = SIDE) -> Tensor:
    """The cube (side, side, side) of an image (z, y, x) around a place; beyond its ends air.

    Example
    -------
    >>> cube(torch.ones(10, 10, 10), np.array([0.0, 5, 5]), 4)[:, 2, 2].tolist()
    [-1024.0, -1024.0, 1.0, 1.0]
    """
    first = np.rint(np.asarray(centre)).astype(int) - side // 2
    out = torch.full((side, side, side), float(FLOOR_HU))
    low = first.clip(0, hu.shape)
    high = (first + side).clip(0, hu.shape)
    if (high > low).all():
        target = tuple(slice(a - f, b - f) for a, b, f in zip(low, high, first, strict=True))
        out[target] = hu[tuple(slice(a, b) for a, b in zip(low, high, strict=True))].float()
    return out
