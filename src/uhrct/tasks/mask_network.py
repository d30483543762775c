"""Networks that mark vessels or airways in a volume. The architectures are MONAI's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from uhrct.core.errors import UhrctError
from uhrct.core.progress import track
from uhrct.models.folder import CONFIG, load_weights, model_folder, read_settings, save_folder, weights_name
from uhrct.models.model import inference_dtype
from uhrct.models.settings import Settings, checked

#: HU that become -1 and 1 for the network; values outside are cut off, as no vessel or airway needs them
WINDOW_HU = (-1000.0, 400.0)
#: halvings of a patch; its sides must be multiples of 2 to this power
LEVELS = 3


class MaskNetworkConfig(Settings):
    """The settings of a mask network, as its `config.json` stores them."""

    #: what is marked
    task: Literal["airways", "vessels"] = "vessels"
    #: MONAI's UNet or SegResNet
    architecture: Literal["unet", "segresnet"] = "unet"
    #: features at full resolution; each halving doubles them
    width: Annotated[int, Field(ge=1, le=64)] = 12


class MaskNetwork(nn.Module):
    """Gives the probability that a voxel belongs to a vessel or an airway.

    Example
    -------
    >>> network = MaskNetwork(MaskNetworkConfig(width=2))
    >>> network(torch.zeros(1, 1, 8, 16, 16)).shape
    torch.Size([1, 1, 8, 16, 16])
    """

    def __init__(self, config: MaskNetworkConfig) -> None:
        super().__init__()
        self.config = config
        #: what reports call it, and the sha256 of its weights
        self.name, self.weights_sha256 = "", ""
        self.network = _architecture(config)

    def forward(self, hu: Tensor) -> Tensor:
        """Logits (B, 1, z, y, x) of patches (B, 1, z, y, x) in HU. Sides are multiples of 8."""
        low, high = WINDOW_HU
        return self.network(2 * (hu.float().clamp(low, high) - low) / (high - low) - 1)

    @torch.inference_mode()
    def probability(
        self, hu: np.ndarray, *, patch: tuple[int, int, int] = (32, 128, 128), quiet: bool = True
    ) -> np.ndarray:
        """Probabilities in [0, 1] for a volume.

        Parameters
        ----------
        hu : (z, y, x), HU
        patch : side of the windows in voxels. Neighbours overlap by a quarter; their weights fall towards the edges.
        quiet : bool
            Show no progress.

        Returns
        -------
        float16 array (z, y, x)
        """
        from monai.data.utils import dense_patch_slices
        from monai.inferers.utils import sliding_window_inference
        from monai.utils.enums import BlendMode

        # a window that is larger than the volume would be filled with air, which changes its normalisation
        patch = tuple(min(p, -(-n // 8) * 8) for p, n in zip(patch, hu.shape, strict=True))
        shape = [max(n, p) for n, p in zip(hu.shape, patch, strict=True)]
        steps = [max(1, int(p * 0.75)) for p in patch]
        device = next(self.parameters()).device
        dtype = inference_dtype(device)
        windows = iter(track(range(len(dense_patch_slices(shape, patch, steps))), self.config.task, quiet=quiet))

        def one(part: Tensor) -> Tensor:
            next(windows, None)
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                return self(part).float().sigmoid()

        image = torch.from_numpy(np.ascontiguousarray(hu, np.float32))[None, None]
        out = sliding_window_inference(
            image,
            patch,
            1,
            one,
            overlap=0.25,
            mode=BlendMode.GAUSSIAN,
            cval=WINDOW_HU[0],
            sw_device=device,
            device=torch.device("cpu"),
        )
        for _ in windows:  # ends the progress bar
            pass
        return np.asarray(torch.as_tensor(out)[0, 0], np.float16)

    @classmethod
    def from_pretrained(cls, name: str | Path, device: str | torch.device = "cpu") -> MaskNetwork:
        """Load shipped weights by their name or a model folder by its path.

        Raises
        ------
        UhrctError
            If there is no such model, or it is no mask network.
        """
        folder = model_folder(name)
        raw, sha256 = read_settings(folder)
        if raw.pop("kind", None) != "mask_network":
            raise UhrctError(f"{name}: holds no mask network; give the folder of a training of vessels or airways")
        network = cls(checked(MaskNetworkConfig, raw, str(folder / CONFIG)))
        network.name, network.weights_sha256 = weights_name(folder), load_weights(network, folder, sha256)
        return network.to(device).eval().requires_grad_(False)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json` and `model.safetensors`, each complete or not at all."""
        self.weights_sha256 = save_folder(self, {"kind": "mask_network", **self.config.as_dict()}, Path(folder))


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
        raise UhrctError("learned segmentation needs MONAI; pip install 'uhrct[tasks]'") from error
    return monai


def _architecture(config: MaskNetworkConfig) -> nn.Module:
    monai()
    if config.architecture == "segresnet":
        from monai.networks.nets.segresnet import SegResNet

        return SegResNet(spatial_dims=3, init_filters=config.width, in_channels=1, out_channels=1, norm=_NORM)
    from monai.networks.nets.unet import UNet

    widths = [config.width * 2**k for k in range(LEVELS + 1)]
    return UNet(3, 1, 1, channels=widths, strides=[2] * LEVELS, num_res_units=1, norm="instance")


#: SegResNet normalises groups of features
_NORM = ("group", {"num_groups": 4})
