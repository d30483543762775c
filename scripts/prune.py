"""Cut a mean network down to fewer features, as the start of the training of a fast model.

    python scripts/prune.py x4 --width 48 --out runs/x4-pruned
    uhrct train configs/x4.yaml stages=[mean] init=runs/x4-pruned model.mean.image_width=48 \\
        model.mean.structure_width=0 --out runs/x4-fast --max-minutes 60

The features that the other layers depend on most are kept. The structure stream goes: its input, the structure map of
the interpolated scan, takes longer than the small network. The estimator stays.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn

from uhrct.models.dssp import DSSP
from uhrct.models.model import Model


def norms(weight: Tensor, axis: int) -> Tensor:
    """Norm of the weights of each output feature (axis 0) or input feature (axis 1)."""
    return weight.transpose(0, axis).flatten(1).norm(dim=1)


def strongest(scores: Tensor, width: int) -> Tensor:
    """The indices of the highest scores, in order."""
    return scores.topk(width).indices.sort().values


def cut(layer: nn.Conv2d | nn.Linear, small: nn.Conv2d | nn.Linear, out: Tensor | None, into: Tensor | None) -> None:
    """Copy the chosen features of a layer. None: all."""
    weight, bias = layer.weight, layer.bias
    if out is not None:
        weight, bias = weight[out], bias[out]
    if into is not None:
        weight = weight[:, into]
    small.weight.copy_(weight)
    small.bias.copy_(bias)


@torch.no_grad()
def prune(network: DSSP, small: DSSP) -> None:
    """Fill the network `small` with the strongest features of `network`."""
    width = small.to_image.in_channels
    blocks = list(zip([*network.image.blocks, *network.fusion], [*small.image.blocks, *small.fusion], strict=True))
    entry = [(network.image.head, small.image.head)]
    written = norms(network.image.head.weight, 0) + sum(norms(b.second.weight, 0) for b, _ in blocks[:-1])
    read = norms(network.image.after[1].weight, 1) + sum(norms(b.first.weight, 1) for b, _ in blocks[:-1])
    trunk = strongest(written * read, width)
    for big, new in entry:
        cut(big, new, trunk, None)
    # behind the last two layers of the stream, other features hold the image
    first, last = network.image.after[1], network.image.after[3]
    middle = strongest(norms(first.weight, 0) * norms(last.weight, 1), width)
    fused = strongest(norms(last.weight, 0) * norms(network.to_image.weight, 1), width)
    cut(first, small.image.after[1], middle, trunk)
    cut(last, small.image.after[3], fused, middle)
    for place, (big, new) in enumerate(blocks):
        around = trunk if place < len(network.image.blocks) else fused
        hidden = strongest(norms(big.first.weight, 0) * norms(big.second.weight, 1), width)
        cut(big.first, new.first, hidden, around)
        cut(big.second, new.second, around, hidden)
        cut(big.shift, new.shift, hidden, None)
    cut(network.to_image, small.to_image, None, fused)
    small.told.load_state_dict(network.told.state_dict())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", help="name or folder of the model")
    parser.add_argument("--width", type=int, default=48, help="features that stay")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    model = Model.from_pretrained(args.weights)
    mean = model.config.mean.model_copy(update={"image_width": args.width, "structure_width": 0})
    config = model.config.model_copy(update={"mean": mean, "denoiser": None, "interval": None, "sample_spread": None})
    small = Model(config)
    prune(model.mean, small.mean)
    if model.estimator is not None:
        small.estimator.load_state_dict(model.estimator.state_dict())
    small.save_pretrained(args.out)
    print(f"wrote {args.out}: {args.width} of {model.config.mean.image_width} features")


if __name__ == "__main__":
    main()
