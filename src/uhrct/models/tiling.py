"""Runs a network over an image in tiles, without visible seams."""

from __future__ import annotations

from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from uhrct.models.dssp import DSSP

#: top, bottom, left, right in LR pixels, as in image[..., top:bottom, left:right]
Box: TypeAlias = tuple[int, int, int, int]


def run_tiled(
    network: DSSP,
    tile: int | None,
    x: Tensor,
    *images: Tensor | None,
    box: Box | None = None,
    **numbers: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    """`network(*images)`, computed in tiles of at most `tile` x `tile` LR pixels; None: in one piece.

    Each tile gets `network.halo` more pixels on each side, which is all that its output depends on. At the border of
    the image a tile ends where the image ends, so that the convolutions pad there as they do on the whole image. The
    result equals the whole to rounding.

    Parameters
    ----------
    x, images : the inputs of the network, tensors (B, c, y, x) or None
    box : only the outputs in it are computed, the others are 0; None: all
    numbers : its other inputs, sqrt_g and properties
    """
    height, width = x.shape[-2:]
    whole_image = (0, height, 0, width)
    tile = tile or max(height, width)
    if (box is None or box == whole_image) and height <= tile and width <= tile:
        return network(x, *images, **numbers)
    top_of_box, bottom_of_box, left_of_box, right_of_box = box or whole_image
    halo = network.halo
    joined: list[list[Tensor]] = []  # for each row of tiles, each output of the row
    for top in range(top_of_box, bottom_of_box, tile):
        row: list[tuple[Tensor, ...]] = []
        for left in range(left_of_box, right_of_box, tile):
            y0, x0 = max(top - halo, 0), max(left - halo, 0)
            y1, x1 = min(top + tile, bottom_of_box), min(left + tile, right_of_box)
            window = [None if i is None else i[..., y0 : y1 + halo, x0 : x1 + halo] for i in (x, *images)]
            image, structure = network(*window, **numbers)
            outputs = (image,) if structure is None else (image, structure)
            row.append(tuple(o[..., top - y0 : y1 - y0, left - x0 : x1 - x0] for o in outputs))
        joined.append([torch.cat(tiles, -1) for tiles in zip(*row, strict=True)])
    around = (left_of_box, width - right_of_box, top_of_box, height - bottom_of_box)
    whole = [F.pad(torch.cat(rows, -2), around) for rows in zip(*joined, strict=True)]
    return whole[0], whole[1] if len(whole) > 1 else None
