"""Train the networks of the structure study: one stream and two, each with and without structure losses.

    python scripts/structure_study.py --out runs/structure --clean runs/clean
    uhrct benchmark configs/structure-study.yaml      # its first lines say how to make the phantoms
    python scripts/structure_study.py --table         # of results/structure-study.jsonl

Scale x4, from random weights, the recipe `configs/x4.yaml` with its denoised targets, equal numbers of steps, two
seeds. Both networks have 1.22 million multiply-adds per LR pixel and 1.27 million parameters. A training that is
finished is skipped; one that was interrupted goes on.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np

from uhrct.benchmark.results import read_results

STREAMS = {
    "single": {"image_width": 98, "image_blocks": 6, "structure_width": 0, "structure_blocks": 0, "fusion_blocks": 0},
    "dual": {"image_width": 70, "image_blocks": 5, "structure_width": 70, "structure_blocks": 5, "fusion_blocks": 1},
}
#: squared difference of the V_C maps and lengths of vessels, in the second half of the training
LOSSES = {"structure_share": 0.25, "structure_power": 2, "structure_contrast_hu": 250.0, "lengths_share": 0.08}
NO_LOSSES = {"structure_share": 0.0, "lengths_share": 0.0}


def command(out: Path, stream: str, losses: bool, seed: int, steps: int, clean: str) -> list[str]:
    """The training of one network."""
    loss = LOSSES if losses else NO_LOSSES
    settings = [
        "stages=[mean]",
        *(f"model.mean.{name}={value}" for name, value in STREAMS[stream].items()),
        *(f"stages.mean.loss.{name}={value}" for name, value in loss.items()),
        f"steps={steps}",
        f"seed={seed}",
        f"data.clean={clean}",
        "data.validation=[]",
        "optimizer.ema=0.99",  # few steps
    ]
    return [sys.executable, "-m", "uhrct", "train", "configs/x4.yaml", *settings, "--out", str(out), "--resume"]


def table(file: Path) -> str:
    """Differences of each variant from a single stream without structure losses, in markdown; both seeds."""
    rows = read_results(file).rows
    found: dict[tuple[str, str], dict[str, float]] = {}
    for method, case in dict.fromkeys((r["method"], r["case"]) for r in rows):
        here = [r["values"] for r in rows if (r["method"], r["case"]) == (method, case)]
        length = [v["broken_mm"] + v["invented_mm"] for v in here if v.get("broken_mm") is not None]
        found[method, case] = {
            "psnr": float(np.mean([v["psnr_wide"] for v in here])),
            "smse": float(np.mean([v["smse_vc"] for v in here])),
            "length": float(np.sum(length)) if length else float("nan"),
        }
    lines = ["| case | variant | PSNR dB | SMSE V_C % | broken + invented % |", "|---|---|---|---|---|"]
    for case in dict.fromkeys(case for _, case in found):
        for variant in ("dual", "single + losses", "dual + losses"):
            cells = []
            for key, relative in (("psnr", False), ("smse", True), ("length", True)):
                seeds = []
                for seed in (0, 1):
                    a, b = (found[f"{name}, seed {seed}", case][key] for name in (variant, "single"))
                    # no vessels, no percentage
                    seeds.append(a - b if not relative else 100 * (a / b - 1) if b else float("nan"))
                digits = 1 if relative else 2
                text = f"{np.mean(seeds):+.{digits}f} ({seeds[0]:+.{digits}f}, {seeds[1]:+.{digits}f})"
                cells.append("-" if np.isnan(seeds).any() else text)
            name = Path(case).parent.name if case.endswith("ct.nii.gz") else Path(case).name
            lines.append(f"| {name} | {variant} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/structure"))
    parser.add_argument("--clean", default="runs/clean", help="denoised targets, made by the first training")
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument(
        "--part", type=int, nargs=2, default=[0, 1], metavar=("I", "N"), help="every N-th, from the I-th"
    )
    parser.add_argument("--table", action="store_true", help="print the table of the result file and stop")
    args = parser.parse_args()
    if args.table:
        print(table(Path("results/structure-study.jsonl")))
        return
    first, every = args.part
    todo = [(stream, losses, seed) for seed in args.seeds for losses in (False, True) for stream in STREAMS]
    for stream, losses, seed in todo[first::every]:
        out = args.out / f"{stream}{'-losses' if losses else ''}-{seed}"
        finished = (out / "log.jsonl").is_file() and f'"step": {args.steps},' in (out / "log.jsonl").read_text()
        if not finished:
            subprocess.run(command(out, stream, losses, seed, args.steps, args.clean), check=True)


if __name__ == "__main__":
    main()
