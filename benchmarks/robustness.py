"""PSNR and SMSE over noise and PSF, with and without knowledge of the scan properties.

    python benchmarks/robustness.py --weights x4 --without NAME=FOLDER --out results/x4-robustness.jsonl
    python benchmarks/robustness.py --out results/x4-robustness.jsonl --picture docs/images/x4-robustness.png

The scanner model makes LR slices of validation/rider0117 and test/lidc0314, with noise of 0-60 HU (white, or correlated
over 1.2 pixels) or with a PSF of 0.4-1.2 pixels. "ours" estimates the scan properties, "ours, told" gets the true ones.
Weights that can be told how much noise to remove keep it in both (`--denoise 0`); "ours, default" removes it.
"""

from __future__ import annotations

import argparse
import math
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np

from uhrct import io
from uhrct.benchmark.methods import restorer
from uhrct.core.progress import track
from uhrct.evaluation.pictures import pyplot
from uhrct.evaluation.protocol import Restore, means, score_slices
from uhrct.evaluation.score_file import read_scores, write_scores
from uhrct.models.model import Model
from uhrct.physics.acquisition import FWHM_PER_SIGMA, Acquisition
from uhrct.physics.resampling import upsample_stack
from uhrct.upscaling.upscaler import Upscaler

CASES = ["validation/rider0117", "test/lidc0314"]
NOISE_HU = (0.0, 5.0, 10.0, 20.0, 30.0, 40.0, 60.0)
PSF_FWHM = (0.4, 0.6, 0.8, 1.0, 1.2)
CORRELATED_FWHM = 1.2
#: autocorrelation of that noise at one pixel: its variance is blurred by a Gaussian of the same FWHM
CORRELATION_AT_1 = math.exp(-((FWHM_PER_SIGMA / CORRELATED_FWHM) ** 2) / 4)
SHOWN = ("psnr_wide", "smse_frangi")


def settings() -> list[dict[str, float]]:
    """PSF, noise and noise correlation of every point of the curves."""
    points = [{"psf_fwhm": 0.6, "noise_hu": n, "noise_fwhm": 0.0} for n in NOISE_HU]
    points += [{"psf_fwhm": 0.6, "noise_hu": n, "noise_fwhm": CORRELATED_FWHM} for n in NOISE_HU if n]
    return points + [{"psf_fwhm": p, "noise_hu": 0.0, "noise_fwhm": 0.0} for p in PSF_FWHM if p != 0.6]


def measure(args: argparse.Namespace) -> None:
    """Score every method at every point, and write the file."""
    model = Model.from_pretrained(args.weights)
    others = {n: Model.from_pretrained(f) for n, f in (m.split("=", 1) for m in args.without)}
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    meta = {
        "weights": str(args.weights),
        "weights_sha256": model.weights_sha256,
        "others_sha256": {n: m.weights_sha256 for n, m in others.items()},
        "commit": commit,
        "slices": args.slices,
    }
    rows = []
    keep = {"denoise": 0.0} if model.config.properties else {}
    for case, point in track([(c, p) for c in args.case or CASES for p in settings()], "robustness"):
        volume = io.read(args.data / case)
        acquisition = replace(Acquisition(model.config.scale), psf_fwhm=point["psf_fwhm"])
        told = {k: point[k] for k in ("psf_fwhm", "noise_hu")} | {"sharpening": 0.0}
        told["noise_correlation"] = CORRELATION_AT_1 if point["noise_fwhm"] else 0.0
        methods: dict[str, Restore] = {
            "interpolation": lambda lr, _: upsample_stack(lr, model.config.scale),
            "ours": restorer(Upscaler(model, **keep)),
            "ours, told": restorer(Upscaler(model, overrides=told, **keep)),
        }
        if keep:
            methods["ours, default"] = restorer(Upscaler(model))
        for name, other in others.items():
            methods[name] = restorer(Upscaler(other))
        noise = {k: point[k] for k in ("noise_hu", "noise_fwhm")}
        for row in score_slices(volume, methods, acquisition, args.slices, **noise):
            rows.append({"case": case, **point, **{k: row[k] for k in ("method", "slice", *SHOWN)}})
    write_scores(args.out, meta, rows)


def table(path: Path) -> str:
    """Markdown: PSNR and SMSE x 1000 of every point."""
    _, rows = read_scores(path)
    methods = list(dict.fromkeys(r["method"] for r in rows))
    lines = [
        "| case | PSF px | noise HU | over px | " + " | ".join(f"{m} dB (SMSE)" for m in methods) + " |",
        "|---" * (4 + len(methods)) + "|",
    ]
    points: dict[tuple, list[dict]] = {}
    for r in rows:
        key = (r["case"], r["psf_fwhm"], r["noise_hu"], r["noise_fwhm"])
        points.setdefault(key, []).append({k: r[k] for k in ("method", "slice", *SHOWN)})
    for key, mine in points.items():
        score = means(mine)
        cells = " | ".join(f"{score[m]['psnr_wide']:.2f} ({1000 * score[m]['smse_frangi']:.3f})" for m in methods)
        lines.append(f"| {' | '.join(map(str, key))} | {cells} |")
    return "\n".join(lines)


def picture(path: Path, out: Path) -> None:
    """Curves over noise (white, correlated) and PSF: PSNR above, SMSE below, each the mean of both patients."""
    plt = pyplot()
    _, rows = read_scores(path)
    methods = list(dict.fromkeys(r["method"] for r in rows))
    columns = {
        "white noise of the LR scan (HU)": ("noise_hu", lambda r: r["psf_fwhm"] == 0.6 and not r["noise_fwhm"]),
        f"noise correlated over {CORRELATED_FWHM} px (HU)": (
            "noise_hu",
            lambda r: r["psf_fwhm"] == 0.6 and (r["noise_fwhm"] or not r["noise_hu"]),
        ),
        "PSF FWHM (LR pixels), no noise": ("psf_fwhm", lambda r: not r["noise_hu"]),
    }
    figure, axes = plt.subplots(2, 3, figsize=(13, 7), layout="constrained", sharex="col")
    for column, (label, (key, chosen)) in enumerate(columns.items()):
        for row, (measure_name, factor) in enumerate(zip(SHOWN, (1.0, 1000.0), strict=True)):
            axis = axes[row, column]
            for method in methods:
                mine = [r for r in rows if r["method"] == method and chosen(r)]
                xs = sorted({r[key] for r in mine})
                ys = [factor * float(np.mean([r[measure_name] for r in mine if r[key] == x])) for x in xs]
                axis.plot(xs, ys, "o-", label=method)
            axis.grid(alpha=0.3)
        axes[1, column].set(xlabel=label, yscale="log")
    axes[0, 0].set_ylabel("PSNR in [-1000, 600] HU (dB)")
    axes[1, 0].set_ylabel("SMSE x 1000 (Frangi)")
    axes[0, 0].legend()
    figure.savefig(out, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/x4-robustness.jsonl"))
    parser.add_argument("--weights", default="x4")
    parser.add_argument("--without", action="append", default=[], metavar="NAME=FOLDER", help="another model")
    parser.add_argument("--data", type=Path, default=Path("../shared/ct"))
    parser.add_argument("--case", action="append", metavar="SERIES", help=f"below --data; default: {', '.join(CASES)}")
    parser.add_argument("--slices", type=int, default=8)
    parser.add_argument("--picture", type=Path, help="draw the curves of --out into this file and measure nothing")
    args = parser.parse_args()
    if args.picture is None:
        measure(args)
    else:
        picture(args.out, args.picture)
    print(table(args.out))


if __name__ == "__main__":
    main()
