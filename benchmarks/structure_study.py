"""Does training in the structure domain pay? Variants at x4 or x2, trained alike, judged on patients and on a phantom.

    python benchmarks/structure_study.py --max-cpu-minutes 6 --seeds 0,1,2     # equal time
    python benchmarks/structure_study.py --steps 700 --seeds 0,1,2             # equal steps
    python benchmarks/structure_study.py --max-cpu-minutes 3 --scale 2 --variants single,lengths
    python benchmarks/structure_study.py --after-cpu-minutes 16 --steps 400 --variants single,single-firm
    python benchmarks/structure_study.py --table                               # the tables, no more
    python benchmarks/structure_study.py --list                                # the variants

One training after the other, seed by seed, pinned to a core (--core). Whatever is interrupted goes on with the same
command: trainings from their checkpoints, scores patient by patient. Results are rows of results/structure_study.jsonl,
one a slice. With --after-cpu-minutes a seed's variants (of the single stream) are ends of one training: it goes that
long without terms first, and each variant goes on from its weights. Phantoms are made first, once: they take some
minutes. A variant is configs/structure-study.yaml with its settings behind it, as one would type them behind `uhrct
train configs/structure-study.yaml`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from structure_tables import write_tables

from uhrct import io
from uhrct.benchmark.methods import restorer
from uhrct.core.errors import UhrctError
from uhrct.core.hu import METRIC_WINDOWS_HU
from uhrct.core.progress import track
from uhrct.core.undefined import Undefined
from uhrct.evaluation.fidelity import psnr
from uhrct.evaluation.lungs import lung_mask
from uhrct.evaluation.protocol import Restore, degraded_stack, evenly_spaced
from uhrct.evaluation.structure_error import SMSE_OPERATORS, difference, structure_maps
from uhrct.models.model import Model
from uhrct.phantom.make import phantom_folder
from uhrct.physics.acquisition import Acquisition
from uhrct.physics.resampling import upsample_stack
from uhrct.structure import StructureOperator
from uhrct.structure.lengths import vessel_lengths
from uhrct.structure.vessels import VESSEL_THRESHOLDS, cldice, vessel_mask
from uhrct.training.config import TrainingConfig, load_config
from uhrct.training.data.packing import pack
from uhrct.training.trainer import Trainer
from uhrct.upscaling.upscaler import Upscaler

BASE = Path("configs/structure-study.yaml")
DATA = Path("../shared/ct")
#: phantoms to train on, and those that none of them is like; PHANTOMS=SHARE in a variant: their share of the items.
#: forms were chosen with the first of the test chests in sight; the second is shown and decides nothing
TRAIN_SEEDS, TEST_SEEDS = (1, 2, 3, 4), {"phantom": 901, "phantom902": 902}
PHANTOM_MM = (1.25, 0.7, 0.7)

HEAD = ["structure_head_weight=0.1"]
SQUARED = [*HEAD, "structure_power=2", "structure_share=0.15"]
HALF = [*SQUARED, "structure_from=0.5"]
LENGTHS = ["topology=lengths", "topology_share=0.15", "structure_from=0.6"]
MIXED = ["structure_power=2", "structure_share=0.2", "structure_items=0.5", "structure_from=0.5"]
METHOD = ["structure_power=2", "structure_share=0.25", "topology=lengths", "topology_share=0.08", "structure_from=0.5"]
STRONG = [*METHOD, "structure_share=0.3", "topology_share=0.1"]
EVEN = [*STRONG, "invented_cost=1.4"]
#: for trainings that go on from trained weights
END = [*EVEN, "structure_from=0"]
FIRM = ["topology_share=0.2"]
#: phantoms come out of the varied half of a batch: of crops of patients as they are it has as many as without
MANY = ["PHANTOMS=0.15", "augmented=0.375"]
SOME = ["PHANTOMS=0.1", "augmented=0.41"]
FEW = ["PHANTOMS=0.05", "augmented=0.45"]
SINGLE = ["model.mean.structure_width=0", "model.mean.image_blocks=5"]  # 8 % more weights than the dual stream
#: variants that go on from a trained single stream do so at half the rate, on crops that it has not seen
SECOND = ["learning_rate=4e-4"]
WIDE = ["model.mean.structure_width=28"]  # a dual stream with as many weights as that
VARIANTS: dict[str, tuple[str, list[str]]] = {
    "single": ("single stream, one block more", SINGLE),
    "single-lengths": ("single stream; in the last 0.4 broken and invented at 0.15", [*SINGLE, *LENGTHS]),
    "dual": ("dual stream, pixel loss alone", []),
    "head": ("dual stream + structure head, L1", HEAD),
    "paper": ("+ image, L1 (the paper's losses)", ["structure_head_weight=0.5", "structure_image_weight=0.5"]),
    "vc": ("head + image, squared, 0.15 of the gradient, V_C", SQUARED),
    "late-vc": ("the same, the image's in the last half only", HALF),
    "frangi": ("late-vc, V_C's place taken by Frangi", [*HALF, "structure_operator=frangi"]),
    "jerman": ("late-vc, by Jerman", [*HALF, "structure_operator=jerman"]),
    "surrogate": (
        "late-vc, by the surrogate of V_C",
        [*HALF, "structure_operator=surrogate", "structure_contrast_hu=0"],
    ),
    "recall": ("in the last 0.4 skeleton recall at 0.15", [*LENGTHS, "topology=recall"]),
    "cldice": ("in the last 0.4 soft clDice at 0.15", [*LENGTHS, "topology=cldice"]),
    "lengths": ("in the last 0.4 broken and invented at 0.15", LENGTHS),
    "vessels": ("pixels of lung vessels counted up to twice", ["vessel_weight=1"]),
    "feedback": ("lengths, the structure map enters the fusion", [*LENGTHS, *HEAD, "model.mean.structure_feedback=1"]),
    "far": (
        "lengths, a structure stream of three dilated blocks",
        [*LENGTHS, "model.mean.structure_blocks=3", "model.mean.structure_dilation=2"],
    ),
    "phantoms-alone": ("head + a quarter of phantoms with exact maps", [*HEAD, "PHANTOMS=0.25"]),
    "single-phantoms": ("single stream, .15 of phantoms in varied crops' place, pixel loss alone", [*SINGLE, *MANY]),
    "single-full": ("single stream, lengths + a tenth of phantoms", [*SINGLE, *LENGTHS, "PHANTOMS=0.1"]),
    "single-both": (
        "single-full, lengths at 0.12, and V_C's squared difference at 0.1",
        [*SINGLE, *LENGTHS, "topology_share=0.12", "structure_share=0.1", "structure_power=2", "PHANTOMS=0.1"],
    ),
    "single-mixed": (
        "single stream, in the last half V_C's squared difference at 0.2 and lengths at 0.07, a tenth of phantoms",
        [*SINGLE, *MIXED, "topology=lengths", "topology_share=0.07", "PHANTOMS=0.1"],
    ),
    "single-method": (
        "in the last half V_C's squared difference at 0.25 and lengths at 0.08, .15 of phantoms in varied crops' place",
        [*SINGLE, *METHOD, *MANY],
    ),
    "single-strong": ("single-method, V_C at 0.3 and lengths at 0.1", [*SINGLE, *STRONG, *MANY]),
    "single-even": ("single-strong, what is invented counting 1.4 times", [*SINGLE, *EVEN, *MANY]),
    "single-some": ("single-even with .1 of phantoms", [*SINGLE, *EVEN, *SOME]),
    "single-light": ("single-even with .05 of phantoms", [*SINGLE, *EVEN, *FEW]),
    "single-bare": ("single-even without phantoms", [*SINGLE, *EVEN]),
    "single-end": ("single-even's terms from the first step on, a tenth of phantoms", [*SINGLE, *END, *SOME]),
    "single-firm": ("single-end, lengths at 0.2", [*SINGLE, *END, *FIRM, *SOME]),
    "single-firmer": ("single-end, lengths at 0.3, .15 of phantoms", [*SINGLE, *END, "topology_share=0.3", *MANY]),
    "single-firm-light": ("single-firm with .05 of phantoms", [*SINGLE, *END, *FIRM, *FEW]),
    "single-dear": ("single-even, what is invented counting twice", [*SINGLE, *EVEN, *MANY, "invented_cost=2"]),
    "strong": ("single-strong with a second stream, weights as many", [*WIDE, *STRONG, *MANY]),
    "even": ("single-even with a second stream, weights as many", [*WIDE, *EVEN, *MANY]),
    "method": ("single-method with a second stream, weights as many", [*WIDE, *METHOD, *MANY]),
    "full": ("lengths + a tenth of phantoms", [*LENGTHS, "PHANTOMS=0.1"]),
}

#: who judges; every variant's loss leaves at least one of them out
JUDGES = {
    "vc": SMSE_OPERATORS["vc"],
    "frangi": SMSE_OPERATORS["frangi"],
    "jerman": StructureOperator("jerman", sigma_mm=(0.7, 1.2, 2.0), contrast_hu=250.0),
}
THRESHOLD = VESSEL_THRESHOLDS[1]


def settings(
    own: list[str],
    work: Path,
    steps: int | None,
    seed: int,
    scale: int = 4,
    common: str = "",
    trunk: Path | None = None,
) -> tuple[TrainingConfig, str]:
    """The configuration of a variant with settings of its own, and a hash of it: another one is another training."""
    overrides: list[str] = []
    for item in own:
        name, _, value = item.partition("=")
        overrides += phantom_overrides(work, float(value)) if name == "PHANTOMS" else [item]
    overrides += SECOND + [f"init={trunk}"] if trunk else []
    overrides += [f"seed={seed + 1000 if trunk else seed}"] + ([] if steps is None else [f"steps={steps}"])
    overrides += [] if scale == 4 else [f"model.scale=[1,{scale},{scale}]"]
    config = load_config(BASE, common.split() + overrides)
    usual = TrainingConfig().as_dict()
    changed = {k: v for k, v in config.as_dict().items() if v != usual[k]}  # a setting that comes new changes no hash
    return config, hashlib.sha256(json.dumps(changed, sort_keys=True).encode()).hexdigest()[:8]


def phantom_overrides(work: Path, share: float) -> list[str]:
    """The packed phantoms beside the patients, with their share."""
    base = load_config(BASE)
    patients = sum(base.corpus_weights.get(p.name, 1.0) for p in (DATA / "train").iterdir() if p.is_dir())
    each = round(share / (1 - share) * patients / len(TRAIN_SEEDS), 4)
    corpus = ", ".join([*base.corpus, str(work / "phantoms" / "store" / "train")])
    return [f"corpus=[{corpus}]"] + [f"corpus_weights.chest{seed}={each}" for seed in TRAIN_SEEDS]


def make_phantoms(work: Path, train: bool, small: bool) -> None:
    """The test phantoms, and the packed ones to train on if a variant wants them; what is there already is kept."""
    folder = work / "phantoms"
    chests = [(folder / "test" / f"chest{seed}", "test", seed) for seed in TEST_SEEDS.values()]
    chests += [(folder / "train" / f"chest{seed}", "train", seed) for seed in TRAIN_SEEDS] if train else []
    detail: dict[str, Any] = {"shape": (24, 320, 320), "density": 0.2} if small else {}
    for out, family, seed in chests:
        if not out.exists():
            out.parent.mkdir(parents=True, exist_ok=True)
            phantom_folder(out, seed=seed, family=family, spacing_mm=PHANTOM_MM, **detail)
    if train:
        report = pack([folder / "train"], folder / "store")
        if report.problems:
            raise UhrctError(report.problems[0])


def train(config: TrainingConfig, out: Path, max_cpu_minutes: float | None) -> tuple[Model, dict[str, Any]]:
    """The trained model (from where it was left), and what it took."""
    trainer = Trainer(config, out, max_cpu_minutes=max_cpu_minutes, resume=True, device=torch.device("cpu"))
    folder = trainer.run()
    last = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()][-1]
    model = Model.from_pretrained(folder)
    facts = {"steps": last["step"], "cpu_minutes": last["cpu_minutes"], "weights_sha256": model.weights_sha256[:16]}
    return model, facts


def cases(work: Path) -> dict[str, Path]:
    return {
        "rider0117": DATA / "validation" / "rider0117",
        "lidc0314": DATA / "test" / "lidc0314",
        **{case: work / "phantoms" / "test" / f"chest{seed}" / "ct.nii.gz" for case, seed in TEST_SEEDS.items()},
    }


def pairs(
    path: Path, restore: Restore | None, count: int, scale: int
) -> Iterator[tuple[int, np.ndarray, tuple[float, float], dict[str, np.ndarray]]]:
    """Slices of a patient or a phantom: number, (truth, restoration), spacing, a phantom's masks."""
    volume = io.read(path)
    acquisition = Acquisition((1, scale, scale))
    spacing = volume.spacing_mm
    lr_spacing = (spacing[0], spacing[1] * scale, spacing[2] * scale)
    labels: dict[str, np.ndarray] = {}
    if (path.parent / "truth.json").is_file():
        labels = {name: io.read(path.parent / f"{name}.nii.gz").hu > 0 for name in ("lungs", "vessels", "nodules")}
    for k in track(evenly_spaced(volume.shape[0], count), path.parent.name if labels else path.name):
        hr, lr = degraded_stack(volume, acquisition, k)
        y, x = hr.shape[-2:]
        sr = hr if restore is None else restore(lr, lr_spacing).float().cpu()
        known = {name: label[k, :y, :x] for name, label in labels.items()}
        yield k, np.stack([hr[0].numpy(), sr[0].numpy()]), (spacing[1], spacing[2]), known


