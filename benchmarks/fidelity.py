"""Scores of the shipped x2 weights on real patients: one result file, and the tables made from it.

    python benchmarks/fidelity.py --out results/x2.jsonl           # measure (needs ../shared/ct)
    python benchmarks/fidelity.py --out results/x2.jsonl --table   # print the markdown tables of a result file

24 evenly spaced slices of validation/rider0117 and test/lidc0314 (a vendor that training never saw), degraded by the
scanner model and by antialiased bicubic. `--model NAME=FOLDER` adds another model's posterior mean.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from uhrct import __version__, formats
from uhrct.acquisition import Acquisition
from uhrct.evaluation.protocol import score_slices
from uhrct.model import Model
from uhrct.progress import track
from uhrct.resampling import upsample
from uhrct.upscaler import Upscaler
from uhrct.volume import Volume

CASES = ("validation/rider0117", "test/lidc0314")
COLUMNS: dict[str, Callable[[dict[str, float]], float]] = {
    "PSNR": lambda r: r["psnr_wide"],
    "lung": lambda r: r["psnr_lung"],
    "mediast.": lambda r: r["psnr_mediastinum"],
    "RMSE HU": lambda r: r["rmse_hu"],
    "SMSE Frangi": lambda r: 1000 * r["smse_frangi"],
    "SMSE V_C": lambda r: 1000 * r["smse_vc"],
    "SMSE Frangi c=100": lambda r: 1000 * r["smse_frangi_c100"],
    "abs(Ay-x) HU": lambda r: r["consistency_hu"],
}


def restorer(upscaler: Upscaler) -> Callable[[Tensor, tuple[float, float]], Tensor]:
    """The whole-volume upscaler as a slice restorer, so that what is measured is what users run."""

    def restore(lr: Tensor, spacing_mm: tuple[float, float]) -> Tensor:
        [slab] = upscaler.slabs(Volume(lr.numpy()[None], (1.0, *spacing_mm)))
        return torch.from_numpy(slab.hu[0])

    return restore


def measure(args: argparse.Namespace) -> None:
    model = Model.from_pretrained(args.weights)
    others = {n: Model.from_pretrained(f) for n, f in (m.split("=", 1) for m in args.model)}
    _, sy, sx = model.config.scale
    meta = {
        "weights_sha256": model.weights_sha256,
        "others_sha256": {n: m.weights_sha256 for n, m in others.items()},
        "commit": subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip(),
        "uhrct": __version__,
        "torch": torch.__version__,
        "device": f"{platform.machine()} CPU, {torch.get_num_threads()} threads",
        "seed": 0,
        "slices": args.slices,
        "time": time.strftime("%Y-%m-%d"),
    }
    unfinished = args.out.with_suffix(".tmp")
    jobs = [(case, kind) for case in CASES for kind in ("scanner", "bicubic")]
    with unfinished.open("w") as f:
        f.write(json.dumps({"meta": meta}) + "\n")
        for case, kind in track(jobs, "fidelity"):
            acquisition = Acquisition(model.config.scale, kind)
            methods: dict[str, Callable[[Tensor, tuple[float, float]], Tensor]] = {
                "bicubic": lambda lr, _: upsample(lr, sy, sx),
                "bicubic + projection": lambda lr, _, a=acquisition: a.project(upsample(lr, sy, sx), lr),
            }
            for mode in ("off", "auto", "hard"):
                methods[f"ours, mean, consistency {mode}"] = restorer(Upscaler(model, consistency=mode))
            if model.denoiser is not None:
                methods["ours, 4-step sample"] = restorer(Upscaler(model, steps=4))
            for name, other in others.items():
                methods[name] = restorer(Upscaler(other, consistency="off"))
            volume = formats.read(args.data / case)
            for row in score_slices(volume, methods, acquisition, args.slices):
                f.write(json.dumps({"case": case, "degradation": kind, **row}) + "\n")
    unfinished.replace(args.out)


def interval(values: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over slices (slices of one patient: it says nothing of other patients)."""
    rng = np.random.default_rng(0)
    draws = rng.choice(values, (2000, len(values))).mean(1)
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def tables(path: Path) -> str:
    """Markdown tables of a result file."""
    meta, *rows = (json.loads(line) for line in path.read_text().splitlines())
    lines = [f"Weights sha256 {meta['meta']['weights_sha256'][:16]}, {meta['meta']['slices']} slices a case.", ""]
    for case, kind in dict.fromkeys((r["case"], r["degradation"]) for r in rows):
        here = [r for r in rows if (r["case"], r["degradation"]) == (case, kind)]
        base = np.array([r["psnr_wide"] for r in here if r["method"] == "bicubic"])
        lines += [
            f"**{case}**, x2, {kind} degradation",
            "",
            f"| method | over bicubic, dB [95 %] | {' | '.join(COLUMNS)} |",
            "|---" * (len(COLUMNS) + 2) + "|",
        ]
        for method in dict.fromkeys(r["method"] for r in here):
            mine = [r for r in here if r["method"] == method]
            gain = np.array([r["psnr_wide"] for r in mine]) - base
            low, high = interval(gain)
            values = " | ".join(f"{np.mean([c(r) for r in mine]):.3f}" for c in COLUMNS.values())
            lines.append(f"| {method} | {gain.mean():+.2f} [{low:+.2f}, {high:+.2f}] | {values} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/x2.jsonl"))
    parser.add_argument("--table", action="store_true", help="print the tables of --out, measure nothing")
    parser.add_argument("--weights", default="x2")
    parser.add_argument("--model", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--data", type=Path, default=Path("../shared/ct"))
    parser.add_argument("--slices", type=int, default=24)
    args = parser.parse_args()
    if not args.table:
        if not args.data.is_dir():
            sys.exit(f"{args.data}: real CT not here; give its folder with --data")
        args.out.parent.mkdir(parents=True, exist_ok=True)
        measure(args)
    print(tables(args.out))


if __name__ == "__main__":
    main()
