"""Coverage of the 90 % intervals on scans whose truth is known, and how well their width ranks the error.

    python benchmarks/intervals.py --weights runs/x2/model --out results/intervals-x2.json
    python benchmarks/intervals.py --weights runs/x2/model --test --out results/intervals-x2-test.json

Low-resolution scans are simulated in each way of `uhrct.upscaling.calibrate.DEGRADATIONS`, and upscaled with default
settings. The tissue is that of the truth. Spearman's correlation is over the voxels of lung, soft tissue and bone;
beside it stands what it would be if every width were exactly right and the errors were Gaussian noise of that size.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from uhrct import io
from uhrct.core.progress import track
from uhrct.models.calibration import TISSUES
from uhrct.models.model import Model
from uhrct.upscaling.calibrate import Trial, trials

#: voxels of a slice that the correlation is taken over
RANKED = 20_000
#: everything that is reported, in this order
COLUMNS = ("lung", "soft tissue", "bone", "body")


def series_row(found: Iterable[Trial]) -> dict[str, Any]:
    """Figures of one series: share inside and median width per tissue, and the rank correlation."""
    inside: dict[str, list[int]] = {name: [0, 0] for name in (*COLUMNS, "air")}
    widths: dict[str, list[float]] = {name: [] for name in COLUMNS}
    ranks: list[float] = []
    ceilings: list[float] = []
    reasons: set[str] = set()
    rng = np.random.default_rng(0)
    for trial in found:
        lower, upper = trial.bounds()
        covered = (trial.truth >= lower) & (trial.truth <= upper)
        masks = {name: trial.valid & (trial.true_tissue == k) for k, (name, _) in enumerate(TISSUES)}
        masks["body"] = trial.valid & ~masks["air"]
        for name, mask in masks.items():
            inside[name][0] += int(covered[mask].sum())
            inside[name][1] += int(mask.sum())
            if name in widths and mask.any():
                widths[name].append(float(np.median((upper - lower)[mask])))
        places = np.flatnonzero(masks["body"])
        picked = rng.choice(places, min(RANKED, len(places)), replace=False)
        width, error = (image.ravel()[picked] for image in (trial.below + trial.above, np.abs(trial.truth - trial.hu)))
        ranks.append(float(spearmanr(width, error).statistic))
        # if the widths were exactly right, errors would be Gaussian noise of that size
        ceilings.append(float(spearmanr(width, width * np.abs(rng.standard_normal(len(width)))).statistic))
        reasons |= set(trial.plan.interval_reasons)
    return {
        "coverage": {name: hits / n if n else None for name, (hits, n) in inside.items()},
        "median_width_hu": {name: float(np.mean(values)) if values else None for name, values in widths.items()},
        "spearman": float(np.mean(ranks)),
        "spearman_of_exact_widths": float(np.mean(ceilings)),
        "not_calibrated_because": sorted(reasons),
    }


def table(results: dict[str, Any]) -> str:
    """Coverage by series, in percent."""
    lines = [
        "| series | kernel told | lung | soft tissue | bone | body | median width HU | Spearman (exact widths) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, told in results["series"].items():
        for known, row in told.items():
            shares = (row["coverage"][c] for c in COLUMNS)
            cells = ["-" if share is None else f"{100 * share:.1f}" for share in shares]
            width = row["median_width_hu"]["body"]
            rank = f"{row['spearman']:.2f} ({row['spearman_of_exact_widths']:.2f})"
            lines.append(f"| {name} | {known} | {' | '.join(cells)} | {width:.0f} | {rank} |")
    for known, means in results["mean"].items():
        lines.append(f"| mean | {known} | " + " | ".join(f"{100 * means[c]:.1f}" for c in COLUMNS) + " | | |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path("../shared/ct"))
    parser.add_argument("--slices", type=int, default=4, help="of each series")
    parser.add_argument("--test", action="store_true", help="the test series instead of those of validation")
    args = parser.parse_args()
    model = Model.from_pretrained(args.weights)
    split = "test" if args.test else "validation"
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    series: dict[str, dict[str, Any]] = {}
    for folder in track([f for f in sorted((args.data / split).iterdir()) if f.is_dir()], "intervals"):
        found = list(trials(model, io.read(folder), args.slices))
        by_kernel = {known: [t for t in found if t.kernel_known == (known == "yes")] for known in ("yes", "no")}
        series[f"{split}/{folder.name}"] = {known: series_row(part) for known, part in by_kernel.items() if part}
    rows = {known: [told[known] for told in series.values() if known in told] for known in ("yes", "no")}
    mean = {
        known: {c: float(np.mean([r["coverage"][c] for r in part if r["coverage"][c] is not None])) for c in COLUMNS}
        for known, part in rows.items()
    }
    meta = {"weights_sha256": model.weights_sha256, "commit": commit, "slices": args.slices}
    results = {"meta": meta, "mean": mean, "series": series}
    args.out.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