def score(path: Path, restore: Restore | None, count: int, scale: int) -> list[dict[str, Any]]:
    """Every measure of `count` evenly spaced slices of a patient or a phantom; None: of the truth itself."""
    return [{"slice": k, **judge(*of)} for k, *of in pairs(path, restore, count, scale)]


def judge(pair: np.ndarray, spacing_mm: tuple[float, float], known: dict[str, np.ndarray]) -> dict[str, float | None]:
    """Truth against restoration (2, y, x): fidelity, and structure by every judge; by exact masks where known."""
    decibels = psnr(pair[0], pair[1], window_hu=METRIC_WINDOWS_HU["wide"])
    out: dict[str, float | None] = {"psnr": decibels if np.isfinite(decibels) else None}
    lungs = known["lungs"] if known else lung_mask(pair[0], spacing_mm)
    for name, operator in JUDGES.items():
        maps = structure_maps(pair, spacing_mm, operator)
        out[f"smse_{name}"] = 1000 * difference(maps)
        a, b = (vessel_mask(m, lungs, THRESHOLD) for m in maps)
        try:
            out[f"cldice_{name}"] = cldice(a, b)
        except Undefined:
            out[f"cldice_{name}"] = None
        lengths = vessel_lengths(a, b, spacing_mm)
        out |= {f"{what}_{name}": getattr(lengths, what) for what in ("broken", "invented")}
        if known and name == "vc":  # nodules are in the map but in no tree
            inside = lungs & ~known["nodules"]
            exact = vessel_lengths(known["vessels"] & inside, b & inside, spacing_mm)
            out |= {"vessel_exact": exact.reference, "broken_exact": exact.broken, "invented_exact": exact.invented}
    return out


