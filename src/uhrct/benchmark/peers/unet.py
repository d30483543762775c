"""The U-Net of diffusion models: residual blocks with the noise level as input, attention in the deep levels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uhrct.benchmark.peers.attention import Attention, SwinBlock
from uhrct.benchmark.peers.peer import exact

_LEVEL_FEATURES = 32


class UNet(nn.Module):
    """Residual U-Net of Ho et al. (DDPM, arXiv 2006.11239), with the changes of SR3 and ResShift.

    Parameters
    ----------
    inputs : channels of the image, condition included
    width, multipliers : level k has width * multipliers[k] features; each level halves the sides of the image
    blocks : residual blocks per level on the way down (one more on the way up)
    attend_from : first level with attention
    window : 0: attention over the whole level; else the side of (shifted) Swin windows

    Images of any size are padded with their edge, and cut again at the end.
    """

    def __init__(
        self,
        *,
        inputs: int,
        width: int,
        multipliers: Sequence[int],
        blocks: int,
        attend_from: int,
        window: int = 0,
    ) -> None:
        super().__init__()
        level_width = 4 * width
        self.multiple = 2 ** (len(multipliers) - 1) * (window or 1)
        self.level = nn.Sequential(
            nn.Linear(_LEVEL_FEATURES, level_width), nn.SiLU(), nn.Linear(level_width, level_width)
        )
        self.head = nn.Conv2d(inputs, width, 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        skips, now = [width], width
        for k, m in enumerate(multipliers):
            for _ in range(blocks):
                self.down.append(_Stage(now, width * m, level_width, k >= attend_from, window))
                now = width * m
                skips.append(now)
            if k < len(multipliers) - 1:
                self.down.append(_Half(now))
                skips.append(now)
        self.middle = nn.ModuleList(
            [_Stage(now, now, level_width, True, window), _Stage(now, now, level_width, False, window)]
        )
        for k, m in reversed(list(enumerate(multipliers))):
            for _ in range(blocks + 1):
                self.up.append(_Stage(now + skips.pop(), width * m, level_width, k >= attend_from, window))
                now = width * m
            if k:
                self.up.append(_Double(now))
        self.tail = nn.Sequential(_norm(now), nn.SiLU(), nn.Conv2d(now, 1, 3, padding=1))

    def forward(self, image: Tensor, level: Tensor) -> Tensor:
        """(B, 1, y, x) for an image (B, inputs, y, x) and its level (B,) or (1,), a number in [0, 1]."""
        height, width = image.shape[-2:]
        more = (0, -width % self.multiple, 0, -height % self.multiple)
        f = self.head(F.pad(image, more, mode="replicate") if any(more) else image)
        embedded = self.level(_features(level))
        skips = [f]
        for stage in self.down:
            f = stage(f, embedded)
            skips.append(f)
        for stage in self.middle:
            f = stage(f, embedded)
        for stage in self.up:
            # SR3 scales its skips by 1 / sqrt(2), so that the variance of a sum stays the same
            if not isinstance(stage, _Double):
                f = torch.cat([f, skips.pop() * 0.5**0.5], 1)
            f = stage(f, embedded)
        return exact(self.tail, f)[..., :height, :width]


class _Stage(nn.Module):
    """norm, SiLU, conv, shift by the level, norm, SiLU, conv; then attention, if any."""

    def __init__(self, inputs: int, width: int, level_width: int, attend: bool, window: int) -> None:
        super().__init__()
        self.norm, self.first = _norm(inputs), nn.Conv2d(inputs, width, 3, padding=1)
        self.shift = nn.Linear(level_width, width)
        self.norm_after, self.second = _norm(width), nn.Conv2d(width, width, 3, padding=1)
        self.beside = nn.Conv2d(inputs, width, 1) if inputs != width else nn.Identity()
        self.attention: nn.Module = nn.Identity()
        if attend and window:
            self.attention = nn.Sequential(SwinBlock(width, window, 0), SwinBlock(width, window, window // 2))
        elif attend:
            self.attention = Attention(width)
        nn.init.zeros_(self.second.weight)  # the block starts as the identity, so deep stacks train from the first step
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]

    def forward(self, f: Tensor, level: Tensor) -> Tensor:
        h = self.first(F.silu(self.norm(f))) + self.shift(F.silu(level))[:, :, None, None]
        return self.attention(self.beside(f) + self.second(F.silu(self.norm_after(h))))


class _Half(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, f: Tensor, level: Tensor) -> Tensor:
        return self.conv(f)


class _Double(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, f: Tensor, level: Tensor) -> Tensor:
        return self.conv(F.interpolate(f, scale_factor=2.0, mode="nearest"))


def _norm(width: int) -> nn.GroupNorm:
    """32 groups as published, or fewer, so that each has at least four channels."""
    groups = max(g for g in range(1, 33) if width % g == 0 and (g == 1 or width // g >= 4))
    return nn.GroupNorm(groups, width)


def _features(level: Tensor) -> Tensor:
    """Sines and cosines of a number in [0, 1] at several frequencies, (B, 32)."""
    frequency = torch.exp(torch.linspace(0, 6.9, _LEVEL_FEATURES // 2, device=level.device))  # 1 to 1000
    angle = level.float()[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], 1)
