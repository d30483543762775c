"""Real scans as they are, upscaled, beside bicubic: noise, edges, overshoot; agreement of a soft with a sharp kernel.

    python benchmarks/real_scans.py --weights x2 --out results/real-scans-x2.json --pictures runs/real-scans
    python benchmarks/real_scans.py --weights x4 --test --out results/real-scans-x4.json

Definitions: `uhrct.evaluation.real_scans`. Targets: docs/evaluation.md. Default settings, nothing told.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import torch

from uhrct import io
from uhrct.core.hu import DISPLAY_WINDOWS_HU, FLOOR_HU
from uhrct.core.progress import track
from uhrct.core.undefined import Undefined
from uhrct.core.volume import Volume
from uhrct.evaluation.pictures import pyplot
from uhrct.evaluation.protocol import CONTEXT, evenly_spaced
from uhrct.evaluation.real_scans import agreement, edge_gradient, noise_hu, overshoot_hu, overshoot_ratio
from uhrct.models.model import Model
from uhrct.physics.resampling import upsample_stack
from uhrct.physics.scan_noise import measure_noise
from uhrct.upscaling.upscaler import Upscaler

#: One scan reconstructed twice: soft, sharp.
TWICE = ("validation/lungdx_a0001_B", "validation/lungdx_a0001_L")


def part_around(volume: Volume, k: int) -> Volume:
    """Slice k with its neighbours and their headers, padding as air; ends go on."""
    numbers = np.arange(k - CONTEXT, k + CONTEXT + 1).clip(0, volume.shape[0] - 1)
    headers = volume.meta.get("dicom")
    meta = {"dicom": [headers[n] for n in numbers]} if headers else {}
    return dataclasses.replace(volume, hu=np.maximum(volume.hu[numbers], np.int16(FLOOR_HU)), meta=meta)


def upscaled(upscaler: Upscaler, volume: Volume, k: int) -> np.ndarray:
    """Slice k as `uhrct upscale` makes it, with what the header says, of a scan of its neighbours alone."""
    return upscaler(part_around(volume, k)).volume.hu[CONTEXT].astype(np.float32)


def stack_of(volume: Volume, k: int) -> torch.Tensor:
    """Slice k with its neighbours (2 CONTEXT + 1, y, x), padding as air; ends go on."""
    numbers = np.arange(k - CONTEXT, k + CONTEXT + 1).clip(0, volume.shape[0] - 1)
    return torch.from_numpy(volume.hu[numbers].astype(np.float32)).clamp(min=FLOOR_HU)


def slice_row(
    upscaler: Upscaler, volume: Volume, k: int, scale: tuple[int, int, int]
) -> tuple[dict[str, Any], Any, Any]:
    """Figures of one slice, and the slice by the method and by bicubic."""
    stack = stack_of(volume, k)
    ours = upscaled(upscaler, volume, k)
    bicubic = upsample_stack(stack, scale)[0].numpy()
    fine_mm = (volume.spacing_mm[1] / scale[1], volume.spacing_mm[2] / scale[2])
    row: dict[str, Any] = {"slice": k}
    row["scan_noise_hu"] = measure_noise(volume.hu[k], (volume.spacing_mm[1], volume.spacing_mm[2])).sigma_hu
    with contextlib.suppress(Undefined):  # a slice without an even patch
        row["noise_hu"], row["bicubic_noise_hu"] = noise_hu(ours, bicubic, scale[1])
    row["edge_hu_px"], row["bicubic_edge_hu_px"] = edge_gradient(ours, bicubic)
    row["overshoot_hu"], row["bicubic_overshoot_hu"] = overshoot_hu(ours, bicubic, volume.hu[k], fine_mm)
    return row, ours, bicubic


def summary(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Means over slices; each ratio is a median over slices."""
    even = [r for r in rows if "noise_hu" in r]
    none = float("nan")
    return {
        "scan_noise_hu": float(np.nanmedian([r["scan_noise_hu"] for r in rows])),
        "noise_ratio": float(np.median([r["noise_hu"] / r["bicubic_noise_hu"] for r in even])) if even else none,
        "edge_ratio": float(np.median([r["edge_hu_px"] / r["bicubic_edge_hu_px"] for r in rows])),
        "overshoot_ratio": float(
            np.median([overshoot_ratio(r["overshoot_hu"], r["bicubic_overshoot_hu"]) for r in rows])
        ),
        "overshoot_hu": float(np.median([r["overshoot_hu"] for r in rows])),
    }


def kernel_of(folder: Path) -> str:
    """Manufacturer and kernel in the header of a series."""
    import pydicom

    header = pydicom.dcmread(next(iter(sorted(folder.glob("*.dcm")))), stop_before_pixels=True)
    name = header.get("ConvolutionKernel") or "?"
    return f"{header.get('Manufacturer') or '?'} {name if isinstance(name, str) else name[0]}"


