"""Structure operators beside scikit-image's `frangi` and ITK's Hessian objectness, on one real slice.

    python benchmarks/structure_peers.py [--scan ../shared/ct/validation/rider0117] [--slice 47]

Writes a picture (--picture) and a table (--table) for docs/structure.md: correlations with each peer inside
the lungs and over the slice, and costs per megapixel, timed by turns in one run. Peers, not truth: both are
given what they lack (sigma² scaling, a gamma in HU, scales in mm): what is left is the implementation.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from scipy import ndimage
from skimage.filters import frangi as skimage_frangi

from uhrct.structure import StructureOperator

SIGMA_MM = (0.7, 1.2, 2.0)
CONTRAST_HU = 100.0
REPEATS = 7
Map = Callable[[np.ndarray, tuple[float, float]], np.ndarray]


def read_slice(folder: Path, index: int | None = None) -> tuple[np.ndarray, tuple[float, float]]:
    """One slice in HU and its (y, x) spacing in mm; the middle one unless told."""
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    image = sitk.ReadImage(names[len(names) // 2 if index is None else index])
    x_mm, y_mm = image.GetSpacing()[:2]
    return sitk.GetArrayFromImage(image).reshape(image.GetSize()[1::-1]).astype(np.float32), (y_mm, x_mm)


def ours(kind: str) -> Map:
    operator = StructureOperator(kind, sigma_mm=SIGMA_MM, contrast_hu=CONTRAST_HU)

    def run(hu: np.ndarray, spacing_mm: tuple[float, float]) -> np.ndarray:
        with torch.inference_mode():
            return operator(torch.from_numpy(hu), spacing_mm).numpy()

    return run


def scikit_image(hu: np.ndarray, spacing_mm: tuple[float, float]) -> np.ndarray:
    maps = []
    for sigma_mm in SIGMA_MM:
        sigma = sigma_mm / spacing_mm[0]  # pixels: it knows square pixels only
        scaled = (hu - hu.mean()) * sigma**2  # it leaves out the sigma² of scale normalisation
        maps.append(skimage_frangi(scaled, [sigma], black_ridges=False, beta=0.5, gamma=CONTRAST_HU, mode="nearest"))
    return np.max(maps, axis=0)


def itk(hu: np.ndarray, spacing_mm: tuple[float, float]) -> np.ndarray:
    image = sitk.GetImageFromArray(hu - hu.mean())
    image.SetSpacing(spacing_mm[::-1])
    maps = []
    for sigma_mm in SIGMA_MM:
        smooth = sitk.SmoothingRecursiveGaussian(image, sigma_mm) * sigma_mm**2
        maps.append(
            sitk.GetArrayFromImage(
                sitk.ObjectnessMeasure(
                    smooth, beta=0.5, gamma=CONTRAST_HU, objectDimension=1, scaleObjectnessMeasure=False
                )
            )
        )
    return np.max(maps, axis=0)


METHODS: dict[str, Map] = {
    "V_C": ours("vc"),
    "Frangi": ours("frangi"),
    "Jerman": ours("jerman"),
    "scikit-image frangi": scikit_image,
    "ITK objectness": itk,
}
PEERS = ("scikit-image frangi", "ITK objectness")


def lungs(hu: np.ndarray) -> np.ndarray:
    """Air that does not touch the border, vessels filled in, a rim of 3 pixels off: rough, for averages."""
    labels, _ = ndimage.label(hu < -500)
    border = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    air = (labels > 0) & ~np.isin(labels, border)
    air = ndimage.binary_opening(air, iterations=2)
    return ndimage.binary_erosion(ndimage.binary_fill_holes(ndimage.binary_closing(air, iterations=4)), iterations=3)


def correlations(maps: dict[str, np.ndarray], where: np.ndarray) -> dict[str, list[float]]:
    return {n: [float(np.corrcoef(m[where], maps[p][where])[0, 1]) for p in PEERS] for n, m in maps.items()}


def seconds_per_megapixel(hu: np.ndarray, spacing_mm: tuple[float, float]) -> dict[str, float]:
    """Median over rounds in which every method takes its turn, so that a busy machine is busy for all."""
    times: dict[str, list[float]] = {name: [] for name in METHODS}
    for _ in range(REPEATS + 1):
        for name, method in METHODS.items():
            start = time.perf_counter()
            method(hu, spacing_mm)
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(t[1:]) / (hu.size / 1e6) for name, t in times.items()}


def draw(hu: np.ndarray, maps: dict[str, np.ndarray], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    inside = np.argwhere(lungs(hu))
    box = (
        tuple(slice(a, b) for a, b in zip(inside.min(0), inside.max(0) + 1, strict=True))
        if len(inside)
        else (slice(None),) * 2
    )
    figure, axes = plt.subplots(2, 4, figsize=(20, 10))
    panels = [("slice, [-1350, 150] HU", hu, -1350, 150), *[(n, m, 0, 1) for n, m in maps.items()]]
    panels += [(f"Frangi - {p}", maps["Frangi"] - maps[p], -0.5, 0.5) for p in PEERS]
    for ax, (title, image, low, high) in zip(axes.flat, panels, strict=True):
        ax.imshow(image[box], cmap="gray" if low >= 0 or low < -1 else "RdBu_r", vmin=low, vmax=high)
        ax.set_title(title)
        ax.axis("off")
    figure.tight_layout()
    figure.savefig(path, dpi=70)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scan", type=Path, default=Path("../shared/ct/validation/rider0117"))
    parser.add_argument("--slice", type=int, default=None, help="index along z; the middle one unless told")
    parser.add_argument("--table", type=Path, default=Path("results/structure_peers.md"))
    parser.add_argument("--picture", type=Path, default=Path("docs/images/structure-peers.png"))
    arguments = parser.parse_args()
    if not any(arguments.scan.glob("*.dcm")):
        parser.exit(2, f"{arguments.scan}: no DICOM files here; name a series with --scan\n")
    hu, spacing_mm = read_slice(arguments.scan, arguments.slice)
    maps = {name: method(hu, spacing_mm) for name, method in METHODS.items()}
    inside = correlations(maps, lungs(hu))
    everywhere = correlations(maps, np.ones_like(hu, bool))
    cost = seconds_per_megapixel(hu, spacing_mm)
    lines = [
        f"{arguments.scan.name}, {hu.shape[0]} x {hu.shape[1]} at {spacing_mm[0]:.3f} mm, "
        f"sigma {SIGMA_MM} mm, c {CONTRAST_HU:g} HU, "
        f"{torch.get_num_threads()} threads",
        "",
        "| operator | r with scikit-image: lungs (slice) | with ITK: lungs (slice) | cost ratio | s / Mpx |",
        "|---|---|---|---|---|",
    ]
    for name in METHODS:
        r = [f"{i:.3f} ({e:.3f})" for i, e in zip(inside[name], everywhere[name], strict=True)]
        ratio = cost[name] / cost["scikit-image frangi"]
        lines.append(f"| {name} | {r[0]} | {r[1]} | {ratio:.2f} | {cost[name]:.3f} |")
    for path in (arguments.table, arguments.picture):
        path.parent.mkdir(parents=True, exist_ok=True)
    arguments.table.write_text("\n".join(lines) + "\n")
    draw(hu, maps, arguments.picture)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
