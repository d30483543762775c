"""The dual-stream structure-preserving network (DSSP) on the low-resolution grid.

The output voxels inside one input voxel are channels (sub-voxel shuffle). So one pass costs a fraction of a network at
full size, and the same network serves every scale. It has only convolutions: no layer depends on where a tile was cut.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def to_channels(image: Tensor, scale_y: int, scale_x: int) -> Tensor:
    """(B, c, y sy, x sx) -> (B, c sy sx, y, x): the voxels inside each LR voxel become channels.

    Example
    -------
    >>> image = torch.randn(1, 1, 4, 6)
    >>> bool((from_channels(to_channels(image, 2, 2), 2, 2) == image).all())
    True
    """
    b, c, h, w = image.shape
    y, x = h // scale_y, w // scale_x
    image = image.reshape(b, c, y, scale_y, x, scale_x)
    return image.permute(0, 1, 3, 5, 2, 4).reshape(b, c * scale_y * scale_x, y, x)


def from_channels(channels: Tensor, scale_y: int, scale_x: int) -> Tensor:
    """Inverse of `to_channels`: (B, c sy sx, y, x) -> (B, c, y sy, x sx)."""
    b, c, y, x = channels.shape
    n = c // (scale_y * scale_x)
    channels = channels.reshape(b, n, scale_y, scale_x, y, x)
    return channels.permute(0, 1, 4, 2, 5, 3).reshape(b, n, y * scale_y, x * scale_x)


class _Block(nn.Module):
    """Residual block f + conv(relu(conv(f))). Noise level and scan properties shift its features.

    zero_shift : the shift starts at zero, so the scan properties have no effect before training
    """

    def __init__(self, width: int, level_width: int, zero_shift: bool = False) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.shift = nn.Linear(level_width, width) if level_width else None
        if self.shift is not None and zero_shift:
            nn.init.zeros_(self.shift.weight)
            nn.init.zeros_(self.shift.bias)
        nn.init.zeros_(self.second.weight)  # the block starts as the identity, so deep stacks train from the first step
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]

    def forward(self, f: Tensor, level: Tensor | None) -> Tensor:
        h = self.first(f)
        if self.shift is not None and level is not None:
            h = h + self.shift(level)[:, :, None, None]
        return f + self.second(F.relu_(h))


class _Stream(nn.Module):
    """Head, residual blocks, then the paper's two 3x3 convolutions to the width that both streams share."""

    def __init__(
        self,
        inputs: int,
        width: int,
        blocks: int,
        out: int,
        level_width: int,
        zero_shift: bool,
        exact_input: bool = True,
    ) -> None:
        super().__init__()
        self.exact_input = exact_input
        self.head = nn.Conv2d(inputs, width, 3, padding=1)
        self.blocks = nn.ModuleList(_Block(width, level_width, zero_shift) for _ in range(blocks))
        #: LR pixels on each side that an output pixel depends on
        self.reach = 3 + 2 * blocks
        self.after = nn.Sequential(
            nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, out, 3, padding=1)
        )

    def forward(self, x: Tensor, level: Tensor | None) -> Tensor:
        f = self._enter(x)
        for block in self.blocks:
            f = block(f, level)
        return self.after(f)

    def _enter(self, x: Tensor) -> Tensor:
        """Features of the head. The input stays float32: bfloat16 would round a voxel near -1000 HU by 2 HU."""
        if not self.exact_input:
            return self.head(x)
        inner = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype
        with torch.autocast(x.device.type, enabled=False):
            if inner == torch.bfloat16 and x.device.type == "cpu" and not torch.is_grad_enabled():
                # The last digit of a float32 sum depends on the shape of the tile, and rounding to bfloat16 can make a
                # visible step of it. In float64 this practically never happens, so tiles stay equal to the whole.
                weight, bias = self.head.weight.double(), self.head.bias
                return F.conv2d(x.double(), weight, None if bias is None else bias.double(), padding=1).to(inner)
            return self.head(x.float()).to(inner)


