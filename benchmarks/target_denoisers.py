"""Denoisers of training targets on slices that are known exactly: vessels, edges, bias, noise left.

    python benchmarks/target_denoisers.py --out results/target_denoisers.json --picture docs/images/target-denoisers.png

A body with an even organ and a lung that holds 1 mm vessels, along and across the slice, at 600 and at 150 HU above
the lung, is seen with soft to sharp kernels and physical noise. The learned denoiser sees real slices of --data alone
(`uhrct.training.data.recorrupted`), never a clean one. "alone" is a denoiser without `return_structures`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import binary_erosion, gaussian_gradient_magnitude

from uhrct import io
from uhrct.core.progress import track
from uhrct.evaluation.pictures import pyplot
from uhrct.physics.kernels import Kernel, apply_kernel
from uhrct.physics.noise import add_noise, directional_noise_map, noise_map
from uhrct.physics.scan_noise import measure_noise
from uhrct.training.data.clean_targets import Denoise, by_network, clean_slice, non_local_means
from uhrct.training.data.recorrupted import NoisySlice, noisy_slice, train_slice_denoiser

KERNELS = {"soft": Kernel(3.5, 5.9), "standard": Kernel(4.2, 7.2), "lung": Kernel(7.4, 9.6, 0.4)}
NOISE_HU = (10.0, 20.0, 40.0)
CONTRASTS_HU = (600.0, 150.0)
SPACING_MM = 0.7
SIDE_PX, FINE = 384, 4
CELL_PX = 20
VESSEL_MM = 1.0
LUNG_HU, ORGAN_HU = -850.0, 50.0
#: Share of a vessel's contrast below which it counts as lost.
LOST = 0.3


@dataclass(frozen=True)
class Case:
    """A slice that is known: with the kernel but no noise; where its vessels, its lung edges and its organ are."""

    clean: np.ndarray
    cells: list[tuple[slice, slice]]
    organ: np.ndarray
    edges: np.ndarray


def known_slice(kernel: Kernel, contrast_hu: float, seed: int = 0) -> Case:
    """Drawn on pixels of a quarter of the size, seen with the kernel, averaged."""
    rng = np.random.default_rng(seed)
    n = SIDE_PX * FINE
    step = SPACING_MM / FINE
    y, x = (np.mgrid[:n, :n].astype(np.float32) - (n - 1) / 2) * step
    fine = np.where((x / 128) ** 2 + (y / 105) ** 2 < 1, np.float32(ORGAN_HU), np.float32(-1000))
    lung = ((x - 55) / 62) ** 2 + (y / 85) ** 2 < 1
    fine[lung] = LUNG_HU
    for angle in np.arange(0, 2 * np.pi, 0.45):
        fine[np.hypot(y - 95 * np.sin(angle), x - 117 * np.cos(angle)) < 5] = 800
    cells = []
    centres = [(cy, cx) for cy in np.arange(-60, 61, 15.4) for cx in np.arange(20, 91, 15.4)]
    for k, (cy, cx) in enumerate(c for c in centres if ((c[1] - 55) / 50) ** 2 + (c[0] / 73) ** 2 < 1):
        cy, cx = cy + rng.uniform(-1, 1), cx + rng.uniform(-1, 1)
        angle = rng.uniform(0, np.pi)
        along = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
        across = (y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)
        inside = np.hypot(along, across) < VESSEL_MM / 2 if k % 2 else (abs(across) < VESSEL_MM / 2) & (abs(along) < 5)
        fine[inside] = LUNG_HU + contrast_hu
        top, left = (round((c / SPACING_MM) + SIDE_PX / 2 - CELL_PX / 2) for c in (cy, cx))
        cells.append((slice(top, top + CELL_PX), slice(left, left + CELL_PX)))
    seen = apply_kernel(torch.from_numpy(fine), (step, step), kernel)
    clean = seen.reshape(SIDE_PX, FINE, SIDE_PX, FINE).mean((1, 3)).numpy()
    ground = np.where((x / 128) ** 2 + (y / 105) ** 2 < 1, 1, 0) + lung
    ground = ground.reshape(SIDE_PX, FINE, SIDE_PX, FINE).mean((1, 3))
    organ = binary_erosion((clean > -50) & (clean < 150) & (ground == 1), iterations=8)
    steep = gaussian_gradient_magnitude(clean, 0.7)
    edges = steep > np.quantile(steep[ground > 0], 0.985)
    return Case(clean, cells, organ, edges)


def noisy(case: Case, kernel: Kernel, sigma_hu: float, seed: int) -> np.ndarray:
    hu = torch.from_numpy(case.clean)
    directional = directional_noise_map(case.clean, (SPACING_MM, SPACING_MM))
    g = torch.Generator().manual_seed(seed)
    return np.rint(add_noise(hu, (SPACING_MM, SPACING_MM), sigma_hu, kernel, g, directional).numpy())


def contrasts(case: Case, image: np.ndarray) -> np.ndarray:
    """Contrast of each vessel, as a share of the true one: projection on its own picture."""
    out = []
    for cell in case.cells:
        vessel = case.clean[cell] - case.clean[cell].mean()
        out.append(float((image[cell] * vessel).sum() / (vessel**2).sum()))
    return np.array(out)


def scores(case: Case, image: np.ndarray, before: np.ndarray) -> dict[str, float]:
    """Vessels, bias, edges and noise of a denoised slice."""
    shares = contrasts(case, image)
    gradient = [gaussian_gradient_magnitude(i, 0.7)[case.edges].mean() for i in (image, case.clean)]
    left = (image - case.clean)[case.organ]
    return {
        "contrast": float(shares.mean()),
        "contrast_weakest": float(shares.min()),
        "lost": int((shares < LOST).sum()),
        "bias_hu": float(abs(left.mean())),
        "edge_ratio": float(gradient[0] / gradient[1]),
        "noise_left": float(left.std() / (before - case.clean)[case.organ].std()),
        "rmse_hu": float(np.sqrt(((image - case.clean) ** 2).mean())),
    }


def real_slices(data: Path) -> Iterator[NoisySlice]:
    """Slices of the training patients whose noise can be measured: the middle of each series, every single slice."""
    for folder in sorted((data / "train").iterdir()):
        files = sorted(folder.glob("*.dcm"))
        if folder.name != "tcga_lung_singles":
            files = [files[k] for k in sorted({len(files) // 4, len(files) // 2, 3 * len(files) // 4})]
        for file in files:
            volume = io.read(file)
            found = noisy_slice(volume.hu[0], (volume.spacing_mm[1], volume.spacing_mm[2]))
            if found is not None:
                yield found


def measure(methods: dict[str, Denoise]) -> list[dict]:
    rows = []
    points = [(k, s, c) for k in KERNELS for s in NOISE_HU for c in CONTRASTS_HU]
    for name, sigma_hu, contrast_hu in track(points, "denoisers"):
        kernel = KERNELS[name]
        case = known_slice(kernel, contrast_hu)
        image = noisy(case, kernel, sigma_hu, seed=1)
        measured = measure_noise(image, (SPACING_MM, SPACING_MM)).sigma_hu
        sigma_map = measured * noise_map(image, (SPACING_MM, SPACING_MM)).numpy()
        results = {"none": image}
        for method, denoise in methods.items():
            results[f"{method} alone"] = denoise(image.astype(np.float32), sigma_map)
            results[method] = clean_slice(image, (SPACING_MM, SPACING_MM), measured, denoise)
        for method, clean in results.items():
            row = {"kernel": name, "sigma_hu": sigma_hu, "measured_hu": measured, "contrast_hu": contrast_hu}
            rows.append(row | {"method": method, **scores(case, clean, image)})
    return rows


def table(rows: list[dict]) -> str:
    keys = ["contrast", "contrast_weakest", "lost", "bias_hu", "edge_ratio", "noise_left", "rmse_hu"]
    lines = [
        "| kernel | noise HU | vessels HU | method | " + " | ".join(keys) + " |",
        "|---" * (4 + len(keys)) + "|",
    ]
    for r in rows:
        cells = " | ".join(f"{r[k]:.2f}" if isinstance(r[k], float) else str(r[k]) for k in keys)
        lines.append(f"| {r['kernel']} | {r['sigma_hu']:.0f} | {r['contrast_hu']:.0f} | {r['method']} | {cells} |")
    lines += ["", "Means over all but the faintest vessels in the strongest noise (150 HU at 40 HU):", ""]
    lines += ["| method | " + " | ".join(keys) + " |", "|---" * (1 + len(keys)) + "|"]
    for method in dict.fromkeys(r["method"] for r in rows):
        mine = [r for r in rows if r["method"] == method and (r["contrast_hu"], r["sigma_hu"]) != (150.0, 40.0)]
        mean = {k: np.mean([r[k] for r in mine]) for k in keys}
        lines.append(f"| {method} | " + " | ".join(f"{mean[k]:.2f}" for k in keys) + " |")
    return "\n".join(lines)


def picture(methods: dict[str, Denoise], data: Path, out: Path) -> None:
    """Rows: a known slice and three real ones; columns: as it is, each method, and what each took away."""
    rows = {}
    case = known_slice(KERNELS["standard"], 150.0)
    rows["known, 20 HU"] = (noisy(case, KERNELS["standard"], 20.0, 1), SPACING_MM, (150, 250, 110), (-1000, 0))
    for name, number, corner, window in (
        ("validation/rider0117", 47, (120, 30, 130), (-100, 250)),
        ("validation/tcga_ay_4070", 8, (150, 200, 130), (-150, 250)),
        ("validation/lungdx_a0001_L", 8, (300, 100, 130), (-1000, 200)),
    ):
        files = sorted((data / name).glob("*.dcm"))
        volume = io.read(files[number])
        rows[name] = (volume.hu[0], volume.spacing_mm[1], corner, window)
    plt = pyplot()
    columns = 1 + 2 * len(methods)
    figure, axes = plt.subplots(len(rows), columns, figsize=(3 * columns, 3.1 * len(rows)), layout="constrained")
    for line, (name, (hu, spacing, (top, left, side), window)) in zip(axes, rows.items(), strict=True):
        sigma = measure_noise(hu, (spacing, spacing)).sigma_hu
        cut = (slice(top, top + side), slice(left, left + side))
        line[0].imshow(hu[cut], cmap="gray", vmin=window[0], vmax=window[1])
        line[0].set_title(f"{name}, {sigma:.1f} HU", fontsize=9)
        for k, (method, denoise) in enumerate(methods.items()):
            clean = clean_slice(hu, (spacing, spacing), sigma, denoise)
            line[1 + 2 * k].imshow(clean[cut], cmap="gray", vmin=window[0], vmax=window[1])
            line[1 + 2 * k].set_title(method, fontsize=9)
            line[2 + 2 * k].imshow((hu - clean)[cut], cmap="gray", vmin=-3 * sigma, vmax=3 * sigma)
            line[2 + 2 * k].set_title("taken away", fontsize=9)
    for axis in axes.flat:
        axis.axis("off")
    figure.savefig(out, dpi=70)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/target_denoisers.json"))
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--data", type=Path, default=Path("../shared/ct"))
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--minutes", type=float, default=5.0)
    args = parser.parse_args()
    slices = list(track(real_slices(args.data), "noise of real slices"))
    network = train_slice_denoiser(slices, steps=args.steps, minutes=args.minutes)
    methods: dict[str, Denoise] = {
        "non-local means": non_local_means,
        "learned": by_network(network),
    }
    rows = measure(methods)
    args.out.write_text(json.dumps({"real_slices": len(slices), "steps": args.steps, "rows": rows}, indent=1) + "\n")
    print(table(rows))
    if args.picture:
        picture(methods, args.data, args.picture)


if __name__ == "__main__":
    main()
