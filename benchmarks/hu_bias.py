"""HU bias per tissue: results of simulated scans against the truth, and of real scans against the scan itself.

    python benchmarks/hu_bias.py --weights x2 x4 --out results/hu-bias.json
    python benchmarks/hu_bias.py --weights x2 x4 --test --out results/hu-bias-test.json

Default settings, nothing told. Tissues: even parts of a slice, as the audit finds them (`uhrct.audit.agreement`). Only
scales that keep the slices.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
from pathlib import Path

import numpy as np
import torch
from real_scans import part_around

from uhrct import io
from uhrct.audit.agreement import Agreement
from uhrct.core.progress import track
from uhrct.core.volume import Volume
from uhrct.evaluation.protocol import CONTEXT, evenly_spaced
from uhrct.models.model import Model
from uhrct.physics.degrade import degrade
from uhrct.upscaling.upscaler import Upscaler


def neighbourhood(volume: Volume, k: int, multiple: int) -> Volume:
    """Slice k with its neighbours, cropped to a multiple of the scale; padding as air."""
    part = part_around(volume, k)
    y, x = (n - n % multiple for n in volume.shape[1:])
    return dataclasses.replace(part, hu=np.ascontiguousarray(part.hu[:, :y, :x]))


def pixel_means(hu: np.ndarray, scale: tuple[int, int, int]) -> np.ndarray:
    """Means of a fine slice over the pixels of the scan."""
    return torch.nn.functional.avg_pool2d(torch.from_numpy(hu.astype(np.float32))[None], scale[1:])[0].numpy()


def bias_hu(
    upscaler: Upscaler, volume: Volume, slices: int, scale: tuple[int, int, int]
) -> dict[str, dict[str, float]]:
    """Mean of result minus reference per tissue, in HU."""
    found = {"simulated": Agreement(), "real": Agreement()}
    for k in evenly_spaced(volume.shape[0], slices + 2)[1:-1]:
        part = neighbourhood(volume, k, scale[1])
        for kind, agreement in found.items():
            low = degrade(part, scale=scale) if kind == "simulated" else part
            fine = upscaler(low).volume.hu[CONTEXT]
            reference = pixel_means(part.hu[CONTEXT], scale) if kind == "simulated" else part.hu[CONTEXT]
            agreement.add(reference, pixel_means(fine, scale))
    return {kind: agreement.as_dict(None, 0.0)["bias_hu"] for kind, agreement in found.items()}


def table(results: dict[str, dict[str, dict[str, dict[str, float]]]]) -> str:
    """A markdown table."""
    lines = ["| weights | series | kind | lung | soft tissue | bone |", "|---" * 6 + "|"]
    for weights, cases in results.items():
        for case, kinds in cases.items():
            for kind, bias in kinds.items():
                cells = ("-" if v is None else f"{v:+.2f}" for v in bias.values())
                lines.append(f"| {weights} | {case} | {kind} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", nargs="+", default=["x2", "x4"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path("../shared/ct"))
    parser.add_argument("--slices", type=int, default=2, help="of each series")
    parser.add_argument("--test", action="store_true", help="the test series instead of the validation series")
    args = parser.parse_args()
    folders = sorted(f for f in (args.data / ("test" if args.test else "validation")).iterdir() if f.is_dir())
    results: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    sha256 = {}
    for name in args.weights:
        model = Model.from_pretrained(name)
        sha256[name] = model.weights_sha256
        upscaler, scale = Upscaler(model), model.config.scale
        results[name] = {
            f.name: bias_hu(upscaler, io.read(f), args.slices, scale) for f in track(folders, f"bias, {name}")
        }
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    meta = {"commit": commit, "weights_sha256": sha256, "slices": args.slices}
    args.out.write_text(json.dumps({"meta": meta, "bias_hu": results}, indent=1) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