class DSSP(nn.Module):
    """Dual-stream structure-preserving network (Chu et al., MICCAI 2023, fig. 2) with flat streams on the LR grid.

    The image stream sees [noisy, x], the structure stream sees [noisy, O(up(x))]. Their features are summed. A fusion
    block then gives the image, and a structure block gives the structure map.

    Parameters
    ----------
    inputs : int
        Channels of x: the LR slice, and its neighbours if the model uses them.
    sub_voxels : int
        Output voxels per LR voxel (s_z s_y s_x).
    noisy : bool
        True for a denoiser, which takes the noisy residual and its level; False for a posterior-mean network.
    properties : int
        Length of the vector of scan properties (`uhrct.physics.scan_properties`) that the network takes; 0: none.
    exact_input : bool
        False: the inputs may be rounded as the inner layers are; for inputs that no bit of HU depends on. It is faster.
    image_width, image_blocks, structure_width, structure_blocks, fusion_blocks : int
        Size. With structure_width=0 the network has a single stream.

    References
    ----------
    Chu et al., MICCAI 2023, doi 10.1007/978-3-031-43999-5_25.

    Example
    -------
    >>> net = DSSP(inputs=1, sub_voxels=4, noisy=False, image_width=8, image_blocks=1, structure_width=8)
    >>> image, structure = net(torch.zeros(2, 1, 5, 7), torch.zeros(2, 4, 5, 7))
    >>> image.shape, structure.shape
    (torch.Size([2, 4, 5, 7]), torch.Size([2, 4, 5, 7]))
    """

    def __init__(
        self,
        *,
        inputs: int,
        sub_voxels: int,
        noisy: bool,
        properties: int = 0,
        exact_input: bool = True,
        image_width: int = 96,
        image_blocks: int = 5,
        structure_width: int = 16,
        structure_blocks: int = 2,
        fusion_blocks: int = 1,
    ) -> None:
        super().__init__()
        level_width = _LEVEL_WIDTH if noisy or properties else 0
        extra = sub_voxels if noisy else 0
        zero_shift = not noisy
        self.image = _Stream(
            inputs + extra, image_width, image_blocks, image_width, level_width, zero_shift, exact_input
        )
        self.level = nn.Sequential(nn.Linear(_LEVEL_FEATURES, level_width), nn.SiLU()) if noisy else None
        #: embeds the scan properties; the name `told` is part of the file format of the weights
        self.told: nn.Sequential | None = None
        if properties:
            last = nn.Linear(level_width, level_width)
            self.told = nn.Sequential(nn.Linear(properties, level_width), nn.SiLU(), last)
            if noisy:  # in a denoiser the properties have no effect before training
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)
        self.fusion = nn.ModuleList(_Block(image_width, level_width, zero_shift) for _ in range(fusion_blocks))
        self.to_image = nn.Conv2d(image_width, sub_voxels, 3, padding=1)
        self.structure: _Stream | None = None
        if structure_width:
            self.structure = _Stream(
                sub_voxels + extra, structure_width, structure_blocks, image_width, level_width, zero_shift
            )
            self.narrow = nn.Conv2d(image_width, structure_width, 3, padding=1)
            self.to_structure = nn.Conv2d(structure_width, sub_voxels, 3, padding=1)
            # the map starts as the prior: under L1 a head that started far away fell to the median of the map, 0
            nn.init.zeros_(self.to_structure.weight)
            nn.init.zeros_(self.to_structure.bias)  # type: ignore[arg-type]

    @property
    def halo(self) -> int:
        """LR pixels on each side that an output pixel depends on."""
        deepest = max(s.reach for s in (self.image, self.structure) if s is not None)
        return deepest + 2 * len(self.fusion) + 1

    def forward(
        self,
        x: Tensor,
        prior: Tensor | None = None,
        noisy: Tensor | None = None,
        sqrt_g: Tensor | None = None,
        properties: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """(image, structure map or None), each (B, sub_voxels, y, x), float32. The map is the prior plus a correction.

        Parameters
        ----------
        x : (B, inputs, y, x) normalised LR;  prior : (B, sub_voxels, y, x) structure map of up(x)
        noisy : (B, sub_voxels, y, x), and sqrt_g : (B,) or (1,); for a denoiser only
        properties : (B, k) or (1, k) scan properties, for a network that takes them
        """
        image_in = x
        if self.level is not None:
            assert noisy is not None, "a denoiser needs the noisy residual"
            image_in = torch.cat([noisy, x], 1)
        level = self._level(sqrt_g, properties)
        f = self.image(image_in, level)
        if self.structure is not None:
            assert prior is not None, "a dual-stream network needs the structure prior"
            seen = prior if noisy is None else torch.cat([noisy, prior], 1)
            f = f + self.structure(seen, level)
        structure = None
        if self.structure is not None:
            assert prior is not None
            structure = prior + self._out(self.to_structure, F.relu(self.narrow(F.relu(f))))
        for block in self.fusion:
            f = block(f, level)
        return self._out(self.to_image, F.relu(f)), structure

    def _level(self, sqrt_g: Tensor | None, properties: Tensor | None) -> Tensor | None:
        """Noise level and scan properties as one vector per scan. It is not expanded to the size of the batch."""
        level = None
        if self.level is not None:
            assert sqrt_g is not None, "a denoiser needs the noise level"
            level = self.level[0](_level_features(sqrt_g))
        if self.told is not None:
            assert properties is not None, "this network needs the scan properties"
            embedded = self.told(properties)
            level = embedded if level is None else level + embedded
        return None if level is None else F.silu(level)

    @staticmethod
    def _out(conv: nn.Conv2d, f: Tensor) -> Tensor:
        with torch.autocast(f.device.type, enabled=False):
            return conv(f.float())


_LEVEL_FEATURES, _LEVEL_WIDTH = 16, 64


def _level_features(sqrt_g: Tensor) -> Tensor:
    """Fourier features of sqrt(g) in [0, 1], shape (B, 16)."""
    frequency = torch.pi * torch.arange(1, _LEVEL_FEATURES // 2 + 1, device=sqrt_g.device, dtype=torch.float32)
    angle = sqrt_g.float()[:, None] * frequency
    return torch.cat([angle.cos(), angle.sin()], 1)
