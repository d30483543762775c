"""The learned operator beside the analytic one that it imitates: error, gradients, cost; on a validation patient.

    python benchmarks/surrogate.py [--weights FILE] [--case ../shared/ct/validation/rider0117] [--slices 12]

Gradients are those that training uses: d/dG of mean (O(G) - O(y))^2, y the slice, G a restoration of its x4
degradation by bicubic interpolation and by the shipped network. The cosine with the exact operator's gradient says
where a step goes. Control: the same cosine for Frangi's operator, another one at the same constants. Cost: one
forward and backward pass by turns in one run, processor time, on 16 crops of 192 x 192.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uhrct import io
from uhrct.benchmark.methods import restorer
from uhrct.evaluation.protocol import CONTEXT, degraded_stack, evenly_spaced
from uhrct.evaluation.structure_error import SMSE_WINDOW_HU
from uhrct.models.model import Model
from uhrct.models.surrogate import SHIPPED, Surrogate
from uhrct.physics.acquisition import Acquisition
from uhrct.physics.resampling import upsample_stack
from uhrct.upscaling.upscaler import Upscaler

Operator = Callable[[Tensor, Any], Tensor]
SCALE = (1, 4, 4)
ROUNDS = 9


def pull(operator: Operator, made: Tensor, truth: Tensor, spacing_mm: tuple[float, float]) -> Tensor:
    """Gradient of the squared structure difference with respect to the image `made`."""
    leaf = made.clone().requires_grad_()
    window = SMSE_WINDOW_HU
    with torch.no_grad():
        wanted = operator(truth.clamp(*window), spacing_mm)
    (operator(leaf.clamp(*window), spacing_mm) - wanted).square().mean().backward()
    assert leaf.grad is not None
    return leaf.grad


def cosine(a: Tensor, b: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0))


def cost(operators: dict[str, Operator], spacing_mm: tuple[float, float]) -> dict[str, float]:
    """Median processor seconds of a pass forward and back, every operator taking its turn in every round."""
    images = 300 * torch.randn(16, 192, 192, generator=torch.Generator().manual_seed(0)) - 500
    spacings = [(spacing_mm[0] * (1 + 0.02 * k), spacing_mm[1]) for k in range(len(images))]  # as in a batch
    seconds: dict[str, list[float]] = {name: [] for name in operators}
    for k in range(ROUNDS + 1):
        for name, operator in operators.items():
            leaf = images.clone().requires_grad_()
            begin = time.process_time()
            operator(leaf, spacings).square().mean().backward()
            if k:
                seconds[name].append(time.process_time() - begin)
    return {name: statistics.median(s) for name, s in seconds.items()}


def measure(weights: Path, case: Path, slices: int) -> dict[str, Any]:
    surrogate = Surrogate.load(weights)
    exact = surrogate.operator
    other = replace(exact, kind="frangi" if exact.kind != "frangi" else "vc")
    volume = io.read(case)
    spacing_mm = (volume.spacing_mm[1], volume.spacing_mm[2])
    acquisition = Acquisition(SCALE)
    network = restorer(Upscaler(Model.from_pretrained("x4"), consistency="off"))
    lr_spacing = (volume.spacing_mm[0], 4 * spacing_mm[0], 4 * spacing_mm[1])
    rows: list[dict[str, float]] = []
    for k in evenly_spaced(volume.shape[0], slices):
        truth, lr = degraded_stack(volume, acquisition, k)
        made = {"interpolation": upsample_stack(lr[None, CONTEXT], SCALE), "network": network(lr, lr_spacing).float()}
        row: dict[str, float] = {}
        with torch.no_grad():
            clamped = truth.clamp(*SMSE_WINDOW_HU)
            map_exact, map_learned = exact(clamped, spacing_mm), surrogate(clamped, spacing_mm)
        row["mae"] = float((map_exact - map_learned).abs().mean())
        row["mae_of_zero"] = float(map_exact.mean())  # what a map that is 0 everywhere would score
        row["r"] = float(np.corrcoef(map_exact.flatten(), map_learned.flatten())[0, 1])
        for name, image in made.items():
            image = image.reshape(truth.shape)
            wanted = pull(exact, image, truth, spacing_mm)
            row[f"cosine_{name}"] = cosine(wanted, pull(surrogate, image, truth, spacing_mm))
            row[f"cosine_{name}_control"] = cosine(wanted, pull(other, image, truth, spacing_mm))
        rows.append(row)
    seconds = cost({"analytic": exact, "surrogate": surrogate}, spacing_mm)
    return {
        "weights": weights.name,
        "operator": {"kind": exact.kind, "sigma_mm": list(exact.sigma_mm), "contrast_hu": exact.contrast_hu},
        "parameters": sum(p.numel() for p in surrogate.parameters()),
        "case": case.name,
        "slices": len(rows),
        "mean": {key: round(statistics.mean(r[key] for r in rows), 4) for key in rows[0]},
        "control": other.kind,
        "threads": torch.get_num_threads(),
        "cost_ratio": round(seconds["surrogate"] / seconds["analytic"], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=SHIPPED)
    parser.add_argument("--case", type=Path, default=Path("../shared/ct/validation/rider0117"))
    parser.add_argument("--slices", type=int, default=12)
    parser.add_argument("--out", type=Path, default=Path("results/surrogate.json"))
    args = parser.parse_args()
    if not args.case.exists():
        sys.exit(f"{args.case}: real CT not here; name a patient with --case")
    result = measure(args.weights, args.case, args.slices)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
