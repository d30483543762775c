"""What a structure loss moves: one training, cut at half or later, goes on with each loss on the very same batches.

    python benchmarks/structure_branches.py --from 0.6 --branches none,lengths,vc,vc-strong
    python benchmarks/structure_branches.py --table                                         # what rows say, no more

Two whole trainings differ by more than a loss does: by some .03 dB and 2 % of SMSE, by chance alone. Branches of one
trunk share everything but the loss, so that one seed tells a per cent. A small network (32 features, batches of 8,
500 steps) serves: minutes a branch on a core without bfloat16. Rows of results/structure_branches.jsonl are means over
slices. The truth is the study (structure_study.py).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from structure_study import SINGLE, cases, make_phantoms, score, settings, train
from torch import Tensor

from uhrct.benchmark.methods import restorer
from uhrct.core.errors import UhrctError
from uhrct.training.config import TrainingConfig
from uhrct.training.trainer import Trainer
from uhrct.upscaling.upscaler import Upscaler

SMALL = "batch=8 model.mean.image_width=32 warmup_steps=30"
STEPS, SLICES = 500, 12
TRUNKS: dict[str, list[str]] = {
    "single": SINGLE,
    "single-l2": [*SINGLE, "l1_weight=0"],
    "single-phantoms": [*SINGLE, "PHANTOMS=0.1"],
    "dual-phantoms": ["model.mean.structure_width=14", "PHANTOMS=0.1"],
}
SQUARED = ["structure_power=2", "structure_items=0.5"]
LENGTHS = ["topology=lengths", "structure_items=0.5"]
BRANCHES: dict[str, list[str]] = {
    "none": [],
    "lengths": [*LENGTHS, "topology_share=0.15"],
    "vc": [*SQUARED, "structure_share=0.15"],
    "vc-strong": [*SQUARED, "structure_share=0.3"],
    "vc-stronger": [*SQUARED, "structure_share=0.4"],
    "vc-varied": [*SQUARED, "structure_share=0.3", "structure_items=1"],
    "vc-less-lengths": [*SQUARED, *LENGTHS, "structure_share=0.1", "topology_share=0.12"],
    "vc-lengths": [*SQUARED, *LENGTHS, "structure_share=0.2", "topology_share=0.05"],
    "vc-lengths-strong": [*SQUARED, *LENGTHS, "structure_share=0.25", "topology_share=0.08"],
    "vc-lengths-stronger": [*SQUARED, *LENGTHS, "structure_share=0.3", "topology_share=0.12"],
    "vc-lengths-tubes": [*SQUARED, *LENGTHS, "structure_share=0.3", "topology_share=0.1"],
    "vc-lengths-even": [*SQUARED, *LENGTHS, "structure_share=0.3", "topology_share=0.1", "invented_cost=2"],
    "vc-lengths-even-strong": [*SQUARED, *LENGTHS, "structure_share=0.25", "topology_share=0.15", "invented_cost=2"],
    "frangi-strong": [*SQUARED, "structure_share=0.3", "structure_operator=frangi"],
    "jerman-strong": [*SQUARED, "structure_share=0.3", "structure_operator=jerman"],
    "surrogate-strong": [*SQUARED, "structure_share=0.3", "structure_operator=surrogate", "structure_contrast_hu=0"],
    "paper": ["structure_image_weight=0.5", "structure_items=0.5"],
    "recall": [*LENGTHS, "topology_share=0.15", "topology=recall"],
    "cldice": [*LENGTHS, "topology_share=0.15", "topology=cldice"],
    "vessels": ["vessel_weight=1"],
    "vessels-vc-lengths": [*SQUARED, *LENGTHS, "structure_share=0.25", "topology_share=0.08", "vessel_weight=1"],
}


class Cut(Exception):
    """The trunk is long enough."""


class Trunk(Trainer):
    """A training that saves itself after `cut` steps and stops; what goes on from its checkpoint keeps its pace."""

    cut = 0

    def _track(self, parts: dict[str, Tensor]) -> None:
        super()._track(parts)
        if self.step == self.cut:
            self._save(0.0)
            raise Cut


def config_of(trunk: str, branch: str, begin: float, seed: int, work: Path) -> TrainingConfig:
    late = [f"structure_from={begin}"] if BRANCHES[branch] else []
    return settings([*TRUNKS[trunk], *BRANCHES[branch], *late], work, STEPS, seed, common=SMALL)[0]


def grow(trunk: str, begin: float, seed: int, work: Path) -> Path:
    """The folder of a trunk that was trained until `begin`."""
    out = work / f"trunk-{trunk}-{seed}-{begin}"
    if not (out / "whole").exists():
        shutil.rmtree(out, ignore_errors=True)
        trainer = Trunk(config_of(trunk, "none", begin, seed, work), out, device=torch.device("cpu"))
        trainer.cut = round(begin * STEPS)
        try:
            trainer.run()
        except Cut:
            (out / "whole").touch()
    return out


def run(args: argparse.Namespace) -> None:
    make_phantoms(args.work, "phantoms" in args.trunk, args.small_phantoms)
    for seed in args.seeds:
        trunk = grow(args.trunk, args.begin, seed, args.work)
        for branch in args.branches:
            out = args.work / f"branch-{args.trunk}-{branch}-{seed}-{args.begin}"
            shutil.rmtree(out, ignore_errors=True)
            shutil.copytree(trunk, out)
            model, facts = train(config_of(args.trunk, branch, args.begin, seed, args.work), out, None)
            restore = restorer(Upscaler(model, consistency="off"))
            for case, path in cases(args.work).items():
                rows = score(path, restore, SLICES, 4)
                values = {k: [r[k] for r in rows if r.get(k) is not None] for k in rows[0] if k != "slice"}
                about = {"trunk": args.trunk, "from": args.begin, "branch": branch, "seed": seed, "case": case}
                row = {**about, **facts, **{k: round(float(np.mean(v)), 4) for k, v in values.items() if v}}
                with args.out.open("a") as file:
                    file.write(json.dumps(row) + "\n")


def table(path: Path) -> str:
    """Markdown: each branch less the one without a structure loss, mean over seeds."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for line in path.read_text().splitlines():
        row = json.loads(line)
        found[row["trunk"], row["branch"], row["from"], row["case"], row["seed"]] = row  # the last one counts
    head = [
        "trunk",
        "branch",
        "from",
        "patient",
        "PSNR dB",
        "SMSE V_C, Frangi %",
        "broken + invented V_C, Frangi, Jerman %",
    ]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for trunk, branch, begin, case in dict.fromkeys(key[:4] for key in found):
        pairs = []
        for key, mine in found.items():
            # without a loss it does not matter where the trunk was cut
            base = next((b for k, b in found.items() if k[:2] == (trunk, "none") and k[3:] == key[3:]), None)
            if key[:4] == (trunk, branch, begin, case) and base and branch != "none":
                pairs.append((mine, base))
        if pairs:
            smse = ", ".join(per_cent(pairs, f"smse_{judge}") for judge in ("vc", "frangi"))
            lengths = ", ".join(per_cent(pairs, f"broken_{j}", f"invented_{j}") for j in ("vc", "frangi", "jerman"))
            decibels = np.mean([a["psnr"] - b["psnr"] for a, b in pairs])
            lines.append(f"| {trunk} | {branch} | {begin} | {case} | {decibels:+.3f} | {smse} | {lengths} |")
    return "\n".join(lines)


