"""Attention over images: over the whole image, or inside (shifted) windows."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Attention(nn.Module):
    """One head of self-attention over all pixels, added to its input (the U-Net of arXiv 2006.11239)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, width)
        self.qkv, self.out = nn.Conv2d(width, 3 * width, 1), nn.Conv2d(width, width, 1)

    def forward(self, f: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(f)).flatten(2).chunk(3, 1)
        weight = torch.softmax(q.mT @ k / f.shape[1] ** 0.5, -1)
        return f + self.out((v @ weight.mT).view_as(f))


class SwinBlock(nn.Module):
    """Attention inside windows whose grid is shifted by `shift` pixels, then a two-layer network per pixel.

    Sides of the input must be multiples of `window`.

    References
    ----------
    Liu et al., "Swin Transformer", ICCV 2021, doi 10.1109/ICCV48922.2021.00986, arXiv 2103.14030.
    """

    pairs: Tensor

    def __init__(self, width: int, window: int, shift: int, ratio: int = 4) -> None:
        super().__init__()
        self.window, self.shift = window, shift
        self.heads = max(width // 32, 1)
        self.norm, self.norm_after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, ratio * width), nn.GELU(), nn.Linear(ratio * width, width))
        self.bias = nn.Parameter(0.02 * torch.randn((2 * window - 1) ** 2, self.heads))
        self.register_buffer("pairs", _relative(window), persistent=False)

    def forward(self, f: Tensor) -> Tensor:
        f = f.permute(0, 2, 3, 1)
        f = f + self._attend(self.norm(f))
        return (f + self.mlp(self.norm_after(f))).permute(0, 3, 1, 2)

    def _attend(self, f: Tensor) -> Tensor:
        b, height, width, c = f.shape
        f = f.roll((-self.shift, -self.shift), (1, 2)) if self.shift else f
        windows = self._cut(f)
        n, pixels = windows.shape[:2]
        q, k, v = self.qkv(windows).view(n, pixels, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        logits = q @ k.mT / (c // self.heads) ** 0.5
        logits = logits + self.bias[self.pairs].permute(2, 0, 1)
        if self.shift:
            apart = self._apart(height, width, f.device).repeat(b, 1, 1)
            logits = logits.masked_fill(apart[:, None], -100.0)
        out = self.out((torch.softmax(logits, -1) @ v).transpose(1, 2).reshape(n, pixels, c))
        rows, columns, w = height // self.window, width // self.window, self.window
        out = out.view(b, rows, columns, w, w, c).transpose(2, 3).reshape(b, height, width, c)
        return out.roll((self.shift, self.shift), (1, 2)) if self.shift else out

    def _cut(self, f: Tensor) -> Tensor:
        """(B, y, x, c) -> (B windows, pixels, c)."""
        w = self.window
        f = f.unflatten(1, (-1, w)).unflatten(3, (-1, w))
        return f.transpose(2, 3).flatten(3, 4).flatten(0, 2)

    def _apart(self, height: int, width: int, device: torch.device) -> Tensor:
        """Pairs of pixels in a window that the roll brought from opposite ends of the image, (windows, n, n)."""
        rows, columns = (torch.arange(n, device=device) >= n - self.shift for n in (height, width))
        label = (2 * rows.long()[:, None] + columns.long()[None])[None, ..., None]
        windows = self._cut(label)[..., 0]
        return windows[:, :, None] != windows[:, None, :]


def _relative(window: int) -> Tensor:
    """Index of each pair of pixels of a window in the table of relative positions, (n, n)."""
    grid = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")).flatten(1)
    dy, dx = grid[:, :, None] - grid[:, None, :] + window - 1
    return dy * (2 * window - 1) + dx
