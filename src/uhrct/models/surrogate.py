"""The learned enhancement operator O_Fc: a light U-Net that imitates an analytic one (Chu et al. 2023, eq. 8)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uhrct.core.errors import UhrctError
from uhrct.core.files import write_atomic
from uhrct.structure.operator import Spacing, StructureOperator

#: the shipped surrogate. It imitates V_C with the constants of the structure metrics (c = 250 HU).
SHIPPED = Path(__file__).parent / "weights" / "structure" / "surrogate.safetensors"
#: HU are divided by SCALE_HU. Gradients are taken over STEP_MM, about a pixel, so they mean the same on every grid.
SCALE_HU, STEP_MM = 250.0, 0.7
#: halvings of the grid in the U-Net. It sees 12 pixels or more on each side: three sigma of 2 mm on the finest grids.
LEVELS = 2


class Surrogate(nn.Module):
    """A small U-Net that replaces a `StructureOperator` of slices and is called like one.

    Its input is the image (gradients alone do not tell bright from dark), the magnitude of the gradient as published,
    and the spacing as two constant planes: log2 of the sides of a pixel over 0.7 mm. So it keeps scales in mm on every
    grid of the training, without resampling. Its output is 1 - exp(-s1² - s2²), in [0, 1) like the operators' gate.

    Parameters
    ----------
    operator : StructureOperator
        The operator that it imitates. It is stored with the weights.
    width : int
        Channels of every layer; 8 as published.

    References
    ----------
    Chu et al., MICCAI 2023, doi 10.1007/978-3-031-43999-5_25, eq. 8.

    Example
    -------
    >>> surrogate = Surrogate(StructureOperator("vc"))
    >>> surrogate(torch.zeros(2, 30, 33), [(0.7, 0.7), (0.5, 0.8)]).shape
    torch.Size([2, 30, 33])
    """

    def __init__(self, operator: StructureOperator, width: int = 8) -> None:
        super().__init__()
        if operator.ndim != 2:
            raise UhrctError(f"operator: a surrogate needs ndim=2, not {operator.ndim}")
        self.operator, self.width = operator, width
        self.down = nn.ModuleList(_Pair(4 if k == 0 else width, width) for k in range(LEVELS + 1))
        self.up = nn.ModuleList(_Pair(2 * width, width) for _ in range(LEVELS))
        self.out = nn.Conv2d(width, 2, 1)

    def forward(self, hu: Tensor, spacing_mm: Spacing) -> Tensor:
        """Structure map in [0, 1] of slices (..., y, x) in HU; spacing as for `StructureOperator`, float32."""
        with torch.autocast(hu.device.type, enabled=False):  # HU need more than the 8 bits of bf16
            image = hu.float().reshape(-1, 1, *hu.shape[-2:])
            spacings = self.operator.spacings(hu, spacing_mm)
            each = torch.tensor(spacings, device=image.device).repeat_interleave(len(image) // len(spacings), 0)
            f = self._seen(image, each)
            y, x = hu.shape[-2:]
            step = 2**LEVELS
            f = F.pad(f, (0, -x % step, 0, -y % step), mode="replicate")
            kept = []
            for k, block in enumerate(self.down):
                f = block(f if k == 0 else F.avg_pool2d(f, 2))
                kept.append(f)
            for block, beside in zip(self.up, reversed(kept[:-1]), strict=True):
                f = block(torch.cat([F.interpolate(f, scale_factor=2), beside], 1))
            energy = self.out(f).square().sum(1)[:, :y, :x]
            return -torch.expm1(-energy).reshape(hu.shape)

    def _seen(self, image: Tensor, spacing_mm: Tensor) -> Tensor:
        """The four input planes (B, 4, y, x) of images (B, 1, y, x) with spacings (B, 2)."""
        dy, dx = (STEP_MM / spacing_mm[:, k, None, None, None] for k in (0, 1))
        padded = F.pad(image, (1, 1, 1, 1), mode="replicate") / SCALE_HU
        gy = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) * (0.5 * dy)
        gx = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) * (0.5 * dx)
        magnitude = torch.sqrt(gy * gy + gx * gx + 1e-6)
        # the operator does not see a constant shift
        centred = (image - image.detach().mean((-2, -1), keepdim=True)) / SCALE_HU
        planes = [-torch.log2(d).expand_as(image) for d in (dy, dx)]
        return torch.cat([centred, magnitude, *planes], 1)

    def save(self, path: Path) -> None:
        """Write the weights and the operator into one safetensors file, complete or not at all."""
        import safetensors.torch

        tensors = {k: v.detach().cpu().contiguous() for k, v in self.state_dict().items()}
        settings = {"operator": json.dumps(asdict(self.operator)), "width": str(self.width)}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, safetensors.torch.save(tensors, settings))

    @classmethod
    def load(cls, path: str | Path = SHIPPED) -> Surrogate:
        """The shipped surrogate, or a file made by `uhrct train configs/surrogate.yaml`; ready for use in a loss.

        Raises
        ------
        UhrctError
            If there is no such file, or it holds no surrogate.
        """
        import safetensors

        path = Path(path)
        if not path.is_file():
            raise UhrctError(f"{path}: no such surrogate; train one with uhrct train configs/surrogate.yaml")
        try:
            with safetensors.safe_open(path, "pt") as file:
                settings: dict[str, Any] = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  not a dict
            surrogate = cls(StructureOperator(**json.loads(settings["operator"])), int(settings["width"]))
            surrogate.load_state_dict(tensors)
        except (safetensors.SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise UhrctError(
                f"{path}: not the weights of a surrogate; train one with configs/surrogate.yaml"
            ) from error
        return surrogate.eval().requires_grad_(False)


class _Pair(nn.Sequential):
    """Two 3x3 convolutions, each with a ReLU."""

    def __init__(self, inputs: int, width: int) -> None:
        layers: Sequence[nn.Module] = (
            nn.Conv2d(inputs, width, 3, padding=1, padding_mode="replicate"),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, padding_mode="replicate"),
            nn.ReLU(),
        )
        super().__init__(*layers)
