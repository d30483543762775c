"""Speed and memory of the shipped x2 weights, beside the machine's own convolution peak measured in the same run.

    python benchmarks/speed.py --out results/speed.json [--study FOLDER]

Run it on an idle machine. `--study` upscales a whole series (default ../shared/ct/test/lidc0314, degraded to 256x256
and as it is, 512x512) through the command line and reads its peak memory.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from uhrct.model import Model, inference_dtype
from uhrct.upscaler import Upscaler
from uhrct.volume import Volume


def seconds(f: Callable[[], object], repeats: int = 7) -> float:
    """Median time of a call, after one to warm up."""
    f()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        f()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def peak_flops(dtype: torch.dtype) -> float:
    """FLOP/s of the best plain 3x3 convolution of this machine at 256 x 256."""
    best = 0.0
    for width in (64, 96, 128):
        convs = nn.Sequential(*(nn.Conv2d(width, width, 3, padding=1) for _ in range(4))).to(dtype)
        convs.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        x = torch.randn(1, width, 256, 256, dtype=dtype).to(memory_format=torch.channels_last)
        with torch.inference_mode():
            best = max(best, 2 * 4 * 9 * width**2 * 256**2 / seconds(lambda c=convs, x=x: c(x)))
    return best


def macs_per_pixel(network: nn.Module) -> int:
    """Multiply-adds of a pass per LR pixel: every weight of every convolution is used once."""
    return sum(m.weight.numel() for m in network.modules() if isinstance(m, nn.Conv2d))


def run_cli(*arguments: str) -> dict[str, float]:
    """Wall-clock seconds and peak memory of one `uhrct` command."""
    code = (
        "import resource, runpy, sys\n"
        "sys.argv = ['uhrct', *sys.argv[1:]]\n"
        "try:\n    runpy.run_module('uhrct', run_name='__main__')\n"
        "finally:\n    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    took = time.perf_counter() - begin
    if done.returncode:
        sys.exit(done.stderr)
    return {"seconds": round(took, 2), "peak_memory_mb": round(int(done.stdout.split()[-1]) / 1024)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/speed.json"))
    parser.add_argument("--study", type=Path, default=Path("../shared/ct/test/lidc0314"))
    args = parser.parse_args()
    model = Model.from_pretrained("x2")
    rng = np.random.default_rng(0)
    slice_hu = Volume(rng.normal(-500, 300, (1, 256, 256)).astype(np.float32), (1.0, 1.4, 1.4))
    result: dict[str, object] = {
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        "weights_sha256": model.weights_sha256,
    }
    for dtype in dict.fromkeys((inference_dtype(torch.device("cpu")), torch.float32)):
        upscaler = Upscaler(model, precision=dtype)
        took = seconds(lambda u=upscaler: list(u.slabs(slice_hu)))
        peak = peak_flops(dtype)
        assert model.mean is not None
        flops = 2 * macs_per_pixel(model.mean) * 256**2
        row = {
            "mean_256_to_512_s": round(took, 3),
            "network_gflop": round(flops / 1e9, 1),
            "machine_peak_gflops": round(peak / 1e9),
            "share_of_peak": round(flops / took / peak, 3),
        }
        if model.denoiser is not None:
            sampler = Upscaler(model, precision=dtype, steps=4)
            row["sample_4_steps_s"] = round(seconds(lambda u=sampler: list(u.slabs(slice_hu)), 3), 3)
        result[str(dtype).removeprefix("torch.")] = row
    result["help_s"] = run_cli("--help")["seconds"]
    if args.study.is_dir():
        with tempfile.TemporaryDirectory() as folder:
            low = f"{folder}/low.nii.gz"
            run_cli("degrade", str(args.study), low, "--quiet")
            result["study_256_to_512"] = run_cli("upscale", low, f"{folder}/sr.nii.gz", "--quiet")
            result["study_dicom_512_to_1024"] = run_cli("upscale", str(args.study), f"{folder}/sr", "--quiet")
            result["slices"] = len(list(args.study.glob("*.dcm")))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
