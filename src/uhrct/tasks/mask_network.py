"""Networks that mark vessels or airways in a volume. The architectures are MONAI's."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from uhrct.core.progress import track
from uhrct.models.precision import inference_dtype
from uhrct.models.settings import Settings
from uhrct.tasks.network import WINDOW_HU, TaskNetwork, as_seen, monai

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


class MaskNetwork(TaskNetwork):
    """Gives the probability that a voxel belongs to a vessel or an airway.

    Example
    -------
    >>> network = MaskNetwork(MaskNetworkConfig(width=2))
    >>> network(torch.zeros(1, 1, 8, 16, 16)).shape
    torch.Size([1, 1, 8, 16, 16])
    """

    kind, settings_class, trained_on = "mask_network", MaskNetworkConfig, "vessels or airways"

    def __init__(self, config: MaskNetworkConfig) -> None:
        super().__init__(config)
        self.network = _architecture(config)

    def forward(self, hu: Tensor) -> Tensor:
        """Logits (B, 1, z, y, x) of patches (B, 1, z, y, x) in HU. Sides are multiples of 8."""
        return self.network(as_seen(hu))

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
