"""Turns a finished run into weights that ship: model, settings, log, curve, and a card with measured scores.

python -m uhrct.training.publish runs/x4 --name x4 --scores results/x4.jsonl
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from uhrct.core.errors import UhrctError
from uhrct.core.files import write_atomic
from uhrct.evaluation.score_file import read_scores
from uhrct.models.folder import CONFIG, WEIGHTS, WEIGHTS_DIR, weights_name
from uhrct.models.model import Model

LICENCE = "Apache-2.0"
MAIN_METHOD, BASE_METHOD = "ours, mean", "interpolation"

CARD = """\
# {name}: super-resolution of CT by {scale} (z, y, x)

**Research use only; not a medical device.**

| | |
|---|---|
| weights | `model.safetensors`, sha256 `{sha256}` |
| networks | {networks} |
| licence | {licence}; trained on CC BY data only, attribution in `docs/data.md` |
| training data | {data} |
| corpora | sha256 {corpora} of voxels, names and spacings |
| training | `uhrct train`; settings in `train.json`, log in `log.jsonl`; {stages} |

## Scores
{scores}

## Limits
- The weights were tested on few patients. Results on other scanners, kernels and body parts may be worse.
- The networks are told blur, noise and slice geometry of the scan. Unless the user gives them, they come from the
  header and the voxels. Training covers simulated scans with a PSF of 0.4 to 1.6 pixels and noise of 0 to 80 HU. A
  scan outside the range of training or calibration gets a warning.
- By default most of the noise is removed (`--denoise`). In noisy scans faint strokes may remain that look like small
  vessels or fibres, and streaks may be sharpened.
- A scan whose anatomy is very smooth looks like a blurred one, and may be sharpened too much. Give `--psf-fwhm-mm` if
  you know the blur.
- The posterior mean is smooth where the scan does not determine the image. A sample looks real there, but may show
  structure that does not exist.
