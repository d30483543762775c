"""What the networks of the tasks share: HU as they see them, and folders of weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from uhrct.core.errors import UhrctError
from uhrct.models.folder import CONFIG, load_weights, model_folder, read_settings, save_folder, weights_name
from uhrct.models.settings import Settings, checked

#: HU that become -1 and 1 for a network; values outside are cut off, as no vessel, airway or nodule needs them
WINDOW_HU = (-1000.0, 400.0)


class TaskNetwork(nn.Module):
    """A network with settings, which can be written to a folder and loaded from it.

    Attributes
    ----------
    kind : in `config.json`, so that the folder of another network is refused
    settings_class : the settings, which `config.json` stores
    trained_on : what to train for such a network, for messages
    name, weights_sha256 : what reports call it, and the sha256 of its weights
    """

    kind: ClassVar[str]
    settings_class: ClassVar[type[Settings]]
    trained_on: ClassVar[str]

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.name, self.weights_sha256 = "", ""

    @classmethod
    def from_pretrained(cls, name: str | Path, device: str | torch.device = "cpu") -> Self:
        """Load shipped weights by their name or a model folder by its path.

        Raises
        ------
        UhrctError
            If there is no such model, or it is of another kind.
        """
        folder = model_folder(name)
        raw, sha256 = read_settings(folder)
        if raw.pop("kind", None) != cls.kind:
            what = cls.kind.replace("_", " ")
            raise UhrctError(f"{name}: holds no {what}; give the folder of a training of {cls.trained_on}")
        network = cls(checked(cls.settings_class, raw, str(folder / CONFIG)))
        network.name, network.weights_sha256 = weights_name(folder), load_weights(network, folder, sha256)
        return network.to(device).eval().requires_grad_(False)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json` and `model.safetensors`, each complete or not at all."""
        self.weights_sha256 = save_folder(self, {"kind": self.kind, **self.config.as_dict()}, Path(folder))


def as_seen(hu: Tensor) -> Tensor:
    """HU as the networks see them.

    Example
    -------
    >>> as_seen(torch.tensor([-2000.0, -1000.0, -300.0, 400.0])).tolist()
    [-1.0, -1.0, 0.0, 1.0]
    """
    low, high = WINDOW_HU
    return 2 * (hu.float().clamp(low, high) - low) / (high - low) - 1


def monai() -> Any:
    """The library MONAI.

    Raises
    ------
    UhrctError
        If it is not installed.
    """
    try:
        import monai
    except ImportError as error:
        raise UhrctError("learned segmentation and detection need MONAI; pip install 'uhrct[tasks]'") from error
    return monai
