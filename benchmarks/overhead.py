"""What a warm `Upscaler` costs beside its network, an audit beside the `Upscaler`, and the time of `import uhrct`.

    python benchmarks/overhead.py --out results/overhead.json [--weights x2 FOLDER ...]

One slice of 512 x 512 pixels. Four things take turns, so that other work on the machine slows all of them:

- network: the pass of the mean network alone, on features that are there already
- model: features (interpolation and its structure map, which the network takes as input) and the pass
- upscaler: the whole call (scan properties, features, pass, consistency, report)
- audit: of this result, on the slice alone

Each turn gives ratios; their medians count. Ratios of processor time stand beside those of wall-clock time, because a
busy machine changes them less.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from uhrct import io
from uhrct.audit.audit import Audit
from uhrct.core.files import write_atomic
from uhrct.core.memory import keep_freed_memory
from uhrct.core.volume import Volume
from uhrct.models.model import Features, Model, available_models, stacks
from uhrct.upscaling.plan import Plan
from uhrct.upscaling.upscaler import Upscaler

IMPORT = "import time; t = time.perf_counter(); import uhrct; print(time.perf_counter() - t)"


def taken(f: Callable[[], object]) -> np.ndarray:
    """(wall-clock, processor) seconds of a call."""
    begin = time.perf_counter(), time.process_time()
    f()
    return np.array([time.perf_counter() - begin[0], time.process_time() - begin[1]])


def parts(plan: Plan, volume: Volume) -> tuple[Callable[[], object], Callable[[], object]]:
    """(network, model): the pass on the features that the `Upscaler` makes of the slices; features and pass."""
    model = plan.model
    stack = stacks(torch.from_numpy(volume.hu.astype(np.float32)), range(len(volume.hu)), model.config.context)

    def autocast() -> torch.autocast:
        return torch.autocast(plan.device.type, plan.precision, enabled=plan.precision != torch.float32)

    def features() -> Features:
        return model.features(stack, volume.spacing_mm[1:], plan.scan)

    with torch.inference_mode(), autocast():
        made = features()

    def network() -> None:
        with torch.inference_mode(), autocast():
            model.mean_hu(made, plan.settings.tile)

    def both() -> None:
        with torch.inference_mode(), autocast():
            model.mean_hu(features(), plan.settings.tile)

    return network, both


def overhead(model: Model, volume: Volume, turns: int) -> dict[str, Any]:
    """Seconds of each, and the whole call relative to the others: medians over the turns."""
    upscaler = Upscaler(model, skip_air=False)  # as many pixels as the network alone
    plan, result = upscaler.plan(volume), upscaler(volume).volume

    def audit() -> None:
        grades = Audit(volume, plan)
        grades.feed(0, result.hu)
        grades.report()

    calls = (*parts(plan, volume), lambda: upscaler(volume), audit)
    for call in calls:  # warm
        call()
    times = np.array([[taken(call) for call in calls] for _ in range(turns)])  # (turn, which, clock)
    seconds = np.median(times[..., 0], axis=0)
    out: dict[str, Any] = {"weights_sha256": model.weights_sha256, "scale": list(model.config.scale), "turns": turns}
    names = ("network", "model", "upscaler", "audit")
    out |= {f"{name}_s": round(float(s), 3) for name, s in zip(names, seconds, strict=True)}
    for a, b in ((2, 0), (2, 1), (3, 2)):
        wall, cpu = np.median(times[:, a] / times[:, b], axis=0)
        out[f"{names[a]}_to_{names[b]}"] = {"wall_clock": round(float(wall), 3), "processor": round(float(cpu), 3)}
    return out


def import_seconds(processes: int = 15) -> float:
    """Median over fresh processes."""
    runs = (subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True) for _ in range(processes))
    return round(statistics.median(float(run.stdout) for run in runs), 4)


def main() -> None:
    keep_freed_memory()  # as the command line does
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/overhead.json"))
    parser.add_argument("--scan", type=Path, default=Path("../shared/ct/validation/rider0117"))
    parser.add_argument("--weights", nargs="+", default=[folder.name for folder in available_models()])
    parser.add_argument("--turns", type=int, default=9)
    args = parser.parse_args()
    series = io.read(args.scan)
    middle = len(series.hu) // 2
    result: dict[str, Any] = {
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        "scan": f"slice {middle} of {args.scan.name}, {series.shape[1]} x {series.shape[2]}",
        "import_uhrct_s": import_seconds(),
    }
    for name in args.weights:
        slice_ = Volume(series.hu[middle : middle + 1], series.spacing_mm)
        result[name] = overhead(Model.from_pretrained(name), slice_, args.turns)
    write_atomic(args.out, json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