- Small vessels may be broken, merged or invented. Do not make a diagnosis from the output.
"""


def publish(
    run: Path, name: str, scores: Path | None = None, weights_dir: Path = WEIGHTS_DIR, data: str | None = None
) -> Path:
    """Write `weights_dir/name` from the folder of a finished run.

    Parameters
    ----------
    run : folder that `uhrct train` made
    scores : result file of `benchmarks/fidelity.py` for these weights
    data : the training data in words; None: the folders of the corpus

    Returns
    -------
    The folder, with `config.json`, `model.safetensors`, `train.json`, `log.jsonl`, `curve.png`, `card.json` and
    `README.md`.

    Raises
    ------
    UhrctError
        If the scores are those of other weights. Then nothing is written.
    """
    model = Model.from_pretrained(run / "model")
    table, gains = _scores(scores, model.weights_sha256) if scores is not None else ("Not measured.", {})
    stages = _without_places(json.loads((run / "train.json").read_text()))
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    folder = weights_dir / name
    folder.mkdir(parents=True, exist_ok=True)
    files = [run / "model" / CONFIG, run / "model" / WEIGHTS, run / "log.jsonl", run / "curve.png"]
    for file in files:
        if file.is_file():
            shutil.copyfile(file, folder / file.name)
    write_atomic(folder / "train.json", json.dumps(stages, indent=2) + "\n")
    card = {
        "licence": LICENCE,
        "training_data": data or ", ".join(dict.fromkeys(c for s in stages.values() for c in s["data"]["corpus"])),
        "weights_sha256": model.weights_sha256,
        "corpus_sha256": list(dict.fromkeys(r["corpus_sha256"] for r in log if "corpus_sha256" in r)),
        "gain_db": gains,
    }
    write_atomic(folder / "card.json", json.dumps(card, indent=2) + "\n")
    start = next(iter(stages.values()))
    continued = f", continued from weights with sha256 `{start['init_sha256']}`" if "init_sha256" in start else ""
    networks = {
        "posterior mean": model.mean,
        "denoiser": model.denoiser,
        "interval": model.interval,
        "estimator": model.estimator,
    }
    text = CARD.format(
        name=name,
        scale="x".join(map(str, model.config.scale)),
        sha256=model.weights_sha256,
        networks=", ".join(f"{n} {_millions(network):.2f} M parameters" for n, network in networks.items() if network),
        licence=LICENCE,
        data=card["training_data"],
        corpora=", ".join(f"`{sha256}...`" for sha256 in card["corpus_sha256"]),
        stages=", ".join(f"{stage} {minutes:.0f} minutes ({steps} steps)" for stage, minutes, steps in _spent(log))
        + continued,
        scores=table,
    )
    write_atomic(folder / "README.md", text)
    return folder


def _spent(log: list[dict[str, Any]]) -> list[tuple[str, float, int]]:
    """(stage, minutes, steps) of a log. A stage that was trained in several runs counts all of them.

    Example
    -------
    >>> run = [{"stage": "mean", "step": k, "minutes": float(k)} for k in (1, 50, 100)]
    >>> resumed = {"stage": "mean", "step": 97, "minutes": 97.0}  # after a kill, from the last checkpoint
    >>> _spent([*run, resumed, *run])
    [('mean', 197.0, 197)]
    """
    spent: dict[str, list[dict[str, Any]]] = {}
    for record in log:
        ends = spent.setdefault(record["stage"], [record])
        # a new run begins; a run that goes on from a checkpoint steps back a few minutes only
        if record["step"] < ends[-1]["step"] and record["minutes"] < ends[-1]["minutes"] / 2:
            ends.append(record)
        ends[-1] = record
    return [(stage, sum(r["minutes"] for r in ends), sum(r["step"] for r in ends)) for stage, ends in spent.items()]


def _without_places(settings: Any) -> Any:
    """Settings in which absolute paths are replaced by their names: they mean nothing on another machine.

    Example
    -------
    >>> _without_places({"init": "/home/me/first/model", "data": {"clean": "/tmp/clean", "corpus": ["../ct"]}})
    {'init': 'first', 'data': {'clean': 'clean', 'corpus': ['../ct']}}
    """
    if isinstance(settings, dict):
        return {key: _without_places(value) for key, value in settings.items()}
    if isinstance(settings, list):
        return [_without_places(value) for value in settings]
    return weights_name(Path(settings)) if isinstance(settings, str) and Path(settings).is_absolute() else settings


def _millions(network: Any) -> float:
    return sum(p.numel() for p in network.parameters()) / 1e6


def _scores(path: Path, sha256: str) -> tuple[str, dict[str, float]]:
    """(markdown table, gain in dB per case) of a result file of these weights."""
    meta, rows = read_scores(path)
    measured = meta["weights_sha256"]
    if measured != sha256:
        raise UhrctError(f"{path}: scores of other weights ({measured[:12]}); measure these weights first")
    lines = [
        f"Up to {meta['slices']} evenly spaced LR slices of each case; padding counts as -1024 HU. PSNR in "
        '[-1000, 600] HU, SMSE x 1000 (Frangi, c = 250 HU). Made by `benchmarks/fidelity.py`. "ours, mean": default',
        "settings, which remove most of the noise. The truth keeps its noise.",
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
                psnr, smse = (sum(r[key] for r in here) / len(here) for key in ("psnr_wide", "smse_frangi"))
                mean[method] = psnr, smse
        for method, (psnr, smse) in mean.items():
            gain = psnr - mean[BASE_METHOD][0]
            lines.append(f"| {case} | {kind} | {method} | {psnr:.2f} | {gain:+.2f} | {1000 * smse:.3f} |")
            if method == MAIN_METHOD and kind == "scanner":
                gains[case] = round(gain, 2)
    return "\n".join(lines), gains


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("--name", required=True, help="name of the weights, such as x4")
    parser.add_argument("--scores", type=Path, help="result file of benchmarks/fidelity.py for these weights")
    parser.add_argument("--data", help="the training data in words; default: the folders of the corpus")
    args = parser.parse_args()
    print(publish(args.run, args.name, args.scores, data=args.data))


if __name__ == "__main__":
    main()
