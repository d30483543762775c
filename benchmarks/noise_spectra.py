"""Noise power spectra of real scans per kernel, beside simulated noise of the kernel that the header names.

    python benchmarks/noise_spectra.py --out results/noise_spectra.json --picture docs/images/noise-spectra.png

Both are measured alike, in the even tissue of slices (`uhrct.physics.scan_noise`); the simulated noise lies on an even
slice with the pixels of the real one. Series of training and validation, and single slices.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import torch

from uhrct import io
from uhrct.core.progress import track
from uhrct.evaluation.pictures import pyplot
from uhrct.evaluation.protocol import evenly_spaced
from uhrct.physics.kernel_names import named_kernel
from uhrct.physics.noise import noise_field
from uhrct.physics.scan_noise import measure_noise, noise_spectrum

SINGLES = "tcga_lung_singles"
BINS = 10


def files(data: Path) -> list[Path]:
    """Two slices of each series of training and validation, and every single slice."""
    out = []
    for folder in sorted([*(data / "train").iterdir(), *(data / "validation").iterdir()]):
        slices = sorted(folder.glob("*.dcm"))
        if folder.name != SINGLES:
            slices = [slices[k] for k in evenly_spaced(len(slices), 4)[1:3]] if len(slices) > 3 else slices[:2]
        out += slices
    return out


def rows(data: Path) -> dict[str, list[dict[str, Any]]]:
    """Measured spectra by maker and kernel."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for file in track(files(data), "noise spectra"):
        header = pydicom.dcmread(file, stop_before_pixels=True)
        name = header.get("ConvolutionKernel")
        named = named_kernel(header.get("Manufacturer"), name)
        if named is None:
            continue
        volume = io.read(file)
        spacing = (volume.spacing_mm[1], volume.spacing_mm[2])
        spectrum = noise_spectrum(volume.hu[0], spacing, BINS)
        if isinstance(spectrum, str):
            continue
        measured = measure_noise(volume.hu[0], spacing)
        maker = (header.get("Manufacturer") or "Siemens").split()[0].capitalize().replace("Ge", "GE")
        label = name if isinstance(name, str) else name[0]
        found[f"{maker} {label.split('.')[-1]}"].append(
            {
                "spacing_mm": spacing[0],
                "sigma_hu": measured.sigma_hu,
                "autocorrelation": measured.autocorrelation,
                "frequency_lp_cm": spectrum[0].tolist(),
                "power": spectrum[1].tolist(),
                "simulated": simulated(named.kernel, spacing),
                "kernel": [named.kernel.mtf50_lp_cm, named.kernel.mtf10_lp_cm, named.kernel.overshoot],
                "source": named.source,
            }
        )
    return dict(sorted(found.items()))


def simulated(kernel: Any, spacing: tuple[float, float]) -> dict[str, Any]:
    """Spectrum and autocorrelation of simulated noise, measured in the same way."""
    noise = 40 + 20 * noise_field((256, 256), spacing, kernel, torch.Generator().manual_seed(0)).numpy()
    spectrum = noise_spectrum(noise, spacing, BINS)
    measured = measure_noise(noise, spacing)
    assert not isinstance(spectrum, str), spectrum
    return {"power": spectrum[1].tolist(), "autocorrelation": measured.autocorrelation}


def table(found: dict[str, list[dict[str, Any]]]) -> str:
    """Means per kernel: autocorrelation at 1 and 2 pixels, real and simulated; difference of the spectra."""
    lines = [
        "| kernel | slices | MTF 50 %, 10 %, overshoot (source) | real at 1, 2 px | simulated | spectra differ by |",
        "|---|---|---|---|---|---|",
    ]
    for name, mine in found.items():
        real, model = (
            np.mean([(r if key is None else r[key])["autocorrelation"] for r in mine], axis=0)
            for key in (None, "simulated")
        )
        apart = np.mean([difference(r) for r in mine])
        mtf50, mtf10, overshoot = mine[0]["kernel"]
        lines.append(
            f"| {name} | {len(mine)} | {mtf50:g}, {mtf10:g}, {overshoot:g} ({mine[0]['source']}) | "
            f"{real[0]:.2f}, {real[1]:.2f} | {model[0]:.2f}, {model[1]:.2f} | {apart:.2f} |"
        )
    return "\n".join(lines)


def difference(row: dict[str, Any]) -> float:
    """Share of the noise power that lies at other frequencies: 0 equal, 1 nothing in common."""
    f = np.array(row["frequency_lp_cm"])
    real, model = (np.array(p) * f for p in (row["power"], row["simulated"]["power"]))
    return float(np.abs(real / real.sum() - model / model.sum()).sum() / 2)


def picture(found: dict[str, list[dict[str, Any]]], out: Path) -> None:
    """One panel per kernel: slices thin, their mean thick, simulated dashed."""
    plt = pyplot()
    columns = 6
    lines = -(-len(found) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(2.9 * columns, 2.5 * lines), layout="constrained")
    for axis, (name, mine) in zip(axes.flat, found.items(), strict=False):
        finest = min(mine, key=lambda r: r["spacing_mm"])
        for r in mine:
            axis.plot(r["frequency_lp_cm"], np.array(r["power"]) / max(r["power"]), color="tab:blue", lw=0.6, alpha=0.5)
        f = finest["frequency_lp_cm"]
        axis.plot(f, np.array(finest["power"]) / max(finest["power"]), color="tab:blue", lw=2, label="real")
        model = finest["simulated"]["power"]
        axis.plot(f, np.array(model) / max(model), "--", color="tab:red", lw=2, label="simulated")
        sigmas = [r["sigma_hu"] for r in mine]
        axis.set_title(f"{name}, {min(sigmas):.0f}-{max(sigmas):.0f} HU", fontsize=9)
        axis.set(xlim=(0, 9), ylim=(0, 1.15))
        axis.grid(alpha=0.3)
    for axis in axes.flat[len(found) :]:
        axis.axis("off")
    axes.flat[0].legend(fontsize=8)
    figure.supxlabel("line pairs per cm (thick: the slice with the smallest pixels)")
    figure.supylabel("noise power, largest = 1")
    figure.savefig(out, dpi=75)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/ct"))
    parser.add_argument("--out", type=Path, default=Path("results/noise_spectra.json"))
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    found = rows(args.data)
    kept = {n: [{k: v for k, v in r.items() if k != "frequency_lp_cm"} for r in mine] for n, mine in found.items()}
    rounded = json.loads(json.dumps(kept), parse_float=lambda x: round(float(x), 5))
    args.out.write_text(json.dumps(rounded) + "\n")
    print(table(found))
    if args.picture:
        picture(found, args.picture)


if __name__ == "__main__":
    main()