def run(args: argparse.Namespace) -> None:
    work, out = args.work, args.out
    budget = f"{args.steps} steps" if args.steps else f"{args.max_cpu_minutes:g} CPU minutes"
    first = "" if args.after_cpu_minutes is None else f"{args.after_cpu_minutes:g} CPU minutes"
    budget = f"{first}, then {budget}" if first else budget
    make_phantoms(
        work, any(item.startswith("PHANTOMS") for v in args.variants for item in VARIANTS[v][1]), args.small_phantoms
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    done = {key(json.loads(line)) for line in out.read_text().splitlines()} if out.exists() else set()
    judged = {case: path for case, path in cases(work).items() if not args.cases or case in args.cases}

    def record(restore: Restore | None, about: dict[str, Any], case: str) -> None:
        rows = score(judged[case], restore, args.slices, args.scale)
        text = "".join(json.dumps({**about, "case": case, **row}) + "\n" for row in rows)
        with out.open("a") as file:
            file.write(text)

    common = {"scale": args.scale, "slices": args.slices, "optimizer": load_config(BASE).optimizer}
    common |= {"common": args.common}
    plain: dict[str, Restore | None] = {
        "interpolation": lambda lr, _: upsample_stack(lr, (1, args.scale, args.scale)),
        "truth": None,
    }
    for name, case in [("truth", case) for case in TEST_SEEDS if case in judged] + [
        ("interpolation", case) for case in judged
    ]:
        about = {"variant": name, "seed": 0, "budget": "", "settings": "", **common, "optimizer": "", "common": ""}
        if key({**about, "case": case}) not in done:
            record(plain[name], about, case)
    for seed in args.seeds:
        trunk = None
        if first:
            config, digest = settings(SINGLE, work, None, seed, args.scale, args.common)
            trunk = work / f"single-{seed}-{digest}-{first.replace(' ', '-')}"
            train(config, trunk, args.after_cpu_minutes)
            trunk = trunk / "model"
        for variant in args.variants:
            config, digest = settings(VARIANTS[variant][1], work, args.steps, seed, args.scale, args.common, trunk)
            about = {"variant": variant, "seed": seed, "budget": budget, "settings": digest, **common}
            left = [case for case in judged if key({**about, "case": case}) not in done]
            if not left:
                continue
            print(f"== {variant}, seed {seed}, {budget}", file=sys.stderr, flush=True)
            name = f"{variant}-{seed}-{digest}-{budget.replace(',', '').replace(' ', '-')}"
            model, facts = train(config, work / name, args.max_cpu_minutes)
            restore = restorer(Upscaler(model, consistency="off"))
            for case in left:
                record(restore, about | facts, case)


def key(row: dict[str, Any]) -> tuple[Any, ...]:
    """What makes a row's run and patient: rows with the same are not measured again."""
    own = ("variant", "seed", "budget", "settings", "scale", "slices", "optimizer", "case")
    return (*(row[k] for k in own), row.get("common", ""))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, help="train every variant for so many steps")
    parser.add_argument("--max-cpu-minutes", type=float, help="or for so much processor time")
    parser.add_argument("--after-cpu-minutes", type=float, help="go on from a single stream trained that long")
    parser.add_argument("--seeds", type=lambda s: [int(v) for v in s.split(",")], default=[0])
    parser.add_argument("--scale", type=int, choices=[2, 4], default=4)
    parser.add_argument("--variants", type=lambda s: s.split(","), default=list(VARIANTS), help="some, A,B,C")
    parser.add_argument("--common", default="", help='settings of all variants, such as "batch=8"')
    parser.add_argument("--slices", type=int, default=24, help="of each patient")
    parser.add_argument("--cases", type=lambda s: s.split(","), default=[], help="judge these patients alone")
    parser.add_argument("--core", type=int, help="pin everything to this processor core")
    parser.add_argument("--work", type=Path, default=Path("runs/structure-study"))
    parser.add_argument("--out", type=Path, default=Path("results/structure_study.jsonl"))
    parser.add_argument("--doc", type=Path, default=Path("docs/structure-study.md"))
    parser.add_argument("--small-phantoms", action="store_true", help="for a trial of this script alone")
    parser.add_argument("--table", action="store_true", help="write the tables of --out into --doc, run nothing")
    parser.add_argument("--list", action="store_true", help="print the variants")
    args = parser.parse_args()
    if args.list:
        print("\n".join(f"{name:15} {what}: {' '.join(more) or '-'}" for name, (what, more) in VARIANTS.items()))
        return
    if unknown := set(args.variants) - set(VARIANTS):
        parser.error(f"unknown variant {sorted(unknown)[0]!r}; --list shows them")
    if unknown := set(args.cases) - set(cases(args.work)):
        parser.error(f"unknown case {sorted(unknown)[0]!r}; there are {', '.join(cases(args.work))}")
    if not args.table:
        if (args.steps is None) == (args.max_cpu_minutes is None):
            parser.error("give --steps or --max-cpu-minutes")
        if not DATA.is_dir():
            parser.error(f"{DATA}: real CT not here")
        if args.core is not None:
            os.sched_setaffinity(0, {args.core})
            torch.set_num_threads(1)
        run(args)
    write_tables(args.out, args.doc, {name: what for name, (what, _) in VARIANTS.items()})


if __name__ == "__main__":
    try:
        main()
    except UhrctError as error:
        sys.exit(f"structure_study: {error}")
