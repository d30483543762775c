"""What each structure term adds to a training step of x4 (96 x 5 network, batch 16, crop 48), by turns in one run.

    python benchmarks/loss_cost.py [--rounds 8] [--out results/loss_cost.json]

Every form takes its step in every round, so that a busy machine is busy for all; processor time is counted, and the
ratio is the median over rounds of a form's step over the plain one's in that round. Target: at most 1.25.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from uhrct.training.config import load_config
from uhrct.training.data.batches import BatchMaker
from uhrct.training.data.patients import load_patients
from uhrct.training.trainer import Trainer

SQUARED = {"structure_share": 0.15, "structure_power": 2, "structure_contrast_hu": 250.0}
FORMS: dict[str, dict[str, Any]] = {
    "no structure term": {},
    "head, L1": {"structure_head_weight": 0.1},
    "image, L1 (paper), V_C": {"structure_image_weight": 0.5},
    "image, squared, V_C": SQUARED,
    "image, squared, Frangi": {**SQUARED, "structure_operator": "frangi"},
    "image, squared, Jerman": {**SQUARED, "structure_operator": "jerman"},
    "image, squared, surrogate": {**SQUARED, "structure_operator": "surrogate", "structure_contrast_hu": 0.0},
    "skeleton recall": {"topology": "recall", "structure_contrast_hu": 250.0},
    "soft clDice": {"topology": "cldice", "structure_contrast_hu": 250.0},
    "broken and invented": {"topology": "lengths", "structure_contrast_hu": 250.0},
    "image, squared, V_C + broken and invented": {**SQUARED, "topology": "lengths"},
    "vessel-weighted pixels": {"vessel_weight": 4.0, "structure_contrast_hu": 250.0},
    "head + image, squared, V_C": {**SQUARED, "structure_head_weight": 0.1},
    "head + image, squared, V_C + recall": {**SQUARED, "structure_head_weight": 0.1, "topology": "recall"},
}


def measure(config_file: Path, corpus: str, rounds: int, changes: list[str], some: list[str]) -> dict[str, Any]:
    config = load_config(config_file, [f"corpus={corpus}", "validation=", "structure_head_weight=0", *changes])
    patients = load_patients(config.corpus, {}, torch.device("cpu"))
    forms = {name: form for name, form in FORMS.items() if not some or not form or name in some}
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    with tempfile.TemporaryDirectory() as folder:
        trainers = {
            name: Trainer(replace(config, **form), Path(folder) / str(k), quiet=True, device=torch.device("cpu"))
            for k, (name, form) in enumerate(forms.items())
        }
        batches = {name: BatchMaker(patients, t.config, t.model) for name, t in trainers.items()}
        for k in range(rounds + 1):
            for name, trainer in trainers.items():
                trainer.step = k
                begin = time.process_time()
                trainer._play("", trainer.network, batches[name], 1.0)
                if k:  # the first step allocates
                    seconds[name].append(time.process_time() - begin)
            print(f"round {k} of {rounds}", file=sys.stderr, flush=True)
    plain = seconds["no structure term"]
    return {
        "config": str(config_file),
        "changes": changes,
        "corpus": corpus,
        "threads": torch.get_num_threads(),
        "machine": f"{platform.machine()}, torch {torch.__version__}",
        "rounds": rounds,
        "plain_cpu_seconds": round(statistics.median(plain), 3),
        "ratio": {
            name: round(statistics.median(a / b for a, b in zip(own, plain, strict=True)), 3)
            for name, own in seconds.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="key=value of the training, such as batch=4 for a quick look")
    parser.add_argument("--config", type=Path, default=Path("configs/x4-mean.yaml"))
    parser.add_argument("--corpus", default="../shared/ct/train/lidc0001")
    parser.add_argument("--form", action="append", default=[], help="measure this one (and that without); repeatable")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--out", type=Path, default=Path("results/loss_cost.json"))
    args = parser.parse_args()
    if unknown := set(args.form) - set(FORMS):
        parser.error(f"unknown form {sorted(unknown)[0]!r}; there are: {'; '.join(FORMS)}")
    if not Path(args.corpus).exists():
        sys.exit(f"{args.corpus}: real CT not here; give a folder with --corpus")
    result = measure(args.config, args.corpus, args.rounds, args.overrides, args.form)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    print("\n".join(f"{ratio:.2f}  {name}" for name, ratio in result["ratio"].items()))


if __name__ == "__main__":
    main()
