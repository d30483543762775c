"""Speed and memory of the shipped weights, and the convolution peak of the machine in the same run.

    python benchmarks/speed.py --out results/speed.json [--study FOLDER]

Run it on an idle machine. It also upscales slices of the series `--study` (default ../shared/ct/test/lidc0314) from
DICOM to DICOM with the command line, for each protocol, quality and engine: seconds of the whole command, those inside
the network (with the map that it takes as input), and peak memory.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import shutil
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
from pydicom import dcmread
from torch import nn

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


#: runs one `uhrct` command, and prints its peak memory (MB) and the seconds inside the mean network and its input
CHILD = """
import resource, runpy, sys, time
sys.argv = ['uhrct', *sys.argv[1:]]
spent = 0.0
if sys.argv[1] == 'upscale':
    from uhrct.models.model import Model
    def timed(call):
        def run(*args, **kwargs):
            global spent
            begin = time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                spent += time.perf_counter() - begin
        return run
    Model.features, Model.mean_hu = timed(Model.features), timed(Model.mean_hu)
try:
    runpy.run_module('uhrct', run_name='__main__')
finally:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, spent)
"""


def run_cli(*arguments: str) -> dict[str, float]:
    """Wall-clock seconds of one `uhrct` command, those in its network, and peak memory."""
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", CHILD, *arguments], capture_output=True, text=True)
    took = time.perf_counter() - begin
    if done.returncode:
        sys.exit(done.stderr)
    memory, network = map(float, done.stdout.split()[-2:])
    row = {"seconds": round(took, 2), "peak_memory_mb": round(memory)}
    if network:
        row |= {"network_s": round(network, 2), "to_network": round(took / network, 3)}
    return row


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


def studies(study: Path, slices: int, device: str) -> dict[str, Any]:
    """`uhrct upscale` from DICOM to DICOM, slices of 512 x 512, for each protocol and quality."""
    shipped = {folder.name for folder in available_models()}
    out: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        in_order = sorted(study.glob("*.dcm"), key=lambda file: float(dcmread(file).ImagePositionPatient[2]))
        for count, part in ((slices, "scan"), (5 * slices, "thin"), (2, "two")):
            (folder / part).mkdir()
            for file in in_order[(len(in_order) - count) // 2 :][:count]:
                shutil.copy(file, folder / part)
        run_cli("degrade", str(folder / "thin"), str(folder / "5x1x1"), "--scale", "5x1x1", "--quiet")
        (folder / "two-thick").mkdir()
        for file in sorted((folder / "5x1x1").glob("*.dcm"))[slices // 2 :][:2]:
            shutil.copy(file, folder / "two-thick")
        for protocol in ("x2", "x4", "5x1x1", "5x2x2"):
            for way in ("fast", "standard", "standard int8", "best"):
                quality, engine = (way.split() + ["torch"])[:2]
                if quality == "fast" and f"{protocol}-fast" not in shipped:
                    continue
                few, many = ("two-thick", "5x1x1") if protocol.startswith("5") else ("two", "scan")
                source = folder / (few if quality == "best" else many)
                row = run_cli(
                    *("upscale", str(source), str(folder / f"{protocol} {way}")),
                    *("--scale", protocol.removeprefix("x"), "--quality", quality, "--engine", engine),
                    *("--device", device, "--quiet"),
                )
                out[f"{protocol} {way}"] = row | {"slices": len(list(source.glob("*.dcm")))}
                print(protocol, way, out[f"{protocol} {way}"], flush=True)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/speed.json"))
    parser.add_argument("--study", type=Path, default=Path("../shared/ct/test/lidc0314"))
    parser.add_argument("--slices", type=int, default=16, help="of the study")
    parser.add_argument("--device", default="cpu", help="as for `uhrct upscale`")
    args = parser.parse_args()
    result: dict[str, Any] = {
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    }
    for folder in available_models():
        result[folder.name] = one_slice(Model.from_pretrained(folder))
    result["help_s"] = run_cli("--help")["seconds"]
    if args.study.is_dir():
        result["studies"] = {"device": args.device, **studies(args.study, args.slices, args.device)}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(args.out, json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
