"""Score and time of the qualities and of the engine int8, side by side in one run -> results/tiers.json.

`uhrct models` shows them, from a copy beside the weights.

    python benchmarks/tiers.py --scales 2 4
    python benchmarks/tiers.py --table      # print the table of results/tiers.json

Evenly spaced slices of validation/rider0117 and test/lidc0314 are degraded by the scanner model and super-resolved:
nothing told, `denoise=0`. The gain is that of PSNR over bicubic interpolation. The seconds are those of the whole
`Upscaler` for a slice of lidc0314, the median of some runs that take turns.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from uhrct import io
from uhrct.benchmark.complexity import complexity
from uhrct.core.files import write_atomic
from uhrct.core.memory import keep_freed_memory
from uhrct.core.progress import track
from uhrct.core.volume import Volume
from uhrct.evaluation.fidelity import psnr
from uhrct.evaluation.protocol import evenly_spaced
from uhrct.models.folder import TIERS
from uhrct.physics.degrade import degrade
from uhrct.physics.resampling import upsample_stack
from uhrct.upscaling.plan import TURNS
from uhrct.upscaling.upscaler import Upscaler

CASES = ("validation/rider0117", "test/lidc0314")
#: settings of each way to compute a result
WAYS: dict[str, dict[str, str]] = {
    "fast": {"quality": "fast"},
    "standard": {},
    "standard, int8": {"engine": "int8"},
    "best": {"quality": "best"},
}
WINDOW_HU = (-1000.0, 600.0)


def degraded(whole: Volume, k: int, scale: int, context: int = 1) -> tuple[np.ndarray, Volume]:
    """(truth of slice k, low-resolution volume of the slice and its neighbours)."""
    side = [n // 4 * 4 for n in whole.shape[1:]]
    around = np.clip(np.arange(k - context, k + context + 1), 0, whole.shape[0] - 1)
    hu = np.maximum(whole.hu[around, : side[0], : side[1]], -1024)
    return hu[context], degrade(Volume(hu, whole.spacing_mm), scale=scale)


def measure(scale: int, slices: int, repeats: int, data: Path) -> dict[str, Any]:
    """The figures of one scale."""
    upscalers = {way: Upscaler(scale=scale, denoise=0.0, **settings) for way, settings in WAYS.items()}
    out: dict[str, Any] = {way: {"gain_db": {}} for way in WAYS}
    for case in CASES:
        whole = io.read(data / case)
        gains: dict[str, list[float]] = {way: [] for way in WAYS}
        for k in track(evenly_spaced(whole.shape[0], slices), f"x{scale} {case}"):
            truth, low = degraded(whole, k, scale)
            bicubic = upsample_stack(torch.from_numpy(low.hu[1:2].astype(np.float32)), (1, scale, scale))[0].numpy()
            base = psnr(truth, bicubic, window_hu=WINDOW_HU)
            for quality, upscaler in upscalers.items():
                fine = upscaler(low).volume.hu[1]
                gains[quality].append(psnr(truth, fine, window_hu=WINDOW_HU) - base)
        for quality in WAYS:
            out[quality]["gain_db"][case] = round(float(np.mean(gains[quality])), 3)
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    one = Volume(low.hu[1:2], low.spacing_mm)
    for _ in range(repeats):
        for quality, upscaler in upscalers.items():
            begin = time.perf_counter()
            upscaler(one)
            times[quality].append(time.perf_counter() - begin)
    for quality, settings in WAYS.items():
        model = Upscaler(scale=scale, quality=settings.get("quality", "standard")).plan(one).model
        cost = complexity(model, lr_shape=(one.shape[1], one.shape[2]))
        out[quality] |= {
            "seconds": round(float(np.median(times[quality])), 4),
            "multiply_adds_per_lr_pixel": round(cost.macs_per_lr_px * (len(TURNS) if quality == "best" else 1)),
            "parameters": cost.parameters,
            "weights_sha256": model.weights_sha256,
        }
    return {"lr_shape": list(one.shape), **out}


def table(result: dict[str, Any]) -> str:
    """The figures as markdown."""
    lines = [
        "| scale | quality, engine | gain on rider0117, lidc0314 | time | multiply-adds |",
        "|---|---|---|---|---|",
    ]
    for name, rows in result["scales"].items():
        standard = rows["standard"]
        for quality in WAYS:
            row = rows[quality]
            gain = ", ".join(f"{row['gain_db'][case]:+.2f} dB" for case in CASES)
            time_ratio = row["seconds"] / standard["seconds"]
            work = row["multiply_adds_per_lr_pixel"] / standard["multiply_adds_per_lr_pixel"]
            lines.append(f"| {name} | {quality} | {gain} | {time_ratio:.2f} | {work:.2f} |")
    return "\n".join(lines)


def main() -> None:
    keep_freed_memory()  # as the command line does
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scales", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--slices", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--data", type=Path, default=Path("../shared/ct"))
    parser.add_argument("--out", type=Path, default=Path("results/tiers.json"))
    parser.add_argument("--table", action="store_true", help="print the table of the result file and stop")
    args = parser.parse_args()
    if args.table:
        print(table(json.loads(args.out.read_text())))
        return
    result: dict[str, Any] = {
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        "slices": args.slices,
        "scales": {f"x{s}": measure(s, args.slices, args.repeats, args.data) for s in args.scales},
    }
    for file in (args.out, TIERS):
        write_atomic(file, json.dumps(result, indent=2) + "\n")
    print(table(result))


if __name__ == "__main__":
    main()
