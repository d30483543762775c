"""Runs a network over an image in tiles, without visible seams."""

from __future__ import annotations

import torch
from torch import Tensor

from uhrct.models.dssp import DSSP


def run_tiled(
    network: DSSP, tile: int | None, x: Tensor, *images: Tensor | None, **numbers: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """`network(*images)`, computed in tiles of at most `tile` x `tile` LR pixels; None: in one piece.

    Each tile gets `network.halo` more pixels on each side, which is all that its output depends on. At the border of
    the image a tile ends where the image ends, so that the convolutions pad there as they do on the whole image. The
    result equals the whole to rounding.

    Parameters
    ----------
    x, images : the inputs of the network, tensors (B, c, y, x) or None
    numbers : its other inputs, sqrt_g and properties
    """
    height, width = x.shape[-2:]
    if tile is None or (height <= tile and width <= tile):
        return network(x, *images, **numbers)
    halo = network.halo
    joined: list[list[Tensor]] = []  # for each row of tiles, each output of the row
    for top in range(0, height, tile):
        row: list[tuple[Tensor, ...]] = []
        for left in range(0, width, tile):
            y0, x0 = max(top - halo, 0), max(left - halo, 0)
            y1, x1 = min(top + tile, height), min(left + tile, width)
            window = [None if i is None else i[..., y0 : y1 + halo, x0 : x1 + halo] for i in (x, *images)]
            image, structure = network(*window, **numbers)
            outputs = (image,) if structure is None else (image, structure)
            row.append(tuple(o[..., top - y0 : y1 - y0, left - x0 : x1 - x0] for o in outputs))
        joined.append([torch.cat(tiles, -1) for tiles in zip(*row, strict=True)])
    whole = [torch.cat(rows, -2) for rows in zip(*joined, strict=True)]
    return whole[0], whole[1] if len(whole) > 1 else None
