"""Overshoot of the true scan on simulated x2 scans: what the figure of `benchmarks/real_scans.py` says of the truth.

python benchmarks/truth_overshoot.py --out results/truth_overshoot.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from uhrct import io
from uhrct.core.hu import FLOOR_HU
from uhrct.evaluation.protocol import evenly_spaced
from uhrct.evaluation.real_scans import edge_gradient, overshoot_hu, overshoot_ratio
from uhrct.physics.acquisition import Acquisition
from uhrct.physics.resampling import upsample_stack

SCALE, SLICES = (1, 2, 2), 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path("../shared/ct/validation"))
    args = parser.parse_args()
    rows = []
    for psf_fwhm in (0.6, 0.9):
        for folder in sorted(f for f in args.data.iterdir() if f.is_dir()):
            volume = io.read(folder)
            for k in evenly_spaced(volume.shape[0], SLICES + 2)[1:-1]:
                truth = torch.from_numpy(volume.hu[k].astype(np.float32)).clamp(min=FLOOR_HU)
                low = Acquisition(SCALE, psf_fwhm=psf_fwhm).forward(truth[None, None])
                bicubic = upsample_stack(low, SCALE)[0, 0].numpy()
                y_mm, x_mm = volume.spacing_mm[1:]
                found = overshoot_hu(truth.numpy(), bicubic, low[0, 0].numpy(), (y_mm, x_mm))
                sharp, soft = edge_gradient(truth.numpy(), bicubic)
                row = {"series": folder.name, "slice": k, "psf_fwhm": psf_fwhm}
                rows.append(row | {"overshoot_ratio": overshoot_ratio(*found), "edge_ratio": sharp / soft})
    args.out.write_text(json.dumps(rows, indent=1) + "\n")
    for psf_fwhm in (0.6, 0.9):
        ratios = [r["overshoot_ratio"] for r in rows if r["psf_fwhm"] == psf_fwhm]
        print(f"PSF {psf_fwhm}: overshoot of the truth {min(ratios):.1f} to {max(ratios):.1f} times bicubic's")


if __name__ == "__main__":
    main()
