"""The network that tells nodules from other bright balls, such as vessels at a bend. Its layers are MONAI's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from uhrct.core.errors import UhrctError
from uhrct.core.hu import FLOOR_HU
from uhrct.models.folder import CONFIG, load_weights, model_folder, read_settings, save_folder
from uhrct.models.settings import Settings, checked
from uhrct.tasks.even_grid import EvenGrid
from uhrct.tasks.mask_network import monai
from uhrct.tasks.nodule_candidates import Candidate

#: sides of the cube that the network sees, in cubes of the even grid: 26 mm
SIDE = 32
#: HU that become -1 and 1 for the network
WINDOW_HU = (-1000.0, 400.0)


class NoduleNetworkConfig(Settings):
    """The settings of a nodule network, as its `config.json` stores them."""

    #: features of the first layer: 8 for the small network, 16 for the large one
    width: Annotated[int, Field(ge=1, le=64)] = 8


class NoduleNetwork(nn.Module):
    """Gives the probability that a candidate is a nodule.

    Example
    -------
    >>> NoduleNetwork(NoduleNetworkConfig(width=2))(torch.zeros(3, 1, SIDE, SIDE, SIDE)).shape
    torch.Size([3])
    """

    def __init__(self, config: NoduleNetworkConfig) -> None:
        super().__init__()
        monai()
        from monai.networks.nets.classifier import Classifier

        self.config = config
        self.weights_sha256 = ""
        self.network = Classifier(
            in_shape=(1, SIDE, SIDE, SIDE),
            classes=1,
            channels=[config.width * 2**k for k in range(4)],
            strides=(1, 2, 2, 2),
            num_res_units=1,
            norm="batch",
        )

    def forward(self, hu: Tensor) -> Tensor:
        """Logits (B,) of cubes (B, 1, `SIDE`, `SIDE`, `SIDE`) in HU."""
        low, high = WINDOW_HU
        return self.network(2 * (hu.float().clamp(low, high) - low) / (high - low) - 1)[:, 0]

    @torch.inference_mode()
    def probabilities(self, grid: EvenGrid, candidates: Sequence[Candidate], *, batch: int = 32) -> np.ndarray:
        """Probabilities in [0, 1] of candidates, one for each."""
        device = next(self.parameters()).device
        out = [np.zeros(0, np.float32)]
        for k in range(0, len(candidates), batch):
            cubes = [cube(grid.hu, grid.from_scan(np.array(c.voxel))) for c in candidates[k : k + batch]]
            out.append(self(torch.stack(cubes)[:, None].to(device)).sigmoid().cpu().numpy())
        return np.concatenate(out)

    @classmethod
    def from_pretrained(cls, name: str | Path, device: str | torch.device = "cpu") -> NoduleNetwork:
        """Load shipped weights by their name or a model folder by its path.

        Raises
        ------
        UhrctError
            If there is no such model, or it is no nodule network.
        """
        folder = model_folder(name)
        raw, sha256 = read_settings(folder)
        if raw.pop("kind", None) != "nodule_network":
            raise UhrctError(f"{folder}: holds no nodule network; give the folder of a training of nodules")
        network = cls(checked(NoduleNetworkConfig, raw, str(folder / CONFIG)))
        network.weights_sha256 = load_weights(network, folder, sha256)
        return network.to(device).eval().requires_grad_(False)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json` and `model.safetensors`, each complete or not at all."""
        self.weights_sha256 = save_folder(self, {"kind": "nodule_network", **self.config.as_dict()}, Path(folder))


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
