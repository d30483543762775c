"""From finished runs to weights that ship: model, configurations, logs, and a card made from measured scores.

python -m uhrct.training.publish runs/x2-mean runs/x2-denoiser --name x2 --scores results/x2.jsonl
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from uhrct.evaluation.score_file import read_scores
from uhrct.models.model import WEIGHTS_DIR, Model

LICENCE = "Apache-2.0"
TRAINING_DATA = (
    "4 patients (LIDC-IDRI-0001, -0002, -0003, CMB-CRC-01068) and the chest phantom of Phantom FDA; CC BY 3.0 / 4.0"
)
MAIN_METHOD, BASE_METHOD = "ours, mean", "interpolation"

CARD = """\
# {name}: super-resolution of CT by {scale} (z, y, x)

**Research use only; not a medical device.**

| | |
|---|---|
| weights | `model.safetensors`, sha256 `{sha256}` |
| networks | posterior mean {mean_m:.2f} M parameters{others} |
| licence | {licence}; trained on CC BY data only, attribution in `docs/data.md` |
| training data | {data} |
| corpora | sha256 {corpora} of voxels, names and spacings |
| trained with | `uhrct train`, configurations in `train.json`, log in `log.jsonl`; {minutes} |

## Scores
{scores}

## Limits
- Four training patients, GE scanners only (and a phantom on a Philips one): other vendors, sharp kernels and head
  scans are outside of what it saw. It has one held-out patient of each of two vendors to show for itself.
{limits}- The posterior mean is smooth where the data do not say; a sample looks real there and may show structure that
  is not.
- It may still break, merge or invent small vessels. Do not read a diagnosis from its output.
"""


def publish(
    runs: list[Path], name: str, scores: Path | None, weights_dir: Path = WEIGHTS_DIR, data: str | None = None
) -> Path:
    """Gather runs (the last one holds the whole model) into `weights_dir/name`.

    `data` says in words what they were trained on; without it the card says what it said before.

    Returns the folder, holding `config.json`, `model.safetensors`, `train.json`, `log.jsonl`, `curve-*.png`,
    `card.json` and `README.md`.
    """
    folder = weights_dir / name
    model = Model.from_pretrained(runs[-1] / "model")
    table, gains = _scores(scores, model.weights_sha256) if scores is not None else ("not measured", {})
    folder.mkdir(parents=True, exist_ok=True)  # nothing is written before scores are found to be of these weights
    if data is None:
        card_file = folder / "card.json"
        data = json.loads(card_file.read_text())["training_data"] if card_file.is_file() else TRAINING_DATA
    for file in ("config.json", "model.safetensors"):
        shutil.copyfile(runs[-1] / "model" / file, folder / file)
    configs, log, minutes = {}, [], []
    if (folder / "train.json").is_file():  # weights that go on from those published before keep their history
        new = {run.name for run in runs}
        configs = {k: v for k, v in json.loads((folder / "train.json").read_text()).items() if k not in new}
        before = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        log = [r for r in before if r["run"] not in new]
        last = {r["run"]: r for r in log}
        minutes = [f"{name} {r['minutes']:.0f} minutes ({r['step']} steps)" for name, r in last.items()]
    for run in runs:
        configs[run.name] = json.loads((run / "train.json").read_text())
        records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        log += [{"run": run.name, **r} for r in records]
        minutes.append(f"{run.name} {records[-1]['minutes']:.0f} minutes ({records[-1]['step']} steps)")
        if (run / "curve.png").is_file():
            shutil.copyfile(run / "curve.png", folder / f"curve-{run.name}.png")
    (folder / "train.json").write_text(json.dumps(configs, indent=2) + "\n")
    (folder / "log.jsonl").write_text("".join(json.dumps(r) + "\n" for r in log))
    corpora = list(dict.fromkeys(r["corpus_sha256"] for r in log if "corpus_sha256" in r))
    card = {
        "licence": LICENCE,
        "training_data": data,
        "weights_sha256": model.weights_sha256,
        "corpus_sha256": corpora,
        "gain_db": gains,
    }
    (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n")
    text = CARD.format(
        name=name,
        scale="x".join(map(str, model.config.scale)),
        sha256=model.weights_sha256,
        mean_m=_millions(model.mean),
        others="".join(
            f", {name} {_millions(network):.2f} M"
            for name, network in (("denoiser", model.denoiser), ("estimator of the scan", model.estimator))
            if network is not None
        ),
        limits="".join(LIMITS[told] for told in _limits(model)),
        licence=LICENCE,
        data=data,
        corpora=", ".join(f"`{sha256}...`" for sha256 in corpora) or "?",
        minutes=", ".join(minutes),
        scores=table,
    )
    (folder / "README.md").write_text(text)
    return folder


LIMITS = {
    "clean": """\
- It learned to undo the *scanner model* (Gaussian PSF of 0.6 pixels, voxel integration). A real scan of low
  resolution has its own kernel and noise; this network does not know of them.
""",
    "told": """\
- It is told what scan it is (PSF, kernel, noise, slices), by its own estimate unless the user says it. What was
  trained: PSF 0.4-1.2 pixels, noise 0-60 HU, kernels and slab widths of `training/degrade.py`; the estimate was
  trained on simulated scans.
""",
    "samples": """\
- The denoiser was trained briefly: samples vary too little, so the spread of samples (`--uncertainty`) underestimates.
""",
}


def _limits(model: Model) -> list[str]:
    return ["told" if model.config.properties else "clean", *(["samples"] if model.denoiser is not None else [])]


def _millions(network: Any) -> float:
    return 0.0 if network is None else sum(p.numel() for p in network.parameters()) / 1e6


def _scores(path: Path, sha256: str) -> tuple[str, dict[str, float]]:
    """(markdown table, gain in dB per case) of a result file that was made with these very weights."""
    meta, rows = read_scores(path)
    if meta["weights_sha256"] != sha256:
        raise SystemExit(f"{path}: measured other weights ({meta['weights_sha256'][:12]}); measure these first")
    lines = [
        f"{meta['slices']} evenly spaced LR slices of each patient at most (padding as -1024 HU). PSNR in "
        "[-1000, 600] HU, SMSE x 1000",
        "(Frangi, c = 250 HU). Made by `benchmarks/fidelity.py`; every slice in `results/`.",
        "",
        "| case | degradation | method | PSNR dB | over interpolation | SMSE |",
        "|---|---|---|---|---|---|",
    ]
    gains = {}
    for case, kind in dict.fromkeys((r["case"], r["degradation"]) for r in rows):
        mean: dict[str, tuple[float, float]] = {}
        for method in dict.fromkeys(r["method"] for r in rows):
            here = [r for r in rows if (r["case"], r["degradation"], r["method"]) == (case, kind, method)]
            if here:
                mean[method] = tuple(sum(r[k] for r in here) / len(here) for k in ("psnr_wide", "smse_frangi"))
        for method, (psnr, smse) in mean.items():
            gain = psnr - mean[BASE_METHOD][0]
            lines.append(f"| {case} | {kind} | {method} | {psnr:.2f} | {gain:+.2f} | {1000 * smse:.3f} |")
            if method == MAIN_METHOD and kind == "scanner":
                gains[case] = round(gain, 2)
    return "\n".join(lines), gains


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--scores", type=Path)
    parser.add_argument("--data", help="what they were trained on, in words; left out: what the card says already")
    args = parser.parse_args()
    print(publish(args.runs, args.name, args.scores, data=args.data))


if __name__ == "__main__":
    main()
