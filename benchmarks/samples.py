"""Whether samples vary as much as they should: their spread, what they lose to the mean, and their power spectrum.

    python benchmarks/samples.py --weights x4 --out results/samples-x4.json
    python benchmarks/samples.py --weights x2 --steps 4 12 --out results/samples-x2.json
    python benchmarks/samples.py --weights 5x2x2 --cases validation/rider0117 --out results/samples-5x2x2.json

Slices of the validation series are degraded by the scanner model. The networks are told the PSF and keep the noise
(`--denoise 0`). For each number of steps the table has: the standard deviation of the samples around the mean, divided
by the error of the mean (1 is right), in the whole body and in the quieter and the livelier half of it; the loss of a
sample to the mean in dB (an exact sample loses 3.0); and the power of sample and mean over that of the truth, in
four octaves below the Nyquist frequency of the fine pixels, the finest octave first (`uhrct.evaluation.spectrum`).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from uhrct import io
from uhrct.benchmark.methods import restorer
from uhrct.core.files import write_atomic
from uhrct.core.progress import track
from uhrct.evaluation.protocol import degraded_stack, evenly_spaced
from uhrct.evaluation.spectrum import OCTAVES, texture
from uhrct.models.model import Model
from uhrct.upscaling.upscaler import Upscaler

CASES = ["validation/rider0117", "validation/tcga_ay_4070"]
INSIDE_HU = -900.0


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def power(name: str, true: np.ndarray, image: np.ndarray, spacing_mm: tuple[float, ...]) -> dict[str, float]:
    """Power over that of the truth by octave, mean over slices."""
    ratios = [texture(a, b, spacing_mm) for a, b in zip(true, image, strict=True)]
    return {f"{name}_{n}": float(value) for n, value in enumerate(np.mean(ratios, 0))}


def measure(model: Model, data: Path, case: str, slices: int, steps: int, samples: int) -> dict[str, float]:
    """The means over the slices of one series."""
    volume = io.read(data / case)
    acquisition = model.acquisition
    told = {"psf_fwhm": acquisition.psf_fwhm, "sharpening": 0.0}
    keep = {"denoise": 0.0} if model.config.properties else {}
    mean_of = restorer(Upscaler(model, overrides=told, **keep))
    drawn = [restorer(Upscaler(model, overrides=told, steps=steps, seed=s, **keep)) for s in range(samples)]
    rows = []
    for k in evenly_spaced(volume.shape[0] // model.config.scale[0], slices):
        truth, lr = degraded_stack(volume, acquisition, k)
        spacing_mm = (volume.spacing_mm[0] * acquisition.scale[0],) + tuple(
            s * f for s, f in zip(volume.spacing_mm[1:], acquisition.scale[1:], strict=True)
        )
        true = truth.numpy()  # all fine slices of the thick one: the mean is less sure of some than of others
        mean = mean_of(lr, spacing_mm).numpy()
        images = [draw(lr, spacing_mm).numpy() for draw in drawn]
        away = np.stack([image - mean for image in images])
        inside = true > INSIDE_HU
        error = rms((true - mean)[inside])
        sd = np.sqrt(np.mean(np.square(away), 0))
        quiet = inside & (sd <= np.median(sd[inside]))
        lively = inside & ~quiet
        rows.append(
            {
                "spread": rms(away[:, inside]) / error,
                "spread_quiet": rms(away[:, quiet]) / rms((true - mean)[quiet]),
                "spread_lively": rms(away[:, lively]) / rms((true - mean)[lively]),
                "loss_db": 20 * np.log10(rms((true - images[0])[inside]) / error),
                **power("power", true, images[0], volume.spacing_mm[1:]),
                **power("power_mean", true, mean, volume.spacing_mm[1:]),
            }
        )
    return {key: round(float(np.mean([r[key] for r in rows])), 3) for key in rows[0]}


def table(result: dict) -> str:
    """Markdown of a result file."""
    lines = [
        "| series | steps | spread | quiet half | lively half | loss dB | power of sample | power of mean |",
        "|---" * 8 + "|",
    ]
    for row in result["rows"]:
        sample, mean = (" ".join(f"{row[f'{key}_{n}']:.2f}" for n in range(OCTAVES)) for key in ("power", "power_mean"))
        spread = " | ".join(f"{row[key]:.2f}" for key in ("spread", "spread_quiet", "spread_lively"))
        lines.append(f"| {row['case']} | {row['steps']} | {spread} | {row['loss_db']:.2f} | {sample} | {mean} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="x4")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path("../shared/ct"))
    parser.add_argument("--slices", type=int, default=2)
    parser.add_argument("--samples", type=int, default=3)
    parser.add_argument("--steps", type=int, nargs="+", default=[4])
    parser.add_argument("--cases", nargs="+", default=CASES, help="through plane: series of thin slices")
    args = parser.parse_args()
    model = Model.from_pretrained(args.weights)
    todo = [(case, steps) for case in args.cases for steps in args.steps]
    rows = [
        {"case": case, "steps": steps, **measure(model, args.data, case, args.slices, steps, args.samples)}
        for case, steps in track(todo, "samples")
    ]
    about = {"weights_sha256": model.weights_sha256, "slices": args.slices, "samples": args.samples}
    result = {**about, "rows": rows}
    write_atomic(args.out, json.dumps(result, indent=1) + "\n")
    print(table(result))


if __name__ == "__main__":
    main()