def per_cent(pairs: list[tuple[dict[str, Any], dict[str, Any]]], *names: str) -> str:
    totals = [tuple(sum(row[n] for n in names) for row in pair) for pair in pairs]
    if not all(base for _, base in totals):
        return "-"
    return f"{100 * float(np.mean([mine / base - 1 for mine, base in totals])):+.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trunk", choices=list(TRUNKS), default="single-phantoms")
    parser.add_argument(
        "--from", dest="begin", type=float, default=0.6, help="share of the steps that all have in common"
    )
    parser.add_argument("--branches", type=lambda s: s.split(","), default=list(BRANCHES), help="some, A,B,C")
    parser.add_argument("--seeds", type=lambda s: [int(v) for v in s.split(",")], default=[0])
    parser.add_argument("--core", type=int, help="pin everything to this processor core")
    parser.add_argument("--work", type=Path, default=Path("runs/structure-study"))
    parser.add_argument("--out", type=Path, default=Path("results/structure_branches.jsonl"))
    parser.add_argument("--small-phantoms", action="store_true", help="for a trial of this script alone")
    parser.add_argument("--table", action="store_true", help="print what --out says, run nothing")
    args = parser.parse_args()
    if unknown := set(args.branches) - set(BRANCHES):
        parser.error(f"unknown branch {sorted(unknown)[0]!r}; there are {', '.join(BRANCHES)}")
    if not args.table:
        if args.core is not None:
            os.sched_setaffinity(0, {args.core})
            torch.set_num_threads(1)
        run(args)
    print(table(args.out))


if __name__ == "__main__":
    try:
        main()
    except UhrctError as error:
        sys.exit(f"structure_branches: {error}")
