"""From which value of the structure map is it a vessel? Read off validation/rider0117 alone, never off a test patient.

    python benchmarks/vessel_thresholds.py      # a table of thresholds, and those that the criterion chooses

The criterion, for the map V_C of `SMSE_OPERATORS` inside the lungs: a threshold is good if what it finds does not hang
on the scan's noise. Two draws of that noise are added to a slice, and the clDice of what is found in both says how well
they agree. Low and high are the least and the greatest threshold whose agreement is within one standard error (of the
paired difference over slices) of the best one's; the middle one is their geometric mean, on the grid of the table.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from uhrct import io
from uhrct.core.progress import track
from uhrct.evaluation.lungs import lung_mask
from uhrct.evaluation.protocol import evenly_spaced
from uhrct.evaluation.structure_error import SMSE_OPERATORS, structure_maps
from uhrct.physics.acquisition import correlated_noise
from uhrct.structure.lengths import line_lengths
from uhrct.structure.vessels import VESSEL_THRESHOLDS, cldice, skeleton, vessel_mask

THRESHOLDS = (0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
#: of this scan, measured in lung without vessels: standard deviation, and the FWHM in pixels of a Gaussian that gives
#: the correlation of neighbouring pixels, 0.6
NOISE_HU, NOISE_FWHM_PX = 22.0, 1.5
EMPTY_LUNG_HU = -870.0


def measure(hu: np.ndarray, lung: np.ndarray, spacing_mm: tuple[float, float], seed: int) -> list[list[float]]:
    """Per threshold: share of the lung, mm of centre line, clDice of two draws of noise, mm that noise alone makes."""
    draws = correlated_noise((3, *hu.shape), NOISE_FWHM_PX, torch.Generator().manual_seed(seed)).numpy() * NOISE_HU
    images = np.stack([hu, hu + draws[0], hu + draws[1], EMPTY_LUNG_HU + draws[2]])
    maps = structure_maps(images, spacing_mm, SMSE_OPERATORS["vc"])
    out = []
    for threshold in THRESHOLDS:
        found, a, b, noise = (vessel_mask(m, lung, threshold) for m in maps)
        length, invented = (float(line_lengths(skeleton(m), spacing_mm).sum()) for m in (found, noise))
        out.append([found.sum() / lung.sum(), length, cldice(a, b) if a.any() else 0.0, invented])
    return out


def chosen(agreement: np.ndarray) -> tuple[float, float, float]:
    """(low, middle, high) out of clDice (slices, thresholds), by the criterion."""
    best = agreement.mean(0).argmax()
    worse = agreement[:, [best]] - agreement
    error = worse.std(0, ddof=1) / len(worse) ** 0.5
    as_good = [t for t, w, e in zip(THRESHOLDS, worse.mean(0), error, strict=True) if w <= e]
    low, high = min(as_good), max(as_good)
    return low, min(THRESHOLDS, key=lambda t: abs(np.log(t / (low * high) ** 0.5))), high


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scan", type=Path, default=Path("../shared/ct/validation/rider0117"))
    parser.add_argument("--slices", type=int, default=24)
    args = parser.parse_args()
    volume = io.read(args.scan)
    spacing = (volume.spacing_mm[1], volume.spacing_mm[2])
    rows = []
    for z in track(evenly_spaced(volume.shape[0], args.slices), "thresholds"):
        hu = np.maximum(volume.hu[z].astype(np.float64), -1024)
        rows.append(measure(hu, lung_mask(hu, spacing), spacing, seed=z))
    table = np.array(rows)
    print("| threshold | % of lung | vessels, mm a slice (fewest) | clDice of two draws of noise | mm of noise alone |")
    print("|---" * 5 + "|")
    for k, threshold in enumerate(THRESHOLDS):
        share, length, agreement, noise = table[:, k].mean(0)
        few = table[:, k, 1].min()
        print(f"| {threshold} | {100 * share:.2f} | {length:.0f} ({few:.0f}) | {agreement:.4f} | {noise:.2f} |")
    print(f"by the criterion: {chosen(table[..., 2])}; in use: {VESSEL_THRESHOLDS}")


if __name__ == "__main__":
    main()
