"""Flicker of the shipped weights from slice to slice, for the mean and for samples.

    python benchmarks/flicker.py --out results/flicker.jsonl

The scanner model degrades slices in the middle of validation/rider0117 and test/lidc0314, and the models restore them.
Flicker is the standard deviation of z-differences of the error over that of the truth's noise (docs/evaluation.md): 1
for a truth without noise. The project asks for at most 1.05.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from uhrct import io
from uhrct.core.files import write_atomic
from uhrct.core.progress import track
from uhrct.core.volume import Volume
from uhrct.evaluation.flicker import flicker
from uhrct.models.model import Model, available_models
from uhrct.physics.degrade import degrade
from uhrct.upscaling.upscaler import Upscaler

CASES = ("validation/rider0117", "test/lidc0314")
SLICES = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/flicker.jsonl"))
    parser.add_argument("--weights", action="append", help="default: all shipped weights")
    parser.add_argument("--data", type=Path, default=Path("../shared/ct"))
    args = parser.parse_args()
    models = args.weights or [folder.name for folder in available_models()]
    rows = []
    for weights, case in track([(w, c) for w in models for c in CASES], "flicker"):
        model = Model.from_pretrained(weights)
        whole = io.read(args.data / case)
        first = (whole.shape[0] - SLICES) // 2
        y, x = (n // 4 * 4 for n in whole.shape[1:])
        truth = Volume(np.maximum(whole.hu[first : first + SLICES, :y, :x], -1024), whole.spacing_mm)
        low = degrade(truth, scale=model.config.scale)
        modes = {"mean": 1} | ({"4-step sample": 4} if model.denoiser is not None else {})
        for mode, steps in modes.items():
            fine = np.concatenate([s.hu for s in Upscaler(model, steps=steps).slabs(low)])
            row = {"weights": weights, "weights_sha256": model.weights_sha256, "case": case, "mode": mode}
            rows.append(row | {"flicker": flicker(truth.hu, fine, truth.spacing_mm)})
            print(f"{weights} {case} {mode}: {rows[-1]['flicker']:.3f}")
    write_atomic(args.out, "".join(json.dumps(r) + "\n" for r in rows))


if __name__ == "__main__":
    main()
