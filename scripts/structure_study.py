"""Train the networks of the structure study: one stream and two, each with and without structure losses.

    python scripts/structure_study.py --out runs/structure --clean runs/clean

Scale x4, from random weights, the recipe `configs/x4.yaml` with its denoised targets, equal numbers of steps, two
seeds. Both networks have 1.22 million multiply-adds per LR pixel and 1.27 million parameters. A training that is
finished is skipped; one that was interrupted goes on.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/structure"))
    parser.add_argument("--clean", default="runs/clean", help="denoised targets, made by the first training")
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument(
        "--part", type=int, nargs=2, default=[0, 1], metavar=("I", "N"), help="every N-th, from the I-th"
    )
    args = parser.parse_args()
    first, every = args.part
    todo = [(stream, losses, seed) for seed in args.seeds for losses in (False, True) for stream in STREAMS]
    for stream, losses, seed in todo[first::every]:
        out = args.out / f"{stream}{'-losses' if losses else ''}-{seed}"
        finished = (out / "log.jsonl").is_file() and f'"step": {args.steps},' in (out / "log.jsonl").read_text()
        if not finished:
            subprocess.run(command(out, stream, losses, seed, args.steps, args.clean), check=True)


if __name__ == "__main__":
    main()