def twice(upscaler: Upscaler, data: Path, scale: tuple[int, int, int], count: int) -> dict[str, dict[str, float]]:
    """Agreement of the upscaled soft reconstruction with the sharp one: ours, bicubic."""
    soft, sharp = (io.read(data / name) for name in TWICE)
    fine_mm = (soft.spacing_mm[1] / scale[1], soft.spacing_mm[2] / scale[2])
    found: dict[str, list[dict[str, float]]] = {"ours": [], "bicubic": []}
    for k in evenly_spaced(soft.shape[0], count + 2)[1:-1]:
        reference = upsample_stack(stack_of(sharp, k), scale)[0].numpy()
        images = {
            "ours": upscaled(upscaler, soft, k),
            "bicubic": upsample_stack(stack_of(soft, k), scale)[0].numpy(),
        }
        for name, image in images.items():
            found[name].append(agreement(image, reference, fine_mm))
    return {n: {k: float(np.mean([r[k] for r in rows])) for k in rows[0]} for n, rows in found.items()}


def picture(name: str, k: int, ours: np.ndarray, bicubic: np.ndarray, fine_mm: float, out: Path) -> None:
    """Bicubic above, ours below: whole slice, then even tissue, lung and bone large."""
    plt = pyplot()
    h, w = ours.shape
    side = int(70 / fine_mm)
    tissue = (bicubic > -20) & (bicubic < 200)
    middle = [int(np.median(i)) for i in np.nonzero(tissue)] if tissue.any() else [h // 2, w // 2]
    crops = {
        "wide": (middle[0] - side // 2, middle[1] - side // 2, (-150.0, 250.0)),
        "lung": (int(0.42 * h), int(0.22 * w), DISPLAY_WINDOWS_HU["lung"]),
        "bone": (int(0.60 * h), w // 2 - side // 2, DISPLAY_WINDOWS_HU["bone"]),
    }
    figure, axes = plt.subplots(2, 4, figsize=(17, 8.6), layout="constrained")
    for line, (method, image) in zip(axes, (("bicubic", bicubic), ("ours", ours)), strict=True):
        line[0].imshow(image, cmap="gray", vmin=-600, vmax=400)
        line[0].set_title(f"{method}: {name}, slice {k}")
        for axis, (crop, (top, left, window)) in zip(line[1:], crops.items(), strict=True):
            part = image[max(top, 0) : top + side, max(left, 0) : left + side]
            axis.imshow(part, cmap="gray", vmin=window[0], vmax=window[1])
            axis.set_title("even tissue" if crop == "wide" else crop)
    for axis in axes.flat:
        axis.axis("off")
    figure.savefig(out / f"{name.replace('/', '-')}-{k:03d}.png", dpi=65)
    plt.close(figure)


def table(results: dict[str, Any]) -> str:
    lines = [
        "| series | kernel | noise of the scan HU | noise ratio | edge ratio | overshoot ratio (HU) |",
        "|---|---|---|---|---|---|",
    ]
    for name, found in results["series"].items():
        s = found["summary"]
        lines.append(
            f"| {name} | {found['kernel']} | {s['scan_noise_hu']:.1f} | {s['noise_ratio']:.2f} | "
            f"{s['edge_ratio']:.2f} | {s['overshoot_ratio']:.2f} ({s['overshoot_hu']:.0f}) |"
        )
    if results["agreement"]:
        lines += ["", "| soft against sharp reconstruction | structure | edges |", "|---|---|---|"]
        for method, s in results["agreement"].items():
            lines.append(f"| {method} | {s['structure']:.3f} | {s['edges']:.3f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="x2")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path("../shared/ct"))
    parser.add_argument("--slices", type=int, default=4, help="of each series")
    parser.add_argument("--denoise", type=float, help="share of noise to remove, for weights that take this wish")
    parser.add_argument("--test", action="store_true", help="also the test series")
    parser.add_argument("--pictures", type=Path, help="folder for a picture of each series")
    args = parser.parse_args()
    model = Model.from_pretrained(args.weights)
    upscaler = Upscaler(model, denoise=args.denoise)
    scale = model.config.scale
    splits = ("validation", "test") if args.test else ("validation",)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    meta = {"weights": args.weights, "weights_sha256": model.weights_sha256, "commit": commit, "slices": args.slices}
    meta["denoise"] = args.denoise
    results: dict[str, Any] = {"meta": meta, "series": {}}
    folders = [f for split in splits for f in sorted((args.data / split).iterdir()) if f.is_dir()]
    for folder in track(folders, "real scans"):
        volume = io.read(folder)
        name = f"{folder.parent.name}/{folder.name}"
        rows = []
        for k in evenly_spaced(volume.shape[0], args.slices + 2)[1:-1]:
            row, ours, bicubic = slice_row(upscaler, volume, k, scale)
            rows.append(row)
        if args.pictures:
            args.pictures.mkdir(parents=True, exist_ok=True)
            picture(name, k, ours, bicubic, volume.spacing_mm[1] / scale[1], args.pictures)
        results["series"][name] = {"kernel": kernel_of(folder), "summary": summary(rows), "rows": rows}
    both_there = all((args.data / name).is_dir() for name in TWICE)
    results["agreement"] = twice(upscaler, args.data, scale, args.slices) if both_there else {}
    args.out.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
