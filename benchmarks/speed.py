"""Speed and memory of the shipped weights, and the convolution peak of the machine in the same run.

    python benchmarks/speed.py --out results/speed.json [--study FOLDER]

Run it on an idle machine. It also upscales the series `--study` (default ../shared/ct/test/lidc0314) with the command
line and measures peak memory: degraded to 256 x 256, as it is (512 x 512), and 300 slices of it as 60 thick ones.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from uhrct import io
from uhrct.core.files import write_atomic
from uhrct.core.volume import Volume
from uhrct.models.model import Model, available_models
from uhrct.models.precision import inference_dtype
from uhrct.upscaling.slabs import compute_part
from uhrct.upscaling.upscaler import Upscaler


def seconds(f: Callable[[], object], repeats: int = 7) -> float:
    """Median seconds of a call, after a first one to warm up."""
    f()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        f()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def peak_flops(dtype: torch.dtype) -> float:
    """FLOP/s of the fastest plain 3x3 convolution on this machine at 256 x 256."""
    best = 0.0
    for width in (64, 96, 128):
        convs = nn.Sequential(*(nn.Conv2d(width, width, 3, padding=1) for _ in range(4))).to(dtype)
        convs.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        x = torch.randn(1, width, 256, 256, dtype=dtype).to(memory_format=torch.channels_last)
        with torch.inference_mode():
            best = max(best, 2 * 4 * 9 * width**2 * 256**2 / seconds(lambda c=convs, x=x: c(x)))
    return best


def macs_per_pixel(network: nn.Module) -> int:
    """Multiply-adds of a pass per LR pixel: each weight of each convolution is used once."""
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


def one(upscaler: Upscaler, volume: Volume, number: int) -> None:
    """Super-resolve one input slice."""
    list(compute_part(upscaler.plan(volume), volume, number, number + 1))


def one_slice(model: Model) -> dict[str, Any]:
    """Seconds for one slice of 256 x 256 (through plane: one thick slice with its neighbours)."""
    rng = np.random.default_rng(0)
    n = model.config.slices
    middle = n // 2
    volume = Volume(rng.normal(-500, 300, (n, 256, 256)).astype(np.float32), (5.0, 1.4, 1.4))
    assert model.mean is not None
    flops = 2 * macs_per_pixel(model.mean) * 256**2
    out: dict[str, Any] = {"scale": model.config.scale, "weights_sha256": model.weights_sha256}
    for dtype in dict.fromkeys((inference_dtype(torch.device("cpu")), torch.float32)):
        # Scan properties belong to a volume: they are passed in, so that no slice pays for their estimate.
        known = dataclasses.asdict(Upscaler(model).plan(volume).scan)
        upscaler = Upscaler(model, precision=dtype, overrides=known)
        took = seconds(lambda u=upscaler: one(u, volume, middle))
        peak = peak_flops(dtype)
        row = {
            "mean_s": round(took, 3),
            "network_gflop": round(flops / 1e9, 1),
            "machine_peak_gflops": round(peak / 1e9),
            "share_of_peak": round(flops / took / peak, 3),
        }
        if model.denoiser is not None:
            sampler = Upscaler(model, precision=dtype, steps=4, overrides=known)
            row["sample_4_steps_s"] = round(
                seconds(lambda u=sampler: list(compute_part(u.plan(volume), volume, middle, middle + 1)), 3), 3
            )
        out[str(dtype).removeprefix("torch.")] = row
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/speed.json"))
    parser.add_argument("--study", type=Path, default=Path("../shared/ct/test/lidc0314"))
    args = parser.parse_args()
    result: dict[str, Any] = {
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    }
    for folder in available_models():
        result[folder.name] = one_slice(Model.from_pretrained(folder))
    result["help_s"] = run_cli("--help")["seconds"]
    if args.study.is_dir():
        with tempfile.TemporaryDirectory() as folder:
            low = f"{folder}/low.nii.gz"
            run_cli("degrade", str(args.study), low, "--quiet")
            result["study_256_to_512"] = run_cli("upscale", low, f"{folder}/sr.nii.gz", "--quiet")
            result["study_dicom_512_to_1024"] = run_cli("upscale", str(args.study), f"{folder}/sr", "--quiet")
            thick = f"{folder}/thick.nii.gz"
            some = f"{folder}/some.nii.gz"
            series = io.read(args.study)
            few = Volume(np.tile(series.hu, (2, 1, 1))[:300], series.spacing_mm)
            io.write(few, some)
            run_cli("degrade", some, thick, "--scale", "5x2x2", "--quiet")
            result["60_slices_of_256_to_300_of_512"] = run_cli(
                "upscale", thick, f"{folder}/thin.nii.gz", "--scale", "5x2x2", "--quiet"
            )
            result["slices"] = len(list(args.study.glob("*.dcm")))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(args.out, json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
