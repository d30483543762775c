"""Scores of shipped weights on real patients: measure them into a file, or print the tables of that file.

    python benchmarks/fidelity.py --weights x4                  # measure into results/x4.jsonl (needs ../shared/ct)
    python benchmarks/fidelity.py --weights x4 --table          # print the markdown tables of results/x4.jsonl

At most 24 evenly spaced LR slices of validation/rider0117 and of test/lidc0314 are measured. The scanner of lidc0314
comes from a vendor whose patients were not in training. Each slice is degraded by the scanner model and by antialiased
bicubic. `--model NAME=FOLDER` adds the posterior mean of another model. `--case train/phantomfda` adds a scan.
`--only validation/rider0117` measures this scan alone, into results/WEIGHTS-rider0117.jsonl.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from uhrct import io
from uhrct.benchmark.methods import restorer
from uhrct.core.errors import UhrctError
from uhrct.core.progress import track
from uhrct.core.version import __version__
from uhrct.evaluation.protocol import CONTEXT, Restore, score_slices
from uhrct.evaluation.score_file import read_scores, write_scores
from uhrct.models.model import Model
from uhrct.physics.acquisition import Acquisition
from uhrct.physics.resampling import upsample_stack
from uhrct.upscaling.upscaler import Upscaler

CASES = ["validation/rider0117", "test/lidc0314"]
COLUMNS: dict[str, Callable[[dict[str, float]], float]] = {
    "PSNR": lambda r: r["psnr_wide"],
    "lung": lambda r: r["psnr_lung"],
    "mediast.": lambda r: r["psnr_mediastinum"],
    "RMSE HU": lambda r: r["rmse_hu"],
    "SMSE Frangi": lambda r: 1000 * r["smse_frangi"],
    "SMSE V_C": lambda r: 1000 * r["smse_vc"],
    "SMSE Frangi c=100": lambda r: 1000 * r["smse_frangi_c100"],
    "abs(Ay-x) HU": lambda r: r.get("consistency_hu", float("nan")),
}
CLEAN = {"psf_fwhm": 0.6, "sharpening": 0.0, "noise_hu": 0.0, "noise_correlation": 0.0}


def measure(args: argparse.Namespace) -> None:
    """Score every method on every case, and write the file."""
    model = Model.from_pretrained(args.weights)
    others = {n: Model.from_pretrained(f) for n, f in (m.split("=", 1) for m in args.model)}
    scale = model.config.scale
    meta = {
        "weights": str(args.weights),
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
    # Without an in-plane scale there is no in-plane degradation that could be bicubic.
    kinds = ("scanner", "bicubic") if scale[1] > 1 else ("scanner",)
    rows = []
    for case, kind in track([(case, kind) for case in args.only or CASES + args.case for kind in kinds], "fidelity"):
        acquisition = Acquisition(scale, kind)

        def projected(lr: Tensor, _: object, a: Acquisition = acquisition) -> Tensor:
            return a.project(upsample_stack(lr, scale), lr[None, CONTEXT])

        methods: dict[str, Restore] = {
            "interpolation": lambda lr, _: upsample_stack(lr, scale),
            "interpolation + projection": projected,
        }
        for mode in ("auto", "off", "hard"):
            name = "ours, mean" if mode == "auto" else f"ours, mean, consistency {mode}"
            methods[name] = restorer(Upscaler(model, consistency=mode))
        if model.config.properties:
            methods["ours, mean, no noise removed"] = restorer(Upscaler(model, denoise=0.0))
            told = Upscaler(model, denoise=0.0, overrides=CLEAN)
            methods["ours, mean, no noise removed, told it is clean"] = restorer(told)
        for name, other in others.items():
            methods[name] = restorer(Upscaler(other, consistency="off"))
        volume = io.read(args.data / case)
        scored = score_slices(volume, methods, acquisition, args.slices)
        rows += [{"case": case, "degradation": kind, **row} for row in scored]
    write_scores(args.out, meta, rows)


def interval(values: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over the slices of one patient. It says nothing about other patients."""
    rng = np.random.default_rng(0)
    draws = rng.choice(values, (2000, len(values))).mean(1)
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def tables(path: Path, against: str) -> str:
    """Markdown tables of a score file. The second column is the mean difference from the method `against`."""
    meta, rows = read_scores(path)
    lines = [f"Weights sha256 {meta['weights_sha256'][:16]}, {meta['slices']} slices a case.", ""]
    for case, kind in dict.fromkeys((r["case"], r["degradation"]) for r in rows):
        here = [r for r in rows if (r["case"], r["degradation"]) == (case, kind)]
        base = np.array([r["psnr_wide"] for r in here if r["method"] == against])
        lines += [
            f"**{case}**, {meta['weights']}, {kind} degradation",
            "",
            f"| method | over {against}, dB [95 %] | {' | '.join(COLUMNS)} |",
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
    parser.add_argument(
        "--out", type=Path, help="score file (default: results/WEIGHTS.jsonl; with --only: WEIGHTS-PATIENT)"
    )
    parser.add_argument("--table", action="store_true", help="print the tables of --out and measure nothing")
    parser.add_argument("--against", default="interpolation", help="method that the tables compare with")
    parser.add_argument("--weights", default="x2")
    parser.add_argument("--model", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--case", action="append", default=[], metavar="SPLIT/PATIENT")
    parser.add_argument("--only", action="append", default=[], metavar="SPLIT/PATIENT")
    parser.add_argument("--data", type=Path, default=Path("../shared/ct"))
    parser.add_argument("--slices", type=int, default=24)
    args = parser.parse_args()
    # a part of the cases must not replace the committed file of all
    name = "-".join([Path(args.weights).name, *(Path(case).name for case in args.only)])
    args.out = args.out or Path(f"results/{name}.jsonl")
    try:
        if not args.table:
            if not args.data.is_dir():
                sys.exit(f"{args.data}: real CT is missing; name its folder with --data")
            args.out.parent.mkdir(parents=True, exist_ok=True)
            measure(args)
        print(tables(args.out, args.against))
    except UhrctError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
