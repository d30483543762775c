"""Pictures: LR, interpolation, ours and truth in three planes, or real scans made finer.

    python benchmarks/pictures.py --weights 5x2x2 --out docs/images/5x2x2.png
    python benchmarks/pictures.py --weights x2 --real --out runs/real-x2

The first degrades part of a patient and restores it. `--real` upscales every scan of 10 slices or more in `--data`
as it is. The truth is unknown there: look for noise worms, ringing at ribs and blotches.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from uhrct import io
from uhrct.core.errors import UhrctError
from uhrct.core.hu import DISPLAY_WINDOWS_HU
from uhrct.core.volume import Volume
from uhrct.evaluation.pictures import pyplot
from uhrct.evaluation.protocol import evenly_spaced
from uhrct.models.model import Model, stacks
from uhrct.physics.degrade import degrade
from uhrct.physics.resampling import upsample_stack
from uhrct.upscaling.slabs import compute_part
from uhrct.upscaling.upscaler import Upscaler

ROW_MM = 60.0  # side of the region in the picture


def part(volume: Volume, slices: slice) -> Volume:
    """Some slices of a volume, with padding as air."""
    hu = np.maximum(volume.hu[slices], -1024)
    return Volume(hu, volume.spacing_mm, slice_thickness_mm=volume.slice_thickness_mm)


def detail(volume: Volume, args: argparse.Namespace, scale: tuple[int, int, int]) -> tuple[Volume, list[float]]:
    """The volume around the region of the picture, with a margin, and its corner (y, x) in mm."""
    cuts, corner_mm = [], []
    for axis, centre_mm in ((1, args.y_mm), (2, args.x_mm)):
        spacing, s = volume.spacing_mm[axis], scale[axis]
        half = ROW_MM / 2 + 24
        first = max(int((centre_mm - half) / spacing) // s * s, 0)
        last = min(int((centre_mm + half) / spacing) // s * s, volume.shape[axis])
        cuts.append(slice(first, last))
        corner_mm.append(first * spacing)
    hu = volume.hu[:, cuts[0], cuts[1]]
    return Volume(hu, volume.spacing_mm, slice_thickness_mm=volume.slice_thickness_mm), corner_mm


def interpolated(low: Volume, scale: tuple[int, int, int]) -> np.ndarray:
    stack = stacks(torch.from_numpy(low.hu.astype(np.float32)), range(low.shape[0]), 2)
    return upsample_stack(stack, scale).flatten(0, 1).numpy()


def upscaled(model: Model, low: Volume, **settings: object) -> np.ndarray:
    return np.concatenate([s.hu for s in Upscaler(model, **settings).slabs(low)])  # type: ignore[arg-type]


def three_planes(args: argparse.Namespace, model: Model) -> None:
    """One figure: rows axial, coronal, sagittal; columns LR, interpolation, ours, a sample if there is one, truth."""
    scale = model.config.scale
    whole = io.read(args.data / args.case)
    n = min(whole.shape[0], max(80 // scale[0], 1) * scale[0])
    first = args.first if args.first is not None else (whole.shape[0] - n) // 2
    whole = part(whole, slice(first, first + n))
    known = dataclasses.asdict(Upscaler(model).plan(degrade(whole, scale=scale)).scan)  # of the whole scan
    truth, corner_mm = detail(whole, args, scale)
    low = degrade(truth, scale=scale)
    high = truth.refined_grid((1, 1, 1))
    images = {
        "LR": (low.hu, low.spacing_mm),
        "cubic interpolation": (interpolated(low, scale), high.spacing_mm),
        "ours, mean": (upscaled(model, low, overrides=known), high.spacing_mm),
    }
    if model.denoiser is not None:
        images["ours, 5-step sample"] = (upscaled(model, low, steps=5, overrides=known), high.spacing_mm)
    images["truth"] = (truth.hu, high.spacing_mm)
    centre = (truth.shape[0] * truth.spacing_mm[0] / 2, args.y_mm - corner_mm[0], args.x_mm - corner_mm[1])
    plt = pyplot()
    figure, axes = plt.subplots(3, len(images), figsize=(3.4 * len(images), 10.4), layout="constrained")
    for column, (title, (hu, spacing)) in enumerate(images.items()):
        for row, (name, fixed) in enumerate((("axial", 0), ("coronal", 1), ("sagittal", 2))):
            axis = axes[row, column]
            _show(axis, hu, spacing, fixed, centre, args.window)
            axis.set_title(title if row == 0 else "")
            if column == 0:
                axis.set_ylabel(name)
                axis.axis("on")
                axis.set(xticks=[], yticks=[])
    figure.suptitle(f"{args.case}, {args.weights}, window {DISPLAY_WINDOWS_HU[args.window]} HU, {ROW_MM:.0f} mm wide")
    figure.savefig(args.out, dpi=75)


def _show(
    axis: object, hu: np.ndarray, spacing: Sequence[float], fixed: int, centre: Sequence[float], window: str
) -> None:
    index = min(int(centre[fixed] / spacing[fixed]), hu.shape[fixed] - 1)
    image = np.take(hu, index, fixed)
    others = [a for a in range(3) if a != fixed]
    cut = []
    for a in others:
        half = ROW_MM / 2 / spacing[a]
        low = max(int(centre[a] / spacing[a] - half), 0)
        cut.append(slice(low, int(low + 2 * half)))
    image = image[cut[0], cut[1]]
    low_hu, high_hu = DISPLAY_WINDOWS_HU[window]
    axis.imshow(  # type: ignore[attr-defined]
        image,
        cmap="gray",
        vmin=low_hu,
        vmax=high_hu,
        aspect=spacing[others[0]] / spacing[others[1]],
        interpolation="nearest",
        origin="upper" if fixed == 0 else "lower",
    )
    axis.axis("off")  # type: ignore[attr-defined]


def real(args: argparse.Namespace, model: Model) -> None:
    """One figure per scan: cubic beside ours, as a whole slice and as zooms in lung and bone window."""
    args.out.mkdir(parents=True, exist_ok=True)
    plt = pyplot()
    for folder in sorted(p for p in args.data.glob("*/*") if p.is_dir()):
        try:
            whole = io.read(folder)
        except UhrctError as error:
            print(f"left out: {error}")
            continue
        if whole.shape[0] < 10:
            print(f"left out: {folder} has fewer than 10 slices")
            continue
        for z in evenly_spaced(whole.shape[0], 5)[1:4:2]:
            c = model.config.context
            some = part(whole, slice(max(z - c, 0), z + c + 1))
            middle = z - max(z - c, 0)
            plan = Upscaler(model).plan(some)
            [slab] = compute_part(plan, some, middle, middle + 1)
            stack = stacks(torch.from_numpy(some.hu.astype(np.float32)), [middle], 2)
            both = {"cubic": upsample_stack(stack, model.config.scale)[0, 0].numpy(), "ours": slab.hu[0]}
            figure, axes = plt.subplots(2, 4, figsize=(17, 8.6), layout="constrained")
            h, w = both["ours"].shape
            zooms = {
                "lung": (int(0.40 * h), int(0.22 * w), h // 6),
                "bone": (int(0.62 * h), int(0.42 * w), h // 6),
                "wide": (int(0.45 * h), int(0.45 * w), h // 6),
            }
            for row, (name, image) in enumerate(both.items()):
                axes[row, 0].imshow(image, cmap="gray", vmin=-600, vmax=400)
                axes[row, 0].set_title(f"{name}: {folder.name} slice {z}")
                for column, (window, (y, x, side)) in enumerate(zooms.items(), 1):
                    low, high = DISPLAY_WINDOWS_HU[window]
                    axes[row, column].imshow(image[y : y + side, x : x + side], cmap="gray", vmin=low, vmax=high)
                    axes[row, column].set_title(f"{window} window")
            for axis in axes.flat:
                axis.axis("off")
            figure.suptitle(str(plan.scan), fontsize=9)
            figure.savefig(args.out / f"{folder.name}-{z:03d}.png", dpi=65)
            plt.close(figure)
            print(args.out / f"{folder.name}-{z:03d}.png", plan.scan)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="x2")
    parser.add_argument("--case", default="test/lidc0314")
    parser.add_argument("--data", type=Path, default=Path("../shared/ct"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--real", action="store_true")
    parser.add_argument("--window", default="lung", choices=DISPLAY_WINDOWS_HU)
    parser.add_argument("--first", type=int, help="first HR slice")
    parser.add_argument("--y-mm", type=float, default=210.0, help="centre of the picture, from the first row")
    parser.add_argument("--x-mm", type=float, default=115.0)
    args = parser.parse_args()
    model = Model.from_pretrained(args.weights)
    (real if args.real else three_planes)(args, model)


if __name__ == "__main__":
    main()
