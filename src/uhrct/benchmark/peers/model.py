"""A peer with its scale and weights: restores slices in HU, and is saved in the same files as our models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from uhrct.benchmark.peers.architectures import make_peer
from uhrct.benchmark.peers.peer import Noise
from uhrct.core.errors import UhrctError
from uhrct.models.folder import CONFIG, load_weights, model_folder, read_settings, save_folder
from uhrct.models.model import CENTRE_HU, SCALE_HU, normalised
from uhrct.models.settings import Settings, checked
from uhrct.physics.acquisition import Acquisition
from uhrct.physics.resampling import upsample_stack


class PeerConfig(Settings):
    """What makes a peer, as stored in its `config.json`."""

    #: the name of the method as `architecture`, and its sizes
    peer: dict[str, Any]
    scale: tuple[PositiveInt, PositiveInt, PositiveInt] = (1, 2, 2)


class PeerModel(nn.Module):
    """A peer for one scale.

    Example
    -------
    >>> model = PeerModel(PeerConfig(peer={"architecture": "srcnn"}))
    >>> model.restore_hu(torch.full((1, 1, 8, 8), -1000.0)).shape
    torch.Size([1, 1, 16, 16])
    """

    def __init__(self, config: PeerConfig) -> None:
        super().__init__()
        self.config = config
        self.peer = make_peer(config.peer, config.scale)
        self.acquisition = Acquisition(config.scale)
        self.weights_sha256 = ""

    def restore_hu(self, lr_hu: Tensor, noise: Noise | None = None, steps: int | None = None) -> Tensor:
        """Restore LR slices (B, 1, y, x) in HU to (B, 1, y sy, x sx) in HU.

        Parameters
        ----------
        noise : step -> N(0, 1), (B, 1, y sy, x sx), for peers that sample
        steps : number of steps of such a peer; None: its own default
        """
        up_hu = upsample_stack(lr_hu.float(), self.config.scale)
        return self.peer.restore(normalised(lr_hu), normalised(up_hu), noise, steps) * SCALE_HU + CENTRE_HU

    @classmethod
    def from_pretrained(cls, folder: str | Path, device: str | torch.device = "cpu") -> PeerModel:
        """Load a folder that `save_pretrained` wrote; ready for inference.

        Raises
        ------
        UhrctError
            If the folder is missing or damaged, or holds another kind of model.
        """
        folder = model_folder(folder)
        raw, sha256 = read_settings(folder)
        model = cls(checked(PeerConfig, raw, str(folder / CONFIG)))
        model.weights_sha256 = load_weights(model, folder, sha256)
        model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return model.eval().requires_grad_(False)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json` and `model.safetensors`, each complete or not at all."""
        self.weights_sha256 = save_folder(self, self.config.as_dict(), Path(folder))


def is_peer(folder: str | Path) -> bool:
    """Whether a model folder holds a peer. A folder that cannot be read does not count."""
    try:
        return read_settings(model_folder(folder))[0].get("peer") is not None
    except UhrctError:
        return False
