"""How much length could be gained by balance alone? Broken and invented vessels over the threshold of the map.

    python benchmarks/structure_balance.py                                 # the shipped x4
    python benchmarks/structure_balance.py --models x4,single=FOLDER      # and a model of the study
    python benchmarks/structure_balance.py --table                         # what rows say, no more

Whoever lights more vessels breaks fewer and invents more. The reference's vessels stay where its map reaches .25; those
of the restoration are taken at thresholds around it, for all of a patient alike. The least sum of broken and invented
is what a shift of balance could reach at best; whatever lies below must be known. Patients, phantoms and judges are
those of the study (structure_study.py). Rows of results/structure_balance.jsonl are means over slices, in mm.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import numpy as np
import torch
from structure_study import DATA, JUDGES, THRESHOLD, cases, make_phantoms, pairs

from uhrct.benchmark.methods import restorer
from uhrct.core.errors import UhrctError
from uhrct.evaluation.lungs import lung_mask
from uhrct.evaluation.structure_error import structure_maps
from uhrct.models.model import Model
from uhrct.structure.lengths import vessel_lengths
from uhrct.structure.vessels import vessel_mask
from uhrct.upscaling.upscaler import Upscaler

THRESHOLDS = tuple(THRESHOLD * f for f in (0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.2))


def sweep(model: Model, path: Path, count: int) -> dict[tuple[str, float], np.ndarray]:
    """(broken, invented) in mm, mean over slices, by judge and by threshold of the restoration's map."""
    restore = restorer(Upscaler(model, consistency="off"))
    found: dict[tuple[str, float], list[tuple[float, float]]] = {}
    for _, pair, spacing, known in pairs(path, restore, count, model.config.scale[1]):
        lungs = known["lungs"] if known else lung_mask(pair[0], spacing)
        for judge, operator in JUDGES.items():
            true, made = structure_maps(pair, spacing, operator)
            vessels = vessel_mask(true, lungs, THRESHOLD)
            for threshold in THRESHOLDS:
                lengths = vessel_lengths(vessels, vessel_mask(made, lungs, threshold), spacing)
                found.setdefault((judge, threshold), []).append((lengths.broken, lengths.invented))
    return {key: np.mean(values, 0) for key, values in found.items()}


def table(path: Path) -> str:
    """Markdown: broken and invented at the threshold of all, and the least sum; last with one threshold for everyone.

    "everyone" is the mean over patients and phantoms, of models for which all of them are there.
    """
    found: dict[tuple[str, str, str], dict[float, np.ndarray]] = {}
    for line in path.read_text().splitlines():  # the last one counts
        r = json.loads(line)
        found.setdefault((r["model"], r["case"], r["judge"]), {})[r["threshold"]] = np.array(
            [r["broken"], r["invented"]]
        )
    judged = list(dict.fromkeys(case for _, case, _ in found))
    for model, _, judge in list(found):
        parts = [found.get((model, case, judge)) for case in judged]
        if all(parts):
            found[model, "everyone", judge] = {t: np.mean([p[t] for p in parts if p], 0) for t in THRESHOLDS}
    head = ["model", "patient", "judge", "broken + invented mm", "least sum", "at threshold", "gain %"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for key, lengths in found.items():
        best = min(lengths, key=lambda t: lengths[t].sum())
        usual = lengths[THRESHOLD].sum()
        gain = f"{100 * (lengths[best].sum() / usual - 1):+.1f}" if usual else "-"
        told, at = ("{:.1f} + {:.1f} = {:.1f}".format(*lengths[t], lengths[t].sum()) for t in (THRESHOLD, best))
        lines.append(f"| {' | '.join(key)} | {told} | {at} | {best:.4g} | {gain} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=lambda s: s.split(","), default=["x4"], help="shipped NAME or NAME=FOLDER")
    parser.add_argument("--slices", type=int, default=24, help="of each patient")
    parser.add_argument("--core", type=int, help="pin everything to this processor core")
    parser.add_argument("--work", type=Path, default=Path("runs/structure-study"))
    parser.add_argument("--out", type=Path, default=Path("results/structure_balance.jsonl"))
    parser.add_argument("--table", action="store_true", help="print what --out says, run nothing")
    args = parser.parse_args()
    if not args.table:
        if not DATA.is_dir():
            parser.error(f"{DATA}: real CT not here")
        if args.core is not None:
            os.sched_setaffinity(0, {args.core})
            torch.set_num_threads(1)
        make_phantoms(args.work, train=False, small=False)
        for item in args.models:
            name, _, folder = item.partition("=")
            model = Model.from_pretrained(folder or name)
            if model.config.scale[0] != 1:
                raise UhrctError(f"{name}: the study's judges look at slices; give a model of scale 1 along z")
            for case, path in cases(args.work).items():
                about = {"model": name, "weights_sha256": model.weights_sha256[:16], "case": case}
                about["slices"] = args.slices
                values = sweep(model, path, args.slices)
                text = "".join(
                    json.dumps(about | {"judge": j, "threshold": t, "broken": round(b, 4), "invented": round(i, 4)})
                    + "\n"
                    for (j, t), (b, i) in values.items()
                )
                with args.out.open("a") as file:
                    file.write(text)
    print(table(args.out))


if __name__ == "__main__":
    try:
        main()
    except UhrctError as error:
        sys.exit(f"structure_balance: {error}")
